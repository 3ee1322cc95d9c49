"""PoolFormer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import FreezableBackbone
from terrazzo.models.layers import Spec, build_activation, build_norm
from terrazzo.models.layers.init import init_truncated
from terrazzo.models.layers.tokens import lay_for_depthwise
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

NAMINGS = (
    Naming("the PoolFormer release", mark=r"norm\.weight", rules=((r"^norm\.", "norm6."),), drop=r"head\."),
    Naming(
        "timm",
        mark=r"stages\.0\.blocks\.0\.layer_scale1\.scale",
        rules=(
            (r"^stem\.conv\.", "patch_embed.proj."),
            (r"^stages\.(\d)\.downsample\.conv\.", lambda match: f"network.{2 * int(match[1]) - 1}.proj."),
            (r"^stages\.(\d)\.blocks\.", lambda match: f"network.{2 * int(match[1])}."),
            (r"\.layer_scale([12])\.scale$", r".layer_scale_\1"),
            (r"^head\.norm\.", "norm6."),
        ),
        drop=r"head\.fc\.",
    ),
)


class Architecture(NamedTuple):
    """Blocks, channels and feed-forward expansion of each stage, and what the scales of the branches start at."""

    layers: Sequence[int]
    embed_dims: Sequence[int]
    mlp_ratios: Sequence[float] = (4, 4, 4, 4)
    layer_scale_init_value: float = 1e-6


ARCHITECTURES = {
    "s12": Architecture((2, 2, 6, 2), (64, 128, 320, 512), layer_scale_init_value=1e-5),
    "s24": Architecture((4, 4, 12, 4), (64, 128, 320, 512), layer_scale_init_value=1e-5),
    "s36": Architecture((6, 6, 18, 6), (64, 128, 320, 512)),
    "m36": Architecture((6, 6, 18, 6), (96, 192, 384, 768)),
    "m48": Architecture((8, 8, 24, 8), (96, 192, 384, 768)),
}


class PatchEmbedding(nn.Module):
    """A strided convolution."""

    def __init__(self, in_channels: int, channels: int, patch_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class FeedForward(nn.Module):
    """Two 1x1 convolutions with an activation between them."""

    def __init__(self, channels: int, hidden: int, *, act_cfg: Spec, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class PoolFormerBlock(nn.Module):
    """Pre-norm: average pooling (less the input) instead of attention, then the feed-forward network."""

    def __init__(
        self,
        channels: int,
        *,
        pool_size: int,
        mlp_ratio: float,
        norm_cfg: Spec,
        act_cfg: Spec,
        drop_rate: float,
        drop_path_rate: float,
        layer_scale_init_value: float,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm(norm_cfg, channels)
        self.token_mixer = nn.AvgPool2d(pool_size, stride=1, padding=pool_size // 2, count_include_pad=False)
        self.norm2 = build_norm(norm_cfg, channels)
        self.mlp = FeedForward(channels, int(channels * mlp_ratio), act_cfg=act_cfg, drop=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), layer_scale_init_value))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), layer_scale_init_value))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        mixed = self.token_mixer(normed) - normed
        x = torch.addcmul(x, self.drop_path(mixed), self.layer_scale_1[:, None, None])
        return torch.addcmul(x, self.drop_path(self.mlp(self.norm2(x))), self.layer_scale_2[:, None, None])


@MODELS.register
class PoolFormer(FreezableBackbone):
    """PoolFormer (Yu et al., CVPR 2022) -> the normalised maps of `out_indices`.

    `arch` is a name, or a dict of `layers`, `embed_dims`, `mlp_ratios` and `layer_scale_init_value`. The network's
    stages are numbered 0, 2, 4, 6, with the downsampling between them. `frozen_stages` freezes the patch
    embedding (from 0 on) and so many parts of the network. Raises UserError for an unknown name.
    """

    namings = NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        arch: str | dict[str, Any] = "s12",
        pool_size: int = 3,
        norm_cfg: Spec = {"type": "GN", "num_groups": 1},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        in_patch_size: int = 7,
        in_stride: int = 4,
        in_pad: int = 2,
        down_patch_size: int = 3,
        down_stride: int = 2,
        down_pad: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()

        # architecture
        if isinstance(arch, str) and arch not in ARCHITECTURES:
            raise UserError(f"PoolFormer: no arch is called '{arch}'{nearest(arch, ARCHITECTURES)}")
        layers, widths, ratios, scale = ARCHITECTURES[arch] if isinstance(arch, str) else Architecture(**arch)
        self.frozen_stages = frozen_stages
        self.patch_embed = PatchEmbedding(in_channels, widths[0], in_patch_size, in_stride, in_pad)

        # stages, with a downsampling before each but the first
        self.network = nn.ModuleList()
        rates = iter(drop_path_rates(drop_path_rate, sum(layers)))
        for stage, depth in enumerate(layers):
            if stage > 0:
                previous = widths[stage - 1]
                self.network.append(PatchEmbedding(previous, widths[stage], down_patch_size, down_stride, down_pad))
            blocks = [
                PoolFormerBlock(
                    widths[stage],
                    pool_size=pool_size,
                    mlp_ratio=ratios[stage],
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                    drop_rate=drop_rate,
                    drop_path_rate=next(rates),
                    layer_scale_init_value=scale,
                )
                for _ in range(depth)
            ]
            self.network.append(nn.Sequential(*blocks))

        # norms of the outputs
        indices = [out_indices] if isinstance(out_indices, int) else out_indices
        self.out_indices = [index % len(self.network) for index in indices]
        for index in self.out_indices:
            self.add_module(f"norm{index}", build_norm(norm_cfg, widths[(index + 1) // 2]))

        # weights
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_truncated(module)
        self.freeze()

    def frozen_parts(self) -> Iterable[nn.Module]:
        """The patch embedding (from 0 on) and the first `frozen_stages` parts and their norms."""
        if self.frozen_stages >= 0:
            yield self.patch_embed
            yield from self.network[: self.frozen_stages].children()
            yield from (getattr(self, f"norm{index}") for index in self.out_indices if index < self.frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # torch 2.13 crashes in the backward pass of a group norm whose input is channels-last and needs no gradient
        x = self.patch_embed(x.contiguous() if torch.is_grad_enabled() else lay_for_depthwise(x))
        outputs = []
        for index, part in enumerate(self.network):
            x = part(x)
            if index in self.out_indices:
                outputs.append(getattr(self, f"norm{index}")(x))
        return tuple(outputs)
