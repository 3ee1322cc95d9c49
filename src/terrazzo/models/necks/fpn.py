"""Feature pyramid network."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS


@MODELS.register
class FPN(nn.Module):
    """Top-down pathway with lateral connections (Lin et al., CVPR 2017); further levels are pooled or strided."""

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | str = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = None,
        upsample_cfg: Spec = {"mode": "nearest"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        self.levels = range(start_level, len(in_channels) if end_level == -1 else end_level)
        self.upsample_cfg = upsample_cfg
        self.relu_before_extra_convs = relu_before_extra_convs
        self.extra_source = add_extra_convs if isinstance(add_extra_convs, str) else None
        if add_extra_convs is True:
            self.extra_source = "on_input"
        self.num_extra = num_outs - len(self.levels)
        styles: Spec = {"conv_cfg": conv_cfg, "act_cfg": act_cfg, "inplace": False}
        self.lateral_convs = nn.ModuleList(
            ConvBlock(in_channels[level], out_channels, 1, norm_cfg=None if no_norm_on_lateral else norm_cfg, **styles)
            for level in self.levels
        )
        self.fpn_convs = nn.ModuleList(
            ConvBlock(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg, **styles) for _ in self.levels
        )
        if self.extra_source is not None:
            for index in range(self.num_extra):
                from_input = index == 0 and self.extra_source == "on_input"
                source = in_channels[self.levels[-1]] if from_input else out_channels
                self.fpn_convs.append(
                    ConvBlock(source, out_channels, 3, stride=2, padding=1, norm_cfg=norm_cfg, **styles)
                )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        laterals = [conv(inputs[level]) for level, conv in zip(self.levels, self.lateral_convs, strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            size = laterals[index - 1].shape[2:]
            laterals[index - 1] = laterals[index - 1] + resize(laterals[index], size, **self.upsample_cfg)
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        if self.extra_source is None:
            for _ in range(self.num_extra):
                outputs.append(F.max_pool2d(outputs[-1], 1, stride=2))
            return tuple(outputs)
        sources = {"on_input": inputs[self.levels[-1]], "on_lateral": laterals[-1], "on_output": outputs[-1]}
        extra = sources[self.extra_source]
        for index, conv in enumerate(self.fpn_convs[len(self.levels) :]):
            extra = conv(F.relu(extra) if index and self.relu_before_extra_convs else extra)
            outputs.append(extra)
        return tuple(outputs)
