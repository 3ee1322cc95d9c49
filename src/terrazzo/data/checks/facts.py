"""The facts that the check keeps of an image or a label file, so that it is read only once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.transforms.decode import JPEG, decode_image, read_bytes, read_label
from terrazzo.transforms.labels import value_counts

LOOK = 32  # edge of the small grey picture by which images are compared
MOST_COLOURS = 64  # of a colour label that are kept


@dataclass(frozen=True)
class ImageFacts:
    """An image's height, width and channels, the hash of its pixels, and how it looks from afar."""

    shape: tuple[int, ...] = ()
    digest: str = ""
    look: bytes = b""  # LOOK x LOOK grey values, empty for a volume
    error: str = ""


@dataclass(frozen=True)
class LabelFacts:
    """A label's height and width, and its stored values with their number of pixels.

    A label that holds colours has those, with their number of pixels, in place of values.
    """

    shape: tuple[int, ...] = ()
    counts: dict[int, int] = field(default_factory=dict)
    colours: dict[tuple[int, ...], int] = field(default_factory=dict)
    lossy: bool = False  # in a format that changes values
    error: str = ""


def image_facts(image: np.ndarray, layout: str = "HWC") -> ImageFacts:
    """The facts of an image (H, W, C), or of a volume (C, Z, Y, X) with another `layout`."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    digest.update(str((image.shape, image.dtype.str)).encode())
    if layout != "HWC":
        return ImageFacts(image.shape[1:], digest.hexdigest())
    return ImageFacts(image.shape, digest.hexdigest(), small_look(image).tobytes())


def small_look(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) as LOOK x LOOK grey values (uint8)."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    else:
        grey = image.astype(np.float32).mean(axis=2)
    small = cv2.resize(grey, (LOOK, LOOK), interpolation=cv2.INTER_AREA)
    if small.dtype != np.uint8:  # other than 8 bits: from black to white
        low, high = float(np.nanmin(small)), float(np.nanmax(small))
        small = np.nan_to_num((small - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return small


def stored_label_facts(path: Path, backend: str) -> LabelFacts:
    """The facts of a label file of class indices, or of its colours where it holds those."""
    data = read_bytes(path)
    try:
        label = read_label(path, backend)
    except UserError as problem:
        colours = colours_of(data, path)
        if not colours:
            return LabelFacts(error=str(problem))
        return LabelFacts(colours=colours, lossy=is_lossy(data))
    return LabelFacts(label.shape, value_counts(label), lossy=is_lossy(data))


def is_lossy(data: bytes) -> bool:
    """Return True for a file that is a JPEG, or a WebP that is compressed like one."""
    return data.startswith(JPEG) or (data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8 ")


def colours_of(data: bytes, path: Path) -> dict[tuple[int, ...], int]:
    """The most frequent colours of a label file and their number of pixels; none for a grey or a damaged one."""
    try:
        image = decode_image(data, name=str(path))
    except UserError:
        return {}
    if (image == image[..., :1]).all():
        return {}
    packed = image.astype(np.int64) @ np.array([65536, 256, 1])
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
    return {tuple(int(values[i]) >> shift & 255 for shift in (16, 8, 0)): int(counts[i]) for i in order}
