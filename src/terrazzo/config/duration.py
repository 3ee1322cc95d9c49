"""Durations as people write them."""

from __future__ import annotations

import re

from terrazzo.errors import UserError

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
PART = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms]?)\s*")


def seconds(value: str | float) -> float:
    """Return `90`, `55m`, `1h30m` or `1:30:00` in seconds. Raises UserError for anything else."""
    text = str(value).strip().lower()
    if re.fullmatch(r"\d+:\d\d:\d\d", text):
        hours, minutes, rest = map(int, text.split(":"))
        return 3600.0 * hours + 60 * minutes + rest
    parts = PART.findall(text)
    if not parts or PART.sub("", text):
        raise UserError(f"'{value}' is not a duration: write 90 (seconds), 55m, 1h30m or 1:30:00")
    return sum(float(number) * UNITS[unit] for number, unit in parts)
