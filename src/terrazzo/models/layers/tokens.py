"""Tokens and maps: their layout in memory, patch embeddings, and position embeddings for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers.conv import missing_pixels
from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.resize import resize
from terrazzo.models.layers.sizes import same_sizes, surely
from terrazzo.models.layers.spec import Spec

Grid = tuple[int, int]


def as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """View tokens (N, h * w, C) as a map (N, C, h, w) in channels-last memory, without a copy."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def as_tokens(x: Tensor) -> Tensor:
    """View a map (N, C, h, w) as tokens (N, h * w, C); without a copy from channels-last memory."""
    return x.flatten(2).transpose(1, 2)


def lay_for_inference(images: Tensor) -> Tensor:
    """Lay images (N, C, H, W) out channels last on a CPU, where most convolutional networks are a third faster."""
    on_cpu = images.device.type in ("cpu", "meta")  # FLOPs counted on the meta device are those of a CPU
    return images.contiguous(memory_format=torch.channels_last) if on_cpu else images


def lay_for_depthwise(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) out for depthwise convolutions: channels last on a CPU, else channels first.

    On a CPU that makes them twice as fast; on CUDA each of them would copy the map.
    """
    layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
    return x.contiguous(memory_format=layout)


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
        in_channels: int = 3,
        embed_dims: int = 768,
        kernel_size: int | Sequence[int] = 16,
        stride: int | Sequence[int] | None = None,
        *,
        padding: int | Sequence[int] | str = "corner",
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
        norm_cfg: Spec | None = None,
    ) -> None:
        super().__init__()
        if isinstance(padding, str) and padding not in ("corner", "same"):
            raise UserError(f"patch padding '{padding}' is unknown: give a number, 'corner' or 'same'")
        self.adaptive_padding = padding if isinstance(padding, str) else None
        stride = kernel_size if stride is None else stride
        border = 0 if isinstance(padding, str) else pair(padding)
        self.projection = nn.Conv2d(
            in_channels, embed_dims, pair(kernel_size), pair(stride), border, pair(dilation), bias=bias
        )
        self.norm = build_norm(norm_cfg, embed_dims) if norm_cfg is not None else None

    def pad(self, x: Tensor) -> Tensor:
        """The map (N, C, H, W), enlarged until the last patches are whole."""
        pads: list[int] = []
        for axis in (1, 0):  # width first, as F.pad wants it
            missing = missing_pixels(self.projection, x, axis)
            before = missing // 2 if self.adaptive_padding == "same" else 0
            pads += [before, missing - before]
        return x if all(surely(pad == 0) for pad in pads) else F.pad(x, pads)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if self.adaptive_padding is not None:
            x = self.pad(x)
        x = self.projection(x)  # N, embed_dims, h, w
        grid = (x.shape[2], x.shape[3])
        tokens = as_tokens(x)
        return (tokens if self.norm is None else self.norm(tokens)), grid


def resize_position_embedding(
    embedding: Tensor, source: Sequence[int], grid: Sequence[int], *, extra_tokens: int = 1, mode: str = "bicubic"
) -> Tensor:
    """Resize an embedding (1, extra_tokens + h * w, C) from the `source` grid (h, w) to `grid`; extra tokens stay."""
    if same_sizes(source, grid):
        return embedding
    extra, patches = embedding[:, :extra_tokens], embedding[:, extra_tokens:]
    patches = patches.transpose(1, 2).unflatten(2, tuple(source))  # 1, C, h, w
    patches = resize(patches, grid, mode=mode).flatten(2).transpose(1, 2)
    return torch.cat([extra, patches], dim=1)


def to_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """Return tokens (N, h * w, C) as a contiguous map (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, tuple(grid)).contiguous()


def resize_learned(
    embedding: Tensor, grid: Sequence[int], *, extra_tokens: int, mode: str = "bicubic"
) -> Tensor | None:
    """Resize an embedding (1, extra_tokens + n * n, C) of any square image to `grid`; None for any other shape."""
    side = math.isqrt(max(embedding.shape[1] - extra_tokens, 0)) if embedding.ndim == 3 else 0
    if side == 0 or side**2 + extra_tokens != embedding.shape[1]:
        return None
    return resize_position_embedding(embedding, (side, side), grid, extra_tokens=extra_tokens, mode=mode)


class SinePositions(nn.Module):
    """Rows and columns of a map as sines and cosines (Carion et al., ECCV 2020) -> (1, h * w, 2 * num_feats).

    `normalize` scales both axes to `scale`: maps of any size cover the same range.
    """

    def __init__(
        self,
        *,
        num_feats: int,
        temperature: float = 10000,
        normalize: bool = False,
        scale: float = 2 * math.pi,
        eps: float = 1e-6,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_feats, self.temperature = num_feats, temperature
        self.normalize, self.scale, self.eps, self.offset = normalize, scale, eps, offset

    def axis(self, length: int, like: Tensor) -> Tensor:
        """The encoding of each position along an axis (length, num_feats)."""
        steps = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
        if self.normalize:
            steps = (steps + self.offset) / (length + self.eps) * self.scale
        exponents = 2 * torch.arange((self.num_feats + 1) // 2, dtype=like.dtype, device=like.device) / self.num_feats
        angles = steps[:, None] / self.temperature**exponents  # length, num_feats / 2
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : self.num_feats]

    def forward(self, x: Tensor) -> Tensor:
        """Positions of the map `x` (N, C, h, w), row by row."""
        height, width = x.shape[-2:]
        rows = self.axis(height, x)[:, None].expand(height, width, self.num_feats)
        columns = self.axis(width, x)[None].expand(height, width, self.num_feats)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1).unsqueeze(0)
