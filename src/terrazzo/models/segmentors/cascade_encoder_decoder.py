"""EncoderDecoder with `num_stages` decode heads: each but the first also reads the logits of the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead
from terrazzo.models.heads.cascade import CascadeHead, HeadCascade
from terrazzo.models.layers import Spec
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder
from terrazzo.registry import MODELS


@MODELS.register
class CascadeEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with `num_stages` decode heads: each but the first also reads the logits of the one before it.

    Their losses are named "decode_0.loss_ce", "decode_1.loss_ce", ...; the model's logits are the last head's. Raises
    UserError for another number of heads, and for fewer than two.
    """

    decode_head: HeadCascade

    def __init__(
        self,
        *,
        num_stages: int,
        decode_head: Sequence[DecodeHead | CascadeHead],
        train_cfg: Spec | None = None,
        test_cfg: Spec | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(decode_head, Sequence) or len(decode_head) != num_stages:
            count = len(decode_head) if isinstance(decode_head, Sequence) else 1
            raise UserError(f"model.decode_head has {count} heads but num_stages={num_stages}; make them equal")
        if num_stages < 2:
            raise UserError(f"a cascade needs two heads or more, not num_stages={num_stages}; use EncoderDecoder")
        super().__init__(decode_head=HeadCascade(decode_head), test_cfg=test_cfg, **kwargs)
        for head in self.decode_head.later:
            head.configure(train_cfg or {}, test_cfg or {})

    def decode_losses(self, features: Any, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        losses = self.decode_head.loss(features, labels, **targets)
        return {f"decode_{name}": value for name, value in losses.items()}
