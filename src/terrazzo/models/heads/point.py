"""PointRend head (Kirillov et al., CVPR 2020): classify the points where the earlier head is least certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.cascade import CascadeHead
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.models.layers.init import init_normal
from terrazzo.models.layers.points import draw_points, sample_points, uncertainty
from terrazzo.models.losses.base import accuracy
from terrazzo.registry import MODELS


@MODELS.register
class PointHead(CascadeHead):
    """PointRend head (Kirillov et al., CVPR 2020): classify the points where the earlier head is least certain.

    In training the points are drawn at random, most of them the least certain of a larger draw (`train_cfg`). Otherwise
    the earlier logits are doubled in size a few times, with new values for their least certain points each time
    (`test_cfg`).
    """

    def __init__(
        self,
        *,
        num_fcs: int = 3,
        coarse_pred_each_layer: bool = True,
        conv_cfg: Spec | None = {"type": "Conv1d"},  # noqa: B006 - never written to
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = {"type": "ReLU"},  # noqa: B006 - never written to
        **kwargs: Any,
    ) -> None:
        styles: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        super().__init__(**({"input_transform": "multiple_select"} | kwargs | styles))
        self.coarse_pred_each_layer = coarse_pred_each_layer
        widths = self.in_channels if isinstance(self.in_channels, Sequence) else [self.in_channels]
        width = sum(widths) + self.out_channels
        self.fcs = nn.ModuleList()
        for _ in range(num_fcs):
            self.fcs.append(ConvBlock(width, self.channels, 1, **styles))
            width = self.channels + (self.out_channels if coarse_pred_each_layer else 0)
        self.fc_seg = nn.Conv1d(width, self.out_channels, 1)
        init_normal(self.fc_seg, std=0.001)
        del self.conv_seg
        if self.dropout is not None:
            self.dropout = nn.Dropout(self.dropout.p)  # of points, not of maps
        self.configure({}, {})

    def configure(self, train_cfg: Spec, test_cfg: Spec) -> None:
        self.num_points = train_cfg.get("num_points", 2048)
        self.oversample_ratio = train_cfg.get("oversample_ratio", 3)
        self.importance_sample_ratio = train_cfg.get("importance_sample_ratio", 0.75)
        self.subdivision_steps = test_cfg.get("subdivision_steps", 2)
        self.subdivision_num_points = test_cfg.get("subdivision_num_points", 8196)
        self.scale_factor = test_cfg.get("scale_factor", 2)

    def classify_points(self, maps: Sequence[Tensor], coarse: Tensor, points: Tensor) -> Tensor:
        """Logits (N, K, P) from the fine maps and the coarse logits at `points`."""
        fine = [sample_points(x, points, align_corners=self.align_corners) for x in maps]
        scores = sample_points(coarse, points, align_corners=self.align_corners)
        x = torch.cat([*fine, scores], dim=1)
        for layer in self.fcs:
            x = layer(x)
            if self.coarse_pred_each_layer:
                x = torch.cat([x, scores], dim=1)
        return self.fc_seg(x if self.dropout is None else self.dropout(x))

    def fine_maps(self, inputs: Features) -> Sequence[Tensor]:
        chosen = self.select(inputs)
        return [chosen] if isinstance(chosen, Tensor) else chosen

    def forward(self, inputs: Features, previous: Tensor) -> Tensor:
        maps = self.fine_maps(inputs)
        refined = previous
        for _ in range(self.subdivision_steps):
            refined = resize(refined, scale_factor=self.scale_factor, align_corners=self.align_corners)
            height, width = refined.shape[2:]
            count = min(self.subdivision_num_points, height * width)
            index = uncertainty(refined).flatten(1).topk(count, dim=1).indices  # N, P
            row = index // width
            column = index - row * width  # `%` of a size left open is not exported
            points = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=2)
            logits = self.classify_points(maps, previous, points)
            index = index.unsqueeze(1).expand(-1, logits.shape[1], -1)
            refined = refined.flatten(2).scatter(2, index, logits).view_as(refined)
        return refined

    def loss(self, inputs: Features, labels: Tensor, *, previous: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        ratios = self.oversample_ratio, self.importance_sample_ratio
        points = draw_points(previous, self.num_points, *ratios, align_corners=self.align_corners)
        logits = self.classify_points(self.fine_maps(inputs), previous, points)  # N, K, P
        labels = sample_points(labels.unsqueeze(1).float(), points, mode="nearest").squeeze(1).long()
        losses = {f"point{name}": value for name, value in self.named_losses(logits, labels).items()}
        losses["acc_point"] = accuracy(logits, labels, self.ignore_index, self.threshold or 0.5)
        return losses
