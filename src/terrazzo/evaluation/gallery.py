"""A page of the images that a model segments worst."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.metrics import Seen
from terrazzo.metrics.per_image import image_iou
from terrazzo.sample import Sample
from terrazzo.system.files import write_whole
from terrazzo.system.painting import as_picture, colour_map, error_map, save_picture
from terrazzo.system.printable import caption
from terrazzo.viz.page import html_page, legend_list, picture_rows

VIEWS = ("image", "label", "prediction", "errors")
LARGEST = 640  # pixels of a picture's longer side


@dataclass(order=True)
class Entry:
    """An image on the page; the best one is the smallest, so that a heap drops it first."""

    order: float
    number: int
    title: str = field(compare=False)
    worst: str = field(compare=False)


class Gallery:
    """Pictures of the `count` images with the largest shares of wrong pixels; the page shows the worst first."""

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        read_image: Callable[[Sample], np.ndarray],
        count: int = 100,
    ) -> None:
        self.read_image = read_image
        self.folder, self.classes, self.palette, self.count = folder, list(classes), palette, count
        self.pictures = folder / "pictures"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.entries: list[Entry] = []
        self.seen = 0

    def add(self, sample: Sample, seen: Seen) -> None:
        """Add an image if it is among the worst so far."""
        counts = seen.counts.cpu().numpy()
        total = int(counts.sum())
        if not total:
            return
        wrong = 1 - counts.trace() / total
        iou = image_iou(seen)
        lowest = np.argsort(np.where(np.isnan(iou), np.inf, iou))[:3]
        named = [
            f"{caption(self.classes[index])} {100 * iou[index]:.0f}" for index in lowest if not np.isnan(iou[index])
        ]
        title = f"{100 * wrong:.1f}% wrong: {sample.image_path.name if sample.image_path else ''}"
        entry = Entry(wrong, self.seen, title, ", ".join(named))
        self.seen += 1
        if len(self.entries) >= self.count and entry < self.entries[0]:
            return
        self.draw(entry.number, sample, seen)
        heapq.heappush(self.entries, entry)
        if len(self.entries) > self.count:
            self.remove(heapq.heappop(self.entries).number)

    def draw(self, number: int, sample: Sample, seen: Seen) -> None:
        """Write the four pictures of an image."""
        image = as_picture(self.read_image(sample))
        labels, prediction = seen.labels.cpu().numpy(), seen.prediction.cpu().numpy()
        pictures = (
            image,
            colour_map(labels, self.palette),
            colour_map(prediction, self.palette),
            error_map(labels, prediction, image),
        )
        for view, picture in zip(VIEWS, pictures, strict=True):
            save_picture(self.path(number, view), smaller(picture, smooth=view in ("image", "errors")))

    def path(self, number: int, view: str) -> Path:
        return self.pictures / f"{number:06d}_{view}.{'jpg' if view in ('image', 'errors') else 'png'}"

    def remove(self, number: int) -> None:
        for view in VIEWS:
            self.path(number, view).unlink()

    def write(self) -> Path:
        """Write the page, `index.html`, which shows the pictures beside it."""
        subtitle = (
            f"{len(self.entries)} of {self.seen} images, by their shares of wrong pixels. "
            "Errors are red, ignored pixels black."
        )
        legend = legend_list(zip(self.classes, self.palette, strict=True))
        rows = picture_rows(self.cells(entry) for entry in sorted(self.entries, reverse=True))
        path = self.folder / "index.html"
        write_whole(path, html_page("Worst first", [legend, rows], subtitle))
        return path

    def cells(self, entry: Entry) -> list[tuple[str, str]]:
        """The captions and addresses of an image's four pictures."""
        captions = (entry.title, "label", "prediction", f"lowest IoU: {entry.worst}")
        sources = [f"pictures/{self.path(entry.number, view).name}" for view in VIEWS]
        return list(zip(captions, sources, strict=True))


def smaller(picture: np.ndarray, smooth: bool) -> np.ndarray:
    """Shrink a picture to at most LARGEST pixels along each side."""
    scale = LARGEST / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    resized: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST)
    return resized
