"""Layers as mmcv builds them: `build_*_layer`, `ConvModule`, the parts of transformers."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from terrazzo.compat.module import constant_init, kaiming_init
from terrazzo.compat.registry import KEEPERS, MODELS
from terrazzo.models.layers import norm as norms
from terrazzo.models.layers import self_attention, training
from terrazzo.models.layers.activation import ACTIVATIONS
from terrazzo.models.layers.activation import ScaledHardSigmoid as HSigmoid
from terrazzo.models.layers.conv import CONVS, ConvBlock, DepthwiseSeparableConvBlock
from terrazzo.models.layers.conv import AdaptivePaddingConv2d as Conv2dAdaptivePadding
from terrazzo.models.layers.norm import NORMS, LayerNorm2d

Conv2d, Conv3d, ConvTranspose2d, Linear, MaxPool2d = nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.MaxPool2d
ConvTranspose3d, MaxPool3d = nn.ConvTranspose3d, nn.MaxPool3d
HSwish, Swish = nn.Hardswish, nn.SiLU
LN2d = LayerNorm2d
# names that modules import from here
_ = (_BatchNorm, _InstanceNorm, _NormBase, HSigmoid, Conv2dAdaptivePadding)

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


def kind_and_options(cfg: Mapping[str, Any] | None, default: str) -> tuple[Any, dict[str, Any]]:
    """The type that a layer's config names, without its scope, and its options."""
    if cfg is not None and not isinstance(cfg, Mapping):
        raise TypeError(f"cfg must be a dict, but got {type(cfg)}")
    options = dict(cfg or {"type": default})
    if "type" not in options:
        raise KeyError('the cfg dict must contain the key "type"')
    kind = options.pop("type")
    options.pop("_scope_", None)
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind, options


def layer_type(kind: Any, table: Mapping[str, Any], what: str) -> Any:
    """The class of a layer: in a table, or one that a user registered. Raises KeyError."""
    found = kind if not isinstance(kind, str) else MODELS.module_dict.get(kind) or table.get(kind)
    if found is None:
        raise KeyError(f"Cannot find {kind} in registry under the {what}s")
    return found


def builder(table: Mapping[str, Any], default: str, what: str) -> Callable[..., Any]:
    """A function that builds the layer of a config from a table or a user's classes, of one type without a config."""

    def build(cfg: Any, *args: Any, **kwargs: Any) -> Any:
        kind, options = kind_and_options(cfg, default)
        return layer_type(kind, table, what)(*args, **kwargs, **options)

    return build


build_conv_layer = builder(CONVS, "Conv2d", "conv layer")
build_padding_layer = builder(PADDINGS, "zero", "padding layer")
build_upsample_layer = builder(UPSAMPLINGS, "nearest", "upsample layer")


def infer_abbr(class_type: type) -> str:
    """The name of a norm, or of a plugin, inside a block: "bn" for batch norms."""
    if not inspect.isclass(class_type):
        raise TypeError(f"class_type must be a type, but got {type(class_type)}")
    if hasattr(class_type, "_abbr_"):
        return class_type._abbr_
    for base, name in ((_InstanceNorm, "in"), (_BatchNorm, "bn"), (nn.GroupNorm, "gn"), (nn.LayerNorm, "ln")):
        if issubclass(class_type, base):
            return name
    lowered = class_type.__name__.lower()
    return next((short for word, short in (("batch", "bn"), ("group", "gn"), ("layer", "ln"), ("instance", "in"))
                 if word in lowered), "norm_layer")  # fmt: skip


def build_norm_layer(cfg: Any, num_features: int, postfix: int | str = "") -> tuple[str, nn.Module]:
    """A norm's name in its module, with a postfix, and the norm."""
    if not isinstance(cfg, Mapping):
        raise TypeError("cfg must be a dict")
    kind, options = kind_and_options(cfg, "BN")
    entry = layer_type(kind, NORMS | SYNCHRONISED, "norm layer")
    layer, name = entry if isinstance(entry, tuple) else (entry, infer_abbr(entry))
    trained = options.pop("requires_grad", True)
    options.setdefault("eps", 1e-5)
    if issubclass(layer, nn.GroupNorm):
        norm = layer(num_channels=num_features, **options)
    else:
        norm = layer(num_features, **options)
    for parameter in norm.parameters():
        parameter.requires_grad = trained
    return f"{name}{postfix}", norm


