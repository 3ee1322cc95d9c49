"""Modules that build on inner blocks of official models, as plug-ins of other papers do."""

import torch
import torch.nn as nn
from mmcv.cnn import ConvModule
from mmseg.models.backbones import ResNetV1c
from mmseg.models.builder import BACKBONES, LOSSES
from mmseg.models.decode_heads.fcn_head import FCNHead


@BACKBONES.register_module()
class InterleavedResNet(ResNetV1c):
    def forward(self, x):
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for name in self.res_layers:
            x = getattr(self, name)(x)
            outs.append(x)
        return outs[: self.num_stages]


@LOSSES.register_module()
class NamelessLoss(nn.Module):
    """As early 0.x has losses: without a name."""

    def forward(self, pred, target, weight=None, ignore_index=255, reduction_override=None, **kwargs):
        reduction = reduction_override or "mean"
        return nn.functional.cross_entropy(pred, target, ignore_index=ignore_index, reduction=reduction)


class Inspected(FCNHead):
    def widths(self):
        blocks = [block for block in self.modules() if isinstance(block, ConvModule)]
        return [(block.in_channels, block.out_channels, block.with_norm, block.with_activation) for block in blocks]


def features():
    torch.manual_seed(0)
    return [torch.randn(2, 8, 8, 8)]
