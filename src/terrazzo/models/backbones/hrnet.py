"""High-resolution network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.resnet import BasicBlock, Block, Bottleneck, conv_norm, zero_last_norms
from terrazzo.models.layers import Spec, Upsample, norm_name, resize
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

NAMINGS = (
    Naming(
        "the HRNet release or timm",
        mark=r"incre_modules\.0\.0\.conv1\.weight",
        drop=r"incre_modules\.|downsamp_modules\.|final_layer\.|classifier\.",
    ),
)


BLOCKS: dict[str, type[Block]] = {"BASIC": BasicBlock, "BOTTLENECK": Bottleneck}


def residual_blocks(block: type[Block], in_channels: int, channels: int, count: int, style: Spec) -> nn.Sequential:
    """`count` residual blocks at one resolution, the first with a projected shortcut where the width changes."""
    width = channels * block.expansion
    downsample = None if in_channels == width else nn.Sequential(*conv_norm(style, in_channels, width, 1, 1))
    first = block(in_channels, channels, downsample=downsample, **style)
    return nn.Sequential(first, *(block(width, channels, **style) for _ in range(count - 1)))


class Fusion(nn.Module):
    """Parallel branches of residual blocks, then every branch receives the sum of all, resized to it."""

    def __init__(
        self, block: type[Block], counts: Sequence[int], channels: Sequence[int], outputs: int, style: Spec
    ) -> None:
        super().__init__()
        widths = [width * block.expansion for width in channels]
        self.branches = nn.ModuleList(
            residual_blocks(block, width, inner, count, style)
            for width, inner, count in zip(widths, channels, counts, strict=True)
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(source, target, widths, style) for source in range(len(widths)))
            for target in range(outputs if len(widths) > 1 else 0)
        )

    def path(self, source: int, target: int, widths: Sequence[int], style: Spec) -> nn.Module:
        """From one branch's resolution to another's: upsampled, kept, or by strided convolutions."""
        if source == target:
            return nn.Identity()
        if source > target:
            layers = conv_norm(style, widths[source], widths[target], 1, 1)
            return nn.Sequential(*layers, Upsample(scale_factor=2 ** (source - target)))
        steps = [
            nn.Sequential(*conv_norm(style, widths[source], widths[source], 3, 2), nn.ReLU(inplace=True))
            for _ in range(target - source - 1)
        ]
        return nn.Sequential(*steps, nn.Sequential(*conv_norm(style, widths[source], widths[target], 3, 2)))

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        if len(maps) == 1:
            return maps
        fused = []
        for like, paths in zip(maps, self.fuse_layers, strict=False):
            # an odd size is one larger after halving and doubling: fit it
            parts = [resize(path(x), like=like) for path, x in zip(paths.children(), maps, strict=True)]
            fused.append(F.relu(reduce(torch.add, parts)))
        return fused


@MODELS.register
class HRNet(Backbone):
    """HRNetV2 (Wang et al., TPAMI 2020): parallel resolutions that exchange features throughout -> one map of each.

    `extra` describes `stage1` to `stage4`, each with `num_modules`, `num_branches`, `block` ("BASIC" or "BOTTLENECK"),
    `num_blocks` and `num_channels`. Without `multiscale_output` only the finest map is returned.
    """

    stem_parts = ("conv[12]", "?n[12]")
    stage_parts = ("layer{1}", "stage{1}", "transition{1}")
    namings = NAMINGS

    def __init__(
        self,
        *,
        extra: dict[str, Spec],
        in_channels: int = 3,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = False,
        multiscale_output: bool = True,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.norm_eval = norm_eval
        self.style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "with_cp": with_cp}
        self.add_stem(in_channels)
        widths = self.add_first_stage(**stage_spec(extra, "stage1"))
        for number in (2, 3, 4):
            spec = stage_spec(extra, f"stage{number}")
            widths = self.add_stage(number, widths, all_outputs=multiscale_output or number < 4, **spec)
        if zero_init_residual:
            zero_last_norms(self)

    def add_stem(self, in_channels: int) -> None:
        """Two strided 3x3 convolutions."""
        self.norms = [f"{norm_name(self.style['norm_cfg'])}{number}" for number in (1, 2)]
        for number, (source, name) in enumerate(zip((in_channels, 64), self.norms, strict=True), 1):
            conv, norm = conv_norm(self.style, source, 64, 3, 2)
            self.add_module(f"conv{number}", conv)
            self.add_module(name, norm)
        self.relu = nn.ReLU(inplace=True)

    def add_first_stage(
        self, block: type[Block], num_blocks: Sequence[int], num_channels: Sequence[int], **_: Any
    ) -> list[int]:
        """`layer1`: residual blocks at a quarter of the input's resolution -> the width after it."""
        self.layer1 = residual_blocks(block, 64, num_channels[0], num_blocks[0], self.style)
        return [num_channels[0] * block.expansion]

    def add_stage(
        self,
        number: int,
        widths: list[int],
        *,
        all_outputs: bool,
        block: type[Block],
        num_modules: int,
        num_blocks: Sequence[int],
        num_channels: Sequence[int],
    ) -> list[int]:
        """The transition to one more branch and `stage{number}` -> the width of each branch."""
        targets = [width * block.expansion for width in num_channels]
        self.add_module(f"transition{number - 1}", self.make_transition(widths, targets))
        counts = [len(targets)] * (num_modules - 1) + [len(targets) if all_outputs else 1]
        fusions = [Fusion(block, num_blocks, num_channels, count, self.style) for count in counts]
        self.add_module(f"stage{number}", nn.Sequential(*fusions))
        return targets

    def make_transition(self, widths: list[int], targets: list[int]) -> nn.ModuleList:
        """Adapt the width of each branch; a new branch starts from the coarsest with strided convolutions."""
        layers: list[nn.Module] = []
        for index, target in enumerate(targets):
            if index >= len(widths):
                chain = [widths[-1]] * (index + 1 - len(widths)) + [target]
                steps = [
                    nn.Sequential(*conv_norm(self.style, source, width, 3, 2), nn.ReLU(inplace=True))
                    for source, width in itertools.pairwise(chain)
                ]
                layers.append(nn.Sequential(*steps))
            elif target == widths[index]:
                layers.append(nn.Identity())
            else:
                layers.append(nn.Sequential(*conv_norm(self.style, widths[index], target, 3, 1), nn.ReLU(inplace=True)))
        return nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for number, name in enumerate(self.norms, 1):
            x = self.relu(getattr(self, name)(getattr(self, f"conv{number}")(x)))
        maps = [self.layer1(x)]
        for number in (2, 3, 4):
            transition = getattr(self, f"transition{number - 1}")
            maps = [layer(maps[min(index, len(maps) - 1)]) for index, layer in enumerate(transition)]
            maps = getattr(self, f"stage{number}")(maps)
        return tuple(maps)


def stage_spec(extra: dict[str, Spec], name: str) -> Spec:
    """Return a stage's settings with its block as a class. Raises UserError where they are absent or do not fit."""
    if name not in extra:
        raise UserError(f"HRNet: extra needs stage1 to stage4, but has no '{name}'")
    spec = dict(extra[name])
    branches, kind = spec.pop("num_branches"), spec["block"]
    if kind not in BLOCKS:
        raise UserError(f"HRNet: extra.{name}.block: no block is called '{kind}'{nearest(str(kind), BLOCKS)}")
    for key in ("num_blocks", "num_channels"):
        if len(spec[key]) != branches:
            raise UserError(f"HRNet: extra.{name}.{key} has {len(spec[key])} entries for num_branches={branches}")
    return spec | {"block": BLOCKS[kind]}