def build_activation_layer(cfg: Any) -> nn.Module:
    """An activation, with `inplace` where it can be."""
    kind, options = kind_and_options(cfg, "ReLU")
    layer = MODELS.module_dict.get(kind) if isinstance(kind, str) else kind
    layer = layer or ACTIVATIONS.get(kind) or getattr(nn, kind, None) or layer_type(kind, {}, "activation layer")
    if "inplace" not in inspect.signature(layer).parameters:
        options.pop("inplace", None)
    return layer(**options)


def build_plugin_layer(cfg: Any, postfix: int | str = "", **kwargs: Any) -> tuple[str, nn.Module]:
    """A plugin's name in its block, with a postfix, and the plugin."""
    kind, options = kind_and_options(cfg, "ContextBlock")
    layer = layer_type(kind, OTHER, "plugin layer")
    abbreviation = getattr(layer, "_abbr_", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", layer.__name__).lower()
    return f"{abbreviation}{postfix}", layer(**kwargs, **options)


def build_from(table: Mapping[str, Any], what: str) -> Callable[..., Any]:
    """A function that builds what a config names, from a table or a user's classes."""

    def build(cfg: Any, default_args: Any = None) -> Any:
        kind, options = kind_and_options({**(default_args or {}), **cfg}, "")
        return layer_type(kind, table, what)(**options)

    return build


class DropPath(training.DropPath):
    """Drop a residual branch for whole samples (Huang et al., ECCV 2016)."""

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__(drop_prob)


class Dropout(nn.Dropout):
    """nn.Dropout whose probability is called `drop_prob`."""

    def __init__(self, drop_prob: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p=drop_prob, inplace=inplace)


build_dropout = build_from({"DropPath": DropPath, "Dropout": Dropout, "Dropout2d": nn.Dropout2d}, "dropout layer")


class ConvModule(ConvBlock):
    """Convolution, norm and activation in `order`; without a norm the convolution has a bias."""

    _abbr_ = "conv_block"
    with_explicit_padding = with_spectral_norm = False
    conv_cfg: Any = None
    norm_cfg: Any = None
    act_cfg: Any = None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool | str = "auto", conv_cfg: Any = None, norm_cfg: Any = None,
        act_cfg: Any = {"type": "ReLU"}, inplace: bool = True, with_spectral_norm: bool = False,  # noqa: B006
        padding_mode: str = "zeros", order: tuple[str, ...] = ("conv", "norm", "act"), **kwargs: Any,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        assert isinstance(order, tuple) and set(order) == {"conv", "norm", "act"}
        assert all(cfg is None or isinstance(cfg, Mapping) for cfg in (conv_cfg, norm_cfg, act_cfg))
        self.conv_cfg, self.norm_cfg, self.act_cfg, self.order = conv_cfg, norm_cfg, act_cfg, order
        self.inplace, self.with_spectral_norm = inplace, with_spectral_norm
        self.with_explicit_padding = padding_mode not in ("zeros", "circular")
        bias = norm_cfg is None if bias == "auto" else bool(bias)
        self.padding = padding
        if self.with_explicit_padding:
            self.padding_layer = build_padding_layer({"type": padding_mode}, padding)
            padding = 0
        self.conv: Any = build_conv_layer(
            conv_cfg, in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation,
            groups=groups, bias=bias,
        )  # fmt: skip
        if padding_mode == "circular":
            self.conv.padding_mode = padding_mode
        if with_spectral_norm:
            self.conv = nn.utils.spectral_norm(self.conv)
        self.norm_name = self.activate = None
        if norm_cfg is not None:
            channels = out_channels if order.index("norm") > order.index("conv") else in_channels
            self.norm_name, norm = build_norm_layer(norm_cfg, channels)
            self.add_module(self.norm_name, norm)
        if act_cfg is not None:
            self.activate = build_activation_layer({"inplace": inplace, **act_cfg})
        self.init_weights()

    with_norm = property(lambda self: self.norm_name is not None)
    with_activation = property(lambda self: self.activate is not None)
    with_bias = property(lambda self: self.conv.bias is not None)

    def __getattr__(self, name: str) -> Any:
        """Sizes of the convolution are the block's too."""
        if name in SIZES and "conv" in self._modules:
            value = getattr(self.conv, name)
            return value[0] if name == "padding" and len({*value}) == 1 else value
        return super().__getattr__(name)

    def init_weights(self) -> None:
        if not hasattr(self.conv, "init_weights"):
            activate: Any = self.activate
            leaky = isinstance(activate, nn.LeakyReLU)
            slope = activate.negative_slope if leaky else 0
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


SIZES = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "transposed", "output_padding",
    "groups",
)  # fmt: skip


