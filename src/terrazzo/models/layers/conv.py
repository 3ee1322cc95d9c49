"""Convolution, norm and activation as one block, with the attribute names that published checkpoints use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from terrazzo.errors import UserError, nearest
from terrazzo.models.layers.activation import build_activation
from terrazzo.models.layers.deform_conv import DeformConv2d, ModulatedDeformConv2d
from terrazzo.models.layers.init import zero_bias
from terrazzo.models.layers.norm import build_norm, norm_name
from terrazzo.models.layers.sizes import larger
from terrazzo.models.layers.spec import Spec, kind_of
from terrazzo.system.arithmetic import ceil_div


def missing_pixels(conv: nn.Conv2d, x: Tensor, axis: int) -> int:
    """Return how many rows (axis 0) or columns (1) the map `x` lacks for an output of ceil(size / stride)."""
    size, stride = x.shape[2 + axis], conv.stride[axis]
    extent = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
    return larger((ceil_div(size, stride) - 1) * stride + extent - size, 0)


class AdaptivePaddingConv2d(nn.Conv2d):
    """Convolution whose output is ceil(input / stride), padded more on the right and below (TensorFlow's "same")."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.padding = (0, 0)

    def forward(self, input: Tensor) -> Tensor:
        pads = []
        for axis in (1, 0):  # width first, as F.pad wants it
            missing = missing_pixels(self, input, axis)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(input, pads))


CONVS: dict[str, Callable[..., _ConvNd]] = {
    "Conv1d": nn.Conv1d,
    "Conv2d": nn.Conv2d,
    "Conv": nn.Conv2d,
    "Conv3d": nn.Conv3d,
    "Conv2dAdaptivePadding": AdaptivePaddingConv2d,
    "DCN": DeformConv2d,
    "DCNv2": ModulatedDeformConv2d,
}


def build_conv(conv_cfg: Spec | None, *args: Any, **kwargs: Any) -> _ConvNd:
    """Build a convolution of the type that `conv_cfg` names; None is Conv2d. Raises UserError for an unknown type."""
    options = dict(conv_cfg or {"type": "Conv2d"})
    kind = kind_of(options)
    del options["type"]
    if kind not in CONVS:
        raise UserError(f"conv_cfg: no convolution is called '{kind}'{nearest(str(kind), CONVS)}")
    return CONVS[kind](*args, **kwargs, **options)


class ConvBlock(nn.Module):
    """`conv`, norm (`bn`, `gn`, ...) and `activate`, in `order`; the convolution has a bias where there is no norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool | str = "auto",
        *,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = {"type": "ReLU"},  # noqa: B006 - never written to
        inplace: bool = True,
        order: Sequence[str] = ("conv", "norm", "act"),
    ) -> None:
        super().__init__()
        self.order = tuple(order)
        bias = norm_cfg is None if bias == "auto" else bias
        self.conv = build_conv(
            conv_cfg, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bool(bias)
        )
        self.norm_name = None
        if norm_cfg is not None:
            self.norm_name = norm_name(norm_cfg)
            after = self.order.index("norm") > self.order.index("conv")
            self.add_module(self.norm_name, build_norm(norm_cfg, out_channels if after else in_channels))
        self.activate = None
        if act_cfg is not None:
            # PReLU and the smooth ones have no in-place form: build_activation drops the flag for them
            self.activate = build_activation({"inplace": inplace, **act_cfg})
        nonlinearity: Literal["relu", "leaky_relu"] = "relu"
        slope = 0.0
        if act_cfg is not None and act_cfg["type"] == "LeakyReLU":
            nonlinearity, slope = "leaky_relu", act_cfg.get("negative_slope", 0.01)
        nn.init.kaiming_normal_(self.conv.weight, a=slope, mode="fan_out", nonlinearity=nonlinearity)
        zero_bias(self.conv.bias)

    @property
    def norm(self) -> nn.Module | None:
        """The norm layer, whatever its name."""
        return getattr(self, self.norm_name) if self.norm_name else None

    def forward(self, x: Tensor) -> Tensor:
        for step in self.order:
            if step == "conv":
                x = self.conv(x)
            elif step == "norm" and self.norm is not None:
                x = self.norm(x)
            elif step == "act" and self.activate is not None:
                x = self.activate(x)
        return x


class DepthwiseSeparableConvBlock(nn.Module):
    """A depthwise and a pointwise ConvBlock (Howard et al., 2017), each with its own norm and activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        *,
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = {"type": "ReLU"},  # noqa: B006 - never written to
        dw_norm_cfg: Spec | str | None = "default",
        dw_act_cfg: Spec | str | None = "default",
        pw_norm_cfg: Spec | str | None = "default",
        pw_act_cfg: Spec | str | None = "default",
        **options: Any,
    ) -> None:
        super().__init__()

        def own(value: Any, default: Any) -> Any:
            return default if value == "default" else value

        depthwise = options | {"norm_cfg": own(dw_norm_cfg, norm_cfg), "act_cfg": own(dw_act_cfg, act_cfg)}
        pointwise = options | {"norm_cfg": own(pw_norm_cfg, norm_cfg), "act_cfg": own(pw_act_cfg, act_cfg)}
        geometry = (kernel_size, stride, padding, dilation)
        self.depthwise_conv = ConvBlock(in_channels, in_channels, *geometry, groups=in_channels, **depthwise)
        self.pointwise_conv = ConvBlock(in_channels, out_channels, 1, **pointwise)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))
