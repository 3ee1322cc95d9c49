"""Layers as mmcv builds them: `build_*_layer`, `ConvModule`, and functions of maps and tokens."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from terrazzo.compat.models.module import Start, constant_init, kaiming_init
from terrazzo.compat.registry import KEEPERS, MODELS, ORIGINALS
from terrazzo.models import layers as ours
from terrazzo.models.layers import norm as norms
from terrazzo.models.layers import self_attention, training
from terrazzo.models.layers.activation import ACTIVATIONS, ScaledHardSigmoid
from terrazzo.models.layers.context_block import PLUGINS
from terrazzo.models.layers.conv import CONVS, AdaptivePaddingConv2d, ConvBlock, DepthwiseSeparableConvBlock
from terrazzo.models.layers.norm import NORMS
from terrazzo.models.layers.tokens import as_tokens

OTHER: dict[str, Any] = {"deconv": nn.ConvTranspose2d, "Linear": nn.Linear}


class SyncBatchNorm(norms.SyncBatchNorm):
    """Batch norm over all processes of maps, of tokens (N, C, L) and of vectors (N, C)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 4:
            return super().forward(input)
        return super().forward(input.reshape(*input.shape[:2], -1, 1)).view(input.shape)


class LayerNorm2d(norms.LayerNorm2d):
    """Layer norm over the channels of maps (N, C, H, W), or of (N, H, W, C) where `data_format` is "channel_last"."""

    def forward(self, x: Tensor, data_format: str = "channel_first") -> Tensor:
        return super().forward(x) if data_format == "channel_first" else nn.LayerNorm.forward(self, x)


OWN_NORMS = dict.fromkeys(("SyncBN", "SyncBatchNorm", "MMSyncBN"), (SyncBatchNorm, "bn")) | {
    "LN2d": (LayerNorm2d, "ln")
}


def _parts_of(cfg: Mapping[str, Any] | None, table: Mapping[str, Any], what: str) -> tuple[Any, dict[str, Any]]:
    """The layer that a config names, in a table or one that a user registered, and its options. Raises KeyError."""
    if not isinstance(cfg, Mapping):
        raise TypeError(f"cfg must be a dict, but got {type(cfg)}")
    options = {key: value for key, value in cfg.items() if key not in ("type", "_scope_")}
    kind = cfg["type"].rpartition(".")[2] if isinstance(cfg["type"], str) else cfg["type"]
    found = kind if not isinstance(kind, str) else MODELS.module_dict.get(kind) or table.get(kind)
    if found is None:
        raise KeyError(f"Cannot find {kind} in registry under the {what}s")
    return found, options


def builder(table: Mapping[str, Any], what: str, default: str = "") -> Callable[..., Any]:
    """A function that builds the layer of a config from a table or a user's classes, of one type without a config."""

    def build(cfg: Any, *args: Any, **kwargs: Any) -> Any:
        layer, options = _parts_of({"type": default} if cfg is None and default else cfg, table, what)
        return layer(*args, **kwargs, **options)

    return build


def builder_with_defaults(table: Mapping[str, Any], what: str) -> Callable[..., Any]:
    """A function that builds the layer of a config, the rest of which a second one may give."""
    build = builder(table, what)
    return lambda cfg, default_args=None: build({**(default_args or {}), **cfg})


