"""Raw image batches to network inputs; the only module that normalises images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers.sizes import larger, surely
from terrazzo.system.arithmetic import as_pair, ceil_div


class Preprocess(nn.Module):
    """Normalise a raw RGB batch on its device; pad training batches to `size`. It has no state-dict entries.

    With `bgr_to_rgb` or `rgb_to_bgr`, either of which swaps the channels that MMSegmentation reads in BGR order, the
    network reads RGB, and `mean` and `std` are in this order; without both it reads BGR.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: Sequence[int] | int | None = None,
        size_divisor: int | None = None,
        pad_val: float = 0,
        seg_pad_val: int = 255,
        bgr_to_rgb: bool | None = True,  # None is False, as published configs have it
        rgb_to_bgr: bool | None = False,
        test_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise UserError("data_preprocessor: mean and std belong together; give both or neither")
        if bgr_to_rgb and rgb_to_bgr:
            raise UserError("data_preprocessor: bgr_to_rgb and rgb_to_bgr both swap the channels; set only one of them")
        for name, values in (("mean", mean), ("std", std)):
            tensor = None if values is None else torch.tensor(values, dtype=torch.get_default_dtype()).view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)
        self.size = None if size is None else as_pair(size, "data_preprocessor.size")
        self.size_divisor = size_divisor
        self.pad_val, self.seg_pad_val = pad_val, seg_pad_val
        self.rgb = bool(bgr_to_rgb or rgb_to_bgr)
        test_size = (test_cfg or {}).get("size")
        self.test_size = None if test_size is None else as_pair(test_size, "data_preprocessor.test_cfg.size")
        self.test_divisor = (test_cfg or {}).get("size_divisor")

    mean: Tensor | None
    std: Tensor | None

    def forward(self, images: Tensor) -> Tensor:
        """Raw (N, C, H, W), three channels in RGB order -> normalised floats in the network's order."""
        may_lack_data = images.is_floating_point()
        images = images.to(torch.get_default_dtype())
        if images.shape[1] == 3 and not self.rgb:
            images = images.flip(1)
        if self.mean is not None and self.std is not None:
            self.check_channels(images)
            images = (images - self.mean) / self.std
        return images.nan_to_num(0) if may_lack_data else images  # a pixel without data becomes the mean

    def check_channels(self, images: Tensor) -> None:
        """Raise UserError where mean and std have a different number of channels than the images."""
        assert self.mean is not None and self.std is not None
        counts = {buffer.shape[1] for buffer in (self.mean, self.std)} - {1, images.shape[1]}
        if counts:
            raise UserError(
                f"the images have {images.shape[1]} channels, `mean` and `std` of the data_preprocessor "
                f"{counts.pop()}: give one value for each channel (`terrazzo data stats CONFIG` computes them)"
            )

    def pad(
        self, images: Tensor, targets: dict[str, Tensor], sizes: Sequence[tuple[int, int]] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised images and their maps at the training size, `pad_val` outside each image's own `sizes`."""
        for image, (height, width) in zip(images, sizes, strict=False):
            image[:, height:] = self.pad_val
            image[:, :, width:] = self.pad_val
        padding = margins(images, self.size, self.size_divisor)
        if not any(padding):
            return images, targets
        padded = {
            name: F.pad(target, padding, value=self.seg_pad_val if name == "label" else 0)
            for name, target in targets.items()
        }
        return F.pad(images, padding, value=self.pad_val), padded

    def pad_for_test(self, images: Tensor) -> Tensor:
        """Normalised images padded on the right and below as the preprocessor's `test_cfg` specifies."""
        padding = margins(images, self.test_size, self.test_divisor)
        return images if all(surely(pad == 0) for pad in padding) else F.pad(images, padding, value=self.pad_val)


def margins(images: Tensor, size: Sequence[int] | None, divisor: int | None) -> tuple[int, int, int, int]:
    """The margins for F.pad to reach at least `size`, or else the next multiple of `divisor`."""
    height, width = images.shape[-2:]
    right = below = 0
    if size is not None:
        below, right = larger(0, size[0] - height), larger(0, size[1] - width)
    elif divisor:
        below, right = (ceil_div(length, divisor) * divisor - length for length in (height, width))
    return 0, right, 0, below
