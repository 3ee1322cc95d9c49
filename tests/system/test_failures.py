"""Errors that say that memory has run out, whichever library raises them."""

from __future__ import annotations

import errno
import importlib

import cv2
import pytest

from terrazzo.errors import UserError, first_line, is_out_of_memory
from terrazzo.system.extras import import_extra
from terrazzo.system.failures import unexpected


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


def test_an_error_in_a_users_own_module_is_placed_there(tmp_path, monkeypatch):
    (tmp_path / "own_head.py").write_text("def scale(x):\n    return x / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    own_head = importlib.import_module("own_head")
    with pytest.raises(ZeroDivisionError) as problem:
        own_head.scale(1)
    assert unexpected(problem.value).startswith(f"{tmp_path}/own_head.py:2: failed: ZeroDivisionError: division by")


def test_an_error_in_no_module_of_a_users_is_ours(tmp_path):
    with pytest.raises(ZeroDivisionError) as problem:
        exec("1 / 0")
    own = problem.value.with_traceback(problem.value.__traceback__.tb_next)
    assert "terrazzo did not expect this: please report it" in unexpected(own)
