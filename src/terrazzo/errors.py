"""The error for users' mistakes: one message that names the file, key or value and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake in a user's input: the command line prints its message without a traceback."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`; did you mean 'a', 'b' or 'c'?` with the known names closest to `name`, best first, or an empty string."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)]
    if not close:
        return ""
    quoted = [f"'{candidate}'" for candidate in close]
    return "; did you mean " + (quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}") + "?"


def some(items: Iterable[Any], count: int = 5) -> str:
    """The first few of many, as text."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
