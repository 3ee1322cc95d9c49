"""A finding of a check: one problem, its location, and the line of config that repairs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MOST_FILES = 5  # that a finding names
Severity = Literal["error", "advice"]

# kind -> its meaning
KINDS: dict[str, str] = {
    "empty-split": "a split without an image, or whose folder or list is not there",
    "unpaired": "images without a label, or labels without an image",
    "unreadable": "files that are missing, damaged, truncated or not images",
    "size-mismatch": "labels of another size than their image",
    "rgb-mask": "labels that hold colours instead of class indices",
    "jpeg-mask": "labels that were compressed or resized like photographs, so that their values have changed",
    "binary-255": "two-class masks of 0 and 255, where 255 means 'ignored'",
    "shifted-labels": "label values that are all one too high",
    "needless-reduce-zero-label": "reduce_zero_label where label 0 is a class",
    "value-outside-classes": "label values that are neither a class nor 255",
    "all-ignored": "a split where no pixel counts",
    "mostly-ignored": "more than half of the pixels do not count, or whole label files",
    "missing-class": "a class without a pixel",
    "train-val-copy": "validation or test images that are exact copies of training images",
    "near-duplicate": "validation or test images that look nearly like training images",
    "imbalance": "a class with less than 1/200 of the largest one's pixels",
    "odd-size": "images of another size than nearly all the others, tiny ones, and narrow strips",
}


@dataclass(frozen=True)
class Finding:
    """One problem. `changes` are keys of the data section (or of `section`) with the values that repair it.

    `files` are all files concerned; the first five of them are shown.
    """

    kind: str
    severity: Severity
    split: str
    message: str
    advice: str = ""  # the way out in words, where no line of config repairs it
    class_name: str | None = None
    values: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    where: str = ""  # dotted key of the data set in the config
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind


def some(items: Iterable[Any], count: int = MOST_FILES) -> str:
    """The first few of many, as text."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")


def such_as(files: Sequence[Path]) -> str:
    """`in 3 files, such as a.png`, or the one file."""
    return f"in {files[0]}" if len(files) == 1 else f"in {len(files)} files, such as {files[0]}"


def percent(part: float, whole: float) -> str:
    """`12%` or `0.0031%`."""
    share = 100 * part / max(whole, 1)
    return f"{share:.0f}%" if share >= 10 else f"{share:.2g}%"
