"""The one limit on the size of a picture, for all decoders; imported before any of them is."""

from __future__ import annotations

import os

from terrazzo.errors import UserError

MOST_PIXELS = int(os.environ.get("TERRAZZO_MAX_PIXELS", 1 << 29))  # about 23,000 x 23,000
MOST_VALUES = 8 * MOST_PIXELS  # pixels times bands

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))  # OpenCV reads it when it is imported


def check_pixels(height: int, width: int, name: str, bands: int = 1) -> None:
    """Raise UserError for a picture of more pixels than are decoded in one piece."""
    if height * width > MOST_PIXELS or height * width * bands > MOST_VALUES:
        of_bands = f" of {bands} bands" if bands > 1 else ""
        raise UserError(
            f"{name} has {width}x{height} pixels{of_bands}, more than the {MOST_PIXELS:,} that are decoded in one "
            "piece: cut it into tiles, or set the environment variable TERRAZZO_MAX_PIXELS"
        )
