"""ResNet and its variants for dense prediction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_conv, build_norm, maybe_checkpoint, norm_name
from terrazzo.models.layers.context_block import build_plugin
from terrazzo.models.layers.init import init_kaiming, init_zeros
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

CLASSIFIER = r"fc\.|head\.|neck\."

NAMINGS = (
    Naming(
        "timm or the ResNeSt release (a deep stem)",
        mark=r"conv1\.0\.weight",
        rules=((r"^conv1\.", "stem."), (r"^bn1\.", "stem.7.")),
        drop=CLASSIFIER,
    ),
    Naming(
        "MMPretrain (a deep stem)",
        mark=r"stem\.0\.conv\.weight",
        rules=(
            (r"^stem\.(\d)\.conv\.", lambda match: f"stem.{3 * int(match[1])}."),
            (r"^stem\.(\d)\.bn\.", lambda match: f"stem.{3 * int(match[1]) + 1}."),
        ),
        drop=CLASSIFIER,
    ),
    Naming("torchvision or timm", mark=r"fc\.weight", drop=CLASSIFIER),
)


POSITIONS = ("after_conv1", "after_conv2", "after_conv3")  # where plugins go in a bottleneck


class Block(nn.Module):
    """The base of residual blocks: norms under numbered names and the shortcut; a subclass adds layers.

    Raises UserError where `dcn` or `plugins` are given for a block that is not a plain bottleneck.
    """

    expansion = 1
    extensible = False  # accepts `dcn` and `plugins`

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        style: str = "pytorch",
        downsample: nn.Module | None = None,
        conv_cfg: Spec | None,
        norm_cfg: Spec,
        with_cp: bool,
        dcn: Spec | None = None,
        plugins: Sequence[Spec] = (),
        **shape: Any,
    ) -> None:
        super().__init__()
        if (dcn or plugins) and not self.extensible:
            raise UserError(
                f"dcn and plugins go into bottlenecks (ResNet-50 and deeper), not into {type(self).__name__}"
            )
        self.conv_cfg, self.norm_cfg, self.with_cp = conv_cfg, norm_cfg, with_cp
        self.dcn, self.plugins = dcn, plugins
        self.norms = [f"{norm_name(norm_cfg)}{number}" for number in (1, 2, 3)]
        self.relu = nn.ReLU(inplace=True)
        self.add_layers(in_channels, channels, stride, dilation, style, **shape)
        self.downsample = downsample

    def add_layers(self, *args: Any, **shape: Any) -> None:
        """Add the layers of the residual branch, from input channels, channels, stride, dilation and style."""
        raise NotImplementedError

    def add_conv(
        self, number: int, in_channels: int, out_channels: int, size: int, dcn: Spec | None = None, **options: Any
    ) -> None:
        """`conv{number}` without a bias, deformable with `dcn`, and the norm after it."""
        conv = build_conv(dcn or self.conv_cfg, in_channels, out_channels, size, bias=False, **options)
        init_kaiming(conv)
        self.add_module(f"conv{number}", conv)
        self.add_module(self.norms[number - 1], build_norm(self.norm_cfg, out_channels))

    def conv_norm(self, number: int, x: Tensor) -> Tensor:
        return getattr(self, self.norms[number - 1])(getattr(self, f"conv{number}")(x))

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def add_shortcut(self, x: Tensor) -> Tensor:
        return self.residual(x) + (x if self.downsample is None else self.downsample(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(maybe_checkpoint(self.add_shortcut, x, enabled=self.with_cp))


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    def add_layers(self, in_channels: int, channels: int, stride: int, dilation: int, style: str) -> None:
        self.add_conv(1, in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation)
        self.add_conv(2, channels, channels, 3, padding=1)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv_norm(2, self.relu(self.conv_norm(1, x)))


class Bottleneck(Block):
    """1x1, 3x3, 1x1; the stride is on the 3x3 ("pytorch" style) or on the first 1x1 ("caffe").

    The 3x3 convolution may have `groups` of `base_width` channels at 64 channels of the stage.
    """

    expansion = 4
    extensible = True

    def add_layers(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        style: str,
        groups: int = 1,
        base_width: float = 64,
    ) -> None:
        first, second = (1, stride) if style == "pytorch" else (stride, 1)
        width = grouped_width(channels, groups, base_width)
        self.add_conv(1, in_channels, width, 1, stride=first)
        options: Spec = {"stride": second, "padding": dilation, "dilation": dilation, "groups": groups}
        self.add_conv(2, width, width, 3, dcn=self.deformable(second), **options)
        self.add_conv(3, width, channels * self.expansion, 1)
        self.plugged = {
            position: self.add_plugins(position, channels)
            for position, channels in zip(POSITIONS, (width, width, channels * self.expansion), strict=True)
        }

    def deformable(self, stride: int) -> Spec | None:
        """The 3x3 convolution's `dcn`; with `fallback_on_stride` a strided one stays plain."""
        if self.dcn is None or (self.dcn.get("fallback_on_stride") and stride > 1):
            return None
        return {key: value for key, value in self.dcn.items() if key != "fallback_on_stride"}

    def add_plugins(self, position: str, channels: int) -> list[str]:
        """Add the layers that the config puts at a position, and return their names in its order."""
        names = []
        for plugin in self.plugins:
            if plugin["position"] == position:
                name, layer = build_plugin(plugin["cfg"], channels)
                self.add_module(name, layer)
                names.append(name)
        return names

    def plug(self, position: str, x: Tensor) -> Tensor:
        for name in self.plugged[position]:
            x = getattr(self, name)(x)
        return x

    def residual(self, x: Tensor) -> Tensor:
        x = self.plug("after_conv1", self.relu(self.conv_norm(1, x)))
        x = self.plug("after_conv2", self.relu(self.conv_norm(2, x)))
        return self.plug("after_conv3", self.conv_norm(3, x))


