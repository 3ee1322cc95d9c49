"""Failures that are nobody's mistake: memory that runs out, and errors that no message was written for."""

from __future__ import annotations

import re
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terrazzo.errors import UserError, out_of_memory, shortage_behind
from terrazzo.system.supervision import was_near_limit

TRACED = re.compile(r'^ *File "(.+)", line (\d+), in ', re.MULTILINE)  # as errors of worker processes quote it
ISSUES = "https://github.com/terrazzo-segmentation/terrazzo/issues"


@contextmanager
def explained(what: str, lower: str) -> Iterator[None]:
    """Turn a shortage of memory inside into a UserError that says what to lower, and note `what` in other errors.

    `what` completes "not enough memory ...", such as "to segment a.png".
    """
    try:
        yield
    except Exception as problem:
        if (shortage := shortage_of(problem)) is not None:
            raise out_of_memory(what, lower, shortage) from None
        if not isinstance(problem, UserError):
            note(problem, what)
        raise


def shortage_of(problem: BaseException) -> BaseException | None:
    """The error that memory has run out, if an error is due to that.

    With little memory left, libraries raise errors that say nothing of it; under a limit these count too.
    """
    shortage = shortage_behind(problem)
    if shortage is None and not isinstance(problem, (UserError, OSError)) and was_near_limit():
        return problem
    return shortage


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
        place = "which is printed with --debug"
    done = dict.fromkeys([*getattr(problem, "__notes__", ()), *re.findall("^failed .*$", str(problem), re.MULTILINE)])
    lines = [line for line in str(problem).splitlines() if line.strip() and line not in done]
    kind, last = type(problem).__name__, lines[-1].strip() if lines else ""
    reason = last if last.startswith(f"{kind}: ") else f"{kind}: {last}".removesuffix(": ")
    what = "; ".join(done) or "failed"
    if users := line_of_users(problem):
        return f"{users}: {what}: {reason}. The whole traceback {place.removeprefix('which ')}"
    return f"{what}: {reason}. terrazzo did not expect this: please report it at {ISSUES} with its traceback, {place}"


def line_of_users(problem: BaseException) -> str:
    """The innermost line of a user's own module that an error came through, if any: no package has it."""
    packages = {str(Path(__file__).parents[1]), *sysconfig.get_paths().values()}
    frames = [(frame.filename, str(frame.lineno)) for frame in traceback.extract_tb(problem.__traceback__)]
    frames += TRACED.findall(str(problem))
    modules = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    own = [frame for frame in frames if frame[0] in modules and not frame[0].startswith((*packages,))]
    return ":".join(own[-1]) if own and Path(own[-1][0]).is_file() else ""


def told(problem: BaseException) -> str:
    """The message of an error; one that is not ours begins with the line of a user's own module, if any."""
    users = "" if isinstance(problem, UserError) else line_of_users(problem)
    return f"{users}: {type(problem).__name__}: {problem}" if users else str(problem)
