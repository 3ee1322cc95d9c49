"""PIDNet."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.ddrnet import DAPPM, PIDNET_NAMINGS, RELU, BasicBlock, Bottleneck, BranchedNet
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS


class PAPPM(DAPPM):
    """Parallel aggregation pyramid pooling: all pooled branches are refined at once by one grouped convolution."""

    grouped = True

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.pool(x)
        refined = self.processes(torch.cat([pooled + fine for pooled in coarse], dim=1))
        return self.compression(torch.cat([fine, refined], dim=1)) + self.shortcut(x)


class PagFM(nn.Module):
    """Pixel attention guided fusion: take from the context where its features agree with the detail's."""

    def __init__(self, channels: int, inner_channels: int, *, align_corners: bool, norm_cfg: Spec) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.f_i = ConvBlock(channels, inner_channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        self.f_p = ConvBlock(channels, inner_channels, 1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        agreement = self.f_p(detail) * resize(self.f_i(context), like=detail, align_corners=self.align_corners)
        gate = agreement.sum(1, keepdim=True).sigmoid()  # N, 1, H, W
        context = resize(context, like=detail, align_corners=self.align_corners)
        return gate * context + (1 - gate) * detail


class Bag(nn.Module):
    """Boundary attention guided fusion: detail at boundaries, context elsewhere."""

    def __init__(self, channels: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        super().__init__()
        order = ("norm", "act", "conv")
        self.conv = ConvBlock(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg, order=order)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        gate = boundary.sigmoid()
        return self.conv(gate * detail + (1 - gate) * context)


class LightBag(nn.Module):
    """Boundary attention guided fusion with two pointwise convolutions."""

    def __init__(self, channels: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        super().__init__()
        self.f_p = ConvBlock(channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        self.f_i = ConvBlock(channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        gate = boundary.sigmoid()
        return self.f_p((1 - gate) * context + detail) + self.f_i(context + gate * detail)


@MODELS.register
class PIDNet(BranchedNet):
    """PIDNet (Xu et al., CVPR 2023): branches for detail (P), context (I) and boundaries (D), fused at 1/8.

    -> the detail branch (2 * channels) and the boundary branch (2 * channels) for auxiliary losses, and the fused map
    (4 * channels). With two stem blocks it is the S or M model, with more the L model, whose pooling and fusion are
    heavier.
    """

    namings = PIDNET_NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 64,
        ppm_channels: int = 96,
        num_stem_blocks: int = 2,
        num_branch_blocks: int = 3,
        align_corners: bool = False,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = RELU,
        **freezing: Any,
    ) -> None:
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        super().__init__(in_channels, channels, num_stem_blocks, align_corners=align_corners, **style, **freezing)
        linear: Spec = style | {"act_cfg": None}
        light = num_stem_blocks == 2
        width, wide = channels * 2, channels * 8

        # context branch and detail branch
        count = num_branch_blocks
        self.i_branch_layers = self.branch(
            [(BasicBlock, width, width * 2, count), (BasicBlock, width * 2, wide, count), (Bottleneck, wide, wide, 2)],
            stride=2,
        )
        basic = (BasicBlock, width, width, num_stem_blocks)
        self.p_branch_layers = self.branch([basic, basic, (Bottleneck, width, width, 1)])

        # fusion of context into detail
        self.compression_1 = ConvBlock(width * 2, width, 1, **linear)
        self.compression_2 = ConvBlock(wide, width, 1, **linear)
        self.pag_1 = PagFM(width, channels, align_corners=align_corners, norm_cfg=norm_cfg)
        self.pag_2 = PagFM(width, channels, align_corners=align_corners, norm_cfg=norm_cfg)

        # boundary branch, pooling and fusion
        boundary = channels if light else width
        self.d_branch_layers = nn.ModuleList(
            [
                self.block(BasicBlock, width, boundary),
                self.blocks(Bottleneck, boundary, boundary, 1) if light else self.block(BasicBlock, boundary, boundary),
                self.blocks(Bottleneck, width, width, 1),
            ]
        )
        self.diff_1 = ConvBlock(width * 2, boundary, 3, padding=1, **linear)
        self.diff_2 = ConvBlock(wide, width, 3, padding=1, **linear)
        self.spp = (PAPPM if light else DAPPM)(wide * 2, ppm_channels, width * 2, **style)
        self.dfm = (LightBag if light else Bag)(width * 2, **style)

    def project(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return ConvBlock(in_channels, out_channels, 1, stride, norm_cfg=self.style["norm_cfg"], act_cfg=None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = self.stem(x)  # N, 2 * channels, H/8, W/8
        context = F.relu(self.i_branch_layers[0](stem))  # 1/16
        detail = self.pag_1(self.p_branch_layers[0](stem), self.compression_1(context))
        boundary = self.d_branch_layers[0](stem)
        boundary = boundary + self.match_size(self.diff_1(context), boundary)
        half_way = detail

        context = F.relu(self.i_branch_layers[1](context))  # 1/32
        detail = self.pag_2(self.p_branch_layers[1](F.relu(detail)), self.compression_2(context))
        boundary = self.d_branch_layers[1](F.relu(boundary))
        boundary = boundary + self.match_size(self.diff_2(context), boundary)

        context = self.spp(self.i_branch_layers[2](context))  # 1/64
        detail = self.p_branch_layers[2](F.relu(detail))
        edges = self.d_branch_layers[2](F.relu(boundary))
        return half_way, boundary, self.dfm(detail, self.match_size(context, detail), edges)
