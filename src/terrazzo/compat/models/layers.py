"""Layers as mmcv builds them: `build_*_layer`, `ConvModule`, and functions of maps and tokens."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from terrazzo.compat.models.module import constant_init, kaiming_init
from terrazzo.compat.registry import KEEPERS, MODELS
from terrazzo.models import layers as ours
from terrazzo.models.layers import norm as norms
from terrazzo.models.layers import self_attention, training
from terrazzo.models.layers.activation import ACTIVATIONS, ScaledHardSigmoid
from terrazzo.models.layers.conv import CONVS, AdaptivePaddingConv2d, ConvBlock, DepthwiseSeparableConvBlock
from terrazzo.models.layers.norm import NORMS, LayerNorm2d

NAMES = "Conv2d Conv3d ConvTranspose2d ConvTranspose3d Linear MaxPool2d MaxPool3d"
TABLE: dict[str, Any] = {
    **{name: getattr(nn, name) for name in NAMES.split()},
    "HSwish": nn.Hardswish, "Swish": nn.SiLU, "HSigmoid": ScaledHardSigmoid,
    "LN2d": LayerNorm2d, "LayerNorm2d": LayerNorm2d, "Conv2dAdaptivePadding": AdaptivePaddingConv2d,
    "_BatchNorm": _BatchNorm, "_InstanceNorm": _InstanceNorm,
}  # fmt: skip
PADDINGS = {"zero": nn.ZeroPad2d, "reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
UPSAMPLINGS = {
    "nearest": functools.partial(nn.Upsample, mode="nearest"),
    "bilinear": functools.partial(nn.Upsample, mode="bilinear"),
    "deconv": nn.ConvTranspose2d,
}
OTHER: dict[str, Any] = {"deconv": nn.ConvTranspose2d, "Dropout": nn.Dropout, "Linear": nn.Linear}


class SyncBatchNorm(norms.SyncBatchNorm):
    """Batch norm over all processes of maps, of tokens (N, C, L) and of vectors (N, C)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 4:
            return super().forward(input)
        return super().forward(input.reshape(*input.shape[:2], -1, 1)).view(input.shape)


SYNCHRONISED = dict.fromkeys(("SyncBN", "SyncBatchNorm", "MMSyncBN"), (SyncBatchNorm, "bn"))


def _parts_of(cfg: Mapping[str, Any] | None, table: Mapping[str, Any], what: str) -> tuple[Any, dict[str, Any]]:
    """The layer that a config names, in a table or one that a user registered, and its options. Raises KeyError."""
    if not isinstance(cfg, Mapping):
        raise TypeError(f"cfg must be a dict, but got {type(cfg)}")
    options = {key: value for key, value in cfg.items() if key not in ("type", "_scope_")}
    if "type" not in cfg:
        raise KeyError('the cfg dict must contain the key "type"')
    kind = cfg["type"].rpartition(".")[2] if isinstance(cfg["type"], str) else cfg["type"]
    found = kind if not isinstance(kind, str) else MODELS.module_dict.get(kind) or table.get(kind)
    if found is None:
        raise KeyError(f"Cannot find {kind} in registry under the {what}s")
    return found, options


def builder(table: Mapping[str, Any], what: str, default: str = "") -> Callable[..., Any]:
    """A function that builds the layer of a config from a table or a user's classes, of one type without a config."""

    def build(cfg: Any, *args: Any, default_args: Any = None, **kwargs: Any) -> Any:
        given = {"type": default} if cfg is None and default else cfg
        layer, options = _parts_of({**default_args, **given} if default_args else given, table, what)
        return layer(*args, **kwargs, **options)

    return build


build_conv_layer = builder(CONVS, "conv layer", "Conv2d")
build_padding_layer = builder(PADDINGS, "padding layer")
build_upsample_layer = builder(UPSAMPLINGS, "upsample layer")


