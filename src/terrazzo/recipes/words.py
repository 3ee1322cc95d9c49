"""A recipe's name, word by word: `{model}_{devices}xb{batch}-{options}-{iterations}k_{dataset}-{crop}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from terrazzo.errors import UserError, nearest

SCHEDULED = r"(?P<model>.+?)_(?P<devices>\d+)xb(?P<batch>\d+)-(?:(?P<options>[^_]+)-)?(?P<iterations>\d{1,5})k_"
DATA = r"(?P<dataset>[A-Za-z].*?)-(?P<height>\d+)x(?P<width>\d+)(?:_(?P<test>[a-z-]+)-\d+x\d+)?(?:[_-](?P<ms>ms))?"
PATTERN = re.compile(f"(?:{SCHEDULED}|(?P<unscheduled>[^_]+)_){DATA}")
LONGEST = 150  # characters of a name
OPTIONS = ("amp", "adamw", "ohem", "ce-1.0-dice-3.0")


@dataclass(frozen=True)
class Words:
    """The parts of a name; a number that the name does not contain is None."""

    name: str
    model: str
    dataset: str
    crop: tuple[int, int]  # height, width
    devices: int | None = None
    batch: int | None = None
    iterations: int | None = None
    options: tuple[str, ...] = ()
    test: str | None = None  # a dataset to test on that is not the one trained on
    read_crop: tuple[int, int] | None = None  # crop of the pipelines, where it is not `crop`
    older: bool = False  # a name of 0.x


def parse(name: str) -> Words | None:
    """The words of a name in the 1.x style; None for any other name. Raises UserError for an unknown option."""
    match = PATTERN.fullmatch(name) if len(name) <= LONGEST else None
    if match is None:
        return None
    found = match.groupdict()
    number = {key: int(found[key]) if found[key] else None for key in ("devices", "batch", "iterations")}
    return Words(name=name, model=found["model"] or found["unscheduled"], dataset=found["dataset"],
        crop=(int(found["height"]), int(found["width"])), devices=number["devices"], batch=number["batch"],
        iterations=None if number["iterations"] is None else number["iterations"] * 1000,
        options=options(found["options"] or "", name), test=found["test"])  # fmt: skip


def options(text: str, name: str) -> tuple[str, ...]:
    """`amp-ohem` -> ("amp", "ohem"); a pair of loss weights stays one option."""
    found = tuple(re.findall(r"ce-[\d.]+-dice-[\d.]+|[^-]+", text))
    for option in found:
        if option not in OPTIONS and not option.startswith("ce-"):
            raise UserError(f"'{name}' has an unknown option '{option}'{nearest(option, OPTIONS)}")
    return found