PADDINGS = {"zero": nn.ZeroPad2d, "reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
UPSAMPLINGS = {mode: partial(nn.Upsample, mode=mode) for mode in ("nearest", "bilinear")}
build_conv_layer = builder(CONVS, "conv layer", "Conv2d")
build_padding_layer = builder(PADDINGS, "padding layer")
build_upsample_layer = builder({**UPSAMPLINGS, "deconv": nn.ConvTranspose2d}, "upsample layer")


def infer_abbr(class_type: Any) -> str:
    """The name of a norm inside a block: "bn" for batch norms."""
    if hasattr(class_type, "_abbr_"):
        return class_type._abbr_
    for base, name in ((_InstanceNorm, "in"), (_BatchNorm, "bn"), (nn.GroupNorm, "gn"), (nn.LayerNorm, "ln")):
        if issubclass(class_type, base):
            return name
    words = {"batch": "bn", "group": "gn", "layer": "ln", "instance": "in"}
    return next((short for word, short in words.items() if word in class_type.__name__.lower()), "norm_layer")


def build_norm_layer(cfg: Any, num_features: int, postfix: int | str = "") -> tuple[str, nn.Module]:
    entry, options = _parts_of(cfg, NORMS | OWN_NORMS, "norm layer")
    layer, name = entry if isinstance(entry, tuple) else (entry, infer_abbr(entry))
    trained = options.pop("requires_grad", True)
    options.setdefault("eps", 1e-5)
    grouped = issubclass(layer, nn.GroupNorm)
    norm = layer(num_channels=num_features, **options) if grouped else layer(num_features, **options)
    return f"{name}{postfix}", norm.requires_grad_(trained)


def build_activation_layer(cfg: Any) -> nn.Module:
    layer, options = _parts_of(cfg or {"type": "ReLU"}, vars(nn) | ACTIVATIONS, "activation layer")
    if "inplace" not in inspect.signature(layer).parameters:
        options.pop("inplace", None)
    return layer(**options)


def build_plugin_layer(cfg: Any, postfix: int | str = "", **kwargs: Any) -> tuple[str, nn.Module]:
    layer, options = _parts_of(cfg, OTHER, "plugin layer")
    return f"{_plugin_name(layer)}{postfix}", layer(**kwargs, **options)


def _plugin_name(layer: Any) -> str:
    """The name of a plugin inside a block: "se_layer" for SELayer."""
    words = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    return getattr(layer, "_abbr_", None) or re.sub(words, "_", layer.__name__).lower()


class DropPath(training.DropPath):
    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__(drop_prob)


DROPOUTS: dict[str, Any] = {
    "DropPath": DropPath, "Dropout2d": nn.Dropout2d,
    "Dropout": lambda drop_prob=0.5, inplace=False: nn.Dropout(drop_prob, inplace),
}  # fmt: skip
build_dropout = builder_with_defaults(DROPOUTS, "dropout layer")
SIZES = "in_channels out_channels kernel_size stride padding dilation transposed output_padding groups"
BY_POSITION = (
    "in_channels out_channels kernel_size stride padding dilation groups bias conv_cfg norm_cfg act_cfg inplace"
)


class ConvModule(Start, ConvBlock):
    """Convolution, norm and activation in `order`; without a norm the convolution has a bias."""

    _abbr_ = "conv_block"
    with_explicit_padding = with_spectral_norm = False
    conv_cfg = norm_cfg = act_cfg = None
    with_norm = property(lambda self: self.norm_name is not None)
    with_activation = property(lambda self: self.activate is not None)
    with_bias = property(lambda self: self.conv.bias is not None)

    def __init__(
        self, *args: Any, with_spectral_norm: bool = False, padding_mode: str = "zeros", **kwargs: Any
    ) -> None:
        given = {"act_cfg": {"type": "ReLU"}, **dict(zip(BY_POSITION.split(), args, strict=False)), **kwargs}
        padding, explicit = given.get("padding", 0), padding_mode not in ("zeros", "circular")
        ConvBlock.__init__(self, **given | ({"padding": 0} if explicit else {}))
        self.conv_cfg, self.norm_cfg, self.act_cfg = (given.get(f"{part}_cfg") for part in ("conv", "norm", "act"))
        self.with_explicit_padding, self.with_spectral_norm = explicit, with_spectral_norm
        if explicit:
            self.padding_layer, self.padding = build_padding_layer({"type": padding_mode}, padding), padding
        elif padding_mode == "circular":
            self.conv.padding_mode = "circular"
        if with_spectral_norm:
            self.conv = nn.utils.spectral_norm(self.conv)
        show_as_theirs(self)

    def __getattr__(self, name: str) -> Any:
        """Sizes of the convolution are the block's too."""
        if name in SIZES.split() and "conv" in self._modules:
            value = getattr(self.conv, name)
            return value[0] if name == "padding" and len({*value}) == 1 else value
        return super().__getattr__(name)

    def init_weights(self) -> None:
        if not hasattr(self.conv, "init_weights"):
            leaky = isinstance(self.activate, nn.LeakyReLU)
            slope = getattr(self.activate, "negative_slope", 0) if leaky else 0
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


class DepthwiseSeparableConvModule(Start, DepthwiseSeparableConvBlock):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert "groups" not in kwargs, "groups should not be specified"
        given = dict(zip([*SIZES.split()[:6], "norm_cfg", "act_cfg"], args, strict=False)) | kwargs
        DepthwiseSeparableConvBlock.__init__(self, **given)
        show_as_theirs(self)


class Upsample(ours.Upsample):
    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None
    ) -> None:
        super().__init__(size, scale_factor, mode, align_corners)

    def forward(self, x: Tensor) -> Tensor:
        again = True if self.size is None else None
        return F.interpolate(
            x, self.size, None if self.size else self.scale_factor, self.mode, self.align_corners, again
        )