def show_as_theirs(module: nn.Module) -> None:
    """Give terrazzo's own blocks inside a module the attributes that they have there."""
    for part in module.modules():
        if type(part) in THEIRS:
            part.__class__ = THEIRS[type(part)]


class DepthwiseSeparableConvModule(DepthwiseSeparableConvBlock):
    """A depthwise and a pointwise ConvModule, with norms and activations of their own."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, norm_cfg: Any = None, act_cfg: Any = {"type": "ReLU"},  # noqa: B006
        dw_norm_cfg: Any = "default", dw_act_cfg: Any = "default", pw_norm_cfg: Any = "default",
        pw_act_cfg: Any = "default", **kwargs: Any,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        assert "groups" not in kwargs, "groups should not be specified"

        def options(norm: Any, act: Any) -> dict[str, Any]:
            return kwargs | {"norm_cfg": norm_cfg if norm == "default" else norm,
                             "act_cfg": act_cfg if act == "default" else act}  # fmt: skip

        self.depthwise_conv = ConvModule(
            in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels,
            **options(dw_norm_cfg, dw_act_cfg),
        )  # fmt: skip
        self.pointwise_conv = ConvModule(in_channels, out_channels, 1, **options(pw_norm_cfg, pw_act_cfg))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class Scale(self_attention.Scale):
    """A learnable factor."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)


THEIRS: dict[type, type] = {
    ConvBlock: ConvModule,
    DepthwiseSeparableConvBlock: DepthwiseSeparableConvModule,
    norms.SyncBatchNorm: SyncBatchNorm,
}


def resize(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, warning: bool = True,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.interpolate`; "nearest" by default."""
    size = tuple(int(x) for x in size) if isinstance(size, (list, tuple)) else size
    return F.interpolate(input, size, scale_factor, mode, align_corners)


class Upsample(nn.Module):
    """`resize` as a module."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ) -> None:
        super().__init__()
        self.size = size
        pair = isinstance(scale_factor, tuple)
        self.scale_factor = tuple(map(float, scale_factor)) if pair else float(scale_factor) if scale_factor else None
        self.mode, self.align_corners = mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = self.size or [int(length * self.scale_factor) for length in x.shape[-2:]]  # type: ignore[arg-type, operator]
        return resize(x, size, None, self.mode, self.align_corners)


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


fuse_conv_bn = convert_sync_batchnorm = turn_on_efficient_conv_bn_eval = turn_on_activation_checkpointing = unchanged


def revert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """A module with plain batch norms in place of torch's synchronised ones."""
    for name, child in module.named_children():
        if isinstance(child, nn.SyncBatchNorm):
            plain = nn.BatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
            plain.load_state_dict(child.state_dict())
            setattr(module, name, plain)
        else:
            revert_sync_batchnorm(child)
    return module


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
