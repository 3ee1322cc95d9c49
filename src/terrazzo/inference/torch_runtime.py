"""The runtime of a torch model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from terrazzo.data.loaders import to_tensor
from terrazzo.inference.predict import Scores, image_views
from terrazzo.inference.runtime import Placement
from terrazzo.system.devices import choose_device


class TorchRuntime:
    """A segmentor on a device."""

    def __init__(
        self,
        model: Any,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        *,
        bands: int = 3,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or choose_device()
        self.model = model.to(self.device).eval()
        self.classes, self.palette = list(classes), [list(colour) for colour in palette]
        self.bands = bands
        self.threshold: float | None = model.final_head.threshold

    @torch.inference_mode()
    def infer(self, images: np.ndarray, placements: Sequence[Placement]) -> list[TorchScores]:
        """The scores of images (N, H, W, C) as the pipeline returns them. Raises UserError for small ones and NaN."""
        pixels = torch.stack([to_tensor(image) for image in images]).to(self.device)
        views = image_views(self.model, pixels, placements)
        return [TorchScores(Scores((view,), self.threshold).check()) for view in views]


@dataclass(frozen=True)
class TorchScores:
    """Scores of one image as arrays."""

    scores: Scores

    @torch.inference_mode()
    def labels(self) -> np.ndarray:
        return self.scores.labels().cpu().numpy()

    @torch.inference_mode()
    def probabilities(self) -> np.ndarray:
        return self.scores.probabilities().cpu().numpy()
