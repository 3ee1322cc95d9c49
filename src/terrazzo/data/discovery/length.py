"""The length of training that suits a number of images."""

from __future__ import annotations

EPOCHS = 200  # so often a network from random weights sees each image ...
LEAST_STEPS, MOST_STEPS = 500, 20_000  # ... within these bounds,
LEAST_EPOCHS = 20  # but not less often than this, however many images there are


def proposed_steps(images: int, batch: int) -> int:
    """Training steps for so many images, of two significant digits."""
    epoch = images / batch
    steps = min(max(EPOCHS * epoch, LEAST_STEPS), max(MOST_STEPS, LEAST_EPOCHS * epoch))
    return int(float(f"{steps:.2g}"))


def epochs_text(images: int, batch: int, steps: int) -> str:
    """A comment on the number of steps: the number of times that each image is seen."""
    epochs = steps * batch / images
    return f"{epochs:.3g} epochs of {images} images; or `epochs:`"
