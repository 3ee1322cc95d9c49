"""The part of a trained encoder that training changes: all of it, none, or a low-rank change of its weights."""

from __future__ import annotations

from torch import nn

from terrazzo.errors import UserError
from terrazzo.models.freezing import freeze
from terrazzo.models.layers.lora import RANK, add_low_rank


def set_finetuning(model: nn.Module, way: str) -> str:
    """Prepare a model's encoder, which has its weights, for `full`, `frozen` or `lora`; return a line about it.

    Raises UserError for a model without a backbone.
    """
    if way == "full":
        return ""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise UserError(f"finetune: {way} needs a model with a backbone, which {type(model).__name__} does not have")
    own = getattr(backbone, "own_parts", ())  # of the decoder, as EoMT's queries
    if way == "frozen":
        parts = [name for name, _ in backbone.named_children() if name not in own]
        freeze(model, [f"backbone.{name}" for name in parts] if own else ["backbone"])
        return ""
    of_decoder = [getattr(backbone, name) for name in own]
    count = add_low_rank(backbone, without=of_decoder)
    for part in of_decoder:
        part.requires_grad_(True)
    return f"backbone: frozen, with low-rank changes (LoRA, rank {RANK}) of {count} weights, which are trained"
