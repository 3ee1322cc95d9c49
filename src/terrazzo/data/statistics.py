"""Sizes, means and deviations of the bands, and classes of a data set: one pass over the files, in parallel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.threads import in_threads
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.terminal import Console


@dataclass
class Moments:
    """Number of pixels, mean and sum of squared deviations of each band; joined as in Chan et al., 1979."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> Moments:
        """Return those of an image (..., C), without NaN."""
        pixels = image.reshape(-1, image.shape[-1])
        known = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape[1], bool)[None]
        count = np.broadcast_to(known, pixels.shape).sum(axis=0)
        values = pixels.astype(np.float64)
        if not known.all():
            values = np.where(known, values, 0)
        mean = values.sum(axis=0) / np.maximum(count, 1)
        values -= mean
        if not known.all():
            values *= known
        return cls(count, mean, np.einsum("ij,ij->j", values, values))

    def __add__(self, other: Moments) -> Moments:
        if len(self.mean) != len(other.mean):
            counts = sorted({len(self.mean), len(other.mean)})
            raise UserError(
                f"some images have {counts[0]} bands and others {counts[1]}: name those to use with `bands`"
            )
        count = self.count + other.count
        gap, share = other.mean - self.mean, other.count / np.maximum(count, 1)
        squares = self.squares + other.squares + gap**2 * self.count * share
        return Moments(count, self.mean + gap * share, squares)

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / np.maximum(self.count, 1))


@dataclass
class Statistics:
    """Of one split; `mean` and `std` are in the scale in which the preprocessor sees images."""

    images: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # height, width -> images
    moments: Moments | None = None
    classes: tuple[str, ...] = ()
    pixels: np.ndarray | None = None  # of each class; None without labels
    ignored: int = 0  # pixels
    shown: np.ndarray | None = None  # images that show each class

    def add(self, size: tuple[int, int], moments: Moments, counts: np.ndarray | None, ignored: int) -> None:
        """Add one image."""
        self.images += 1
        self.sizes[size] += 1
        self.moments = moments if self.moments is None else self.moments + moments
        if counts is not None:
            self.pixels = counts if self.pixels is None else self.pixels + counts
            self.shown = (counts > 0).astype(int) if self.shown is None else self.shown + (counts > 0)
            self.ignored += ignored

    @property
    def mean(self) -> list[float]:
        return [] if self.moments is None else self.moments.mean.tolist()

    @property
    def std(self) -> list[float]:
        return [] if self.moments is None else self.moments.std.tolist()

    def shares(self) -> list[float]:
        """Percent of the pixels that count."""
        assert self.pixels is not None
        return (100 * self.pixels / max(1, self.pixels.sum())).tolist()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {
            "images": self.images,
            "sizes": {f"{width}x{height}": count for (height, width), count in self.sizes.most_common()},
            "mean": self.mean,
            "std": self.std,
        }
        if self.pixels is not None and self.shown is not None:
            rows = zip(self.classes, self.pixels.tolist(), self.shares(), self.shown.tolist(), strict=True)
            found["ignored"] = self.ignored
            found["classes"] = [
                {"name": name, "pixels": pixels, "share": share, "images": images}
                for name, pixels, share, images in rows
            ]
        return found


def survey(
    dataset: Dataset, split: str = "data", console: Console | None = None, most: int | None = None
) -> Statistics:
    """The statistics of a data set, or of all those inside its wrappers; of `most` images, evenly spaced.

    Raises UserError naming a broken file.
    """
    items = [(leaf, index) for leaf in dataset.leaves() for index in range(len(leaf))]
    items = items[:: ceil_div(len(items), most or len(items))]
    result = Statistics(classes=tuple(dataset.classes))
    for found in in_threads(lambda item: look_at(*item), items, f"reading {split}", console):
        result.add(*found)
    return result


def look_at(leaf: SegmentationDataset, index: int) -> tuple[tuple[int, int], Moments, np.ndarray | None, int]:
    """Size, moments, pixels of each class and ignored pixels of one image."""
    sample = loaded(leaf, index)
    image, label_path = sample.pixels, leaf.pairs[index][1]
    if sample.meta.get("layout") == "CZYX":
        image = np.moveaxis(image, 0, -1)
    counts, ignored = None, 0
    if label_path is not None and leaf.classes:
        counts = leaf.check_label(label_path, sample.image_path)
        ignored = int(np.prod(sample.original_size)) - int(counts.sum()) if image.ndim == 3 else 0
    return sample.original_size, Moments.of(image), counts, ignored


def loaded(leaf: SegmentationDataset, index: int) -> Sample:
    """Return an image in the values that the preprocessor sees, before anything random.

    Raises UserError for a pipeline that reads no image.
    """
    sample = leaf.pipeline.image_values()(leaf.start(index), np.random.default_rng(0))
    if sample.image is None:
        raise UserError("the pipeline loads no image: it needs LoadImageFromFile")
    return sample


def config_lines(statistics: Statistics, config: Mapping[str, Any], is_short: bool) -> list[str]:
    """Return the lines of config with these means and deviations: of the short form, or of a model's section."""
    preprocessor = config["model"].get("data_preprocessor") or config.get("data_preprocessor") or {}
    values: list[Sequence[float]] = [statistics.mean, statistics.std]
    if len(statistics.mean) == 3 and not is_short and not any(map(preprocessor.get, ("bgr_to_rgb", "rgb_to_bgr"))):
        values = [list(reversed(one)) for one in values]  # such a network takes BGR
    mean, std = ("[" + ", ".join(f"{value:.5g}" for value in one) + "]" for one in values)
    if is_short:
        return [f"mean: {mean}", f"std: {std}"]
    return [f"model.data_preprocessor.mean='{mean}'", f"model.data_preprocessor.std='{std}'"]
