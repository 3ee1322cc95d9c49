"""Failures that are nobody's mistake: memory that runs out, and errors that no message was written for."""

from __future__ import annotations

import errno
import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from terrazzo.errors import UserError

ISSUES = "https://github.com/terrazzo-segmentation/terrazzo/issues"

# what torch (CPU, CUDA, MPS), its libraries, OpenCV and the C++ runtime say; NumPy and Pillow raise MemoryError
_NO_MEMORY = re.compile(
    "out of memory|not enough memory|(can't|cannot|unable to|failed to) allocate|insufficient memory|bad_alloc"
    "|ALLOC_FAILED|array is too big|could not create a memory|can't start new thread",
    re.IGNORECASE,
)


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether an error says that memory has run out, whichever library raised it."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
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


@contextmanager
def explained(what: str, lower: str) -> Iterator[None]:
    """Turn a shortage of memory inside into a UserError that says what to lower, and note `what` in other errors.

    `what` completes "not enough memory ...", such as "to segment a.png".
    """
    try:
        yield
    except Exception as problem:
        if (shortage := shortage_behind(problem)) is not None:
            raise out_of_memory(what, lower, shortage) from None
        if not isinstance(problem, UserError):
            note(problem, what)
        raise


def note(problem: BaseException, what: str) -> None:
    """Note in an error what was being done, such as "to segment a.png"; Python shows it below a traceback."""
    vars(problem).setdefault("__notes__", []).append(f"failed {what}")  # as `add_note` of Python 3.11 does


def unexpected(problem: BaseException) -> str:
    """One line for an error without a message of its own, whose traceback is written to a file."""
    text = "".join(traceback.format_exception(problem))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="terrazzo-", suffix=".txt", delete=False) as file:
            file.write(text.encode("ascii", "backslashreplace").decode())
        place = f"which is in {file.name}"
    except OSError:
        place = "which --debug prints"
    done = dict.fromkeys([*getattr(problem, "__notes__", ()), *re.findall("^failed .*$", str(problem), re.MULTILINE)])
    lines = [line for line in str(problem).splitlines() if line.strip() and line not in done]
    reason = f"{type(problem).__name__}: {lines[-1].strip()}" if lines else type(problem).__name__
    return (
        f"{'; '.join(done) or 'failed'}: {reason}. terrazzo did not expect this: please report it at {ISSUES} with its "
        f"traceback, {place}"
    )
