"""Parts of official models that modules import one by one, under their names and with their arguments there."""

import ast
import inspect
import pkgutil
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from terrazzo.compat.models import layers
from terrazzo.compat.models.layers import ConvModule, build_norm_layer, resize
from terrazzo.compat.models.module import BaseModule, Sequential, Start
from terrazzo.models.backbones import mscan
from terrazzo.models.heads import enc
from terrazzo.models.layers import self_attention
from terrazzo.models.layers.tokens import resize_position_embedding

BN: Any = {"type": "BN"}
GELU: Any = {"type": "GELU"}
SYNC: Any = {"type": "SyncBN", "requires_grad": True}
KERNELS, PADDINGS = [5, [1, 7], [1, 11], [1, 21]], [2, [0, 3], [0, 5], [0, 10]]
STYLE: dict[str, Any] = {"conv_cfg": None, "norm_cfg": BN, "act_cfg": {"type": "ReLU"}, "with_cp": False}  # by default
# `norm1`, ... as modules, and their names, of a block that has its norms in a list
NORMS: dict[str, Any] = {
    **{f"norm{n + 1}": property(lambda self, n=n: getattr(self, self.norms[n])) for n in range(3)},  # type: ignore[misc]
    **{f"norm{n + 1}_name": property(lambda self, n=n: self.norms[n]) for n in range(3)},  # type: ignore[misc]
}
# a part there -> ours, and its arguments there in their order: `theirs`, `theirs>ours`, `theirs=default`, or a word for
# several, which `WORD = ...` says
LINES = Path(__file__).with_name("parts.txt").read_text("utf-8").splitlines()
WORDS = dict(line.split(" = ") for line in LINES if " = " in line)
BODIES: dict[str, dict[str, Any]] = {
    "BasicBlock": NORMS,
    "Bottleneck": NORMS,
    "TransformerEncoderLayer": {"norm1": property(lambda self: self.ln1), "norm2": property(lambda self: self.ln2)},
    "NonLocal2d": {
        "sub_sample": False,
        "inter_channels": property(lambda self: self.conv_out.conv.in_channels),
        "embedded_gaussian": lambda self, theta_x, phi_x: (
            theta_x @ phi_x / (theta_x.shape[-1] ** 0.5 if self.use_scale else 1)
        ).softmax(-1),
        "dot_product": lambda self, theta_x, phi_x: theta_x @ phi_x / phi_x.shape[-1],
    },
    "Encoding": {"forward": lambda self, x: enc.Encoding.forward(self, x).squeeze(3)},
}


