"""A backbone with several decode heads, each refining the logits of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder, with_prefix
from terrazzo.registry import MODELS


@MODELS.register
class CascadeEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with `num_stages` decode heads: each but the first also reads the logits of the one before it.

    Their losses are named "decode_0.loss_ce", "decode_1.loss_ce", ...; the model's logits are the last head's.
    """

    def __init__(
        self,
        *,
        num_stages: int,
        decode_head: Sequence[DecodeHead],
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(decode_head, Sequence) or len(decode_head) != num_stages:
            count = len(decode_head) if isinstance(decode_head, Sequence) else 1
            raise UserError(f"model.decode_head has {count} heads but num_stages={num_stages}; make them equal")
        super().__init__(decode_head=nn.ModuleList(decode_head), test_cfg=test_cfg, **kwargs)
        for head in decode_head[1:]:
            head.configure(train_cfg or {}, test_cfg or {})

    @property
    def final_head(self) -> DecodeHead:
        return self.decode_head[-1]

    def decode(self, images: Tensor) -> Tensor:
        features = self.encode(images)
        first, *later = self.decode_head
        logits = first(features)
        for head in later:
            logits = head(features, logits)
        return logits

    def decode_losses(self, features: Any, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        *earlier, last = self.decode_head
        losses: dict[str, Tensor] = {}
        previous: dict[str, Tensor] = {}
        for index, head in enumerate(earlier):
            logits = head(features, **previous)
            losses |= with_prefix(f"decode_{index}", head.losses(logits, labels))
            previous = {"previous": logits}
        return losses | with_prefix(f"decode_{len(earlier)}", last.loss(features, labels, **previous, **targets))
