"""An explanation of a model's failure on images that are only a few pixels wide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from terrazzo.errors import UserError

ENOUGH = 32  # pixels; from there on torch's own message is more useful


@contextmanager
def explain_small_inputs(images: Tensor) -> Iterator[None]:
    """Turn torch's errors inside into a UserError with the size of the images (N, C, H, W), if that is small."""
    height, width = images.shape[-2:]
    try:
        yield
    except RuntimeError as problem:
        if min(height, width) >= ENOUGH or type(problem).__name__ == "OutOfMemoryError":
            raise
        raise UserError(
            f"the model does not run on images of {height}x{width} pixels, which may be too small for it: resize or "
            f"pad them, such as to {ENOUGH}x{ENOUGH} ({str(problem).splitlines()[0]})"
        ) from problem
