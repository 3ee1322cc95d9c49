"""The choice between one pass and windows, and of the windows: by memory, and by how far the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.runtime import Memory, Placement
from terrazzo.inference.scenes.engine import Windows, is_of_fixed_size, window_pipeline
from terrazzo.inference.scenes.grid import ALIGNMENT
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import ceil_div
from terrazzo.transforms.scenes import Scene

LARGEST = 1536  # pixels of a window's side, unless the training crop is larger
SMALLEST = 4 * ALIGNMENT  # pixels of the side of windows that are tried when memory ends
MOST_OVERLAP = 0.5
SMALLEST_OVERLAP = 0.125
TOLERANCE = 0.003  # change of logits, in their deviations, that context beyond a window's border may make
SAFETY = 1.25  # times the measured distance, as scenes are less random than blocks


def fits_whole(segmenter: Any, height: int, width: int, memory: Memory) -> bool:
    """Return whether an image of a size can be predicted in one pass."""
    if memory.window is not None:
        return height <= memory.window[0] and width <= memory.window[1]
    size = height, width
    for step in segmenter.pipeline.as_written():
        if is_of_fixed_size(step):
            across, down = step.target_size(*size, np.random.default_rng(0))
            size = down, across
    runtime = segmenter.runtime
    # bytes of a pixel: of an image that is resized those of its file, class map and overlay, as measured
    is_resized = size != (height, width)
    stored = 4 * runtime.bands if is_resized else 8 * runtime.bands + 2 + 2 * len(runtime.classes)
    return height * width * stored + size[0] * size[1] * runtime.bytes_per_pixel <= memory.limit


def choose_windows(segmenter: Any, scene: Scene, memory: Memory) -> Windows:
    """The windows in which a scene is predicted: those asked for, else the model's own, else as large as memory allows.

    Raises UserError where the model takes no such windows.
    """
    runtime = segmenter.runtime
    _, share, fixed = runtime.windows
    size = window_size(segmenter, memory)
    overlap = memory.overlap
    if overlap is None:
        overlap = share if share is not None and memory.window is None else measured_overlap(segmenter, size, fixed)
    classes = len(runtime.classes)
    per_column = size[0] * (overlap * 8 * classes + 3 * scene.bands * scene.value_size + 3)
    widest = max(2 * size[1], int(memory.limit / 10 / per_column))
    at_once = 1 if str(runtime.device) == "cpu" else 4
    return Windows(size, overlap, widest, at_once, fixed)


def window_size(segmenter: Any, memory: Memory) -> tuple[int, int]:
    """The height and width of windows. Raises UserError where the model takes no such ones."""
    runtime = segmenter.runtime
    own, share, fixed = runtime.windows
    size = own or (512, 512)
    if memory.window is not None:
        if fixed and tuple(memory.window) != tuple(size):
            raise UserError(f"--window: this model takes windows of {size[0]}x{size[1]} alone")
        return memory.window
    if share is None and not fixed:
        per_side = int((memory.limit / 5 / (runtime.bytes_per_pixel + 16 * len(runtime.classes))) ** 0.5)
        side = min(LARGEST, max(ALIGNMENT, per_side // ALIGNMENT * ALIGNMENT))
        return max(size[0], side), max(size[1], side)
    return size


def smaller_windows(segmenter: Any, scene: Scene, memory: Memory) -> Memory | None:
    """The choice of windows of half the size; None where they would be too small, or the model takes no others."""
    size = [min(own, length) for own, length in zip(window_size(segmenter, memory), scene.size, strict=True)]
    height, width = (max(min(side, SMALLEST), side // 2 // ALIGNMENT * ALIGNMENT) for side in size)
    if segmenter.runtime.windows.is_fixed or [height, width] == size:
        return None
    return Memory(memory.limit // 2, (height, width), memory.overlap)


def measured_overlap(segmenter: Any, size: Sequence[int], fixed: bool) -> float:
    """The share of a window that neighbours must have in common so that the context beyond its border hardly matters.

    A picture of random blocks is run with its left quarter and with something else there: the distance at which the
    logits no longer differ by TOLERANCE is half of what windows share. Where they always do, the most is shared.
    """
    height, width = (ceil_div(side, ALIGNMENT) * ALIGNMENT for side in size)
    if fixed or width < 8 * ALIGNMENT:
        return MOST_OVERLAP / 2
    border = width // 4 // ALIGNMENT * ALIGNMENT
    picture = blocks(min(height, 8 * ALIGNMENT), width, *segmenter.runtime.spread)
    whole, cut = logits_of(segmenter, picture), logits_of(segmenter, np.ascontiguousarray(picture[:, border:]))
    difference = np.sqrt(np.mean((whole[:, :, border:] - cut) ** 2, axis=(0, 1))) / max(float(whole.std()), 1e-6)
    changed = np.flatnonzero(difference > TOLERANCE)
    reach = int(changed[-1]) + 1 if len(changed) else 0
    return min(MOST_OVERLAP, max(SMALLEST_OVERLAP, 2 * SAFETY * reach / width))


def logits_of(segmenter: Any, picture: np.ndarray) -> np.ndarray:
    """The logits (K, H, W) of a picture (H, W, C) at its own size."""
    sample = window_pipeline(segmenter)(
        Sample(image=picture, original_size=picture.shape[:2]), np.random.default_rng(0)
    )
    assert sample.image is not None
    (scores,) = segmenter.runtime.infer(sample.image[None], [Placement.of(sample, sample.size)])
    return scores.logits


def blocks(height: int, width: int, mean: Sequence[float], std: Sequence[float], side: int = 16) -> np.ndarray:
    """A picture (height, width, C) of random blocks whose bands are spread as those of training images."""
    rng = np.random.default_rng(0)
    small = rng.uniform(-1.7, 1.7, (ceil_div(height, side), ceil_div(width, side), len(mean))) * std + mean
    picture = np.ascontiguousarray(small.repeat(side, 0).repeat(side, 1)[:height, :width], np.float32)
    is_picture = max(mean) <= 255 and min(mean) >= 1
    return picture.clip(0, 255).astype(np.uint8) if is_picture else picture
