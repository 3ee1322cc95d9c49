"""Text files that users bring, whatever encoding their editor chose."""

from __future__ import annotations

import codecs
import json
import locale
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError

MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
HIDDEN_BYTES = re.compile("[\udc80-\udcff]")  # as Python reads those of file names that are not UTF-8
HALF_LETTERS = re.compile(r"\\u[dD][89a-fA-F]")  # escapes of JSON that may stand for no letter
told: set[tuple[Path, str]] = set()  # folders and encodings that a note has named


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, UTF-16 with a byte order mark, or else an encoding that is guessed, with a note.

    Raises UserError for a file that cannot be read or is not text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise UserError(f"{path} begins as {encoding} text but goes on otherwise: save it as UTF-8") from None
        text = decode_legacy(data, path)
    if "\0" in text:
        raise UserError(f"{path} is not a text file: it holds zero bytes")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without empty ones and outer spaces. Raises UserError as `read_text` does."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def decode_legacy(data: bytes, path: Path) -> str:
    """Text in the encoding of the system, in GBK where most letters take two bytes, or in Windows-1252.

    Raises UserError where none of them fits.
    """
    own = locale.getpreferredencoding(False)
    runs = [len(run) % 2 == 0 for run in re.findall(rb"[\x80-\xff]+", data)]
    guesses = [] if codecs.lookup(own).name in ("utf-8", "ascii") else [own]
    guesses += ["gb18030", "cp1252"] if 2 * sum(runs) >= len(runs) else ["cp1252", "gb18030"]
    for encoding in guesses:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if (path.parent, encoding) not in told:
            told.add((path.parent, encoding))
            name = {"gb18030": "GBK", "cp1252": "Windows-1252"}.get(encoding, encoding)
            warnings.warn(f"{path} is not UTF-8: it is read as {name}; save it as UTF-8 if names come out wrong")
        return text
    raise UserError(f"{path} is neither UTF-8 nor text in a known encoding: save it as UTF-8")


def readable_name(name: str) -> str:
    """A file name whose bytes are not UTF-8, as a Chinese Windows packs them, by what it means in GBK."""
    try:
        return os.fsencode(name).decode("gb18030") if HIDDEN_BYTES.search(name) else name
    except UnicodeError:
        return name


def stored_names(name: str) -> tuple[str, ...]:
    """The forms in which a disk may have a file name: as it is, and in GBK."""
    return (name,) if name.isascii() else (name, os.fsdecode(name.encode("gb18030", "surrogateescape")))


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError for a damaged one."""
    try:
        text = read_text(path)
        content = json.loads(text)
        if HALF_LETTERS.search(text):
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
        return content
    except RecursionError:
        raise UserError(f"cannot read {path}: its brackets are nested too deeply") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}") from None


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as distinguish them."""
    paths = [folder.resolve() for folder in folders]
    for count in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
