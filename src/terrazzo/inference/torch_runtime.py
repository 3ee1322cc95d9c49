"""The runtime of a torch model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from terrazzo.data.loaders import to_tensor
from terrazzo.inference.predict import Scores, image_views, stored_logits
from terrazzo.inference.runtime import OwnWindows, Placement, spread_of
from terrazzo.models.checks import checked_test_cfg
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
        self.is_concurrent = self.device.type == "cpu"

    @property
    def windows(self) -> OwnWindows:
        """Those of the model's test_cfg, else the size of its training images."""
        settings = checked_test_cfg(self.model.test_cfg)
        if settings["mode"] == "whole":
            return OwnWindows(self.model.preprocess.size)
        crop, stride = settings["crop_size"], settings["stride"]
        return OwnWindows(crop, max(0.0, 1 - min(step / side for step, side in zip(stride, crop, strict=True))))

    @cached_property
    def bytes_per_pixel(self) -> float:
        """The memory of one pass for each pixel: what the largest layer reads and writes, and the skipped ones keep."""
        if checked_test_cfg(self.model.test_cfg)["mode"] != "whole":
            return 8.0 * (self.bands + 2 * len(self.classes))
        return counted_bytes(self.model, self.bands, self.device)

    @property
    def spread(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the bands of training images, by which the model normalises."""
        buffers = self.model.preprocess.mean, self.model.preprocess.std
        return spread_of([None if buffer is None else buffer.flatten().tolist() for buffer in buffers], self.bands)

    def fingerprint(self) -> str:
        checksum = 0
        for tensor in self.model.state_dict().values():
            checksum = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), checksum)
        return f"{checksum:08x} {self.model.test_cfg}"

    @torch.inference_mode()
    def infer(self, images: np.ndarray, placements: Sequence[Placement]) -> list[TorchScores]:
        """The scores of images (N, H, W, C) as the pipeline returns them. Raises UserError for small ones and NaN."""
        pixels = torch.stack([to_tensor(image) for image in images]).to(self.device)
        views = image_views(self.model, pixels, placements)
        return [TorchScores(Scores((view,), self.threshold).check()) for view in views]


COUNTED = 256  # pixels of the side of the image that memory is counted on
RETAINED = 1.5  # of the largest layer's memory, what earlier layers hold at the same time included


@torch.inference_mode()
def counted_bytes(model: Any, bands: int, device: torch.device) -> float:
    """The bytes of memory that a pass takes for each pixel of an image, by the largest layer's input and output."""
    largest = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal largest
        tensors = [one for one in (*inputs, output) if isinstance(one, torch.Tensor)]
        largest = max(largest, sum(one.numel() * one.element_size() for one in tensors))

    hooks = [module.register_forward_hook(count) for module in model.modules() if not list(module.children())]
    try:
        image = torch.zeros(1, bands, COUNTED, COUNTED, device=device)
        model.decode(model.preprocess.pad_for_test(model.preprocess(image)))
    finally:
        for hook in hooks:
            hook.remove()
    return RETAINED * largest / COUNTED**2


@dataclass(frozen=True)
class TorchScores:
    """Scores of one image as arrays."""

    scores: Scores

    @property
    @torch.inference_mode()
    def logits(self) -> np.ndarray:
        (view,) = self.scores.views
        return stored_logits(*view).float().cpu().numpy()

    @torch.inference_mode()
    def labels(self) -> np.ndarray:
        return self.scores.labels().cpu().numpy()

    @torch.inference_mode()
    def confidence(self) -> np.ndarray:
        return self.scores.confidence().cpu().numpy()

    @torch.inference_mode()
    def mean_confidence(self) -> float:
        return self.scores.mean_confidence()

    @torch.inference_mode()
    def probabilities(self) -> np.ndarray:
        return self.scores.probabilities().cpu().numpy()
