"""PIDNet head (Xu et al., CVPR 2023): classify the fused map, and in training the detail and boundary branches."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.heads.two_branch import refine
from terrazzo.models.layers import Spec, resize
from terrazzo.models.losses.base import accuracy
from terrazzo.registry import MODELS


@MODELS.register
class PIDHead(DecodeHead):
    """PIDNet head (Xu et al., CVPR 2023): classify the fused map, and in training the detail and boundary branches.

    `loss_decode` is four losses: of the detail branch, of the fused map, of the boundary map (labels are edges), and of
    the fused map where the boundary branch finds an edge. Raises UserError otherwise.
    """

    edge_probability = 0.8  # above which a pixel counts as an edge

    def __init__(
        self,
        *,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
        **kwargs: Any,
    ) -> None:
        super().__init__(norm_cfg=norm_cfg, act_cfg=act_cfg, **kwargs)
        if len(self.criteria) != 4:
            raise UserError(
                "PIDHead: loss_decode needs a list of four losses: detail branch, fused map, boundary, edges"
            )
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        half, quarter = self.in_channels // 2, self.in_channels // 4
        self.i_head = self.refine(self.in_channels, self.channels, **style)
        self.p_head = self.refine(half, self.channels, **style)
        self.d_head = self.refine(half, quarter, **style)
        self.p_cls_seg = nn.Conv2d(self.channels, self.out_channels, 1)
        self.d_cls_seg = nn.Conv2d(quarter, 1, 1)

    def refine(self, *args: int, **style: Any) -> nn.Sequential:
        return nn.Sequential(OrderedDict(zip(("conv", "norm", "act"), refine(*args, **style), strict=True)))

    def features(self, inputs: Features) -> Tensor:
        return self.i_head(inputs[-1])

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """The published losses; `edge` (N, H, W) is 1 at class boundaries, 0 elsewhere and 255 where ignored."""
        if "edge" not in targets:
            raise UserError(
                "PIDHead learns boundaries too: give model.loss(images, labels, edge=...) a map of 0 and 1 (N, H, W); "
                "in a training pipeline the transform GenerateEdge makes it"
            )
        detail, boundary, _ = inputs
        maps = (self.p_cls_seg(self.p_head(detail)), self(inputs), self.d_cls_seg(self.d_head(boundary)))
        size = labels.shape[-2:]
        p_logits, i_logits, d_logits = [resize(x, size, align_corners=self.align_corners) for x in maps]
        at_edges = torch.where(d_logits[:, 0].sigmoid() > self.edge_probability, labels, self.ignore_index)
        detail_loss, fused_loss, boundary_loss, edge_loss = self.criteria
        return {
            "loss_sem_p": detail_loss(p_logits, labels, ignore_index=self.ignore_index),
            "loss_sem_i": fused_loss(i_logits, labels, ignore_index=self.ignore_index),
            "loss_bd": boundary_loss(d_logits, targets["edge"], ignore_index=self.ignore_index),
            "loss_sem_bd": edge_loss(i_logits, at_edges, ignore_index=self.ignore_index),
            "acc_seg": accuracy(i_logits, labels, self.ignore_index),
        }
