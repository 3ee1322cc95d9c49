"""ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_activation, build_norm, maybe_checkpoint
from terrazzo.models.layers.init import init_truncated
from terrazzo.models.layers.resize import at_least
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

NAMINGS = (
    Naming(
        "Meta's release",
        mark=r"stages\.0\.0\.dwconv\.weight",
        rules=(
            (r"\.dwconv\.", ".depthwise_conv."),
            (r"\.pwconv([12])\.", r".pointwise_conv\1."),
            (r"^norm\.", "norm3."),
        ),
        drop=r"head\.",
    ),
    Naming(
        "timm",
        mark=r"stages\.0\.blocks\.0\.conv_dw\.weight",
        rules=(
            (r"^stem\.", "downsample_layers.0."),
            (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
            (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
            (r"\.conv_dw\.", ".depthwise_conv."),
            (r"\.mlp\.fc([12])\.", r".pointwise_conv\1."),
            (r"\.mlp\.grn\.weight$", ".grn.gamma"),
            (r"\.mlp\.grn\.bias$", ".grn.beta"),
            (r"^head\.norm\.", "norm3."),
        ),
        drop=r"head\.(fc|pre_logits)\.",
    ),
    Naming(
        "torchvision",
        mark=r"features\.1\.0\.block\.0\.weight",
        rules=(
            (r"^features\.([0246])\.(?=[01]\.)", lambda match: f"downsample_layers.{int(match[1]) // 2}."),
            (r"^features\.([1357])\.", lambda match: f"stages.{int(match[1]) // 2}."),
            (r"\.block\.0\.", ".depthwise_conv."),
            (r"\.block\.2\.", ".norm."),
            (r"\.block\.3\.", ".pointwise_conv1."),
            (r"\.block\.5\.", ".pointwise_conv2."),
            (r"\.layer_scale$", ".gamma"),
            (r"^classifier\.0\.", "norm3."),
        ),
        drop=r"classifier\.2\.",
    ),
)


# blocks and channels of each stage
ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its share of the response (ConvNeXt V2, Woo et al., CVPR 2023); (N, H, W, C)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        response = x.norm(dim=(1, 2), keepdim=True)
        share = response / (response.mean(dim=-1, keepdim=True) + self.eps)
        return x + torch.addcmul(self.beta, self.gamma, x * share)


class ConvNeXtBlock(nn.Module):
    """A wide depthwise convolution, norm, and two pointwise layers, scaled by channel; channels-last in memory."""

    def __init__(
        self,
        channels: int,
        *,
        norm_cfg: Spec,
        act_cfg: Spec,
        linear_pw_conv: bool,
        use_grn: bool,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp, self.linear_pw_conv = with_cp, linear_pw_conv
        hidden = 4 * channels
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = build_norm(norm_cfg, channels)
        self.pointwise_conv1 = self.pointwise(channels, hidden)
        self.act = build_activation(act_cfg)
        self.grn = GlobalResponseNorm(hidden) if use_grn else None
        self.pointwise_conv2 = self.pointwise(hidden, channels)
        self.gamma = None
        if layer_scale_init_value > 0:
            self.gamma = nn.Parameter(torch.full((channels,), float(layer_scale_init_value)))
        self.drop_path = DropPath(drop_path_rate)

    def pointwise(self, in_channels: int, out_channels: int) -> nn.Module:
        """A layer on the last axis, or a 1x1 convolution."""
        return nn.Linear(in_channels, out_channels) if self.linear_pw_conv else nn.Conv2d(in_channels, out_channels, 1)

    def mix_channels(self, x: Tensor) -> Tensor:
        """The pointwise layers: (N, C, H, W) -> the residual branch (N, H, W, C)."""
        if self.linear_pw_conv:
            x = x.permute(0, 2, 3, 1)
        x = self.act(self.pointwise_conv1(x))
        if self.grn is not None:
            x = self.grn(x) if self.linear_pw_conv else self.grn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.pointwise_conv2(x)
        return x if self.linear_pw_conv else x.permute(0, 2, 3, 1)

    def residual(self, x: Tensor) -> Tensor:
        shortcut = x.permute(0, 2, 3, 1)
        x = self.drop_path(self.mix_channels(self.norm(self.depthwise_conv(x))))
        x = shortcut + x if self.gamma is None else torch.addcmul(shortcut, x, self.gamma)
        return x.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.residual, x, enabled=self.with_cp)


@MODELS.register
class ConvNeXt(Backbone):
    """ConvNeXt (Liu et al., CVPR 2022) -> the normalised maps of `out_indices`, or their averages (N, C).

    `arch` is a name, or a dict of `depths` and `channels`. Raises UserError for an unknown name.
    """

    stage_parts = ("downsample_layers.{0}", "stages.{0}")
    namings = NAMINGS

    def __init__(
        self,
        *,
        arch: str | dict[str, Sequence[int]] = "tiny",
        in_channels: int = 3,
        stem_patch_size: int = 4,
        norm_cfg: Spec = {"type": "LN2d", "eps": 1e-6},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        linear_pw_conv: bool = True,
        use_grn: bool = False,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: int | Sequence[int] = -1,
        gap_before_final_norm: bool = True,
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)

        # architecture
        depths, widths = architecture(arch)
        self.stem_patch_size = stem_patch_size
        self.gap_before_final_norm = gap_before_final_norm
        indices = [out_indices] if isinstance(out_indices, int) else out_indices
        self.out_indices = [index % len(depths) for index in indices]

        # stages: downsampling, then blocks
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        options: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg, "use_grn": use_grn, "with_cp": with_cp}
        options |= {"linear_pw_conv": linear_pw_conv, "layer_scale_init_value": layer_scale_init_value}
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage == 0:
                stem = nn.Conv2d(in_channels, width, stem_patch_size, stride=stem_patch_size)
                self.downsample_layers.append(nn.Sequential(stem, build_norm(norm_cfg, width)))
            else:
                previous = widths[stage - 1]
                shrink = nn.Conv2d(previous, width, 2, stride=2)
                self.downsample_layers.append(nn.Sequential(build_norm(norm_cfg, previous), shrink))
            blocks = [ConvNeXtBlock(width, drop_path_rate=next(rates), **options) for _ in range(depth)]
            self.stages.append(nn.Sequential(*blocks))

        # norms of the outputs
        for index in self.out_indices:
            self.add_module(f"norm{index}", build_norm(norm_cfg, widths[index]))

        # weights
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init_truncated(module)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(downsample(at_least(x, self.stem_patch_size if index == 0 else 2)))
            if index not in self.out_indices:
                continue
            norm = getattr(self, f"norm{index}")
            if self.gap_before_final_norm:
                outputs.append(norm(x.mean((2, 3), keepdim=True)).flatten(1))
            else:
                outputs.append(norm(x))
        return tuple(outputs)


def architecture(arch: str | dict[str, Sequence[int]]) -> tuple[Sequence[int], Sequence[int]]:
    """Return depths and channels of a named architecture, or those of a dict."""
    if isinstance(arch, dict):
        if set(arch) != {"depths", "channels"}:
            raise UserError(f"ConvNeXt: an arch dict has the keys depths and channels, not {', '.join(arch)}")
        return arch["depths"], arch["channels"]
    if arch not in ARCHITECTURES:
        raise UserError(f"ConvNeXt: no arch is called '{arch}'{nearest(str(arch), ARCHITECTURES)}")
    return ARCHITECTURES[arch]
