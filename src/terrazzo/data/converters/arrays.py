"""Arrays from published files: images, masks, colour tables, .mat files, tiles."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.system.arithmetic import ceil_div
from terrazzo.transforms.decode import decode_image
from terrazzo.transforms.opening import open_picture, read_bytes

Box = tuple[int, int, int, int]  # top, left, bottom, right
STRIP = 256  # rows looked up at a time, to limit memory


def content(path: Path) -> bytes:
    """The bytes of a file, decompressed if it ends in .gz. Raises UserError for a damaged one."""
    data = read_bytes(path)
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot decompress {path} ({error}): the download is damaged, repeat it") from error


def picture(path: Path) -> np.ndarray:
    """An image file in colour (H, W, 3)."""
    return decode_image(content(path), "color_ignore_orientation", name=str(path))


def grey(path: Path) -> np.ndarray:
    """An image file as one channel (H, W)."""
    return decode_image(content(path), "grayscale_ignore_orientation", name=str(path))[..., 0]


def binary(path: Path) -> np.ndarray:
    """A black and white mask, or one of 0 and 1, as classes 0 and 1."""
    mask = grey(path)
    return (mask > (127 if mask.max(initial=0) > 1 else 0)).astype(np.uint8)


def stored(path: Path) -> np.ndarray:
    """The unchanged values of an image file (H, W, C)."""
    return decode_image(content(path), "unchanged", name=str(path))


def size_of(path: Path) -> tuple[int, int]:
    """The height and width of an image file, from its header. Raises UserError for a file that is not an image."""
    with open_picture(path) as image:
        return image.height, image.width


def look_up(array: np.ndarray, table: Mapping[int, int], other: int) -> np.ndarray:
    """8-bit values mapped by a table; those that it lacks become `other`."""
    values = np.full(256, other, np.uint8)
    values[list(table)] = list(table.values())
    return cv2.LUT(np.ascontiguousarray(array), values)


def indices_of(image: np.ndarray, colours: Sequence[Sequence[int]], other: int, first: int = 0) -> np.ndarray:
    """The index of each colour (H, W, 3) in a table, plus `first`; pixels of other colours become `other`."""
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = np.asarray(colours) @ weights
    order = np.argsort(codes)
    indices = np.empty(image.shape[:2], np.uint8)
    for row in range(0, len(image), STRIP):
        pixels = image[row : row + STRIP].astype(np.int64) @ weights
        index = np.searchsorted(codes[order], pixels).clip(max=len(codes) - 1)
        indices[row : row + STRIP] = np.where(codes[order][index] == pixels, order[index] + first, other)
    return indices


def matlab(path: Path, *names: str) -> Any:
    """Read a variable of a .mat file, or a field of one. Raises UserError for a file that lacks it."""
    from scipy.io import loadmat

    try:
        value = loadmat(io.BytesIO(content(path)), squeeze_me=True, struct_as_record=False, mat_dtype=False)
        for name in names:
            value = value[name] if isinstance(value, dict) else getattr(value, name)
    except (KeyError, AttributeError) as error:
        raise UserError(f"{path} has no {'.'.join(names)}: it is not the expected file") from error
    except (ValueError, TypeError, OSError, NotImplementedError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): the download is damaged, repeat it") from error
    return value


def windows(height: int, width: int, tile: int, stride: int) -> list[Box]:
    """Tiles that cover an image, row by row; the last ones are moved back inside it."""

    def starts(length: int) -> list[int]:
        count = max(0, ceil_div(length - tile, stride)) + 1
        return [max(0, min(index * stride, length - tile)) for index in range(count)]

    return [
        (top, left, min(top + tile, height), min(left + tile, width))
        for top in starts(height)
        for left in starts(width)
    ]


def cut(array: np.ndarray, boxes: Sequence[Box], least: int = 0, fill: int = 0) -> Iterator[np.ndarray]:
    """The tiles of an image; those smaller than `least` are padded to it on the right and at the bottom."""
    for top, left, bottom, right in boxes:
        tile = array[top:bottom, left:right]
        margin = [(0, max(0, least - tile.shape[0])), (0, max(0, least - tile.shape[1]))]
        yield np.pad(tile, margin + [(0, 0)] * (tile.ndim - 2), constant_values=fill)
