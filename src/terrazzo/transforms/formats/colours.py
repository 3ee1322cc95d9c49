"""Labels as pictures in the colours of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.transforms.decode import decode_image
from terrazzo.transforms.formats.base import LABEL_FORMATS, ClassNames, LabelFormat, search_upwards
from terrazzo.transforms.formats.tables import LABEL_MAP, Colour, as_colour, read_colour_table
from terrazzo.transforms.label_files import read_label
from terrazzo.transforms.labels import IGNORED
from terrazzo.transforms.opening import PNG, open_pillow, read_bytes

PICTURES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg")
VOC_BORDER = (224, 224, 192)
UNKNOWN = -1


def voc_colour(index: int) -> Colour:
    """The colour of a class in PASCAL VOC: the bits of its number, three at a time, from the highest bit down."""
    channels = [0, 0, 0]
    for position in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * position + channel) & 1) << (7 - position)
    return channels[0], channels[1], channels[2]


@lru_cache(maxsize=8)
def lookup_table(colours: tuple[tuple[Colour, int], ...]) -> np.ndarray:
    """The class of each of the 2 ** 24 colours, or UNKNOWN."""
    table = np.full(1 << 24, UNKNOWN, np.int16)
    for (red, green, blue), index in colours:
        table[red << 16 | green << 8 | blue] = index
    return table


@LABEL_FORMATS.register(name="rgb")
class ColourLabels(LabelFormat):
    """Pictures in which every class has its colour.

    `colours` maps names to colours, lists them in the classes' order, or names a file with both (labelmap.txt, a CSV,
    lines of `r g b name`); without it, they are the palette. With `other: nearest`, a colour without a class counts as
    the nearest one that has a class.
    """

    suffixes = PICTURES

    def __init__(self, root: Path, colours: Any = None) -> None:
        if isinstance(colours, str):
            found = search_upwards(root, [colours])
            colours = read_colour_table(found or root / colours)
        if isinstance(colours, Mapping):
            colours = {str(name): as_colour(value, f"label_format.colours.{name}") for name, value in colours.items()}
            self.own_classes = tuple(colours)
        self.colours: Any = colours
        self.by_name = isinstance(colours, Mapping)

    def table(self) -> tuple[tuple[Colour, int], ...]:
        """Colours and their classes. Raises UserError if their numbers differ."""
        names = self.names
        if isinstance(self.colours, Mapping):
            return tuple((colour, names.index(name, "the colour table")) for name, colour in self.colours.items())
        colours: Sequence[Any] = self.colours or self.palette
        if len(colours) != len(names.classes):
            raise UserError(
                f"label_format rgb: {len(names.classes)} classes and {len(colours)} colours; give one for each class, "
                "as `palette`, or as `colours` in the label_format"
            )
        return tuple((as_colour(value, "label_format.colours"), index) for index, value in enumerate(colours))

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        picture = decode_image(read_bytes(path), "color_ignore_orientation", name=str(path)).astype(np.int32)
        codes = picture[..., 0] << 16 | picture[..., 1] << 8 | picture[..., 2]
        table = self.table()
        label = lookup_table(table)[codes]
        unknown = label == UNKNOWN
        if unknown.any():
            label[unknown] = self.replace(codes[unknown], table, codes.size, path)
        return label.astype(np.uint8)

    def replace(self, codes: np.ndarray, table: Sequence[tuple[Colour, int]], total: int, path: Path) -> Any:
        """Classes for colours that are not in the table. Raises UserError naming the most frequent one."""
        names: ClassNames = self.names
        if names.other in ("ignore", "background"):
            return names.background if names.other == "background" else IGNORED
        different, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        colours = np.stack([different >> 16, different >> 8 & 255, different & 255], axis=-1)
        if names.other == "nearest":
            known = np.array([colour for colour, _ in table])
            nearest = ((colours[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)
            return np.array([index for _, index in table])[nearest][inverse]
        most = int(counts.argmax())
        share, all_shares = 100 * counts[most] / total, 100 * len(codes) / total
        further = f" and {len(different) - 1} further ones, {all_shares:.2g}% in total," if len(different) > 1 else ""
        raise UserError(
            f"{path} has the colour {colours[most].tolist()} ({share:.2g}% of its pixels){further} which no class has. "
            "Add it to the colours; for masks saved as JPEG or with smooth edges: `label_format: {type: rgb, other: "
            "nearest}`"
        )


@LABEL_FORMATS.register(name="alpha")
class AlphaLabels(LabelFormat):
    """Pictures whose opaque pixels are the second of two classes, and whose transparent ones are the first."""

    suffixes = PICTURES
    by_name = False

    def __init__(self, root: Path) -> None:
        self.own_classes = ("background", "foreground")

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        if len(self.names.classes) != 2:
            raise UserError(f"label_format alpha is for two classes, not for {len(self.names.classes)}")
        alpha = open_pillow(read_bytes(path), str(path), "RGBA", upright=True)[..., 3]
        return (alpha > 127).astype(np.uint8)


@LABEL_FORMATS.register(name="cvat")
class CvatMasks(ColourLabels):
    """CVAT's "segmentation mask" export, with the colours of its labelmap.txt in the masks' folder or one above."""

    def __init__(self, root: Path) -> None:
        found = search_upwards(root, [LABEL_MAP])
        if found is None:
            raise UserError(f"there is no {LABEL_MAP} in {root} or above it; CVAT writes it with its masks")
        super().__init__(root, read_colour_table(found))


@LABEL_FORMATS.register(name="voc")
class VocMasks(ColourLabels):
    """PASCAL VOC masks: PNGs of one channel, or pictures in VOC's colours; borders between objects are ignored."""

    def table(self) -> tuple[tuple[Colour, int], ...]:
        return (VOC_BORDER, IGNORED), *((voc_colour(index), index) for index in range(len(self.names.classes)))

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        with path.open("rb") as file:
            head = file.read(26)
        has_indices = head.startswith(PNG) and len(head) == 26 and head[25] in (0, 3)  # grey, palette
        return read_label(path) if has_indices else super().read(path, image, size)