def infer_abbr(class_type: type) -> str:
    """The name of a norm, or of a plugin, inside a block: "bn" for batch norms."""
    if not inspect.isclass(class_type):
        raise TypeError(f"class_type must be a type, but got {type(class_type)}")
    if hasattr(class_type, "_abbr_"):
        return class_type._abbr_
    for base, name in ((_InstanceNorm, "in"), (_BatchNorm, "bn"), (nn.GroupNorm, "gn"), (nn.LayerNorm, "ln")):
        if issubclass(class_type, base):
            return name
    words = {"batch": "bn", "group": "gn", "layer": "ln", "instance": "in"}
    return next((short for word, short in words.items() if word in class_type.__name__.lower()), "norm_layer")


def build_norm_layer(cfg: Any, num_features: int, postfix: int | str = "") -> tuple[str, nn.Module]:
    """A norm's name in its module, with a postfix, and the norm."""
    entry, options = _parts_of(cfg, NORMS | SYNCHRONISED, "norm layer")
    layer, name = entry if isinstance(entry, tuple) else (entry, infer_abbr(entry))
    trained = options.pop("requires_grad", True)
    options.setdefault("eps", 1e-5)
    grouped = issubclass(layer, nn.GroupNorm)
    norm = layer(num_channels=num_features, **options) if grouped else layer(num_features, **options)
    for parameter in norm.parameters():
        parameter.requires_grad = trained
    return f"{name}{postfix}", norm


def build_activation_layer(cfg: Any) -> nn.Module:
    """An activation, with `inplace` where it can be."""
    table = ACTIVATIONS | {name: kind for name, kind in vars(nn).items() if name not in ACTIVATIONS}
    layer, options = _parts_of(cfg or {"type": "ReLU"}, table, "activation layer")
    if "inplace" not in inspect.signature(layer).parameters:
        options.pop("inplace", None)
    return layer(**options)