def layer_of(name: str) -> Any:
    """The layer that the registry of models has there by this name, or None."""
    bare, tables = name.rpartition(".")[2], (DROPOUTS, ACTIVATIONS, CONVS, UPSAMPLINGS, PADDINGS, OWN_NORMS, NORMS)
    found = next((table[bare] for table in tables if bare in table), None)
    return found[0] if isinstance(found, tuple) else found


THEIRS: dict[type, type] = {
    ours.Upsample: Upsample, ConvBlock: ConvModule, DepthwiseSeparableConvBlock: DepthwiseSeparableConvModule,
    norms.SyncBatchNorm: SyncBatchNorm, norms.LayerNorm2d: LayerNorm2d,
}  # fmt: skip


def show_as_theirs(module: nn.Module) -> None:
    """Give terrazzo's own blocks inside a module the attributes that they have there."""
    for part in module.modules():
        if type(part) in THEIRS:
            part.__class__ = THEIRS[type(part)]


def resize(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, warning: bool = True,
) -> Tensor:  # fmt: skip
    if isinstance(size, (list, tuple)):  # of numbers or tensors; those of a graph that is being exported stay open
        size = tuple(x if isinstance(x, torch.SymInt) else int(x) for x in size)
    return F.interpolate(input, size, scale_factor, mode, align_corners)


def nlc_to_nchw(x: Tensor, hw_shape: Any) -> Tensor:
    assert x.shape[1] == hw_shape[0] * hw_shape[1], "The seq_len doesn't match H, W"
    return x.transpose(1, 2).reshape(x.shape[0], -1, *hw_shape)


def make_divisible(value: float, divisor: int, min_value: int | None = None, min_ratio: float = 0.9) -> int:
    new = max(min_value or divisor, int(value + divisor / 2) // divisor * divisor)
    return new + divisor if new < min_ratio * value else new


def unchanged(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """The module itself: terrazzo fuses on export, and SyncBN in one process is plain batch norm."""
    return module


UNCHANGED = "fuse_conv_bn convert_sync_batchnorm revert_sync_batchnorm turn_on_efficient_conv_bn_eval"
OF_TORCH = "Conv2d Conv3d ConvTranspose2d ConvTranspose3d Linear MaxPool2d MaxPool3d"
TABLE: dict[str, Any] = {
    **{name: getattr(nn, name) for name in OF_TORCH.split()},
    "HSwish": nn.Hardswish, "Swish": nn.SiLU, "HSigmoid": ScaledHardSigmoid,
    "Scale": lambda scale=1.0: self_attention.Scale(float(scale)),
    "mmpretrain.build_norm_layer": lambda cfg, num_features: build_norm_layer(cfg, num_features)[1],  # without a name
    "LN2d": LayerNorm2d, "Conv2dAdaptivePadding": AdaptivePaddingConv2d,
    "_BatchNorm": _BatchNorm, "_InstanceNorm": _InstanceNorm,
    "nchw_to_nlc": lambda x: as_tokens(x).contiguous(),
    "nchw2nlc2nchw": lambda module, x, contiguous=False, **options: nlc_to_nchw(
        module(as_tokens(x), **options), x.shape[2:]
    ),
    "nlc2nchw2nlc": lambda module, x, hw_shape, contiguous=False, **options: as_tokens(
        module(nlc_to_nchw(x, hw_shape), **options)
    ),
    "channel_shuffle": lambda x, groups: x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2),
    **dict.fromkeys(UNCHANGED.split(), unchanged),
}  # fmt: skip


def _keep(name: str, item: Any) -> None:
    """Let a layer that a user registers be named in the config of any of terrazzo's own layers."""
    ACTIVATIONS.setdefault(name, item)
    CONVS.setdefault(name, item)
    if isinstance(item, type):
        made: Any = item
        NORMS.setdefault(name, (made, infer_abbr(item)))
        PLUGINS.setdefault(name, (lambda channels, **rest: made(in_channels=channels, **rest), _plugin_name(item)))


KEEPERS["model"] = (_keep,)
ORIGINALS["layer of model"] = layer_of
