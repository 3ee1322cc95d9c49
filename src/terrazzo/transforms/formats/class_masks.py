"""Labels as several masks for each image, one for each class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from terrazzo.errors import UserError
from terrazzo.system.walk import FileIndex
from terrazzo.transforms.decode import read_size
from terrazzo.transforms.formats.base import LABEL_FORMATS, LabelFormat
from terrazzo.transforms.formats.colours import PICTURES
from terrazzo.transforms.label_files import read_label


@LABEL_FORMATS.register(name="class_masks")
class ClassMasks(LabelFormat):
    """A mask for each class of an image, in a folder or a file that is named after the class.

    `files` is the path of a mask without its suffix: `{class}/{name}` or `{name}_{class}`, where the name is that of
    the image. What is lighter than half of a mask's lightest pixel belongs to its class, and later classes cover
    earlier ones; a class that an image does not show needs no mask.
    """

    suffixes = PICTURES
    is_index = True
    names_classes = True

    def __init__(self, root: Path, files: str = "{class}/{name}") -> None:
        if "{class}" not in files or "{name}" not in files:
            raise UserError(f"label_format class_masks: files is a path with {{class}} and {{name}}, not {files!r}")
        self.root, self.files, self.index = root, files, FileIndex(root)
        form = re.escape(files).replace(r"\{class\}", "(?P<name>[^/]+?)").replace(r"\{name\}", ".+")
        found = (re.fullmatch(form, str(path.with_suffix(""))) for path in self.index.paths if is_picture(path.name))
        self.own_classes = tuple(dict.fromkeys(match["name"] for match in found if match))
        if not self.own_classes:
            raise UserError(f"label_format class_masks: {root} holds no mask called {files} with one of {PICTURES}")

    def find_labels(self, images: Sequence[Path], folder: Path) -> list[Path | None]:
        return [self.root / image.relative_to(folder).with_suffix("") for image in images]

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        masks = [(name, mask) for name in self.own_classes if (mask := self.mask_of(path, name)) is not None]
        if not sum(size):
            size = masks[0][1].shape if masks else read_size(image or path)  # type: ignore[assignment]
        label = np.full(size, self.names.background, np.uint8)
        found = [(self.names.index(name, path), mask) for name, mask in masks]
        for index, mask in sorted(found, key=lambda item: item[0]):
            if mask.shape != label.shape:
                raise UserError(f"{path}: a mask is {mask.shape[1]}x{mask.shape[0]}, not {size[1]}x{size[0]}")
            label[mask > mask.max() / 2] = index
        return label

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        return self.own_classes, "the names of the masks, of which later ones cover earlier ones"

    def mask_of(self, path: Path, name: str) -> np.ndarray | None:
        """The mask of a class for the image at a path below the root, without its suffix."""
        image = path.relative_to(self.root).as_posix()
        stem = self.files.replace("{class}", name).replace("{name}", image)
        found = next((file for suffix in PICTURES if (file := self.index.find(stem + suffix)) is not None), None)
        return None if found is None else read_label(found)


def is_picture(name: str) -> bool:
    """Report whether a file is a picture by its suffix."""
    return name.lower().endswith(PICTURES)
