"""Errors that say that memory has run out, whichever library raises them."""

from __future__ import annotations

import errno
import importlib

import cv2
import pytest

from terrazzo.errors import UserError, first_line, is_out_of_memory
from terrazzo.system.extras import import_extra


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: 64 bytes"),
        cv2.error("Insufficient memory (Failed to allocate 507000000 bytes)"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_a_shortage_of_memory_is_recognised(problem):
    assert is_out_of_memory(problem) and first_line(problem)


def test_a_library_that_finds_no_room_is_not_reported_as_missing(monkeypatch):
    def find_no_room(_: str) -> None:
        raise ImportError("libx.so: failed to map segment from shared object")

    monkeypatch.setattr(importlib, "import_module", find_no_room)
    with pytest.raises(ImportError, match="failed to map"):
        import_extra("onnx", "export", "ONNX files")


def test_a_library_that_cannot_be_imported_is_not_reported_as_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("from math import nothing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="need broken_library, which is installed but cannot be imported"):
        import_extra("broken_library", "export", "ONNX files")
    with pytest.raises(UserError, match=r"need no_such_library .*: pip install \"terrazzo\[export\]\""):
        import_extra("no_such_library", "export", "ONNX files")


@pytest.mark.parametrize(
    "problem", [ImportError("No module named 'x'"), OSError(errno.ENOENT, "x"), ValueError("memory")]
)
def test_other_errors_are_none(problem):
    assert not is_out_of_memory(problem)
