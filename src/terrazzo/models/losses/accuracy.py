"""Pixel accuracy, logged beside the losses."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor, ignore_index: int = 255, threshold: float = 0.3) -> Tensor:
    """Percent of the labelled pixels whose class is right; one channel of logits is a foreground score."""
    predicted = (logits[:, 0].sigmoid() > threshold).long() if logits.shape[1] == 1 else logits.argmax(1)
    valid = labels != ignore_index
    return 100.0 * (predicted.eq(labels) & valid).sum() / valid.sum().clamp(min=1)
