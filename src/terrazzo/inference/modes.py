"""Logits of an image, in one pass or window by window: pure functions of (model, images)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.inference.windows import Window, blend_windows
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
    count = len(images)

    def run(windows: Sequence[Window]) -> Sequence[Tensor]:
        return model(torch.cat([images[..., rows, columns] for rows, columns in windows])).split(count)

    return blend_windows(
        run,
        images.shape[2:],
        crop_size,
        stride,
        gaussian=gaussian,
        windows_at_once=windows_at_once,
        convert=lambda array: torch.from_numpy(array).to(images),
    )


def with_mirror(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`model`, averaged over the images as they are and mirrored from left to right."""

    def mirrored(images: Tensor) -> Tensor:
        plain, flipped = model(torch.cat([images, images.flip(-1)])).chunk(2)
        return (plain + flipped.flip(-1)) / 2

    return mirrored
