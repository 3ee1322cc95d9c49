"""Logits of an image, in one pass or window by window: pure functions of (model, images)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.inference.windows import window_starts
from terrazzo.models.checks import checked_test_cfg
from terrazzo.models.small_images import explain_small_inputs


def infer(model: Any, images: Tensor, test_cfg: dict[str, Any] | None = None) -> Tensor:
    """Logits (N, K, h, w) of normalised images, in the mode that `test_cfg` (or the model's own) specifies.

    A whole pass returns them at the head's own size, windows at the images'. Raises UserError for another mode, and for
    images too small for the model.
    """
    settings = checked_test_cfg(test_cfg or model.test_cfg)
    if settings["mode"] == "whole" or getattr(model, "infers_itself", False):
        with explain_small_inputs(images):
            return model.decode(images)
    on_window = model if settings["mode"] == "slide" else with_mirror(model)
    gaussian, count = settings.get("blending") == "gaussian", settings.get("windows_at_once", 4)
    with explain_small_inputs(images):
        return slide(
            on_window, images, settings["crop_size"], settings["stride"], gaussian=gaussian, windows_at_once=count
        )


def slide(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    crop_size: Sequence[int],
    stride: Sequence[int],
    *,
    gaussian: bool = False,
    windows_at_once: int = 4,
) -> Tensor:
    """Logits (N, K, H, W): the mean over overlapping windows, `windows_at_once` of which run in a batch.

    With `gaussian` a window counts less towards its edges, where it sees less context.
    """
    count, _, height, width = images.shape
    crop_height, crop_width = min(crop_size[0], height), min(crop_size[1], width)
    corners = [
        (top, left)
        for top in window_starts(height, crop_height, stride[0])
        for left in window_starts(width, crop_width, stride[1])
    ]
    share = gaussian_window(crop_height, crop_width).to(images) if gaussian else images.new_ones(1, 1)
    total: Tensor | None = None
    visits = images.new_zeros(height, width)
    for first in range(0, len(corners), windows_at_once):
        group = corners[first : first + windows_at_once]
        windows = [images[:, :, top : top + crop_height, left : left + crop_width] for top, left in group]
        logits = model(torch.cat(windows))  # group * N, K, crop height, crop width
        if total is None:
            total = logits.new_zeros(count, logits.shape[1], height, width)
        for (top, left), part in zip(group, logits.split(count), strict=True):
            total[:, :, top : top + crop_height, left : left + crop_width] += part * share if gaussian else part
            visits[top : top + crop_height, left : left + crop_width] += share
    assert total is not None
    return total.div_(visits)


def gaussian_window(height: int, width: int) -> Tensor:
    """Weights (height, width), 1 in the middle; the deviation is an eighth of each side (Isensee et al., 2021)."""
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(length) - (length - 1) / 2) / (length / 8)) ** 2) for length in (height, width)
    )
    return rows[:, None] * columns


def with_mirror(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`model`, averaged over the images as they are and mirrored from left to right."""

    def mirrored(images: Tensor) -> Tensor:
        plain, flipped = model(torch.cat([images, images.flip(-1)])).chunk(2)
        return (plain + flipped.flip(-1)) / 2

    return mirrored
