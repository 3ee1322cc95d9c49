"""A page of the images with the lowest scores."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.metrics import Seen
from terrazzo.metrics.confusion import mean
from terrazzo.metrics.iou import image_iou
from terrazzo.sample import Sample
from terrazzo.system.files import write_whole
from terrazzo.system.painting import as_picture, colour_map, error_map
from terrazzo.transforms.loading import LoadImageFromFile
from terrazzo.viz.report import STYLE, swatch

PARTS = ("image", "label", "prediction", "errors")
LARGEST = 640  # pixels of a picture's longer side


@dataclass(order=True)
class Entry:
    """An image on the page; the best one is the smallest, so that a heap drops it first."""

    order: float
    number: int
    title: str = field(compare=False)
    worst: str = field(compare=False)


class Gallery:
    """Pictures of the `count` images with the lowest mean IoU; the page shows the worst first."""

    def __init__(
        self, folder: Path, classes: Sequence[str], palette: Sequence[Sequence[int]], count: int = 100
    ) -> None:
        self.folder, self.classes, self.palette, self.count = folder, list(classes), palette, count
        self.pictures = folder / "pictures"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.entries: list[Entry] = []
        self.seen = 0

    def add(self, sample: Sample, seen: Seen) -> None:
        """Add an image if it is among the worst so far."""
        iou = image_iou(seen)
        score = float(mean(iou))
        if np.isnan(score):
            return
        lowest = np.argsort(np.where(np.isnan(iou), np.inf, iou))[:3]
        named = [f"{self.classes[index]} {100 * iou[index]:.0f}" for index in lowest if not np.isnan(iou[index])]
        title = f"{100 * score:.1f} {sample.image_path.name if sample.image_path else ''}"
        entry = Entry(-score, self.seen, title, ", ".join(named))
        self.seen += 1
        if len(self.entries) >= self.count and entry < self.entries[0]:
            return
        self.draw(entry.number, sample, seen)
        heapq.heappush(self.entries, entry)
        if len(self.entries) > self.count:
            self.remove(heapq.heappop(self.entries).number)

    def draw(self, number: int, sample: Sample, seen: Seen) -> None:
        """Write the four pictures of an image."""
        loader = sample.meta.get("loader", LoadImageFromFile())
        image = as_picture(loader.read(sample.image_path))
        labels, prediction = seen.labels.cpu().numpy(), seen.prediction.cpu().numpy()
        pictures = (
            image,
            colour_map(labels, self.palette),
            colour_map(prediction, self.palette),
            error_map(labels, prediction, image),
        )
        for part, picture in zip(PARTS, pictures, strict=True):
            small = smaller(picture, smooth=part in ("image", "errors"))
            path = self.path(number, part)
            data = cv2.imencode(path.suffix, np.ascontiguousarray(small[..., ::-1]))[1].tobytes()
            write_whole(path, data)

    def path(self, number: int, part: str) -> Path:
        return self.pictures / f"{number:06d}_{part}.{'jpg' if part in ('image', 'errors') else 'png'}"

    def remove(self, number: int) -> None:
        for part in PARTS:
            self.path(number, part).unlink()

    def write(self) -> Path:
        """Write the page, `index.html`, which shows the pictures beside it."""
        legend = "".join(
            f"<li>{swatch(colour)}{escape(name)}</li>" for name, colour in zip(self.classes, self.palette, strict=True)
        )
        rows = "\n".join(self.row(entry) for entry in sorted(self.entries, reverse=True))
        page = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Worst first</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Worst first</h1>\n"
            f'<p class="subtitle">{len(self.entries)} of {self.seen} images, by the mean IoU of the classes in each. '
            "Errors are red, ignored pixels black.</p>\n"
            f'<ul class="legend">{legend}</ul>\n<div class="pictures">\n{rows}\n</div>\n'
            "<footer>Written by terrazzo.</footer>\n</main>\n</body>\n</html>\n"
        )
        path = self.folder / "index.html"
        write_whole(path, page)
        return path

    def row(self, entry: Entry) -> str:
        """An image's four pictures."""
        captions = (entry.title, "label", "prediction", f"lowest: {entry.worst}")
        figures = "".join(
            f'<figure><img loading="lazy" src="pictures/{self.path(entry.number, part).name}" alt="{part}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for part, caption in zip(PARTS, captions, strict=True)
        )
        return f'<div class="card">{figures}</div>'


def smaller(picture: np.ndarray, smooth: bool) -> np.ndarray:
    """The picture with at most LARGEST pixels to a side."""
    scale = LARGEST / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    resized: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST)
    return resized
