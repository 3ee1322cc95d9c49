"""From a loaded batch, or views of one image, to the scores of its images at their stored size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.inference.argmax import LogitsGeometry, class_map, decide, own_logits
from terrazzo.inference.modes import infer
from terrazzo.inference.runtime import Placement
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

    def labels(self) -> Tensor:
        """The class map (H, W), uint8 where the classes fit."""
        if len(self.views) == 1:
            return class_map(*self.views[0], self.threshold)
        parts = [decide(values, self.threshold) for values in self.logits()]
        dtype = torch.uint8 if len(self.views[0][0]) <= 255 else torch.int16
        return torch.cat(parts).view(self.size).to(dtype)

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
    return [Scores(one, models[0].final_head.threshold) for one in zip(*views, strict=True)]


def batch_views(model: Any, batch: Batch) -> list[View]:
    """Each image's logits; images of different sizes are run one by one."""
    if len(set(batch.sizes)) == 1:
        runs = [batch.image]
    else:
        runs = [
            image[None, :, :height, :width] for image, (height, width) in zip(batch.image, batch.sizes, strict=True)
        ]
    samples, views = iter(batch.samples), []
    for images in runs:
        logits, input_size = raw_logits(model, images)
        placements = [Placement.of(next(samples), images.shape[-2:]) for _ in logits]
        views += [
            (own, logits_geometry(own, input_size, placement, model))
            for own, placement in zip(logits, placements, strict=True)
        ]
    return views


def raw_logits(model: Any, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Logits (N, K, h, w) of raw RGB images (N, C, H, W), and the size of the padded images."""
    padded = model.preprocess.pad_for_test(model.preprocess(images))
    logits = infer(model, padded)
    if logits.device.type not in ("cpu", "cuda"):  # which lack operators of the following steps
        logits = logits.cpu()
    return logits, (padded.shape[2], padded.shape[3])


def logits_geometry(logits: Tensor, input_size: tuple[int, int], placement: Placement, model: Any) -> LogitsGeometry:
    """The way from logits (K, h, w) to the stored image's."""
    return LogitsGeometry(
        head_size=(logits.shape[1], logits.shape[2]),
        input_size=input_size,
        own_size=placement.size,
        window=placement.window,
        flip=placement.flip,
        align_corners=model.final_head.align_corners,
        device=logits.device,
    )


@torch.inference_mode()
def predict_views(models: Sequence[Any], batch: Batch) -> Scores:
    """The scores of one image from its views in `batch`: the mean of the models' probabilities."""
    return Scores(tuple(view for model in models for view in batch_views(model, batch)), models[0].final_head.threshold)


def first_view(batch: Batch) -> Batch:
    """The batch reduced to its first view, whose targets are the image's."""
    height, width = batch.sizes[0]
    return replace(batch, image=batch.image[:1, :, :height, :width], samples=batch.samples[:1], sizes=batch.sizes[:1])


def augmented_steps(pipeline: Sequence[Any], kind: str) -> list[Any]:
    """A config's `tta_pipeline`. Raises UserError if there is none, or if `tta_model` is not the mean of the views."""
    if not pipeline:
        raise UserError(
            "--tta: the config has no `tta_pipeline`; give it one: LoadImageFromFile, then TestTimeAug with a list of "
            "choices for each further step"
        )
    if kind.rpartition(".")[2] != "SegTTAModel":
        raise UserError(
            f"tta_model: '{kind}' is unknown; there is only SegTTAModel, the mean of the views' probabilities"
        )
    return list(pipeline)
