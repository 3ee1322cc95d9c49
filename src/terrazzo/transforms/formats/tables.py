"""Tables of classes: names with their label values and colours, in the files that people and tools write."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from terrazzo.config.reading.markup import read_yaml
from terrazzo.errors import UserError
from terrazzo.system.text import read_json, read_text

Colour = tuple[int, int, int]
LABEL_MAP = "labelmap.txt"
NAME_KEYS = ("name", "class", "classname", "label", "labelname", "title", "category", "readable")
VALUE_KEYS = ("id", "value", "pixelvalue", "index", "classid", "labelid", "labelvalue", "trainid", "grayvalue", "idx")
COLOUR_KEYS = ("color", "colour", "hex", "rgb")
CHANNEL_KEYS = (("r", "red"), ("g", "green"), ("b", "blue"))
LIST_KEYS = (
    "id2label",
    "label2id",
    "names",
    "labels",
    "classes",
    "categories",
)  # of the classes in a JSON or YAML file


class ClassEntry(NamedTuple):
    """A class in a table: its name, and its label value and colour where the table has them."""

    name: str
    value: int | None = None
    colour: Colour | None = None


def as_colour(value: Any, what: str) -> Colour:
    """A colour given as `[r, g, b]`, `r,g,b` or `#rrggbb`. Raises UserError for anything else."""
    try:
        if isinstance(value, str) and value.startswith("#"):
            numbers = list(bytes.fromhex(value[1:]))
        else:
            numbers = [int(part) for part in (value.strip("()[]").split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not all(0 <= number <= 255 for number in numbers):
        raise UserError(f"{what}: {value!r} is not a colour such as [128, 64, 128] or '#804080'")
    return numbers[0], numbers[1], numbers[2]


def read_class_table(path: Path) -> list[ClassEntry]:
    """Read the classes of a file: a list of names, a table with columns, a labelmap.txt, JSON or YAML.

    Raises UserError for a file in another form.
    """
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return entries_of(read_json(path) if path.suffix.lower() == ".json" else read_yaml(path), path)
    text = read_text(path)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if path.name == LABEL_MAP or all(re.fullmatch(r"[^:]+:\d+,\d+,\d+:.*", line) for line in lines):
        parts = [line.split(":") for line in lines if not line.startswith("#")]
        return [
            ClassEntry(name.strip(), None, as_colour(rest[0] if rest else "", f"{path}, {name}"))
            for name, *rest in parts
        ]
    mark = next((mark for mark in ("\t", ",", ";") if all(mark in line for line in lines)), None)
    if mark is None:
        return plain_entries(lines, path)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark, skipinitialspace=True)]
    return table_entries(rows, path)


def read_colour_table(path: Path) -> dict[str, Colour]:
    """Read names and colours from a table of classes. Raises UserError for a table without colours."""
    if not path.is_file():
        raise UserError(f"there is no colour table {path}")
    table = {entry.name: entry.colour for entry in read_class_table(path)}
    missing = next((name for name, colour in table.items() if colour is None), None)
    if missing is not None or not table:
        raise UserError(f"{path}: '{missing or 'no line'}' is not a name with red, green and blue")
    return {name: colour for name, colour in table.items() if colour is not None}


# JSON and YAML


def entries_of(content: Any, path: Path) -> list[ClassEntry]:
    """The classes in a list of names or of mappings, or in a mapping from or to names."""
    if isinstance(content, Mapping):
        inner = next((content[key] for key in LIST_KEYS if isinstance(content.get(key), (list, dict))), None)
        if inner is not None:
            return entries_of(inner, path)
        found = [entry_of_pair(str(key), value, path) for key, value in content.items()]
    elif isinstance(content, list):
        found = [entry_of_object(one, path) if isinstance(one, Mapping) else ClassEntry(str(one)) for one in content]
    else:
        found = []
    if not found:
        raise UserError(f"{path} names no class")
    return found


def entry_of_pair(key: str, value: Any, path: Path) -> ClassEntry:
    """The class of `0: road`, `road: 0`, or `road: [128, 64, 128]`."""
    if key.isdecimal() and isinstance(value, str):
        return ClassEntry(value, int(key))
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return ClassEntry(key, int(value))
    if isinstance(value, Mapping):
        return entry_of_object({"name": key, **value}, path)
    return ClassEntry(key, None, as_colour(value, f"{path}, {key}"))


def entry_of_object(content: Mapping[str, Any], path: Path) -> ClassEntry:
    """The class of a mapping such as `{name: road, id: 0, color: "#804080"}`."""
    by_key = {plain(str(key)): value for key, value in content.items()}
    name, value, colour = (
        next((by_key[key] for key in keys if key in by_key), None) for keys in (NAME_KEYS, VALUE_KEYS, COLOUR_KEYS)
    )
    if name is None:
        raise UserError(f"{path}: {dict(content)} has no name of a class")
    number = int(value) if value is not None and str(value).isdecimal() else None
    return ClassEntry(str(name), number, as_colour(colour, f"{path}, {name}") if colour else None)


# Text


def plain(name: str) -> str:
    """The letters of a column's name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def plain_entries(lines: Sequence[str], path: Path) -> list[ClassEntry]:
    """The classes of lines `name`, `0 name`, `0: name`, `r g b name` or `name #rrggbb`."""
    cells = [line.split() for line in lines]
    if all(len(row) > 3 and all(cell.isdecimal() for cell in row[:3]) for row in cells[1:] or cells):
        return table_entries([[*row[:3], " ".join(row[3:])] for row in cells if row[0].isdecimal()], path)
    numbered = [re.fullmatch(r"(\d+)\s*[:\s]\s*(\S.*)", line) for line in lines]
    if all(numbered):
        return [ClassEntry(match[2], int(match[1])) for match in numbered if match]
    coloured = [re.fullmatch(r"(.*\S)\s*[:\s]\s*(#[0-9a-fA-F]{6})", line) for line in lines]
    if all(coloured):
        return [ClassEntry(match[1], None, as_colour(match[2], f"{path}, {match[1]}")) for match in coloured if match]
    return [ClassEntry(line) for line in lines]


