"""The loop of an evaluation: images in, predictions to callbacks, scores and losses out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terrazzo.data.loaders import loading
from terrazzo.errors import UserError, some
from terrazzo.inference.argmax import LogitsGeometry, own_logits
from terrazzo.inference.predict import Scores, View, predict_batch
from terrazzo.inference.tta import first_view, predict_views
from terrazzo.metrics import DepthEvaluator, Evaluator, Seen
from terrazzo.models.heads.base import DecodeHead
from terrazzo.models.layers import resize
from terrazzo.models.losses.base import class_weights
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss
from terrazzo.models.protocols import Segmentor
from terrazzo.models.segmentors.encoder_decoder import own_labels
from terrazzo.sample import Batch, Sample
from terrazzo.system.failures import explained
from terrazzo.system.process_group import SINGLE_PROCESS, ProcessGroup
from terrazzo.transforms.compose import reading_types

LOWER = "lower the batch size of the test set, or predict in windows (test_cfg.mode=slide)"
OnPrediction = Callable[[Batch, list[Tensor], Sequence[str], Sequence[Sequence[int]]], None]
OnSeen = Callable[[Sample, Seen], None]
OnProgress = Callable[[int, int], None]


@torch.inference_mode()
def run_evaluation(
    models: Sequence[Segmentor],
    loader: Any,
    evaluator: Evaluator | DepthEvaluator | None,
    device: torch.device,
    *,
    with_loss: bool = False,
    tta: bool = False,
    on_prediction: OnPrediction | None = None,
    on_seen: OnSeen | None = None,
    on_scores: Callable[[Scores], None] | None = None,
    on_progress: OnProgress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Score the samples of all processes' loaders; `with_loss` adds the mean of the model's loss, under "loss".

    Several models are averaged; without an evaluator nothing is scored. With `tta` a batch holds the views of one
    image. Raises UserError for a batch without the target that the evaluator needs.
    """
    losses: list[float] = []
    with in_eval_mode(models), loading(loader) as batches:
        for index, batch in enumerate(batches, 1):
            # Predictions
            with explained(f"to predict {some(sample.image_path for sample in batch.samples)}", LOWER):
                batch = batch.to(device)
                scored = [predict_views(models, batch)] if tta else predict_batch(models, batch)
            batch = first_view(batch) if tta else batch
            if evaluator is not None and evaluator.target not in batch.targets:
                raise UserError(
                    f"no step of the evaluation pipeline reads a {evaluator.target}, so there is nothing to compare "
                    f"with: add one ({', '.join(reading_types(evaluator.target))}), or use `terrazzo predict` to see "
                    "predictions alone"
                )
            if isinstance(evaluator, DepthEvaluator):
                maps = [depth_map(scores) for scores in scored]
                for found, measured in zip(maps, own_maps(batch, "depth"), strict=True):
                    evaluator.update(found, as_seen(measured, found.shape))
            else:
                maps = [scores.labels() for scores in scored]

            # Scores and losses
            if isinstance(evaluator, Evaluator):
                labels = own_maps(batch, "label")
                for sample, scores, found, own in zip(batch.samples, scored, maps, labels, strict=True):
                    paths = sample.image_path, sample.label_path
                    seen = evaluator.update(found, as_seen(own, scores.size), scores.logits, *paths)
                    if on_seen is not None:
                        on_seen(sample, seen)
                    if on_scores is not None:
                        on_scores(scores)
                if with_loss:
                    losses += [float(loss) for loss in batch_losses(models[0], batch, scored)]

            # Callbacks
            if on_prediction is not None:
                on_prediction(batch, maps, loader.dataset.classes, loader.dataset.palette)
            if on_progress is not None:
                on_progress(index, len(loader))

    # Sums over all processes
    if evaluator is not None:
        add_up(evaluator, group)
    result = {} if evaluator is None else evaluator.compute()
    if with_loss and isinstance(evaluator, Evaluator):
        total, count = group.sum(torch.tensor([sum(losses), len(losses)], dtype=torch.float64))
        result["loss"] = float(total / count)
    return result


def add_up(evaluator: Evaluator | DepthEvaluator, group: ProcessGroup) -> None:
    """Give every process the sums over all. Raises UserError for a metric that does not declare its sums."""
    if group.size == 1:
        return
    for part in evaluator.parts:
        if not part.sums:
            raise UserError(
                f"{type(part).__name__} cannot be computed by several processes: remove it from val_evaluator, and use "
                "it with `terrazzo test`"
            )
        for name in part.sums:
            value = getattr(part, name)
            total: Any = group.sum(value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value)))
            if not isinstance(value, Tensor):
                total = total.numpy() if isinstance(value, np.ndarray) else total.item()
            setattr(part, name, total)


