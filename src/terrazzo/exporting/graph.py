"""The whole model as one graph: stored images in, class maps of the same size out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.exporting.largest import Largest, argmax
from terrazzo.exporting.resizing import mirrored, resize_image, resize_twice
from terrazzo.inference.runtime import DEFAULT_THRESHOLD
from terrazzo.models.layers.sizes import larger, smaller
from terrazzo.models.probabilities import probabilities
from terrazzo.system.arithmetic import as_pair, ceil_div
from terrazzo.transforms.resize import Resize, ResizeShortestEdge, ResizeToMultiple, Resizing

OUTPUTS = ("labels", "confidence", "probabilities", "logits")


class Graph(nn.Module):
    """Images (N, H, W, C) of the training images' type -> `outputs` in their order, all of them at H x W.

    "labels" (N, H, W) uint8, or int32 for more classes than 255; "confidence" (N, H, W); "probabilities" and "logits"
    (N, K, H, W). Images are resized by the steps of `resizings`, normalised, padded and run in one pass; with `mirror`
    also mirrored from left to right, and the logits averaged. `largest` finds the class of each pixel, in a form that
    the runtime is fast with.
    """

    def __init__(
        self,
        model: Any,
        outputs: Sequence[str] = ("labels",),
        resizings: Sequence[Resizing] = (),
        mirror: bool = False,
        largest: Largest = argmax,
    ) -> None:
        super().__init__()
        self.model, self.outputs, self.resizings, self.mirror = model, tuple(outputs), tuple(resizings), mirror
        self.largest = largest
        self.threshold: float | None = model.final_head.threshold
        self.network_type = next(model.parameters()).dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        height, width = image.shape[1:3]
        x = image.permute(0, 3, 1, 2)  # N, C, H, W
        for step in self.resizings:
            x = resize_image(x, target_size(step, x.shape[2], x.shape[3]))

        # The network, on images padded on the right and below
        size = x.shape[2:]
        x = self.model.preprocess.pad_for_test(self.model.preprocess(x)).to(self.network_type)
        logits = self.model.decode(x)  # N, K, h, w
        if self.mirror:
            logits = (logits + mirrored(self.model.decode(mirrored(x)))) / 2

        # Back to the stored size
        logits = logits.float()
        padded, corners = x.shape[2:], self.model.final_head.align_corners
        if self.resizings:
            logits = resize_twice(logits, padded, size, (height, width), corners)
            padded = size = logits.shape[2:]
        logits, classes = self.largest(logits, padded, size, corners)
        return tuple(
            self.labels(logits, classes) if name == "labels" else getattr(self, name)(logits) for name in self.outputs
        )

    def with_logits(self) -> Graph:
        """The same graph with "logits" among its outputs, in the last place unless it was there."""
        return self.changed(outputs=self.outputs if "logits" in self.outputs else (*self.outputs, "logits"))

    def in_bf16(self) -> Graph:
        """The same graph with the network, and nothing else, in bfloat16."""
        model = copy.deepcopy(self.model).bfloat16()
        model.preprocess = self.model.preprocess
        return self.changed(model=model)

    def changed(self, **parts: Any) -> Graph:
        """The same graph with other parts, by the names of the constructor's arguments."""
        same = {name: getattr(self, name) for name in ("model", "outputs", "resizings", "mirror", "largest")}
        return Graph(**same | parts).eval()

    def shapes(self) -> list[tuple[int | str, ...]]:
        """The shape of each output, its open axes as letters."""
        channels = self.model.final_head.out_channels
        counts = {"probabilities": max(2, channels), "logits": channels}
        return [("N", counts[name], "H", "W") if name in counts else ("N", "H", "W") for name in self.outputs]

    def logits(self, logits: Tensor) -> Tensor:
        return logits

    def labels(self, logits: Tensor, classes: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            threshold = DEFAULT_THRESHOLD if self.threshold is None else self.threshold
            return (logits[:, 0].sigmoid() > threshold).to(torch.uint8)
        return classes.to(torch.uint8 if logits.shape[1] <= 255 else torch.int32)

    def probabilities(self, logits: Tensor) -> Tensor:
        return probabilities(logits)

    def confidence(self, logits: Tensor) -> Tensor:
        return probabilities(logits).amax(1)


def target_size(step: Any, height: int, width: int) -> tuple[int, int]:
    """The (height, width) that a step resizes an image to, whose size may be open.

    Where both edges are multiplied by the smaller of two factors, the smaller of both products is the same.
    """
    if isinstance(step, ResizeToMultiple):
        return ceil_div(height, step.size_divisor) * step.size_divisor, ceil_div(
            width, step.size_divisor
        ) * step.size_divisor
    longer, shorter = larger(height, width), smaller(height, width)
    if isinstance(step, ResizeShortestEdge):
        short, long = min(as_pair(step.scale, "scale")), step.max_size
    else:
        assert isinstance(step, Resize)
        if step.scale is None:
            across, down = as_pair(step.scale_factor, "scale_factor")
            return ratio(height, down, 1), ratio(width, across, 1)
        if not step.keep_ratio:
            return int(step.scale[1]), int(step.scale[0])
        short, long = min(step.scale), max(step.scale)
    by_short = ratio(height, short, shorter), ratio(width, short, shorter)
    if not long:
        return by_short
    by_long = ratio(height, long, longer), ratio(width, long, longer)
    return smaller(by_short[0], by_long[0]), smaller(by_short[1], by_long[1])


def ratio(edge: int, numerator: float, denominator: int) -> int:
    """An edge times a fraction, rounded half up."""
    if numerator == int(numerator):
        return (2 * edge * int(numerator) + denominator) // (2 * denominator)
    return torch.sym_int(edge * numerator / denominator + 0.5)
