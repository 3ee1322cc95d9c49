"""Deformable convolution in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers.init import init_zeros


class DeformConv2d(nn.Conv2d):
    """A convolution whose taps move by offsets that `conv_offset` predicts (Dai et al., ICCV 2017).

    Offsets (N, deform_groups * taps * 2, Ho, Wo) are pairs (vertical, horizontal) in pixels; each of the groups moves
    its part of the channels. Outside the map all values are zero. It starts as a plain convolution. Raises UserError
    where the channels do not divide into `deform_groups`.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    values_per_tap = 2

    def __init__(self, *args: Any, deform_groups: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.in_channels % deform_groups:
            raise UserError(f"deform_groups={deform_groups} does not divide the {self.in_channels} input channels")
        self.deform_groups = deform_groups
        self.taps = self.kernel_size[0] * self.kernel_size[1]
        offsets = deform_groups * self.taps * self.values_per_tap
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation)
        self.conv_offset = nn.Conv2d(self.in_channels, offsets, *geometry)
        init_zeros(self.conv_offset)

    def forward(self, input: Tensor) -> Tensor:
        return self.convolve(self.sample(input, self.conv_offset(input)))

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """Return the value of each tap at each output position: (N, deform_groups, C / deform_groups, taps, Ho, Wo)."""
        batch, _, height, width = x.shape
        offset = offset.to(torch.promote_types(x.dtype, torch.float32))  # half floats cannot distinguish far pixels
        offset = offset.reshape(-1, self.taps, 2, *offset.shape[2:])  # N * deform_groups, taps, 2, Ho, Wo
        rows, columns = self.positions(offset)
        vertical = (2 * (offset[:, :, 0] + rows) + 1) / height - 1
        horizontal = (2 * (offset[:, :, 1] + columns) + 1) / width - 1
        grid = torch.stack([horizontal, vertical], dim=-1)  # N * deform_groups, taps, Ho, Wo, 2
        grouped = x.to(grid.dtype).reshape(batch * self.deform_groups, -1, height, width)
        values = F.grid_sample(grouped, grid.flatten(1, 2), align_corners=False)
        return values.to(x.dtype).reshape(batch, self.deform_groups, -1, *grid.shape[1:4])

    def positions(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row (taps, Ho, 1) and column (taps, 1, Wo) of each tap before it moves."""
        lines = []
        for axis, length in enumerate(like.shape[3:]):
            steps = torch.arange(length, dtype=like.dtype, device=like.device) * self.stride[axis] - self.padding[axis]
            taps = torch.arange(self.kernel_size[axis], dtype=like.dtype, device=like.device) * self.dilation[axis]
            lines.append(taps.unsqueeze(1) + steps)
        rows, columns = lines
        rows = rows.repeat_interleave(self.kernel_size[1], dim=0).unsqueeze(2)
        return rows, columns.repeat(self.kernel_size[0], 1).unsqueeze(1)

    def convolve(self, values: Tensor) -> Tensor:
        """Add the weighted values of the taps -> (N, out_channels, Ho, Wo)."""
        height, width = values.shape[-2:]
        columns = values.reshape(values.shape[0], self.groups, -1, height * width)
        output = self.weight.reshape(self.groups, self.out_channels // self.groups, -1) @ columns
        output = output.reshape(-1, self.out_channels, height, width)
        return output if self.bias is None else output + self.bias.view(-1, 1, 1)


class ModulatedDeformConv2d(DeformConv2d):
    """Deformable convolution whose taps are also weighted by a predicted mask (Zhu et al., CVPR 2019)."""

    values_per_tap = 3  # all offsets, then all masks

    def forward(self, input: Tensor) -> Tensor:
        pairs = 2 * self.deform_groups * self.taps
        offset, mask = self.conv_offset(input).tensor_split([pairs], dim=1)
        mask = mask.sigmoid().unflatten(1, (self.deform_groups, 1, self.taps))
        return self.convolve(self.sample(input, offset) * mask)


def deform_conv_v3(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    *,
    groups: int,
    offset_scale: float = 1.0,
) -> Tensor:
    """Sum the taps of each group of channels, moved and weighted (InternImage, Wang et al., CVPR 2023).

    `x` is (N, H, W, C), `offset` (N, Ho, Wo, groups * taps * 2) in pixels (horizontal, vertical), `mask` the same
    without the 2; taps are numbered by columns. Sizes are (height, width). Returns (N, Ho, Wo, C).
    """
    dtype, offset, mask = x.dtype, offset.float(), mask.float()
    x = F.pad(x.float(), (0, 0, padding[1], padding[1], padding[0], padding[0])).unflatten(3, (groups, -1))
    size = torch.tensor([x.shape[2], x.shape[1]]).to(offset)
    starts, taps = [], []  # of x, then of y
    for axis in (1, 0):
        reach = dilation[axis] * (kernel[axis] - 1) // 2
        starts.append(torch.arange(offset.shape[1 + axis]).to(offset) * stride[axis] + reach)
        taps.append(torch.arange(kernel[axis]).to(offset) * dilation[axis] - reach)
    centres = torch.stack(torch.meshgrid(*starts, indexing="xy"), -1)[:, :, None, None] + 0.5  # Ho, Wo, 1, 1, 2
    relative = torch.stack(torch.meshgrid(*taps, indexing="ij"), -1).flatten(0, 1)  # taps, 2
    moved = offset.unflatten(3, (groups, -1, 2)) + relative
    grid = 2 * (centres + moved * offset_scale) / size - 1  # N, Ho, Wo, groups, taps, 2
    maps = x.permute(0, 3, 4, 1, 2).flatten(0, 1)  # N * groups, C / groups, H, W
    values = F.grid_sample(maps, grid.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).flatten(1, 2), align_corners=False)
    weights = mask.unflatten(3, (groups, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2).unsqueeze(1)
    out = (values * weights).sum(-1).unflatten(0, (-1, groups)).unflatten(-1, offset.shape[1:3])
    return out.permute(0, 3, 4, 1, 2).flatten(3).to(dtype)
