"""A summary of the checked data: images, sizes and classes of each split."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from terrazzo.data.checks.balance import pixels_by_class
from terrazzo.data.checks.finding import percent
from terrazzo.data.checks.survey import SplitSurvey
from terrazzo.system.terminal import Console

MOST_CLASSES = 40  # in the table


def summary(splits: Sequence[SplitSurvey]) -> str:
    """Images and sizes of each split, and a table of the shares of the classes."""
    lines = []
    for split in splits:
        sizes = Counter(entry.seen.shape[:2] for entry in split.entries if entry.seen.shape)
        shown = [f"{width}x{height}" for (height, width), _ in sizes.most_common(3)]
        more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
        scenes = sum(len(part.dataset.scenes.glances) for part in split.parts if part.dataset.scenes is not None)
        counted = f"{len(split.entries)} windows of {scenes} scenes" if scenes else f"{len(split.entries)} images"
        lines.append(", ".join([f"{split.name}: {counted}", *shown]) + more)
    return "\n".join(filter(None, [*lines, class_shares(splits)]))


def class_shares(splits: Sequence[SplitSurvey]) -> str:
    """A table: the share of each class in the pixels, and in how many images it is."""
    described = [split for split in splits if split.parts and split.parts[0].classes]
    if not described:
        return ""
    classes = described[0].parts[0].classes
    table = Table()
    table.add_column("class")
    for split in described:
        table.add_column(f"{split.name}: pixels", justify="right")
        table.add_column("images", justify="right")
    columns = [np.concatenate([pixels_by_class(part) for part in split.parts]) for split in described]
    for index, label in enumerate(classes[:MOST_CLASSES]):
        cells = [(percent(pixels[:, index].sum(), pixels.sum()), (pixels[:, index] > 0).sum()) for pixels in columns]
        table.add_row(f"{index} {label}", *(str(cell) for pair in cells for cell in pair))
    text = io.StringIO()
    Console(width=100, file=text).print(table)
    hidden = len(classes) - MOST_CLASSES
    return text.getvalue().rstrip() + (f"\n... and {hidden} more classes" if hidden > 0 else "")
