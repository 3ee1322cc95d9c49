"""Parts of files as paths: a window of a scene, a slice of a volume or a page is a sample of its own.

The path of a part is that of its file with one more name, such as `a.tif/a_1024_0_512x512`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

WINDOW = re.compile(r"_(\d+)_(\d+)_(\d+)x(\d+)$")


class Window(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def file_of(path: Path) -> Path:
    """The file that a path names, or that it names a part of."""
    return next((one for one in (path, *path.parents) if one.is_file()), path)


def stem_of(file: Path) -> str:
    """The name of a file up to its first dot, which names its parts."""
    return file.name.partition(".")[0]


def window_path(file: Path, window: Window) -> Path:
    """The path of a window of a scene."""
    top, left, height, width = window
    return file / f"{stem_of(file)}_{top}_{left}_{height}x{width}"


def names_window(path: Path) -> bool:
    """Return whether a path is that of a window of a scene."""
    return WINDOW.search(path.name) is not None and path.parent.is_file()


def window_of(path: Path) -> Window:
    """The window that a path names."""
    found = WINDOW.search(path.name)
    assert found is not None, f"{path} names no window"
    top, left, height, width = map(int, found.groups())
    return Window(top, left, height, width)
