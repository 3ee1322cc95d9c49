"""FCN heads with a context module between their two convolutions: NLNet, DNLNet, GCNet and CCNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.fcn import FCNHead
from terrazzo.models.layers import Spec
from terrazzo.models.layers.context_block import ContextBlock, DisentangledNonLocal, NonLocal
from terrazzo.models.layers.self_attention import Scale
from terrazzo.registry import MODELS


class FCNContextHead(FCNHead):
    """Convolution, `context`, convolution, with the input concatenated by `concat_input`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(num_convs=2, **kwargs)

    def context(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        raise NotImplementedError

    def convolve(self, x: Tensor) -> Tensor:
        reduce, refine = self.convs
        return refine(self.context(reduce(x)))


@MODELS.register
class NLHead(FCNContextHead):
    """Non-local networks' head (Wang et al., CVPR 2018)."""

    def __init__(
        self, *, reduction: int = 2, use_scale: bool = True, mode: str = "embedded_gaussian", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        style: Spec = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg}
        self.nl_block = NonLocal(self.channels, reduction=reduction, use_scale=use_scale, mode=mode, **style)

    def context(self, x: Tensor) -> Tensor:
        return self.nl_block(x)


@MODELS.register
class DNLHead(FCNContextHead):
    """DNLNet head (Yin et al., ECCV 2020); `temperature` sharpens the pairwise part."""

    def __init__(
        self,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        options: Spec = {"reduction": reduction, "use_scale": use_scale, "mode": mode, "temperature": temperature}
        options |= {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg}
        self.dnl_block = DisentangledNonLocal(self.channels, **options)

    def context(self, x: Tensor) -> Tensor:
        return self.dnl_block(x)


@MODELS.register
class GCHead(FCNContextHead):
    """GCNet head (Cao et al., ICCVW 2019)."""

    def __init__(
        self,
        *,
        ratio: float = 1 / 4,
        pooling_type: str = "att",
        fusion_types: Sequence[str] = ("channel_add",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gc_block = ContextBlock(self.channels, ratio=ratio, pooling_type=pooling_type, fusion_types=fusion_types)

    def context(self, x: Tensor) -> Tensor:
        return self.gc_block(x)


class CrissCrossAttention(nn.Module):
    """Each position reads its own row and column."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        height = x.shape[2]
        column = torch.einsum("nchw,nciw->nhwi", query, key)
        itself = torch.eye(height, dtype=torch.bool, device=x.device).unsqueeze(1)  # its row has it already
        column = column.masked_fill(itself, float("-inf"))
        row = torch.einsum("nchw,nchj->nhwj", query, key)
        attention = torch.cat([column, row], dim=3).softmax(3)  # N, H, W, H + W
        context = torch.einsum("nciw,nhwi->nchw", value, attention[..., :height])
        context = context + torch.einsum("nchj,nhwj->nchw", value, attention[..., height:])
        return self.gamma(context) + x


@MODELS.register
class CCHead(FCNContextHead):
    """CCNet head (Huang et al., ICCV 2019): twice along rows and columns reaches the whole image."""

    def __init__(self, *, recurrence: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recurrence = recurrence
        self.cca = CrissCrossAttention(self.channels)

    def context(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            x = self.cca(x)
        return x
