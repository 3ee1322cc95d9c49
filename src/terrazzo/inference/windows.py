"""The windows that cover an image."""

from __future__ import annotations

from terrazzo.system.arithmetic import ceil_div


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """The starts of windows of `crop` that cover `length` in steps of `stride`; the last one ends at the border."""
    count = max(0, ceil_div(length - crop, stride)) + 1
    return [max(0, min(index * stride, length - crop)) for index in range(count)]