class Part(BaseModule, Start):
    """A part of ours as it is constructed there: arguments in another order, some under other names.

    Each part has a constructor of its own, so that a subclass can go around it to BaseModule's.
    """

    names: dict[str, str]  # theirs, in their order -> ours
    defaults: dict[str, Any]

    def _construct(self, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        given = {**STYLE, **self.defaults, **dict(zip(self.names, args, strict=False)), **kwargs}
        if "base_channels" in given:  # ours take the width of a group at 64 channels
            given["base_width"] *= 64 / given.pop("base_channels")
        takes = inspect.signature(super(Start, self).__init__).parameters
        further = any(item.kind is item.VAR_KEYWORD for item in takes.values())  # handed on to blocks inside
        known = {*takes, *((*self.names.values(), *kwargs) if further else ())}
        if unknown := {self.names.get(key, key) for key in kwargs} - known - {*self.names}:
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
        options = {self.names.get(key, key): value for key, value in given.items()}
        fixed = {key: value for key, value in self.defaults.items() if self.names[key] not in known}
        for key, value in fixed.items():
            if key != "base_channels" and listed(given.get(key, value)) != listed(value):
                raise ValueError(
                    f"{type(self).__name__}: {key} is always {value} in terrazzo's own; copy its definition"
                )
        needed = {key for key, parameter in takes.items() if parameter.default is parameter.empty}
        chosen = {key: value for key, value in options.items() if key in known and (value is not None or key in needed)}
        super(Start, self).__init__(**chosen)
        vars(self).update(_is_init=False, init_cfg=init_cfg)
        for key, value in given.items():
            if not hasattr(self, key):
                setattr(self, key, value)
        layers.show_as_theirs(self)


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _part(line: str) -> Any:
    """A class of terrazzo.models under its name there, called with its arguments there."""
    name, path, order = line.split(maxsplit=2)
    name = name.rpartition(".")[2]
    for _ in range(2):  # a word may have others in it
        order = re.sub("|".join(WORDS), lambda word: WORDS[word.group()], order)
    ours, arguments = pkgutil.resolve_name(f"terrazzo.models.{path}"), [item.partition("=") for item in order.split()]
    names = {theirs.partition(">")[0]: theirs.rpartition(">")[2] for theirs, _, _ in arguments}
    defaults = {theirs.partition(">")[0]: ast.literal_eval(value) for theirs, _, value in arguments if value}
    facts = {"names": names, "defaults": defaults, "__module__": __name__, "__doc__": ours.__doc__}
    facts["__init__"] = lambda self, *args, **kwargs: self._construct(*args, **kwargs)
    return type(name, (Part, ours), facts | BODIES.get(name, {}))


class PPM(nn.ModuleList):
    """A pooling pyramid: the list of contexts of a map, at its size."""

    def __init__(self, pool_scales: Any, in_channels: int, channels: int, conv_cfg: Any, norm_cfg: Any, act_cfg: Any,
                 align_corners: bool, **kwargs: Any) -> None:  # fmt: skip
        conv = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg, **kwargs}
        super().__init__(nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvModule(in_channels, channels, 1, **conv))
                         for scale in pool_scales)  # fmt: skip
        self.pool_scales, self.align_corners = pool_scales, align_corners

    def forward(self, x: Tensor) -> list[Tensor]:
        return [resize(pool(x), x.shape[2:], None, "bilinear", self.align_corners) for pool in self]


class ASPPModule(nn.ModuleList):
    """Parallel convolutions of a map with different dilations: the list of their outputs."""

    conv: Any = ConvModule

    def __init__(self, dilations: Any, in_channels: int, channels: int, *cfgs: Any, **style: Any) -> None:
        super().__init__()
        style |= dict(zip(WORDS["CFGS"].split(), cfgs, strict=False))
        vars(self).update(dilations=dilations, in_channels=in_channels, channels=channels, **style)
        for rate in dilations:
            kind, size = (ConvModule, 1) if rate == 1 else (self.conv, 3)
            padding, own = rate if size == 3 else 0, {k: v for k, v in style.items() if v or k == "act_cfg"}
            self.append(kind(in_channels, channels, size, dilation=rate, padding=padding, **own))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self]


class ResLayer(Sequential):  # type: ignore[misc,valid-type]
    """Blocks one after the other, the first with the stride and, where sizes differ, a projected shortcut."""

    def __init__(
        self, block: Any, inplanes: int, planes: int, num_blocks: int, stride: int = 1, dilation: int = 1,
        avg_down: bool = False, conv_cfg: Any = None, norm_cfg: Any = BN, multi_grid: Any = None,
        contract_dilation: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.block, width, downsample = block, planes * block.expansion, None
        if stride != 1 or inplanes != width:
            pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if avg_down else []
            conv = layers.build_conv_layer(conv_cfg, inplanes, width, 1, stride=1 if avg_down else stride, bias=False)
            downsample = nn.Sequential(*pool, conv, build_norm_layer(norm_cfg, width)[1])
        rates = [dilation] * num_blocks if multi_grid is None else [dilation * rate for rate in multi_grid]
        if multi_grid is None and dilation > 1 and contract_dilation:
            rates[0] = dilation // 2
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, **kwargs}
        blocks = [block(inplanes, planes, stride=stride, dilation=rates[0], downsample=downsample, **options)]
        super().__init__(*blocks, *(block(width, planes, stride=1, dilation=rate, **options) for rate in rates[1:]))


