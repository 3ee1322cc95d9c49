"""Global context and non-local blocks, and the plugins of residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.arguments import check_arguments
from terrazzo.errors import UserError, nearest
from terrazzo.models.layers.conv import ConvBlock
from terrazzo.models.layers.init import init_normal, init_zeros
from terrazzo.models.layers.self_attention import attend
from terrazzo.models.layers.spec import Spec


class ContextBlock(nn.Module):
    """One context vector for all positions, which scales the channels ("channel_mul") or is added ("channel_add").

    The block of GCNet (Cao et al., ICCVW 2019). Raises UserError for another way to pool or to fuse.
    """

    def __init__(
        self, channels: int, *, ratio: float, pooling_type: str = "att", fusion_types: Sequence[str] = ("channel_add",)
    ) -> None:
        super().__init__()
        if pooling_type not in ("att", "avg"):
            raise UserError(f"pooling_type='{pooling_type}' is unknown: use 'att' (attention) or 'avg' (the mean)")
        if not fusion_types or not set(fusion_types) <= {"channel_add", "channel_mul"}:
            raise UserError(f"fusion_types={fusion_types!r}: name 'channel_add', 'channel_mul' or both")
        width = int(channels * ratio)
        self.conv_mask = nn.Conv2d(channels, 1, 1) if pooling_type == "att" else None
        self.channel_add_conv = self.transform(channels, width) if "channel_add" in fusion_types else None
        self.channel_mul_conv = self.transform(channels, width) if "channel_mul" in fusion_types else None

    def transform(self, channels: int, width: int) -> nn.Sequential:
        """A bottleneck on the context vector, which starts at zero."""
        last = nn.Conv2d(width, channels, 1)
        init_zeros(last)
        return nn.Sequential(nn.Conv2d(channels, width, 1), nn.LayerNorm([width, 1, 1]), nn.ReLU(inplace=True), last)

    def pool(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        if self.conv_mask is None:
            return x.mean(dim=(2, 3), keepdim=True)
        weights = self.conv_mask(x).flatten(2).softmax(2)  # N, 1, H * W
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)

    def forward(self, x: Tensor) -> Tensor:
        context = self.pool(x)
        if self.channel_mul_conv is not None:
            x = x * self.channel_mul_conv(context).sigmoid()
        if self.channel_add_conv is not None:
            x = x + self.channel_add_conv(context)
        return x


MODES = ("embedded_gaussian", "dot_product")


class NonLocal(nn.Module):
    """Each position reads all others and adds what it read to itself (Wang et al., CVPR 2018).

    `mode` weights positions by a softmax over their similarities ("embedded_gaussian"; divided by the root of the
    channels with `use_scale`), or by the similarities over the number of positions ("dot_product"). Raises UserError
    for another mode.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        conv_cfg: Spec | None = None,
        norm_cfg: Spec | None = None,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise UserError(f"mode='{mode}' is unknown: use one of {', '.join(MODES)}")
        width = max(channels // reduction, 1)
        self.mode = mode
        self.scale = width**-0.5 if use_scale else 1.0
        self.g = ConvBlock(channels, width, 1, conv_cfg=conv_cfg, act_cfg=None)
        self.conv_out = ConvBlock(width, channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.theta = ConvBlock(channels, width, 1, conv_cfg=conv_cfg, act_cfg=None)
        self.phi = ConvBlock(channels, width, 1, conv_cfg=conv_cfg, act_cfg=None)
        for block in (self.g, self.theta, self.phi):
            init_normal(block.conv, std=0.01)
        init_zeros(self.conv_out.norm or self.conv_out.conv)  # the block starts as the identity

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what each position reads (N, C, H, W)."""
        if self.mode == "embedded_gaussian":
            return attend(query, key, value, self.scale)
        query, key, values = (x.flatten(2) for x in (query, key, value))
        # the product is linear: keys and values first, which takes C * C instead of (H * W) * (H * W) numbers
        summary = values @ key.transpose(1, 2) / key.shape[2]  # N, C, C
        return (summary @ query).view_as(value)

    def context(self, x: Tensor) -> Tensor:
        return self.read(self.theta(x), self.phi(x), self.g(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(self.context(x))


class DisentangledNonLocal(NonLocal):
    """The similarity split into a whitened pairwise part and a part of the key alone (Yin et al., ECCV 2020)."""

    def __init__(self, channels: int, *, temperature: float = 0.05, **kwargs: Any) -> None:
        super().__init__(channels, **kwargs)
        self.scale = self.scale / temperature
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        init_normal(self.conv_mask, std=0.01)

    def context(self, x: Tensor) -> Tensor:
        query, key, value = self.theta(x), self.phi(x), self.g(x)
        query = query - query.mean(dim=(2, 3), keepdim=True)
        key = key - key.mean(dim=(2, 3), keepdim=True)
        salience = self.conv_mask(x).flatten(2).softmax(2)  # N, 1, H * W
        unary = torch.matmul(value.flatten(2), salience.transpose(1, 2)).unsqueeze(3)  # N, C, 1, 1
        return self.read(query, key, value) + unary


# type name -> (constructor, attribute name in a block)
PLUGINS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "ContextBlock": (ContextBlock, "context_block"),
    "NonLocal2d": (NonLocal, "nonlocal_block"),
}


def build_plugin(cfg: Spec, channels: int) -> tuple[str, nn.Module]:
    """Return the attribute name, which `postfix` makes unique, and a layer that keeps `channels`.

    Raises UserError for an unknown type or argument.
    """
    options = dict(cfg)
    kind, postfix = options.pop("type"), options.pop("postfix", "")
    if kind not in PLUGINS:
        raise UserError(f"plugins: no layer is called '{kind}'{nearest(str(kind), PLUGINS)}")
    factory, name = PLUGINS[kind]
    check_arguments(factory, {"channels": channels, **options}, kind, "plugins")
    return f"{name}{postfix}", factory(channels, **options)
