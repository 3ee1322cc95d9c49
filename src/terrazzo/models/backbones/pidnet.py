"""PIDNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.ddrnet import DAPPM, PIDNET_NAMINGS, RELU, BasicBlock, Bottleneck, ResidualBlock
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
class PIDNet(nn.Module):
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
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.style = style
        linear: Spec = style | {"act_cfg": None}

        # stem to 1/8
        width = channels
        light = num_stem_blocks == 2
        self.stem = nn.Sequential(
            ConvBlock(in_channels, width, 3, stride=2, padding=1, **style),
            ConvBlock(width, width, 3, stride=2, padding=1, **style),
            self.blocks(BasicBlock, width, width, num_stem_blocks),
            nn.ReLU(),
            self.blocks(BasicBlock, width, width * 2, num_stem_blocks, stride=2),
            nn.ReLU(),
        )

        # context branch and detail branch
        self.i_branch_layers = nn.ModuleList(
            [
                self.blocks(BasicBlock, width * 2, width * 4, num_branch_blocks, stride=2),
                self.blocks(BasicBlock, width * 4, width * 8, num_branch_blocks, stride=2),
                self.blocks(Bottleneck, width * 8, width * 8, 2, stride=2),
            ]
        )
        self.p_branch_layers = nn.ModuleList(
            [
                self.blocks(BasicBlock, width * 2, width * 2, num_stem_blocks),
                self.blocks(BasicBlock, width * 2, width * 2, num_stem_blocks),
                self.blocks(Bottleneck, width * 2, width * 2, 1),
            ]
        )

        # fusion of context into detail
        self.compression_1 = ConvBlock(width * 4, width * 2, 1, **linear)
        self.compression_2 = ConvBlock(width * 8, width * 2, 1, **linear)
        self.pag_1 = PagFM(width * 2, width, align_corners=align_corners, norm_cfg=norm_cfg)
        self.pag_2 = PagFM(width * 2, width, align_corners=align_corners, norm_cfg=norm_cfg)

        # boundary branch, pooling and fusion
        boundary = width if light else width * 2
        self.d_branch_layers = nn.ModuleList(
            [
                self.block(BasicBlock, width * 2, boundary),
                self.blocks(Bottleneck, width, width, 1) if light else self.block(BasicBlock, boundary, boundary),
                self.blocks(Bottleneck, width * 2, width * 2, 1),
            ]
        )
        self.diff_1 = ConvBlock(width * 4, boundary, 3, padding=1, **linear)
        self.diff_2 = ConvBlock(width * 8, width * 2, 3, padding=1, **linear)
        self.spp = (PAPPM if light else DAPPM)(width * 16, ppm_channels, width * 4, **style)
        self.dfm = (LightBag if light else Bag)(width * 4, **style)

    def block(
        self, block: type[ResidualBlock], in_channels: int, channels: int, stride: int = 1, activate: bool = False
    ) -> nn.Module:
        """One residual block, its shortcut projected where the shape changes."""
        width = channels * block.expansion
        downsample = None
        if stride != 1 or in_channels != width:
            downsample = ConvBlock(in_channels, width, 1, stride, norm_cfg=self.style["norm_cfg"], act_cfg=None)
        return block(in_channels, channels, stride=stride, downsample=downsample, activate=activate, **self.style)

    def blocks(
        self, block: type[ResidualBlock], in_channels: int, channels: int, count: int, stride: int = 1
    ) -> nn.Module:
        """A chain of blocks; basic ones are activated between them, and not after the last."""
        width = channels * block.expansion
        layers = [self.block(block, in_channels, channels, stride, activate=block is BasicBlock and count > 1)]
        layers += [self.block(block, width, channels, activate=index < count - 1) for index in range(1, count)]
        return nn.Sequential(*layers)

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

    def match_size(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like=like, align_corners=self.align_corners)
