"""The error for users' mistakes: one message that names the file, key or value and the way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

LONGEST_LINE = 2000  # characters of a line of a message
LONGEST_NAME, MOST_NAMES = 120, 3000  # that are compared with others
# what a terminal would obey (control characters, right-to-left marks), and halves of surrogate pairs
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """A mistake in a user's input: the command line prints its message without a traceback."""

    def __init__(self, message: object = "") -> None:
        super().__init__(readable(str(message)))


def readable(text: str) -> str:
    """Escape what a terminal would obey, and cut long lines in the middle."""
    half = LONGEST_LINE // 2
    lines = (line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}" for line in text.split("\n"))
    return printable("\n".join(lines))


def printable(text: str) -> str:
    r"""The text with characters that would control a terminal or reorder its line as escapes, such as `\u001b`."""
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def first_line(problem: BaseException) -> str:
    """The first line of an error's message, or its class where it has none, as most that Python raises for memory."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`; did you mean 'a', 'b' or 'c'?` with the known names closest to `name`, best first, or an empty string."""
    if len(name) > LONGEST_NAME:
        return ""
    lowered = {candidate.lower(): candidate for candidate in islice(known, MOST_NAMES) if len(candidate) < LONGEST_NAME}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)]
    if not close:
        return ""
    quoted = [f"'{candidate}'" for candidate in close]
    return "; did you mean " + (quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}") + "?"


def some(items: Iterable[Any], count: int = 5) -> str:
    """The first few of many, as text."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
