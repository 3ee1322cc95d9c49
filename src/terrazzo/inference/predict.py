"""From a loaded batch, or views of one image, to the scores of its images at their stored size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.inference.argmax import FLIPS, LogitsGeometry, class_map, decide, own_logits
from terrazzo.inference.modes import infer
from terrazzo.inference.runtime import Placement
from terrazzo.models.layers import resize
from terrazzo.models.probabilities import probabilities
from terrazzo.sample import Batch

View = tuple[Tensor, LogitsGeometry]  # logits (K, h, w), and their relation to the stored image


@dataclass(frozen=True)
class Scores:
    """Logits of one image: of one pass, or of several models or augmented views, whose probabilities are averaged."""

    views: tuple[View, ...]
    threshold: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the stored image."""
        return self.views[0][1].own_size

    def check(self, image: object = None) -> Scores:
        """The scores themselves. Raises UserError, naming the image, where the model gave NaN, which is not a class."""
        if any(bool(logits.isnan().any()) for logits, _ in self.views):
            named = "" if image is None else f"{image}: "
            raise UserError(
                f"{named}the model gives NaN (not a number): its weights or the image's values are damaged, or too "
                "large for the precision"
            )
        return self

    def labels(self) -> Tensor:
        """The class map (H, W), uint8 where the classes fit."""
        if len(self.views) == 1:
            return class_map(*self.views[0], self.threshold)
        parts = [decide(values, self.threshold) for values in self.logits()]
        dtype = torch.uint8 if len(self.views[0][0]) <= 255 else torch.int16
        return torch.cat(parts).view(self.size).to(dtype)

    def confidence(self) -> Tensor:
        """The highest probability of each pixel (H, W)."""
        return torch.cat([probabilities(part).amax(1) for part in self.logits()]).view(self.size)

    def mean_confidence(self) -> float:
        """The mean over the image of the highest probability, at the size of the logits."""
        highest = [probabilities(logits.flatten(1).T.float()).amax(1).mean() for logits, _ in self.views]
        return float(torch.stack(highest).mean())

    def logits(self) -> Iterator[Tensor]:
        """Logits (p, K) of the image's pixels, row after row in chunks; for several views those of their mean."""
        if len(self.views) == 1:
            yield from own_logits(*self.views[0])
            return
        for parts in zip(*(own_logits(*view) for view in self.views), strict=True):
            if parts[0].shape[1] == 1:
                mean = torch.stack([part.sigmoid() for part in parts]).mean(0)
                yield mean.logit(eps=1e-7)
            else:
                mean = torch.stack([part.softmax(1) for part in parts]).mean(0)
                yield mean.clamp(min=torch.finfo(mean.dtype).tiny).log()

    def probabilities(self) -> Tensor:
        """Class probabilities (K, H, W); one channel becomes background and foreground."""
        return torch.cat([probabilities(part) for part in self.logits()]).T.reshape(-1, *self.size)


@torch.inference_mode()
def predict_batch(models: Sequence[Any], batch: Batch) -> list[Scores]:
    """The scores of each image: the mean of the models' probabilities."""
    views = [batch_views(model, batch) for model in models]
    scores = [Scores(one, models[0].final_head.threshold) for one in zip(*views, strict=True)]
    return [one.check(sample.image_path) for one, sample in zip(scores, batch.samples, strict=True)]


def batch_views(model: Any, batch: Batch) -> list[View]:
    """Each image's logits; images of different sizes are run one by one."""
    if hasattr(model, "views"):  # an exported model, which takes the images as they are stored
        return model.views(batch)
    sizes, views = batch.sizes, []
    runs = [batch.image]
    if len(set(sizes)) > 1:
        runs = [own[None, :, :height, :width] for own, (height, width) in zip(batch.image, sizes, strict=True)]
    samples = iter(batch.samples)
    for images in runs:
        views += image_views(model, images, [Placement.of(next(samples), images.shape[-2:]) for _ in images])
    return views


def image_views(model: Any, images: Tensor, placements: Sequence[Placement]) -> list[View]:
    """The logits of each raw RGB image (N, C, H, W), which has a stored image at its placement."""
    padded = model.preprocess.pad_for_test(model.preprocess(images))
    logits = infer(model, padded)  # N, K, h, w
    if logits.device.type not in ("cpu", "cuda"):  # which lack operators of the following steps
        logits = logits.cpu()
    geometries = (
        LogitsGeometry(
            head_size=(logits.shape[2], logits.shape[3]),
            input_size=(padded.shape[2], padded.shape[3]),
            own_size=placement.size,
            window=placement.window,
            flip=placement.flip,
            align_corners=model.final_head.align_corners,
            device=logits.device,
        )
        for placement in placements
    )
    return list(zip(logits, geometries, strict=True))


def stored_logits(logits: Tensor, geometry: LogitsGeometry) -> Tensor:
    """Logits (K, h, w) -> all of them (K, H, W) at the stored image's size."""
    top, left, bottom, right = geometry.window or (0, 0, *geometry.input_size)
    corners = geometry.align_corners
    whole = resize(logits[None], geometry.input_size, align_corners=corners)[..., top:bottom, left:right]
    if geometry.flip:
        whole = whole.flip([axis for axis, flips in zip((2, 3), FLIPS[geometry.flip], strict=True) if flips])
    return resize(whole, geometry.own_size, align_corners=corners)[0]
