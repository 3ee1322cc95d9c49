"""PoolFormer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.mscan import ConvFeedForward, ScaledBlock
from terrazzo.models.layers import Spec, build_norm
from terrazzo.models.layers.init import init_truncated
from terrazzo.models.layers.tokens import lay_for_depthwise
from terrazzo.models.layers.training import drop_path_rates
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


def patch_embedding(in_channels: int, channels: int, size: int, stride: int, padding: int) -> nn.Sequential:
    """A strided convolution."""
    return nn.Sequential(OrderedDict(proj=nn.Conv2d(in_channels, channels, size, stride, padding)))


class PoolMixer(nn.Module):
    """Average pooling less the input, instead of attention."""

    def __init__(self, pool_size: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(pool_size, stride=1, padding=pool_size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


@MODELS.register
class PoolFormer(Backbone):
    """PoolFormer (Yu et al., CVPR 2022) -> the normalised maps of `out_indices`.

    `arch` is a name, or a dict of `layers`, `embed_dims`, `mlp_ratios` and `layer_scale_init_value`. The network's
    stages are numbered 0, 2, 4, 6, with the downsampling between them. `frozen_stages` freezes the patch
    embedding (from 0 on) and so many parts of the network. Raises UserError for an unknown name.
    """

    stem_parts = ("patch_embed",)
    stage_parts = ("network.{0}", "norm{0}")
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
        super().__init__(frozen_stages=frozen_stages)

        # architecture
        if isinstance(arch, str) and arch not in ARCHITECTURES:
            raise UserError(f"PoolFormer: no arch is called '{arch}'{nearest(arch, ARCHITECTURES)}")
        layers, widths, ratios, scale = ARCHITECTURES[arch] if isinstance(arch, str) else Architecture(**arch)
        self.patch_embed = patch_embedding(in_channels, widths[0], in_patch_size, in_stride, in_pad)

        # stages, with a downsampling before each but the first
        self.network = nn.ModuleList()
        rates = iter(drop_path_rates(drop_path_rate, sum(layers)))
        for stage, depth in enumerate(layers):
            if stage > 0:
                previous = widths[stage - 1]
                self.network.append(patch_embedding(previous, widths[stage], down_patch_size, down_stride, down_pad))
            width, blocks = widths[stage], []
            for _ in range(depth):
                mlp = ConvFeedForward(
                    width, int(width * ratios[stage]), act_cfg=act_cfg, drop=drop_rate, depthwise=False
                )
                options: Spec = {"norm_cfg": norm_cfg, "drop_path_rate": next(rates), "scale": scale}
                blocks.append(ScaledBlock(width, PoolMixer(pool_size), mlp, **options))
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

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # torch 2.13 crashes in the backward pass of a group norm whose input is channels-last and needs no gradient
        x = self.patch_embed(x.contiguous() if torch.is_grad_enabled() else lay_for_depthwise(x))
        outputs = []
        for index, part in enumerate(self.network):
            x = part(x)
            if index in self.out_indices:
                outputs.append(getattr(self, f"norm{index}")(x))
        return tuple(outputs)
