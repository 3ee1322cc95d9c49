"""The projection of an image or a map to tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers.conv import missing_pixels
from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.spec import Spec
from terrazzo.models.layers.tokens import as_tokens


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return one number, or two, as (height, width)."""
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


class PatchEmbed(nn.Module):
    """Project each kernel-sized patch (N, C, H, W) to a token -> tokens (N, h * w, embed_dims), their grid (h, w).

    `padding` is a number, or "corner" (pad on the right and below) or "same" (on both sides), to have every pixel in
    a patch. Raises UserError for another word.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        embed_dims: int = 768,
        kernel_size: int | Sequence[int] = 16,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] | str = "corner",
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
        norm_cfg: Spec | None = None,
    ) -> None:
        super().__init__()
        if isinstance(padding, str) and padding not in ("corner", "same"):
            raise UserError(f"patch padding '{padding}' is unknown: give a number, 'corner' or 'same'")
        self.adaptive_padding = padding if isinstance(padding, str) else None
        self.projection = nn.Conv2d(
            in_channels,
            embed_dims,
            pair(kernel_size),
            pair(kernel_size if stride is None else stride),
            0 if isinstance(padding, str) else pair(padding),
            pair(dilation),
            bias=bias,
        )
        self.norm = build_norm(norm_cfg, embed_dims) if norm_cfg is not None else None

    def pad(self, x: Tensor) -> Tensor:
        """The map (N, C, H, W), enlarged until the last patches are whole."""
        pads: list[int] = []
        for axis in (1, 0):  # width first, as F.pad wants it
            missing = missing_pixels(self.projection, x, axis)
            before = missing // 2 if self.adaptive_padding == "same" else 0
            pads += [before, missing - before]
        return F.pad(x, pads) if any(pads) else x

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if self.adaptive_padding is not None:
            x = self.pad(x)
        x = self.projection(x)  # N, embed_dims, h, w
        grid = (x.shape[2], x.shape[3])
        tokens = as_tokens(x)
        return (tokens if self.norm is None else self.norm(tokens)), grid
