"""What a data set is: its classes, colours and file layout, as a declaration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terrazzo.registry import DATASETS

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set as published; every field can be overridden where a config uses it."""

    name: str
    about: str = ""
    classes: Sequence[str] = ()
    palette: Sequence[Sequence[int]] = ()
    img_suffix: str | Sequence[str] = IMAGE_SUFFIXES
    seg_map_suffix: str | Sequence[str] = IMAGE_SUFFIXES
    reduce_zero_label: bool = False

    def __post_init__(self) -> None:
        DATASETS.register(self, name=self.name)


FOLDER = DatasetSpec(name="BaseSegDataset", about="Images and labels in two folders, matched by name.")
CUSTOM = DatasetSpec(name="CustomDataset", about="The 0.x name of a folder of images and labels.")
