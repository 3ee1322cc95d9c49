"""Text of any encoding that editors write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from terrazzo.errors import UserError
from terrazzo.system import text as module
from terrazzo.system.text import read_json, read_text, readable_name, stored_names


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(module, "told", set())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_with_and_without_a_mark(tmp_path, encoding):
    path = tmp_path / "classes.txt"
    path.write_bytes("天空\r\nStraße\r\n".encode(encoding))
    assert read_text(path) == "天空\nStraße\n"


@pytest.mark.parametrize(("encoding", "content", "said"), [("gbk", "道路\n车\n", "GBK"), ("cp1252", "Straße", "1252")])
def test_other_encodings_are_guessed_and_said_once_a_folder(tmp_path, encoding, content, said):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.warns(UserWarning, match=rf"a\.txt is not UTF-8: it is read as .*{said}") as warned:
        assert read_text(tmp_path / "a.txt") == read_text(tmp_path / "b.txt") == content
    assert len(warned) == 1


@pytest.mark.parametrize("content", [b"\xff\xfea", b"\xff\xff\xff\x81", b"a\0b"])
def test_what_is_no_text(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.txt"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "", "NUL"])
def test_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*a\.json"):
        read_json(tmp_path / "a.json")


def test_json_that_names_half_a_letter(tmp_path):
    (tmp_path / "a.json").write_text(r'["\ud83c\udf33", "\ud800"]')
    assert read_json(tmp_path / "a.json") == ["\N{DECIDUOUS TREE}", "?"], "it could not be written again"


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*no\.txt: No such file"):
        read_text(tmp_path / "no.txt")


def test_file_names_in_gbk():
    stored = os.fsdecode("街道.png".encode("gbk"))
    assert stored_names("街道.png") == ("街道.png", stored)
    assert stored_names("road.png") == ("road.png",)
    assert readable_name(stored) == "街道.png"
    assert readable_name(str(Path("街道\u200b.png"))) == "街道\u200b.png"