def grouped_width(channels: int, groups: int, base_width: float) -> int:
    """Return the channels of a grouped 3x3 convolution; one group is a plain bottleneck."""
    return channels if groups == 1 else int(channels * base_width / 64) * groups


def conv_norm(style: Spec, in_channels: int, out_channels: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A bias-free convolution, padded by half its size, and its norm."""
    conv = build_conv(style["conv_cfg"], in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
    init_kaiming(conv)
    return [conv, build_norm(style["norm_cfg"], out_channels)]


def zero_last_norms(module: nn.Module) -> None:
    """Start the residual branch of every block inside at zero."""
    for block in module.modules():
        if isinstance(block, Block):
            init_zeros(getattr(block, block.norms[2 if block.expansion == 4 else 1]))


def stage_plugins(plugins: Sequence[Spec], index: int, num_stages: int) -> list[Spec]:
    """Return the plugins of one stage; those without `stages` go into all. Raises UserError for wrong ones."""
    for plugin in plugins:
        if plugin.get("position") not in POSITIONS:
            raise UserError(f"plugins: position is one of {', '.join(POSITIONS)}, not {plugin.get('position')!r}")
        if len(plugin.get("stages") or range(num_stages)) != num_stages:
            raise UserError(
                f"plugins: stages needs a yes or no for each of the {num_stages} stages, not {plugin['stages']}"
            )
    return [plugin for plugin in plugins if not plugin.get("stages") or plugin["stages"][index]]


ARCHITECTURES: dict[int, tuple[type[Block], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


@MODELS.register
class ResNet(Backbone):
    """ResNet (He et al., CVPR 2016) -> the maps of `out_indices`.

    Dilated stages keep their resolution (`strides`, `dilations`); with `contract_dilation` a stage's first block has
    half its dilation; `multi_grid` gives the last stage's dilations block by block. `deep_stem` and `avg_down` are the
    C and D variants of "Bag of Tricks" (He et al., CVPR 2019). `dcn` makes 3x3 convolutions deformable in the stages of
    `stage_with_dcn`; `plugins` are `{"cfg": ..., "position": ..., "stages": ...}`, layers inside the bottlenecks.
    Raises UserError for an unknown depth or position.
    """

    stem_parts = ("stem", "conv1", "?n1")
    stage_parts = ("layer{1}",)
    namings = NAMINGS

    architectures = ARCHITECTURES
    block_shape: Spec = {}  # noqa: RUF012 - further arguments of the blocks, never written to
    keeps_specs = ("dcn", "plugins")

    def __init__(
        self,
        *,
        depth: int,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        norm_eval: bool = False,
        dcn: Spec | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: Sequence[Spec] | None = None,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)

        # architecture
        if depth not in self.architectures:
            raise UserError(f"{type(self).__name__} has no depth {depth}; available are {list(self.architectures)}")
        self.block, counts = self.architectures[depth]
        self.options: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        self.deep_stem, self.avg_down = deep_stem, avg_down
        self.out_indices, self.norm_eval = out_indices, norm_eval

        # stem
        self.add_stem(in_channels, stem_channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        # stages
        self.stages = [f"layer{number}" for number in range(1, num_stages + 1)]
        width = stem_channels
        for index, name in enumerate(self.stages):
            block_dilations = [dilations[index]] * counts[index]
            if multi_grid and index == num_stages - 1:
                block_dilations = list(multi_grid)[: counts[index]]
            elif contract_dilation and dilations[index] > 1:
                block_dilations[0] //= 2
            options: Spec = {
                "style": style,
                "with_cp": with_cp,
                "dcn": dcn if stage_with_dcn[index] else None,
                "plugins": stage_plugins(plugins or (), index, num_stages),
            }
            channels = base_channels * 2**index
            self.add_module(name, self.make_stage(width, channels, strides[index], block_dilations, **options))
            width = channels * self.block.expansion

        # weights
        if zero_init_residual:
            zero_last_norms(self)

    def add_stem(self, in_channels: int, channels: int) -> None:
        """One 7x7 convolution, or three 3x3 ones under `stem`."""
        if self.deep_stem:
            widths = pairwise([in_channels, channels // 2, channels // 2, channels])
            layers = [
                [*conv_norm(self.options, source, width, 3, stride=1 if index else 2), nn.ReLU(inplace=True)]
                for index, (source, width) in enumerate(widths)
            ]
            self.stem = nn.Sequential(*chain.from_iterable(layers))
            return
        self.norm1_name = f"{norm_name(self.options['norm_cfg'])}1"
        self.conv1, norm = conv_norm(self.options, in_channels, channels, 7, stride=2)
        self.add_module(self.norm1_name, norm)
        self.relu = nn.ReLU(inplace=True)

    def make_stage(
        self, in_channels: int, channels: int, stride: int, dilations: Sequence[int], **options: Any
    ) -> nn.Sequential:
        """A block for each dilation, the first with the stride and a projected shortcut."""
        options |= self.options | self.block_shape
        width = channels * self.block.expansion
        shortcut = self.make_shortcut(in_channels, width, stride) if stride != 1 or in_channels != width else None
        first = self.block(in_channels, channels, stride=stride, dilation=dilations[0], downsample=shortcut, **options)
        return nn.Sequential(first, *(self.block(width, channels, dilation=rate, **options) for rate in dilations[1:]))

    def make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        """1x1 convolution and norm, after average pooling in the D variant."""
        if not self.avg_down:
            return nn.Sequential(*conv_norm(self.options, in_channels, out_channels, 1, stride))
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, *conv_norm(self.options, in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x) if self.deep_stem else self.relu(getattr(self, self.norm1_name)(self.conv1(x)))
        return self.run_stages(self.maxpool(x))


@MODELS.register
class ResNetV1c(ResNet):
    """ResNet with three 3x3 convolutions as its stem."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**(kwargs | {"deep_stem": True, "avg_down": False}))


@MODELS.register
class ResNetV1d(ResNet):
    """ResNetV1c whose strided shortcuts pool first."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**(kwargs | {"deep_stem": True, "avg_down": True}))
