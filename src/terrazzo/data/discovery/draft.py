"""A config in the making: its data and settings, with the reason for each as a comment beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.config.load import load_config
from terrazzo.config.reading.markup import one_line_yaml
from terrazzo.config.short_form import expand as short_form
from terrazzo.config.short_form.schema import DataKeys, editor_line
from terrazzo.data.splits import load_for_data, open_splits
from terrazzo.errors import UserError, printable

LONGEST_LINE = 110


@dataclass
class Draft:
    """Sections of the short form, with a reason for each of their entries; `data` is without its root."""

    root: Path
    data: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)  # all but `data`
    reasons: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def set(self, key: str, value: Any, reason: str = "") -> None:
        """Set a key of the short form; the reason for the value becomes a comment."""
        self.values[key] = value
        self.reasons[key] = reason

    def form(self) -> dict[str, Any]:
        """The short form."""
        return {**self.values, "data": {"root": str(self.root), **self.data}}

    def open(self, split: str) -> Any:
        """Open the data set of a split."""
        scale = {"mean": "none", "std": "none"} if "mean" not in self.values else {}
        return open_splits(load_for_data({**self.form(), **scale}), [split])[split]

    def text(self, target: Path, introduction: Sequence[str]) -> str:
        """The text of the YAML file to write at `target`, which begins with an introduction in comments."""
        root = Path(os.path.relpath(self.root, target.absolute().parent)).as_posix()
        recipe, *others = self.values
        sentences = [*introduction, *(note[0].upper() + note[1:] for note in self.notes)]
        data = [key for key in DataKeys.model_fields if key in self.data]
        lines = [
            editor_line(),
            *map(comment_line, sentences),
            *self.entries([recipe], self.values),
            "data:",
            entry("root", root, "relative to this file", 2),
            *self.entries(data, self.data, 2),
            *self.entries(others, self.values),
        ]
        return "\n".join(lines) + "\n"

    def entries(self, keys: Sequence[str], values: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
        """Lines with the values of some keys and their reasons."""
        return (entry(key, values[key], self.reasons.get(key, ""), indent) for key in keys)


def draft_of(source: Path) -> Draft:
    """The data of a config in the short form, as a draft without any other choice.

    Raises UserError for a config in another vocabulary.
    """
    written = load_config(source, upgrade=False)
    if not short_form.is_short(written):
        raise UserError(
            f"{source} is not in the short form, which is what is written: give the folder of its images and labels"
        )
    values = written.to_dict()
    data = {key: value for key, value in values["data"].items() if value is not None}
    root = source.parent / data.pop("root", ".")
    kept = {key: values[key] for key in ("in_channels", "mean", "std") if values.get(key) is not None}
    return Draft(root.resolve(), data, {"recipe": values["recipe"], **kept})


def entry(key: str, value: Any, comment: str = "", indent: int = 0) -> str:
    """A line `key: value  # comment`; a long comment is put above it."""
    space = " " * indent
    plain = dict(value) if isinstance(value, Mapping) else value
    line = f"{space}{key}: {one_line_yaml(plain)}"
    if not comment:
        return line
    if len(line) + len(comment) < LONGEST_LINE:
        return f"{line}  {comment_line(comment)}"
    return f"{space}{comment_line(comment)}\n{line}"


def comment_line(text: str) -> str:
    """A comment of one line, whatever the names of files in it contain."""
    return "# " + printable(text).replace("\n", "\\n")
