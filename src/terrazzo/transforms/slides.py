"""Whole-slide images, read part by part at a given size of their pixels, without the glass around the tissue."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError, first_line
from terrazzo.system.extras import import_extra
from terrazzo.transforms.georeference import Georeference
from terrazzo.transforms.scenes import BandCountError

SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".mrxs")
GLANCE = 2048  # pixels of a side of the level, at most, on which tissue is found
COLOURLESS = 12  # saturation (0 to 255) that no tissue is below
REACH = 5  # pixels of that level by which tissue is widened
NEAR = 0.02  # by which a level's pixel size may differ from the wanted one


def is_slide(path: Path) -> bool:
    """Return whether a path names a whole-slide image."""
    return path.suffix.lower() in SLIDE_SUFFIXES


class SlideScene:
    """A slide in RGB at the `microns` a pixel that the reading step names, else at its own; glass is no data.

    Raises UserError for a file that cannot be opened, and for one that does not tell the size of its pixels.
    """

    georeference: Georeference | None = None
    value_size = 1
    indexes = (1, 2, 3)

    def __init__(self, path: str | Path, reader: Any, bands: int | None = 3) -> None:
        self.name, self.lock = str(path), threading.Lock()
        if getattr(reader, "bands", None) is not None or bands not in (None, 3):
            raise BandCountError(f"{path} is a slide in RGB, and other bands are to be read: train without `bands`")
        self.bands = 3
        self.slide = open_slide(Path(path))
        try:
            width, height = self.slide.dimensions
            own = pixel_size(self.slide)
            wanted = getattr(reader, "microns", None)
            if wanted is not None and own is None:
                raise UserError(
                    f"{path} does not tell the size of its pixels, so it cannot be read at {wanted} microns"
                )
            self.factor = 1.0 if wanted is None or own is None else wanted / own
            if abs(self.factor - 1) < NEAR:
                self.factor = 1.0
            self.level = self.slide.get_best_level_for_downsample(self.factor * (1 + NEAR))
            self.shrink = float(self.slide.level_downsamples[self.level])
            self.size = max(1, round(height / self.factor)), max(1, round(width / self.factor))
            self.tissue = self.find_tissue()
        except UserError:
            raise
        except Exception as problem:  # of a broken file, of several classes
            raise UserError(f"cannot open {path}: {first_line(problem)}") from None

    def find_tissue(self) -> np.ndarray:
        """Mark the tissue (h, w) of the slide at a glance: what is coloured, by Otsu's threshold."""
        sizes = self.slide.level_dimensions
        level = next((index for index, size in enumerate(sizes) if max(size) <= GLANCE), len(sizes) - 1)
        shrink = max(1, -(-max(sizes[level]) // GLANCE))
        picture = self.region(level, 0, 0, *sizes[level])[::shrink, ::shrink]
        saturation = cv2.GaussianBlur(picture.max(axis=2) - picture.min(axis=2), (0, 0), 2)
        threshold, _ = cv2.threshold(saturation, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        tissue = (saturation > max(COLOURLESS, threshold)).astype(np.uint8)
        return cv2.dilate(tissue, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))

    def region(self, level: int, top: int, left: int, width: int, height: int) -> np.ndarray:
        """Pixels (h, w, 3) of a level. Raises UserError where they cannot be read."""
        shrink = float(self.slide.level_downsamples[level])
        try:
            with self.lock:
                found = self.slide.read_region((round(left * shrink), round(top * shrink)), level, (width, height))
            picture = np.asarray(found.convert("RGBA"))
        except Exception as problem:  # of a broken file, of several classes
            raise UserError(
                f"{self.name}: level {level} of {self.slide.level_count} cannot be read: {first_line(problem)}"
            ) from None
        opaque = picture[..., 3:] > 0  # slides have no pixels where nothing was scanned
        return np.where(opaque, picture[..., :3], np.uint8(255))

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        scale = self.factor / self.shrink
        width, height = self.slide.level_dimensions[self.level]
        rows = min(int(top * scale), height - 1), min(max(round(bottom * scale), int(top * scale) + 1), height)
        columns = min(int(left * scale), width - 1), min(max(round(right * scale), int(left * scale) + 1), width)
        part = self.region(self.level, rows[0], columns[0], columns[1] - columns[0], rows[1] - rows[0])
        if part.shape[:2] != (bottom - top, right - left):
            part = cv2.resize(part, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        return part, self.valid(top, bottom, left, right)

    def valid(self, top: int, bottom: int, left: int, right: int) -> np.ndarray | None:
        """Which pixels (h, w) of a part show tissue; None: all."""
        height, width = self.tissue.shape
        rows = (np.arange(top, bottom) * height / self.size[0]).astype(int).clip(0, height - 1)
        columns = (np.arange(left, right) * width / self.size[1]).astype(int).clip(0, width - 1)
        shown = self.tissue[np.ix_(rows, columns)] > 0
        return None if shown.all() else shown

    def close(self) -> None:
        self.slide.close()


def open_slide(path: Path) -> Any:
    """An open slide. Raises UserError for a file that is none, and without the package that reads it."""
    if not path.is_file():
        raise UserError(f"cannot read {path}: no such file")
    if path.suffix.lower() == ".mrxs":  # which is no TIFF
        try:
            from openslide import OpenSlide as Slide
        except ImportError:
            raise UserError(f"reading {path} needs openslide: pip install openslide-python openslide-bin") from None
    else:
        Slide = import_extra("tiffslide", "slides", "whole-slide images").TiffSlide
    try:
        return Slide(path)
    except Exception as problem:  # of a broken file, of several classes
        raise UserError(f"cannot open {path}: {first_line(problem) or type(problem).__name__}") from None


def pixel_size(slide: Any) -> float | None:
    """The microns of a pixel of the largest level; None where the file does not tell."""
    found = [slide.properties.get(f"{maker}.mpp-x") for maker in ("tiffslide", "openslide")]
    try:
        return next((float(value) for value in found if value is not None and float(value) > 0), None)
    except ValueError:
        return None
