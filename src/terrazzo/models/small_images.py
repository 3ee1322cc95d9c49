"""Explanation of a model's failure on images of a few pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from terrazzo.errors import UserError, first_line, is_out_of_memory

ENOUGH = 32  # pixels; for larger images torch's own message is more precise


@contextmanager
def explain_small_inputs(images: Tensor) -> Iterator[None]:
    """Turn torch's errors on small images (N, C, H, W) into a UserError that names their size."""
    height, width = images.shape[-2:]
    try:
        yield
    except RuntimeError as problem:
        if min(height, width) >= ENOUGH or is_out_of_memory(problem):
            raise
        raise UserError(
            f"the model does not run on images of {height}x{width} pixels, which may be too small for it: resize or "
            f"pad them, such as to {ENOUGH}x{ENOUGH} ({first_line(problem)})"
        ) from problem
