"""The facts by which a config is chosen: the sizes of images, and the shares and shapes of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from terrazzo.data.checks.balance import measure_balance
from terrazzo.data.threads import in_threads
from terrazzo.data.wrappers import Dataset
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.terminal import Console
from terrazzo.transforms.decode import read_size

LABELS = 60  # whose shapes are measured, at even distances
IMAGES = 200  # whose sizes are read
SPECK = 4  # components of fewer pixels are slips of the brush
SMALL = 25  # percentile of the components' areas
THIN = 12  # pixels; a class that is narrower ...
LONG = 20  # ... and so many times as long is thin


@dataclass(frozen=True)
class ClassShape:
    """A class of a data set; lengths are in pixels of the stored images."""

    name: str
    share: float  # of the pixels that count
    shown: float  # share of the images that show it
    area: float  # 25th percentile of the areas of its connected components; NaN without any
    width: float  # mean over its pixels
    length: float  # of a component, mean over its pixels

    @property
    def is_thin(self) -> bool:
        return self.width <= THIN and self.length >= LONG * self.width

    @property
    def side(self) -> float:
        """The side of a square of the area of its small components."""
        return float(np.sqrt(self.area))


@dataclass(frozen=True)
class Fingerprint:
    """The training images and labels of a data set."""

    images: int
    sizes: tuple[tuple[int, int], ...]  # height, width of some images
    classes: tuple[ClassShape, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Median height and width."""
        height, width = np.median(self.sizes, axis=0).astype(int).tolist()
        return height, width

    @property
    def foreground(self) -> list[ClassShape]:
        """All classes with pixels but the largest one."""
        largest = max(self.classes, key=lambda one: one.share)
        return [one for one in self.classes if one is not largest and one.share > 0]

    @property
    def rarest(self) -> ClassShape:
        return min(self.foreground or self.classes, key=lambda one: one.share)

    @property
    def smallest(self) -> ClassShape:
        """The class of the foreground with the smallest components."""
        measured = [one for one in self.foreground if not np.isnan(one.area)]
        return min(measured or self.classes, key=lambda one: one.area)


def take_fingerprint(dataset: Dataset, console: Console | None = None) -> Fingerprint:
    """The fingerprint of an opened data set. Raises UserError for a file that cannot be read."""
    pixels = measure_balance(dataset, console).pixels  # images, classes
    places = list(dataset.origins())
    paths = [leaf.pairs[index][0] for leaf, index in places]
    sizes = tuple(read_size(path) for path in paths[:: ceil_div(len(paths), IMAGES)])

    labelled = [place for place, row in zip(places, pixels, strict=True) if row.any()]
    some = labelled[:: max(1, ceil_div(len(labelled), LABELS))]
    areas: list[list[int]] = [[] for _ in dataset.classes]
    sums = np.zeros((len(dataset.classes), 3))  # pixels, of distances to the edge, of squared areas
    for found in in_threads(lambda place: shapes(label_of(*place), len(sums)), some, "measuring shapes", console):
        for index, (own, distances) in found.items():
            areas[index] += own
            sums[index] += sum(own), distances, sum(area * area for area in own)
    shares = pixels.sum(axis=0) / max(1, pixels.sum())
    shown = (pixels > 0).mean(axis=0)
    classes = (
        ClassShape(name, float(shares[index]), float(shown[index]), *dimensions(areas[index], *sums[index].tolist()))
        for index, name in enumerate(dataset.classes)
    )
    return Fingerprint(len(dataset), sizes, tuple(classes))


def label_of(leaf: Any, index: int) -> np.ndarray:
    """The label of an image, its values mapped to classes."""
    image, label = leaf.pairs[index]
    return np.asarray(leaf.read_label(label, image))


def shapes(label: np.ndarray, classes: int) -> dict[int, tuple[list[int], float]]:
    """The areas of the components of each class in a label (H, W), and its sum of distances to the class's edge."""
    found: dict[int, tuple[list[int], float]] = {}
    for index in Counter(label.ravel().tolist()) if label.ndim == 2 else ():
        if index < classes:
            mask = (label == index).astype(np.uint8)
            _, _, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            areas = [area for area in facts[1:, cv2.CC_STAT_AREA].tolist() if area >= SPECK]
            if areas:
                distances = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                found[index] = areas, float(distances.sum() if not mask.all() else mask.size * min(mask.shape) / 4)
    return found


def dimensions(areas: Sequence[int], pixels: float, distances: float, squares: float) -> tuple[float, float, float]:
    """Small area, width and length of the components of a class; NaN without any.

    Along a band of width w, the distance to the edge rises from 1 to (w + 1) / 2: its mean is about (w + 2) / 4.
    """
    if not areas:
        return float("nan"), float("nan"), float("nan")
    width = max(1.0, 4 * distances / pixels - 2)
    return float(np.percentile(areas, SMALL)), width, squares / pixels / width
