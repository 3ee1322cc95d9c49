"""The frequency of each class: findings on it, class weights, and the chances of rare-class sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terrazzo.data.checks.finding import Finding, percent
from terrazzo.data.checks.survey import DatasetSurvey, Entry, SplitSurvey, read_all
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError, some
from terrazzo.system.terminal import Console

IMBALANCE = 200  # the largest class has so many times the pixels of a rare one


@dataclass(frozen=True)
class Balance:
    """Pixels of each class in each image of a data set (images, classes), its labels in their order."""

    pixels: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """Pixels of each class."""
        return self.pixels.sum(axis=0)

    def median_frequency_weights(self) -> list[float]:
        """The median of the classes' frequencies over each one's own (Eigen and Fergus, ICCV 2015).

        The frequency of a class is its share of the pixels of the images that show it; a class without a pixel
        weighs 1.
        """
        shown = self.pixels > 0
        among = (shown * self.pixels.sum(axis=1, keepdims=True)).sum(axis=0)
        frequency = self.totals / np.maximum(among, 1)
        present = frequency > 0
        weights = np.ones(len(frequency))
        if present.any():
            weights[present] = np.median(frequency[present]) / frequency[present]
        return [round(float(weight), 4) for weight in weights]

    def rare_class_chances(self, temperature: float) -> np.ndarray:
        """Return the probability that each class is drawn: softmax of (1 - frequency) / temperature.

        DAFormer's rare class sampling (Hoyer et al., CVPR 2022); a class without a pixel is never drawn.
        """
        frequency = self.totals / max(self.totals.sum(), 1)
        scores = np.where(self.totals > 0, (1 - frequency) / temperature, -np.inf)
        chances = np.exp(scores - scores.max(initial=0))
        return chances / max(chances.sum(), 1e-300)


def pixels_by_class(part: DatasetSurvey) -> np.ndarray:
    """Pixels of each class in each entry (entries, classes); a label that could not be read has none."""
    table = np.zeros((len(part.entries), len(part.classes)), np.int64)
    for row, entry in zip(table, part.entries, strict=True):
        if not entry.marked.lossy:
            for value, count in part.classes_of(entry.marked).items():
                if value < len(row):
                    row[value] += count
    return table


def measure_balance(dataset: Dataset, console: Console | None = None) -> Balance:
    """The balance of an opened data set, through any wrappers. Raises UserError where a label cannot be read."""
    split = SplitSurvey.of("train", dataset.leaves())
    read_all([split], images=False, console=console)
    for entry in split.entries:
        if entry.label is not None and (entry.marked.error or not entry.marked.counts):
            where = entry.label or entry.image
            raise UserError(f"the classes of {where} cannot be counted. {entry.marked.error}".rstrip())
    tables = {part.dataset: pixels_by_class(part) for part in split.parts}
    return Balance(np.stack([tables[leaf][index] for leaf, index in dataset.origins()]))


def balance_findings(split: SplitSurvey) -> Iterator[Finding]:
    """Classes without a pixel, and classes with far fewer than others."""
    parts = [part for part in split.parts if any(entry.label is not None for entry in part.entries)]
    if not parts or not parts[0].classes:
        return
    totals = sum(pixels_by_class(part).sum(axis=0) for part in parts)
    assert isinstance(totals, np.ndarray)
    if not totals.sum() or any(is_unknown(entry) for part in parts for entry in part.entries):
        return
    yield from missing_classes(parts[0], totals, len(split.entries))
    if split.name == "train":
        yield from imbalance(parts[0], totals)


def is_unknown(entry: Entry) -> bool:
    """Return True if it is unknown which classes a label shows."""
    marked = entry.marked
    return entry.label is not None and (bool(marked.error) or marked.lossy or not marked.counts)


def missing_classes(part: DatasetSurvey, totals: np.ndarray, labels: int) -> Iterator[Finding]:
    missing = [index for index in range(len(totals)) if not totals[index]]
    in_training = part.split == "train"
    changes = leaving_out(part, missing) if in_training else {}
    effect = "it cannot be learnt" if in_training else "its score will not be known"
    for index in missing:
        name = part.classes[index]
        text = f"class '{name}' ({index}) has no pixel in the {labels} {part.split} labels: {effect}"
        yield part.finding("missing-class", text, class_name=name, values=(index,), changes=changes)


def without_classes(part: DatasetSurvey, missing: Sequence[int]) -> dict[str, Any]:
    """The change that takes classes out of a short form (`label_map` comes after reduce_zero_label)."""
    kept = [index for index in range(len(part.classes)) if index not in missing]
    if len(kept) < 2:
        return {}
    old = dict(part.mapping.label_map or {})
    new = {int(value): kept.index(index) if index in kept else 255 for value, index in old.items()}
    new |= {index: kept.index(index) for index in kept if index not in new}
    changed = {value: index for value, index in new.items() if value != index}
    return {"classes": [part.classes[index] for index in kept], **({"label_map": changed} if changed else {})}


def leaving_out(part: DatasetSurvey, missing: Sequence[int]) -> dict[str, Any]:
    """The change that takes classes out: by number, or by name where the labels' format knows names."""
    form = part.dataset.label_format
    if form is None:
        return without_classes(part, missing)
    kept = [name for index, name in enumerate(part.classes) if index not in missing]
    if not form.by_name or len(kept) < 2:
        return {}
    return {"classes": kept, "ignore": [*form.names.ignored, *(part.classes[index] for index in missing)]}


def imbalance(part: DatasetSurvey, totals: np.ndarray) -> Iterator[Finding]:
    classes, largest = part.classes, int(totals.argmax())
    rare = [int(index) for index in np.argsort(totals) if 0 < totals[index] * IMBALANCE < totals[largest]]
    if rare:
        shares = [f"'{classes[index]}' ({percent(totals[index], totals.sum())})" for index in rare]
        text = (
            f"{len(rare)} of {len(classes)} classes have less than 1/{IMBALANCE} of the pixels of '{classes[largest]}' "
            f"({percent(totals[largest], totals.sum())}): {some(shares)}"
        )
        changes = {"rare_class_sampling": True}
        yield part.finding("imbalance", text, class_name=classes[rare[0]], values=tuple(rare), changes=changes)
