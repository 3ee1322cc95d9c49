"""Images in requests: their bytes, and their size before anything is decoded."""

from __future__ import annotations

import io
from typing import Any

from terrazzo.errors import UserError
from terrazzo.serving.messages import Limits
from terrazzo.transforms.opening import damaged, open_picture, orientation_of
from terrazzo.transforms.tiff import tiff_header

# the first bytes of a file -> its suffix
KINDS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"BM": ".bmp",
}
MOST_BANDS = 8  # times the limit of pixels, of all bands together


class TooLarge(UserError):
    """An image of more bytes or pixels than the server takes."""


class UnknownKind(UserError):
    """A body that is no image."""


def suffix_of(data: bytes) -> str:
    """The suffix of an image's kind, by its first bytes; empty for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in KINDS.items() if data.startswith(start)), "")


def size_of(data: bytes, name: str, limits: Limits) -> tuple[int, int]:
    """Height and width of an image, by its header. Raises UserError for one that is damaged or too large."""
    suffix = suffix_of(data)
    if not suffix:
        raise UnknownKind(str(damaged(name)))
    bands = 1
    if suffix == ".tif":
        header = tiff_header(io.BytesIO(data), name, any_size=True)
        height, width, bands = header.height, header.width, header.samples * len(header.pages)
        if header.orientation >= 5:
            height, width = width, height
    else:
        with open_picture(data, name) as image:
            width, height = image.size[::-1] if orientation_of(image) >= 5 else image.size
    if height * width > limits.most_pixels or height * width * bands > MOST_BANDS * limits.most_pixels:
        of_bands = f" of {bands} bands" if bands > 1 else ""
        raise TooLarge(
            f"{name} has {width}x{height} pixels{of_bands}, more than the limit of {limits.most_pixels}: cut it into "
            "tiles, or raise the limit (--max-pixels)"
        )
    return height, width


def named(found: Any) -> str:
    """The name that a client gives an image, without folders."""
    return str(found or "the image").replace("\\", "/").rpartition("/")[2][:200] or "the image"
