"""The class of each pixel from logits, in forms that differ in the runtimes that are fast with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from terrazzo.models.layers import resize
from terrazzo.models.layers.sizes import same_sizes

Size = Sequence[int]  # height, width
# logits (N, K, h, w), the size to resize them to, the size to cut that to, align_corners -> logits and classes of it
Largest = Callable[[Tensor, Size, Size, bool], tuple[Tensor, Tensor]]


def argmax(logits: Tensor, padded: Size, size: Size, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The first of the largest, for torch and OpenVINO."""
    logits = resize(logits, padded, align_corners=align_corners)
    if not same_sizes(padded, size):
        logits = logits[:, :, : size[0], : size[1]]
    return logits, logits.argmax(1)


def argmax_of_last(logits: Tensor, padded: Size, size: Size, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The first of the largest, a pixel's logits side by side, for ONNX Runtime: of 150 classes 4 times as fast."""
    last = resize_channels_last(logits, padded[0], padded[1], align_corners)[:, : size[0], : size[1]]
    return last.permute(0, 3, 1, 2), last.argmax(-1)


@torch.library.custom_op("terrazzo::resize_channels_last", mutates_args=())
def resize_channels_last(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Bilinear resizing (N, C, h, w) -> (N, height, width, C); `translations` has its ONNX form."""
    return resize(x, (height, width), align_corners=align_corners).permute(0, 2, 3, 1).contiguous()


@resize_channels_last.register_fake
def shape_of_resized(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    return x.new_empty(x.shape[0], height, width, x.shape[1])
