"""Cascades: heads that refine the logits of the head before them, such as OCRNet's and PointRend's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features, LogitsHead
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.models.layers.init import init_normal
from terrazzo.models.layers.points import draw_points, sample_points, uncertainty
from terrazzo.models.layers.self_attention import MapAttention
from terrazzo.models.losses.base import accuracy
from terrazzo.registry import MODELS


class CascadeHead(LogitsHead):
    """A later head of a cascade: it reads the backbone's maps and the logits (N, K, h, w) of the head before it."""

    def configure(self, train_cfg: Spec, test_cfg: Spec) -> None:
        """Take the settings that the model's `train_cfg` and `test_cfg` hold for this head."""

    def features(self, inputs: Features, previous: Tensor) -> Tensor:
        """The map (N, channels, h, w) that the classifier reads."""
        raise NotImplementedError

    def forward(self, inputs: Features, previous: Tensor) -> Tensor:
        return self.classify(self.features(inputs, previous))

    def loss(self, inputs: Features, labels: Tensor, *, previous: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses by name; labels (N, H, W)."""
        return self.losses(self(inputs, previous), labels)


class HeadCascade(nn.ModuleList):
    """A first head and later ones as one: its logits are the last head's, its losses "0.loss_ce", "1.loss_ce", ..."""

    def __init__(self, heads: Sequence[DecodeHead | CascadeHead]) -> None:
        super().__init__(heads)
        last = heads[-1]
        self.num_classes, self.out_channels, self.threshold = last.num_classes, last.out_channels, last.threshold
        self.align_corners, self.ignore_index = last.align_corners, last.ignore_index

    @property
    def first(self) -> DecodeHead:
        return cast("DecodeHead", self[0])

    @property
    def later(self) -> list[CascadeHead]:
        return cast("list[CascadeHead]", [*self][1:])

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Logits (N, K, h, w) of the last head."""
        logits = self.first(inputs)
        for head in self.later:
            logits = head(inputs, logits)
        return logits

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of all heads; labels (N, H, W)."""
        *between, last = self.later
        logits = self.first(inputs)
        losses = [self.first.losses(logits, labels)]
        for head in between:
            logits = head(inputs, logits)
            losses.append(head.losses(logits, labels))
        losses.append(last.loss(inputs, labels, previous=logits, **targets))
        return {f"{index}.{name}": value for index, own in enumerate(losses) for name, value in own.items()}


class ObjectContext(MapAttention):
    """Each pixel reads the object regions and is fused with what it read."""

    def __init__(self, *, bottleneck: nn.Module, **projections: Any) -> None:
        super().__init__(**projections)
        self.bottleneck = bottleneck

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([self.read(query, key), query], dim=1))


@MODELS.register
class OCRHead(CascadeHead):
    """OCRNet head (Yuan et al., ECCV 2020): the earlier logits gather one region vector a class, pixels read them.

    `scale` multiplies the logits before their softmax over the image.
    """

    def __init__(self, *, ocr_channels: int, scale: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        wide, narrow = self.channels, ocr_channels
        self.object_context_block = ObjectContext(
            key=nn.Sequential(self.conv_block(wide, narrow, 1), self.conv_block(narrow, narrow, 1)),
            query=nn.Sequential(self.conv_block(wide, narrow, 1), self.conv_block(narrow, narrow, 1)),
            value=self.conv_block(wide, narrow, 1),
            out=self.conv_block(narrow, wide, 1),
            bottleneck=self.conv_block(2 * wide, wide, 1),
        )
        self.bottleneck = self.conv_block(self.in_channels, self.channels, 3, padding=1)

    def regions(self, x: Tensor, logits: Tensor) -> Tensor:
        """The mean of `x` over each class's soft region: (N, channels, K, 1)."""
        weights = (self.scale * logits.flatten(2)).softmax(2)  # N, K, H * W
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)

    def features(self, inputs: Features, previous: Tensor) -> Tensor:
        x = self.bottleneck(self.select(inputs))
        return self.object_context_block(x, self.regions(x, self.resize(previous, like=x)))


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
            points = torch.stack([(index % width + 0.5) / width, (index // width + 0.5) / height], dim=2)
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
