"""Context encoding head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Spec, build_norm
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss
from terrazzo.registry import MODELS


class Encoding(nn.Module):
    """Residuals of all positions to learned codewords, summed: (N, C, H, W) -> (N, codes, C, 1)."""

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        limit = (num_codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(num_codes, channels).uniform_(-limit, limit))
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)  # N, C, P
        # squared distance |p|^2 - 2 p c + |c|^2: no (P, codes, C) array is needed
        distance = pixels.square().sum(1).unsqueeze(1) + self.codewords.square().sum(1).unsqueeze(1)
        distance = distance - 2 * (self.codewords @ pixels)  # N, codes, P
        shares = (self.scale.unsqueeze(1) * distance).softmax(1)
        encoded = shares @ pixels.transpose(1, 2) - shares.sum(2, keepdim=True) * self.codewords
        return encoded.unsqueeze(3)


class EncodingModule(nn.Module):
    """Scale the channels by the encoding of the whole image."""

    def __init__(
        self, channels: int, num_codes: int, conv_block: Callable[..., nn.Module], norm_cfg: Spec | None
    ) -> None:
        super().__init__()
        self.encoding_project = conv_block(channels, channels, 1)
        norm = [] if norm_cfg is None else [build_norm(norm_cfg, num_codes)]
        self.encoding = nn.Sequential(Encoding(channels, num_codes), *norm, nn.ReLU(inplace=True))
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-> the image's code (N, C) and the scaled map."""
        code = self.encoding(self.encoding_project(x)).mean(1).squeeze(2)
        gain = self.fc(code)[:, :, None, None]
        return code, F.relu(x + x * gain)


@MODELS.register
class EncHead(DecodeHead):
    """EncNet head (Zhang et al., CVPR 2018); with `use_se_loss` the code also predicts which classes are present.

    `add_lateral` fuses the finer maps in.
    """

    def __init__(
        self,
        *,
        num_codes: int = 32,
        use_se_loss: bool = True,
        add_lateral: bool = False,
        loss_se_decode: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        self.bottleneck = self.conv_block(self.in_channels[-1], self.channels, 3, padding=1)
        self.add_lateral = add_lateral
        if add_lateral:
            self.lateral_convs = nn.ModuleList(
                self.conv_block(width, self.channels, 1) for width in self.in_channels[:-1]
            )
            self.fusion = self.conv_block(len(self.in_channels) * self.channels, self.channels, 3, padding=1)
        self.enc_module = EncodingModule(self.channels, num_codes, self.conv_block, self.norm_cfg)
        self.use_se_loss = use_se_loss
        if use_se_loss:
            self.loss_se_decode = loss_se_decode or CrossEntropyLoss(use_sigmoid=True, loss_weight=0.2)
            self.se_layer = nn.Linear(self.channels, self.num_classes)

    def encode(self, inputs: Features) -> tuple[Tensor, Tensor]:
        """The image's code (N, channels) and the map (N, channels, h, w)."""
        *finer, coarsest = self.select(inputs)
        x = self.bottleneck(coarsest)
        if self.add_lateral:
            laterals = [self.resize(conv(y), like=x) for conv, y in zip(self.lateral_convs, finer, strict=True)]
            x = self.fusion(torch.cat([x, *laterals], dim=1))
        return self.enc_module(x)

    def features(self, inputs: Features) -> Tensor:
        return self.encode(inputs)[1]

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        code, features = self.encode(inputs)
        losses = self.losses(self.classify(features), labels)
        if self.use_se_loss:
            classes = torch.arange(self.num_classes, device=labels.device)
            present = (labels.flatten(1).unsqueeze(2) == classes).any(1)  # N, K
            # one binary label for each class of each image
            losses["loss_se"] = self.loss_se_decode(self.se_layer(code).view(-1, 1), present.long().view(-1))
        return losses
