"""The files near labels that name the classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from terrazzo.errors import UserError, some
from terrazzo.transforms.formats.tables import ClassEntry, plain, read_class_table

# the names of such files, as far as they are letters and digits; those in front are preferred
STEMS = (
    "classes", "classnames", "labels", "labelnames", "names", "objnames", "id2label", "label2id", "categories",
    "labelmap", "classdict", "labelcolors", "labelcolours", "colormap", "classcolors", "palette", "classdictseg",
    "classmap", "classlist", "classesdict", "data", "dataset", "meta", "config",
)  # fmt: skip
SUFFIXES = (".txt", ".names", ".csv", ".tsv", ".json", ".yaml", ".yml")
MIXED = ("data", "dataset", "meta", "config")  # with more than classes inside
LARGEST = 1 << 22  # bytes of such a file


class ClassTable(NamedTuple):
    """A file that names classes, and these."""

    path: Path
    entries: list[ClassEntry]

    @property
    def names(self) -> list[str]:
        """The names of the classes, in the order of their values where the file has them."""
        return [entry.name for entry in self.entries]

    @property
    def values(self) -> list[int]:
        """The label value of each class: from the file, or its position in it."""
        return [index if entry.value is None else entry.value for index, entry in enumerate(self.entries)]

    @property
    def has_colours(self) -> bool:
        """Report whether every class has a colour."""
        return all(entry.colour is not None for entry in self.entries)


def class_tables(root: Path, labels: Path) -> list[ClassTable]:
    """The tables in the folder of labels and above it up to `root`, the nearest one first.

    Raises UserError for a damaged one if there is no other.
    """
    found, problems = [], []
    for path in candidates(root, labels):
        try:
            entries = read_class_table(path)
        except UserError as problem:
            if path.suffix.lower() in (".csv", ".tsv") and plain(path.stem) not in MIXED:
                problems.append(problem)
            continue
        if entries:
            has_values = all(entry.value is not None for entry in entries)
            found.append(
                ClassTable(path, sorted(entries, key=lambda entry: entry.value or 0) if has_values else entries)
            )
    if problems and not found:
        raise problems[0]
    return found


def candidates(root: Path, labels: Path) -> Iterator[Path]:
    """The files that may name classes, the nearest ones first."""
    folder = labels if labels.is_dir() else labels.parent
    while folder == root or folder.is_relative_to(root):
        files = [path for path in folder.iterdir() if is_table(path)] if folder.is_dir() else []
        yield from sorted(files, key=lambda path: (STEMS.index(plain(path.stem)), path.name))
        folder = folder.parent


def is_table(path: Path) -> bool:
    """Report whether a file may name classes, by its own name."""
    stem = plain(path.stem)
    is_text = stem not in MIXED or path.suffix.lower() in (".json", ".yaml", ".yml")
    named = stem in STEMS and path.suffix.lower() in SUFFIXES and is_text
    return named and path.is_file() and path.stat().st_size < LARGEST


def contradictions(tables: list[ClassTable]) -> list[str]:
    """Notes on tables that name other classes than the first one does."""
    if not tables:
        return []
    first, *others = tables
    return [
        f"{first.path.name} names {len(first.entries)} classes ({some(first.names, 4)}), which are taken, but "
        f"{other.path.name} names {len(other.entries)} ({some(other.names, 4)})"
        for other in others
        if set(other.names) != set(first.names)
    ]