def table_entries(rows: Sequence[Sequence[str]], path: Path) -> list[ClassEntry]:
    """The classes of a table, by the names of its columns or, without these, by what is in them."""
    header = [plain(cell) for cell in rows[0]]
    has_header = not any(cell.isdecimal() or cell.startswith("#") for cell in rows[0])
    known = {*NAME_KEYS, *VALUE_KEYS, *COLOUR_KEYS, *(key for keys in CHANNEL_KEYS for key in keys)}
    if has_header and (len(rows) > 1 and not known.isdisjoint(header)):
        return [
            entry_of_row(dict(zip(header, row, strict=False)), f"{path}, line {number}")
            for number, row in enumerate(rows[1:], 2)
        ]
    rows = rows[1:] if has_header and len(rows) > 1 and any(cell.isdecimal() for cell in rows[1]) else rows
    first_is_value = is_numbering(row[0] for row in rows)
    return [
        entry_of_cells([cell for cell in row if cell], first_is_value, f"{path}, '{','.join(row)}'") for row in rows
    ]


def is_numbering(cells: Iterable[str]) -> bool:
    """Report whether cells count up from 0 or 1."""
    found = [int(cell) if cell.isdecimal() else -1 for cell in cells]
    return len(found) > 1 and found == list(range(found[0], found[0] + len(found))) and found[0] in (0, 1)


def entry_of_row(row: Mapping[str, str], where: str) -> ClassEntry:
    """The class on a line of a table with named columns."""
    name, value, colour = (
        next((row[key] for key in keys if row.get(key)), "") for keys in (NAME_KEYS, VALUE_KEYS, COLOUR_KEYS)
    )
    channels = [next((row[key] for key in keys if row.get(key)), "") for keys in CHANNEL_KEYS]
    if not name:
        raise UserError(f"{where} has no name of a class")
    if all(channels):
        colour = ",".join(channels)
    return ClassEntry(name, int(value) if value.isdecimal() else None, as_colour(colour, where) if colour else None)


def entry_of_cells(cells: Sequence[str], first_is_value: bool, where: str) -> ClassEntry:
    """The class on a line of words and numbers: one number is its value, three are its colour, four are both."""
    numbers = [cell for cell in cells if cell.isdecimal()]
    hexes = [cell for cell in cells if re.fullmatch(r"#[0-9a-fA-F]{6}", cell)]
    words = [cell for cell in cells if cell not in numbers and cell not in hexes]
    value = None
    if len(numbers) in (1, 4):
        value = int(numbers.pop(0 if first_is_value or len(numbers) == 1 else -1))
    if not words or len(numbers) not in (0, 3):
        raise UserError(f"{where} is not a name with red, green and blue")
    colour = as_colour(hexes[0] if hexes else numbers, where) if hexes or numbers else None
    return ClassEntry(" ".join(words), value, colour)
