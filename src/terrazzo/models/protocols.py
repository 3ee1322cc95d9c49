"""The contract between a segmentation model and the code that trains, scores and runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead
from terrazzo.models.preprocess import Preprocess


class Segmentor(Protocol):
    """A model (an `nn.Module`) as training, evaluation and inference use it; `EncoderDecoder` is the usual one."""

    target: str  # what it learns and is scored on: "label" or "depth"
    preprocess: Preprocess
    test_cfg: dict[str, Any]
    training: bool

    @property
    def final_head(self) -> DecodeHead:
        """The head whose logits are the model's."""

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> logits (N, K, H, W)."""

    def decode(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> logits (N, K, h, w) at the head's own resolution."""

    def loss(self, images: Tensor, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses by name, from labels (N, H, W) and further targets."""

    def train(self, mode: bool = ...) -> Any: ...

    def eval(self) -> Any: ...

    def to(self, device: torch.device) -> Any: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class Annealed(Protocol):
    """A part of a model that changes with the progress of training."""

    def anneal(self, progress: float) -> None:
        """Set what depends on the share of the run, from 0 to 1, that has passed."""


REQUIRED = ("target", "preprocess", "final_head", "decode", "loss")


def as_segmentor(model: nn.Module) -> Segmentor:
    """The model under its contract. Raises UserError for a custom one that lacks a part of it."""
    missing = [name for name in REQUIRED if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"model: {type(model).__name__} has no {', '.join(missing)}, which training and evaluation need; "
            "EncoderDecoder has them, to be inherited from"
        )
    return cast(Segmentor, model)
