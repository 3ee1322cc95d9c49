"""The errors for users' mistakes and for memory that runs out: one message that names the culprit and the way out."""

from __future__ import annotations

import difflib
import errno
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
    """The first line of an error's message, or its class where it has none, as most that Python raises for memory.

    One that is a key alone becomes a sentence.
    """
    if isinstance(problem, KeyError):
        return f"nothing is stored under {problem}"
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


# Memory that has run out

# what torch (CPU, CUDA, MPS), its libraries, OpenCV and the C++ runtime say; NumPy and Pillow raise MemoryError
_NO_MEMORY = re.compile(
    "out of memory|not enough memory|(can't|cannot|unable to|failed to) allocate|insufficient memory|bad_alloc"
    "|ALLOC_FAILED|array is too big|could not create a memory|can't start new thread",
    re.IGNORECASE,
)


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether an error says that memory has run out, whichever library raised it."""
    if isinstance(problem, MemoryError) or type(problem).__name__.endswith("OutOfMemoryError"):
        return True
    if isinstance(problem, OSError):
        return problem.errno == errno.ENOMEM
    if isinstance(problem, ImportError):  # of a library that finds no room
        return "failed to map segment" in str(problem) or "annot allocate memory" in str(problem)
    kind = type(problem)
    return (kind in (RuntimeError, ValueError) or kind.__module__.startswith("cv2")) and bool(
        _NO_MEMORY.search(str(problem))
    )


def shortage_behind(problem: BaseException | None) -> BaseException | None:
    """The error that memory has run out, if an error is that or was raised while one was handled.

    So a decoder that finds no room does not report its file as damaged.
    """
    while problem is not None and not isinstance(problem, OutOfMemory):
        if is_out_of_memory(problem):
            return problem
        problem = problem.__cause__ or problem.__context__
    return None


class OutOfMemory(UserError):
    """The message that there is not enough memory for something, and what to lower."""


def out_of_memory(what: str, lower: str, problem: BaseException) -> OutOfMemory:
    """The message that there is not enough memory for something, and what to lower."""
    amount = re.search(r"allocate ([\d.]+ ?[KMGTPE]iB|\d+(?= bytes))", str(problem))
    size = amount.group(1) if amount else ""
    size = f"{int(size) / 2**20:,.0f} MiB" if size.isdecimal() else size
    return OutOfMemory(f"not enough memory {what}{f' ({size} more)' if size else ''}: {lower}")
