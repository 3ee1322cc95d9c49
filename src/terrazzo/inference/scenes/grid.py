"""The positions of windows on a scene, and the weights of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terrazzo.inference.windows import gaussian_weights
from terrazzo.system.arithmetic import ceil_div

ALIGNMENT = 32  # pixels: networks subsample by this much, and windows begin where a whole pass would sample too


@dataclass(frozen=True)
class Span:
    """A window along one axis, and the part of it that is complete once the window has been added."""

    start: int
    stop: int
    done: int  # where the next window begins; the end of the scene for the last

    def __len__(self) -> int:
        return self.stop - self.start


def window_spans(length: int, window: int, overlap: float, anchor: int = 0, *, fixed: bool = False) -> list[Span]:
    """The windows along an axis of `length`: every stride on from `anchor`, those at the borders moved inside.

    So windows do not depend on the scene's extent, except at its borders. The last one may be longer by less than
    ALIGNMENT, unless `fixed`.
    """
    if length <= window:
        return [Span(0, length, length)]
    step = 1 if window < 2 * ALIGNMENT else ALIGNMENT
    stride = max(step, int(window * (1 - overlap)) // step * step)
    spacing = 1 if fixed else step
    last = max(0, length - window - (length - window - anchor) % spacing)
    first = anchor % stride
    starts = [0, *range(first or stride, last, stride)]
    if last > starts[-1]:
        starts.append(last)
    stops = [*(start + window for start in starts[:-1]), length]
    return [Span(*span) for span in zip(starts, stops, [*starts[1:], length], strict=True)]


def chunks(spans: Sequence[Span], widest: int) -> list[list[Span]]:
    """Consecutive windows in groups whose complete parts are at most `widest` together, of one window at least."""
    count = max(1, ceil_div(spans[-1].stop, max(1, widest)))
    size = ceil_div(len(spans), count)
    return [list(spans[first : first + size]) for first in range(0, len(spans), size)]


def reaching(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """The windows that contribute to the pixels from `start` to `stop`."""
    return [span for span in spans if span.start < stop and span.stop > start]


def rows_of_part(spans: Sequence[Span], index: int, count: int) -> tuple[int, int]:
    """The rows of pixels, first and past the last, that the windows of one of `count` equal parts complete."""
    starts = [*(span.start for span in spans), spans[-1].done]
    return starts[len(spans) * index // count], starts[len(spans) * (index + 1) // count]


def total_weights(spans: Sequence[Span]) -> np.ndarray:
    """The sum of all windows' weights (length) along an axis, by which sums are divided."""
    total = np.zeros(spans[-1].stop, np.float32)
    for span in spans:
        total[span.start : span.stop] += gaussian_weights(len(span))
    return total