def depth_map(scores: Scores) -> Tensor:
    """Estimated depth (H, W)."""
    return torch.cat(list(scores.logits())).view(scores.size)


def own_maps(batch: Batch, target: str) -> Iterator[Tensor]:
    """Each sample's labels or depth (H, W) without the padding of the pipeline and of the batch."""
    maps = batch.targets[target]
    padded = maps.shape[-2:] == batch.image.shape[-2:]
    for own, sample, (height, width) in zip(maps, batch.samples, batch.sizes, strict=True):
        if padded:
            left, top, right, bottom = sample.meta.get("padding", (0, 0, 0, 0))
            own = own[top : height - bottom, left : width - right]
        yield own


def targets_of(batch: Batch, maps: Sequence[Tensor]) -> list[np.ndarray | None]:
    """The label or measured depth of each image at the size of its predicted map; None where the batch has none."""
    name = "depth" if maps[0].is_floating_point() else "label"
    if name not in batch.targets:
        return [None] * len(maps)
    return [as_seen(own, found.shape).cpu().numpy() for own, found in zip(own_maps(batch, name), maps, strict=True)]


def as_seen(own: Tensor, size: Sequence[int]) -> Tensor:
    """A map at the size of the stored image: a pipeline that resizes after loading the map has changed its size."""
    if tuple(own.shape) == tuple(size):
        return own
    return resize(own[None, None].float(), size, mode="nearest")[0, 0].to(own.dtype)


@contextmanager
def in_eval_mode(models: Sequence[Segmentor]) -> Iterator[None]:
    """Evaluate inside, and return to the previous mode afterwards."""
    training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, mode in zip(models, training, strict=True):
            model.train(mode)


def batch_losses(model: Segmentor, batch: Batch, scored: list[Scores]) -> list[Tensor]:
    """The loss of each image of a batch, for which the model has predicted `scored`."""
    labels = batch.targets["label"]
    if labels.shape[-2:] != batch.image.shape[-2:]:
        labels = resize(labels[:, None].float(), batch.image.shape[-2:], mode="nearest")[:, 0]
    return [
        validation_loss(model.final_head, scores.views[0], own[:height, :width])
        for scores, own, (height, width) in zip(scored, labels, batch.sizes, strict=True)
    ]


def validation_loss(head: DecodeHead, view: View, labels: Tensor) -> Tensor:
    """The decode head's loss on one image's labels (H, W); plain cross-entropy if the head computes its loss otherwise.

    A softmax cross-entropy is summed over strips of the image; other losses take its logits at full size.
    """
    logits, geometry = view
    size = labels.shape[0], labels.shape[1]
    at_labels = replace(geometry, window=(0, 0, *size), flip=None, own_size=size)
    labels = own_labels(head, labels.long())
    if type(head).loss is not DecodeHead.loss or type(head).losses is not DecodeHead.losses:
        criteria: list[Any] = [CrossEntropyLoss(avg_non_ignore=True)]
        sampler = None
    else:
        losses, sampler = head.loss_decode, head.sampler
        criteria = list(losses) if isinstance(losses, nn.ModuleList) else [losses]
    if sampler is None and all(is_softmax(criterion) for criterion in criteria):
        return strip_losses(criteria, logits, at_labels, labels, head.ignore_index)
    whole = resize(logits[None], at_labels.input_size, align_corners=head.align_corners)[..., : size[0], : size[1]]
    return total_loss(head.losses(whole, labels[None]))


def is_softmax(criterion: Any) -> bool:
    """Return whether a loss is the mean of the pixels' softmax cross-entropy."""
    plain = isinstance(criterion, CrossEntropyLoss) and criterion.reduction == "mean"
    return plain and criterion.compute == criterion.softmax


def strip_losses(
    criteria: list[Any], logits: Tensor, at_labels: LogitsGeometry, labels: Tensor, ignore_index: int
) -> Tensor:
    """The sum of softmax cross-entropies, each the mean over the image, computed strip by strip."""
    sums = logits.new_zeros(len(criteria), dtype=torch.float32)
    waiting = labels.flatten()
    for values in own_logits(logits, at_labels):  # p, K
        own, waiting = waiting[: len(values)], waiting[len(values) :]
        for index, criterion in enumerate(criteria):
            sums[index] += criterion(values, own, ignore_index=ignore_index, reduction="sum")
    divisors = [c.divisor(labels, class_weights(c.class_weight, logits), ignore_index) for c in criteria]
    least = torch.finfo(torch.float32).eps
    return torch.stack([total / (divisor + least) for total, divisor in zip(sums, divisors, strict=True)]).sum()


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the entries whose name contains "loss"."""
    return torch.stack([value for name, value in losses.items() if "loss" in name]).sum()
