"""The class maps of a run as pre-annotations, in a folder for each labelling tool that appears when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from terrazzo.errors import UserError
from terrazzo.inference.labelling.tools import TOOLS
from terrazzo.inference.many.sources import Item, as_local, is_fetched
from terrazzo.inference.video.reading import is_video
from terrazzo.transforms.label_files import read_label


def check_tools(tools: Sequence[str], items: Sequence[Item], out: Path) -> None:
    """Raise UserError for items that are not image files, and for folders that exist: people correct labels there."""
    for tool in tools:
        if (out / tool).exists():
            raise UserError(f"--to {tool}: {out / tool} exists, perhaps with corrections: move it, or change --out")
    for item in items if tools else ():
        is_file = is_fetched(item.source) or Path(item.source).is_file()
        if is_video(item.source) or not is_file or Path(item.source).suffix.lower() == ".vrt":
            raise UserError(f"--to {tools[0]}: {item.source} is not an image file: leave it out, or omit --to")


def write_labels(
    tools: Sequence[str], items: Sequence[Item], out: Path, segmenter: Any, on_image: Callable[[], None]
) -> list[Path]:
    """Write the class maps of items, which are in the folder `out`, for each tool. Returns the tools' folders.

    The images are hard links where possible, else copies. Raises UserError where something cannot be written.
    """
    with ExitStack() as stack:
        made = []
        for name in dict.fromkeys(tools):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix=f".{name}.", suffix=".tmp", dir=out)))
            (folder / name).mkdir()
            made.append(TOOLS[name](folder / name, segmenter.classes, segmenter.palette))
        for item in items:
            results = [out / item.folder / f"{item.stem}{suffix}" for suffix in (".tif", ".png")]
            labels = read_label(next(path for path in results if path.exists()))
            image_name = PurePosixPath(item.folder.as_posix()) / f"{item.stem}{Path(item.source).suffix}"
            with as_local(item.source) as image:
                for tool in made:
                    place(Path(image), tool.folder / tool.images / image_name)
                    tool.add(image_name, labels, Path(image))
            on_image()
        for tool in made:
            tool.finish()
        return [tool.folder.rename(out / tool.folder.name) for tool in made]


def place(image: Path, target: Path) -> None:
    """Make an image appear at another path. Raises UserError where that fails."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(image.resolve(), target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(image, target)
    except OSError as problem:
        raise UserError(f"cannot copy {image} to {target.parent}: {problem.strerror}; free some space") from None
