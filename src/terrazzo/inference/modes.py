"""Logits of an image, whole or window by window: pure functions of (model, images)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.layers import resize


def infer(model: Any, images: Tensor, test_cfg: dict[str, Any] | None = None) -> Tensor:
    """Logits (N, K, H, W) of normalised images, in the mode that `test_cfg` (or the model's own) names."""
    test_cfg = test_cfg or model.test_cfg
    mode = test_cfg.get("mode", "whole")
    if mode == "whole":
        return model(images)
    if mode in ("slide", "slide_flip"):
        for key in ("crop_size", "stride"):
            if len(test_cfg.get(key) or ()) != 2:
                raise UserError(f"test_cfg: mode '{mode}' needs {key}=(height, width), not {test_cfg.get(key)!r}")
        on_window = model if mode == "slide" else with_mirror(model)
        return slide(on_window, images, test_cfg["crop_size"], test_cfg["stride"])
    raise UserError(f"test_cfg: mode '{mode}' is neither 'whole' nor 'slide' nor 'slide_flip'")


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows of `crop` begin so that steps of `stride` cover `length`; the last one ends at the border."""
    count = max(0, -(-(length - crop) // stride)) + 1
    return [max(0, min(index * stride, length - crop)) for index in range(count)]


def slide(
    model: Any, images: Tensor, crop_size: Sequence[int], stride: Sequence[int], windows_at_once: int = 4
) -> Tensor:
    """Average of the logits of overlapping windows; windows of one size run together, `windows_at_once` in a batch."""
    count, _, height, width = images.shape
    crop_height, crop_width = min(crop_size[0], height), min(crop_size[1], width)
    corners = [
        (top, left)
        for top in window_starts(height, crop_height, stride[0])
        for left in window_starts(width, crop_width, stride[1])
    ]
    total: Tensor | None = None
    visits = images.new_zeros(1, 1, height, width)
    for first in range(0, len(corners), windows_at_once):
        group = corners[first : first + windows_at_once]
        windows = [images[:, :, top : top + crop_height, left : left + crop_width] for top, left in group]
        logits = model(torch.cat(windows))  # group * N, K, crop height, crop width
        if total is None:
            total = logits.new_zeros(count, logits.shape[1], height, width)
        for (top, left), part in zip(group, logits.split(count), strict=True):
            total[:, :, top : top + crop_height, left : left + crop_width] += part
            visits[:, :, top : top + crop_height, left : left + crop_width] += 1
    assert total is not None
    return total / visits


def with_mirror(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`model`, averaged over the images as they are and mirrored from left to right."""

    def mirrored(images: Tensor) -> Tensor:
        plain, flipped = model(torch.cat([images, images.flip(-1)])).chunk(2)
        return (plain + flipped.flip(-1)) / 2

    return mirrored


def at_size(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Logits at another size, such as the stored image's."""
    return resize(logits, size, align_corners=align_corners)


def to_labels(logits: Tensor, threshold: float | None = None) -> Tensor:
    """Logits (N, K, H, W) -> class maps (N, H, W); one channel is the foreground's score against `threshold`."""
    if logits.shape[1] == 1:
        return (logits[:, 0].sigmoid() > (0.3 if threshold is None else threshold)).long()
    return logits.argmax(1)


def to_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, K, H, W) -> class probabilities; one channel becomes background and foreground."""
    if logits.shape[1] == 1:
        foreground = logits.sigmoid()
        return torch.cat([1 - foreground, foreground], dim=1)
    return logits.softmax(1)
