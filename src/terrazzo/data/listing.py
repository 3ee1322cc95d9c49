"""Files that list the images of a split: names, pairs of paths, or tables with a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from terrazzo.system.text import read_text

IMAGE_COLUMNS = ("image", "img", "images", "file", "filename", "path", "name", "input", "photo", "picture", "rgb", "id")
LABEL_COLUMNS = ("mask", "label", "labels", "masks", "annotation", "seg", "segmentation", "gt", "target", "truth")
SPLIT_COLUMNS = ("split", "subset", "set", "partition", "phase", "fold")


class Row(NamedTuple):
    """A line of a list: its number, its whole text, and the paths in it, that of the image first."""

    number: int
    text: str
    cells: list[str]


def read_rows(listing: Path) -> list[Row]:
    """The lines of a list: `name`, or `image label` with spaces, tabs, commas or semicolons between them.

    A header names the columns; `table.csv:val` takes the lines of a table whose column `split` says `val`.
    """
    path, _, part = split_table(listing)
    lines = [
        (number, line.strip().replace("\\", "/"))
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip()
    ]
    delimiter = next((mark for mark in "\t,;" if lines and all(mark in line for _, line in lines)), None)
    if delimiter is None:
        return [Row(number, line, line.split()) for number, line in lines]
    cells = csv.reader((line for _, line in lines), delimiter=delimiter)
    rows = [Row(number, line, [cell.strip() for cell in row]) for (number, line), row in zip(lines, cells, strict=True)]
    image, label, split = (column(rows[0].cells, words) for words in (IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS))
    if image is None:
        return rows
    columns = [image] if label is None else [image, label]
    return [
        Row(row.number, row.text, [row.cells[index] for index in columns])
        for row in rows[1:]
        if len(row.cells) > max(columns) and (not part or (split is not None and row.cells[split].lower() == part))
    ]


def split_table(listing: Path) -> tuple[Path, str, str]:
    """The file and the split in `table.csv:val`; the split is empty where the whole file is meant."""
    name, mark, part = listing.name.rpartition(":")
    return (listing.with_name(name), mark, part) if mark and not listing.is_file() else (listing, "", "")


def split_values(table: Path) -> list[str]:
    """The different entries in the column of a table that assigns lines to splits, in lower case."""
    lines = read_text(table).splitlines() if table.suffix == ".csv" else []
    rows = list(csv.reader(lines))
    index = column(rows[0], SPLIT_COLUMNS) if rows else None
    return [] if index is None else sorted({row[index].strip().lower() for row in rows[1:] if len(row) > index})


def column(header: Sequence[str], words: Sequence[str]) -> int | None:
    """The column whose name has one of the words; that of a label never counts as an image's."""
    if any("/" in cell or re.search(r"\.[a-z0-9]{2,5}$", cell.lower()) for cell in header):
        return None  # paths, not names of columns
    named = [re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", cell).lower()) for cell in header]
    for index, found in enumerate(named):
        is_other = words is IMAGE_COLUMNS and not set(found).isdisjoint((*LABEL_COLUMNS, *SPLIT_COLUMNS))
        if not is_other and not set(found).isdisjoint(words):
            return index
    return None