class SelfAttentionBlock(BaseModule, Start, self_attention.SelfAttention):
    """Attention of one map to another (OCRNet's, ANN's, ISANet's)."""

    def __init__(
        self, key_in_channels: int, query_in_channels: int, channels: int, out_channels: int, share_key_query: bool,
        query_downsample: Any, key_downsample: Any, key_query_num_convs: int, value_out_num_convs: int,
        key_query_norm: bool, value_out_norm: bool, matmul_norm: bool, with_out: bool, *cfgs: Any, **style: Any,
    ) -> None:  # fmt: skip
        style |= dict(zip(WORDS["CFGS"].split(), cfgs, strict=False))
        ends, wide = (key_query_num_convs, key_query_norm), (value_out_num_convs, value_out_norm)
        key = self.build_project(key_in_channels, channels, *ends, **style)
        query = key if share_key_query else self.build_project(query_in_channels, channels, *ends, **style)
        value = self.build_project(key_in_channels, channels if with_out else out_channels, *wide, **style)
        out = self.build_project(channels, out_channels, *wide, **style) if with_out else None
        pools, scale = {"key_pool": key_downsample, "query_pool": query_downsample}, None if matmul_norm else 1.0
        super(Start, self).__init__(key=key, query=query, value=value, out=out, **pools, scale=scale)
        self.key_downsample, self.query_downsample = key_downsample, query_downsample
        self.channels, self.out_channels, self.matmul_norm = channels, out_channels, matmul_norm

    def build_project(
        self, in_channels: int, channels: int, num_convs: int, use_conv_module: bool, **style: Any
    ) -> Any:
        widths = [in_channels, *[channels] * (num_convs - 1)]
        made = [ConvModule(w, channels, 1, **style) if use_conv_module else nn.Conv2d(w, channels, 1) for w in widths]
        return nn.Sequential(*made) if len(made) > 1 else made[0]


class MSCABlock(BaseModule, mscan.ScaledBlock):
    """SegNeXt's block of maps."""

    def __init__(
        self, channels: int, attention_kernel_sizes: Any = KERNELS, attention_kernel_paddings: Any = PADDINGS,
        mlp_ratio: float = 4.0, drop: float = 0.0, drop_path: float = 0.0, act_cfg: Any = GELU, norm_cfg: Any = SYNC,
    ) -> None:  # fmt: skip
        attention = TABLE["MSCASpatialAttention"](channels, attention_kernel_sizes, attention_kernel_paddings, act_cfg)
        mlp = mscan.ConvFeedForward(channels, int(channels * mlp_ratio), act_cfg=act_cfg, drop=drop)
        options: Any = {"norm_cfg": norm_cfg, "drop_path_rate": drop_path, "scale": 1e-2}
        mscan.ScaledBlock.__init__(self, channels, attention, mlp, **options)
        vars(self).update(_is_init=False, init_cfg=None)


class OverlapPatchEmbed(Sequential):  # type: ignore[misc,valid-type]
    """SegNeXt's strided convolution whose windows overlap, of a map."""

    def __init__(self, patch_size: int = 7, stride: int = 4, in_channels: int = 3, embed_dim: int = 768,
                 norm_cfg: Any = SYNC) -> None:  # fmt: skip
        conv = nn.Conv2d(in_channels, embed_dim, patch_size, stride, patch_size // 2)
        super().__init__(OrderedDict(proj=conv, norm=build_norm_layer(norm_cfg, embed_dim)[1]))


SEPARABLE = {"conv": layers.DepthwiseSeparableConvModule}
TABLE: dict[str, Any] = {
    **{line.split()[0]: _part(line) for line in LINES if " = " not in line},
    "BaseBackbone": BaseModule,
    "StemConv": lambda *widths, act_cfg=GELU, norm_cfg=SYNC: mscan.stem(*widths, act_cfg=act_cfg, norm_cfg=norm_cfg),
    "DepthwiseSeparableASPPModule": type("DepthwiseSeparableASPPModule", (ASPPModule,), SEPARABLE),
    "resize_pos_embed": lambda embedding, source, grid, mode="bicubic", num_extra_tokens=1: resize_position_embedding(
        embedding, source, grid, extra_tokens=num_extra_tokens, mode=mode
    ),
}
layers.OTHER.update(TABLE)  # which configs of layers inside blocks name
