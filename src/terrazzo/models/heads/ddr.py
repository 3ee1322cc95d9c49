"""DDRNet's head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Spec, build_activation, build_norm, resize
from terrazzo.models.losses.accuracy import accuracy
from terrazzo.registry import MODELS


@MODELS.register
class DDRHead(DecodeHead):
    """DDRNet head (Hong et al., 2021): classify the fused map, and in training the detail branch half-way too.

    `loss_decode` is two losses, for the fused map and for the detail branch. Raises UserError otherwise.
    """

    def __init__(
        self,
        *,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
        **kwargs: Any,
    ) -> None:
        super().__init__(norm_cfg=norm_cfg, act_cfg=act_cfg, **kwargs)
        if len(self.criteria) != 2:
            raise UserError("DDRHead: loss_decode needs a list of two losses: fused map, detail branch")
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.head = self.refine(self.in_channels, **style)
        self.aux_head = self.refine(self.in_channels // 2, **style)
        self.aux_cls_seg = nn.Conv2d(self.channels, self.out_channels, 1)

    def refine(self, in_channels: int, *, norm_cfg: Spec, act_cfg: Spec) -> nn.Sequential:
        """Norm, activation and 3x3 convolution, then norm and activation again."""
        return nn.Sequential(
            self.conv_block(in_channels, self.channels, 3, padding=1, order=("norm", "act", "conv")),
            build_norm(norm_cfg, self.channels),
            build_activation(act_cfg),
        )

    def features(self, inputs: Features) -> Tensor:
        return self.head(inputs[-1])

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        detail, _ = inputs
        size = labels.shape[-2:]
        context = resize(self(inputs), size, align_corners=self.align_corners)
        spatial = resize(self.aux_cls_seg(self.aux_head(detail)), size, align_corners=self.align_corners)
        context_loss, spatial_loss = self.criteria
        return {
            "loss_context": context_loss(context, labels, ignore_index=self.ignore_index),
            "loss_spatial": spatial_loss(spatial, labels, ignore_index=self.ignore_index),
            "acc_seg": accuracy(context, labels, self.ignore_index),
        }