def build_plugin_layer(cfg: Any, postfix: int | str = "", **kwargs: Any) -> tuple[str, nn.Module]:
    """A plugin's name in its block, with a postfix, and the plugin."""
    layer, options = _parts_of(cfg, OTHER, "plugin layer")
    abbreviation = getattr(layer, "_abbr_", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", layer.__name__).lower()
    return f"{abbreviation}{postfix}", layer(**kwargs, **options)


class DropPath(training.DropPath):
    """Drop a residual branch for whole samples (Huang et al., ECCV 2016)."""

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__(drop_prob)


class Dropout(nn.Dropout):
    """nn.Dropout whose probability is called `drop_prob`."""

    def __init__(self, drop_prob: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p=drop_prob, inplace=inplace)


build_dropout = builder({"DropPath": DropPath, "Dropout": Dropout, "Dropout2d": nn.Dropout2d}, "dropout layer")
SIZES = "in_channels out_channels kernel_size stride padding dilation transposed output_padding groups"
BY_POSITION = (
    "in_channels out_channels kernel_size stride padding dilation groups bias conv_cfg norm_cfg act_cfg inplace"
)


class ConvModule(ConvBlock):
    """Convolution, norm and activation in `order`; without a norm the convolution has a bias."""

    _abbr_ = "conv_block"
    with_explicit_padding = with_spectral_norm = False
    conv_cfg: Any = None
    norm_cfg: Any = None
    act_cfg: Any = None

    def __init__(
        self, *args: Any, with_spectral_norm: bool = False, padding_mode: str = "zeros", **kwargs: Any
    ) -> None:
        given = {"act_cfg": {"type": "ReLU"}, **dict(zip(BY_POSITION.split(), args, strict=False)), **kwargs}
        padding, explicit = given.get("padding", 0), padding_mode not in ("zeros", "circular")
        super().__init__(**given | ({"padding": 0} if explicit else {}))
        self.conv_cfg, self.norm_cfg, self.act_cfg = (given.get(f"{part}_cfg") for part in ("conv", "norm", "act"))
        self.with_explicit_padding, self.with_spectral_norm = explicit, with_spectral_norm
        if explicit:
            self.padding_layer, self.padding = build_padding_layer({"type": padding_mode}, padding), padding
        elif padding_mode == "circular":
            self.conv.padding_mode = "circular"
        if with_spectral_norm:
            self.conv = nn.utils.spectral_norm(self.conv)
        show_as_theirs(self)

    with_norm = property(lambda self: self.norm_name is not None)
    with_activation = property(lambda self: self.activate is not None)
    with_bias = property(lambda self: self.conv.bias is not None)

    def __getattr__(self, name: str) -> Any:
        """Sizes of the convolution are the block's too."""
        if name in SIZES.split() and "conv" in self._modules:
            value = getattr(self.conv, name)
            return value[0] if name == "padding" and len({*value}) == 1 else value
        return super().__getattr__(name)

    def init_weights(self) -> None:
        if not hasattr(self.conv, "init_weights"):
            leaky = isinstance(self.activate, nn.LeakyReLU)
            slope = self.activate.negative_slope if isinstance(self.activate, nn.LeakyReLU) else 0
            kaiming_init(self.conv, a=slope, nonlinearity="leaky_relu" if leaky else "relu")
        if self.norm is not None:
            constant_init(self.norm, 1, bias=0)

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        for step in self.order:
            if step == "conv":
                x = self.conv(self.padding_layer(x) if self.with_explicit_padding else x)
            elif step == "norm" and norm and self.norm is not None:
                x = self.norm(x)
            elif step == "act" and activate and self.activate is not None:
                x = self.activate(x)
        return x


class DepthwiseSeparableConvModule(DepthwiseSeparableConvBlock):
    """A depthwise and a pointwise ConvModule, with norms and activations of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert "groups" not in kwargs, "groups should not be specified"
        super().__init__(**{**dict(zip([*SIZES.split()[:6], "norm_cfg", "act_cfg"], args, strict=False)), **kwargs})
        show_as_theirs(self)


class Scale(self_attention.Scale):
    """A learnable factor."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)


class Upsample(ours.Upsample):
    """`torch.nn.functional.interpolate` as a module; "nearest" by default."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None
    ) -> None:
        super().__init__(size, scale_factor, mode, align_corners)

    def forward(self, x: Tensor) -> Tensor:
        options: Any = {"mode": self.mode, "align_corners": self.align_corners}
        if self.size is None:
            options |= {"scale_factor": self.scale_factor, "recompute_scale_factor": True}
        return F.interpolate(x, self.size, **options)


THEIRS: dict[type, type] = {
    ours.Upsample: Upsample,
    ConvBlock: ConvModule,
    DepthwiseSeparableConvBlock: DepthwiseSeparableConvModule,
    norms.SyncBatchNorm: SyncBatchNorm,
}


def show_as_theirs(module: nn.Module) -> None:
    """Give terrazzo's own blocks inside a module the attributes that they have there."""
    for part in module.modules():
        if type(part) in THEIRS:
            part.__class__ = THEIRS[type(part)]


def resize(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, warning: bool = True,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.interpolate`; "nearest" by default."""
    size = tuple(int(x) for x in size) if isinstance(size, (list, tuple)) else size
    return F.interpolate(input, size, scale_factor, mode, align_corners)


def nlc_to_nchw(x: Tensor, hw_shape: Any) -> Tensor:
    """Tokens (N, h * w, C) of the grid (h, w) as a map."""
    assert x.shape[1] == hw_shape[0] * hw_shape[1], "The seq_len doesn't match H, W"
    return x.transpose(1, 2).reshape(len(x), -1, *hw_shape)


def nchw_to_nlc(x: Tensor) -> Tensor:
    """A map as tokens (N, h * w, C)."""
    return x.flatten(2).transpose(1, 2).contiguous()


def unchanged(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """The module itself: terrazzo fuses on export, and SyncBN in one process is plain batch norm."""
    return module


fuse_conv_bn = convert_sync_batchnorm = revert_sync_batchnorm = turn_on_efficient_conv_bn_eval = unchanged


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave groups of channels."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def make_divisible(value: float, divisor: int, min_value: int | None = None, min_ratio: float = 0.9) -> int:
    """The nearest multiple of `divisor` that is not under `min_ratio` of the value."""
    new = max(min_value or divisor, int(value + divisor / 2) // divisor * divisor)
    return new + divisor if new < min_ratio * value else new


# A layer that a user registers can be named in the config of any of terrazzo's own layers
KEEPERS["model"] = (
    lambda name, item: NORMS.setdefault(name, (item, infer_abbr(item))) if inspect.isclass(item) else None,  # type: ignore[arg-type]
    ACTIVATIONS.setdefault,
    CONVS.setdefault,
)
