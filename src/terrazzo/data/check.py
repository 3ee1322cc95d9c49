"""A look at the labels before the first step."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from terrazzo.data.dataset import SegmentationDataset, leaves
from terrazzo.errors import UserError
from terrazzo.transforms import read_label

MOST_FILES = 400  # of one data set; what lies beyond is checked as it is read


def check_labels(dataset: Any, split: str, console: Console | None = None) -> None:
    """Raise UserError for label values outside the classes, a 0/255 mask, and labels that are ignored everywhere."""
    for leaf in leaves(dataset):
        check_leaf(leaf, split, console)


def check_leaf(dataset: SegmentationDataset, split: str, console: Console | None) -> None:
    paths = [label for _, label in dataset.pairs if label is not None]
    step = -(-len(paths) // MOST_FILES) or 1
    chosen = paths[::step]
    counts = np.zeros(len(dataset.classes), np.int64)
    for path in track(chosen, f"checking {split} labels", console=console, transient=True, disable=console is None):
        counts += dataset.check_label(path)
    if chosen and counts[1:].sum() == 0 and len(counts) == 2 and stored_values(chosen) == {0, 255}:
        raise UserError(
            f"the {split} labels hold 0 and 255 (such as {chosen[0]}), and 255 means 'ignored': class "
            f"'{dataset.classes[1]}' would never be learnt. Add `label_map: {{255: 1}}` to the data."
        )
    if chosen and counts.sum() == 0:
        raise UserError(
            f"every pixel of the {split} labels is ignored (such as {chosen[0]}): look at reduce_zero_label, label_map "
            "and ignore"
        )


def stored_values(paths: list[Any]) -> set[int]:
    """The values that a few label files hold as stored."""
    return {int(value) for path in paths[:20] for value in np.unique(read_label(path))}
