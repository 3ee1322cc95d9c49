"""Inputs that nobody has written, found by hypothesis: each is answered, or refused in one message."""

from __future__ import annotations

import copy
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from terrazzo.errors import UNPRINTABLE, UserError

QUICK, MANY = 1, pytest.param(10, marks=pytest.mark.slow)  # times the inputs of a kind: 1,000 in all, or 10,000
MOST_SECONDS, MOST_MEMORY = 2.0, 500 * 1024  # CPU time and KiB, for one input
PEAK = Path("/proc/self/status")

TRICKS = (
    "", "x", "\x1b[2J", "\u202e", "0", "-1", "1e999", "nan", "../../x", "/dev/zero", "{{ $HOME }}", "%s", "#12345",
    "a" * 3000,
)  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_subnormal=False)  # which some libraries switch off in the whole process
    | st.sampled_from(TRICKS)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def broken(draw: Any, content: bytes) -> bytes:
    """The bytes of a file with some replaced, inserted or deleted, and perhaps its end cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 4)) == 0 else bytes(data)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each of its keys or indices."""
    if isinstance(value, (dict, list)):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from places(inner)


@st.composite
def changed(draw: Any, value: Any) -> Any:
    """A value with some of its parts replaced by others, or left out."""
    result = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(list(places(result)) or [({0: 0}, 0)]))
        if draw(st.booleans()):
            container[key] = draw(values)
        else:
            del container[key]
    return result


@contextmanager
def one_message() -> Iterator[None]:
    """A context that may end in a message which a terminal can print."""
    try:
        yield
    except UserError as problem:
        assert not UNPRINTABLE.search(str(problem)), "the terminal would obey it"


def begin_peak() -> int:
    """Start to measure the peak of memory; return how much is in use, in KiB."""
    if PEAK.exists():
        (PEAK.parent / "clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most memory in use since `begin_peak`, in KiB; 0 where the system does not tell."""
    found = re.search(r"VmHWM:\s+(\d+)", PEAK.read_text()) if PEAK.exists() else None
    return int(found[1]) if found else 0


def fuzz(inputs: st.SearchStrategy[Any], use: Callable[[Any], object], count: int, times: int) -> None:
    """Give `count` times `times` inputs to `use`, which raises UserError at most, within MOST_SECONDS and MOST_MEMORY.

    With `times` 1 they are the same in every run.
    """
    quick = times == 1

    @settings(
        max_examples=count * times,
        derandomize=quick,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def check(value: Any) -> None:
        started, before = time.process_time(), begin_peak()
        with warnings.catch_warnings(), one_message():
            warnings.simplefilter("ignore")
            use(value)
        assert time.process_time() - started < MOST_SECONDS
        assert peak() - before < MOST_MEMORY

    check()
