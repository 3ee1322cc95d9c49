"""Pixel accuracy, logged beside the losses."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor, ignore_index: int = 255, threshold: float = 0.3) -> Tensor:
    """Return the percentage of labelled pixels classified correctly; one channel of logits is a foreground score."""
    valid = labels != ignore_index
    if logits.shape[1] == 1:
        right = (logits[:, 0].sigmoid() > threshold) == labels.bool()
    else:  # the label's own logit is the highest: much cheaper than an argmax
        own = logits.gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)
        right = own >= logits.amax(1)
    return 100.0 * (right & valid).sum() / valid.sum().clamp(min=1)
