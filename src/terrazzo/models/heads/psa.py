"""Point-wise spatial attention head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import resize
from terrazzo.models.layers.resize import resize_by_matrices
from terrazzo.models.layers.sizes import larger, smaller
from terrazzo.registry import MODELS

TYPES = ("collect", "distribute", "bi-direction")


def absolute_masks(masks: Tensor, mask_size: Sequence[int]) -> Tensor:
    """Masks over relative offsets as masks over absolute positions.

    (N, mask height * mask width, H, W), of which the middle belongs to the position itself -> (N, H * W, H, W), zero
    where a position is outside the mask.
    """
    offsets, inside = [], []
    for length, mask_length in zip(masks.shape[2:], mask_size, strict=True):
        position = torch.arange(length, device=masks.device)
        offset = position.unsqueeze(1) - position + (mask_length - 1) // 2  # other, own
        inside.append((offset >= 0) & (offset < mask_length))
        offsets.append(offset.clamp(0, mask_length - 1))
    index = offsets[0][:, None, :, None] * mask_size[1] + offsets[1][None, :, None, :]  # other y, x, own y, x
    inside_both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    index, inside_both = index.flatten(0, 1), inside_both.flatten(0, 1)  # H * W, H, W
    return masks.gather(1, index.expand(masks.shape[0], -1, -1, -1)) * inside_both


@MODELS.register
class PSAHead(DecodeHead):
    """PSANet head (Zhao et al., ECCV 2018): each position predicts weights for all others, by their offsets.

    It collects from the others, distributes to them, or both ("bi-direction"). With `compact` the masks are over
    absolute positions, and `mask_size` is the size of the shrunk map. What is read is divided by
    `normalization_factor` (None: the number of cells of a mask). Raises UserError for another `psa_type`.
    """

    def __init__(
        self,
        *,
        mask_size: Sequence[int],
        psa_type: str = "bi-direction",
        compact: bool = False,
        shrink_factor: int = 2,
        normalization_factor: float | None = 1.0,
        psa_softmax: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if psa_type not in TYPES:
            raise UserError(f"PSAHead has no psa_type '{psa_type}'; use one of {', '.join(TYPES)}")
        self.mask_size, self.psa_type, self.compact = mask_size, psa_type, compact
        self.shrink_factor, self.psa_softmax = shrink_factor, psa_softmax
        self.normalization_factor = normalization_factor or mask_size[0] * mask_size[1]
        both = psa_type == "bi-direction"
        self.reduce = self.conv_block(self.in_channels, self.channels, 1)
        self.attention = self.mask_layers()
        if both:
            self.reduce_p = self.conv_block(self.in_channels, self.channels, 1)
            self.attention_p = self.mask_layers()
        # the published weights were trained with this border around a 1x1 convolution, which resizing squeezes in
        self.proj = self.conv_block(self.channels * (1 + both), self.in_channels, 1, padding=1)
        self.bottleneck = self.conv_block(2 * self.in_channels, self.channels, 3, padding=1)

    def mask_layers(self) -> nn.Sequential:
        return nn.Sequential(
            self.conv_block(self.channels, self.channels, 1),
            nn.Conv2d(self.channels, self.mask_size[0] * self.mask_size[1], 1, bias=False),
        )

    def shrink(self, x: Tensor) -> Tensor:
        """`x` smaller by `shrink_factor`."""
        corners = self.corners(x)
        size = [larger(length // self.shrink_factor + corners, 1) for length in x.shape[2:]]
        return self.resize_to(x, x.shape[2:] if self.shrink_factor == 1 else size, corners)

    def corners(self, x: Tensor) -> int:
        """Return 1 where neither side of `x` is a multiple of the factor: resizing then aligns corners; 0 elsewhere."""
        if self.shrink_factor == 1:
            return int(self.align_corners)
        factor = self.shrink_factor
        height, width = (smaller(length - length // factor * factor, 1) for length in x.shape[2:])
        return height * width

    def resize_to(self, x: Tensor, size: Sequence[int], corners: int) -> Tensor:
        """Resize bilinearly; `corners` of a size that an export leaves open is open too."""
        if isinstance(corners, int):
            return resize(x, size, align_corners=bool(corners))
        return resize_by_matrices(x, size, corners)

    def attend(self, x: Tensor, attention: nn.Module, distribute: bool) -> Tensor:
        """Return what each position of `x` (N, C, h, w) receives from the others."""
        x = self.shrink(x)
        masks = attention(x)
        if not self.compact:
            masks = absolute_masks(masks, self.mask_size)
        weights = masks.flatten(2)  # N, other, own
        if distribute:
            weights = weights.transpose(1, 2)
        if self.psa_softmax:
            weights = weights.softmax(1)
        return (x.flatten(2) @ weights).view_as(x) / self.normalization_factor

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        contexts = [self.attend(self.reduce(x), self.attention, distribute=self.psa_type == "distribute")]
        if self.psa_type == "bi-direction":
            contexts.append(self.attend(self.reduce_p(x), self.attention_p, distribute=True))
        context = self.resize_to(self.proj(torch.cat(contexts, dim=1)), x.shape[2:], self.corners(x))
        return self.bottleneck(torch.cat([x, context], dim=1))
