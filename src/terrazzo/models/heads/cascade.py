"""What heads share that refine the logits of a head before them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terrazzo.models.heads.base import DecodeHead, Features


class CascadeHead(DecodeHead):
    """A later head of a cascade: it reads the backbone's maps and the logits (N, K, h, w) of the head before it."""

    def configure(self, train_cfg: dict[str, Any], test_cfg: dict[str, Any]) -> None:
        """Take what the model's `train_cfg` and `test_cfg` say to this head."""

    def features(self, inputs: Features, previous: Tensor) -> Tensor:  # type: ignore[override]
        raise NotImplementedError

    def forward(self, inputs: Features, previous: Tensor) -> Tensor:  # type: ignore[override]
        return self.classify(self.features(inputs, previous))

    def loss(  # type: ignore[override]
        self, inputs: Features, labels: Tensor, *, previous: Tensor, **targets: Tensor
    ) -> dict[str, Tensor]:
        return self.losses(self(inputs, previous), labels)
