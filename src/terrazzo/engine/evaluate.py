"""Scores of a model on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.config.experiment import LoaderSettings, make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import open_dataset
from terrazzo.data.checks.run import check_labels
from terrazzo.data.dataset import with_pipeline
from terrazzo.data.loaders import checked, make_loader
from terrazzo.data.root import locate
from terrazzo.device import choose_device
from terrazzo.engine.validation_loss import batch_losses
from terrazzo.engine.world import ALONE, World, summed
from terrazzo.errors import UserError
from terrazzo.inference.predict import predict_batch
from terrazzo.inference.tta import augmented_steps, first_view, predict_views
from terrazzo.metrics import ConfusionMatrix, check_groups
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import load_checkpoint
from terrazzo.models.layers import resize
from terrazzo.sample import Batch

OnPrediction = Callable[[Batch, list[Tensor], Sequence[str], Sequence[Sequence[int]]], None]
OnProgress = Callable[[int, int], None]


def evaluate(
    config: Any,
    checkpoint: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    trust: bool = False,
    tta: bool = False,
    on_prediction: OnPrediction | None = None,
    on_progress: OnProgress | None = None,
    on_report: Callable[[Any], None] | None = None,
    data_root: str | Path | None = None,
    weights: str | None = None,
) -> dict[str, Any]:
    """Test a checkpoint on the config's test set: `{"aAcc", "mIoU", "mAcc", "per_class"}`, in percent.

    With `tta` each image is predicted in the views of the config's `tta_pipeline`, whose probabilities are averaged.
    `data_root` is where the data lie, if not where the config says; `weights` is "model" or "ema" (the average) where a
    checkpoint has both. Raises UserError for a config or checkpoint at fault, and for a test set without labels.
    """
    check_groups(metrics or ())
    chosen = choose_device(device)
    experiment = make_experiment(locate(load_config(config, overrides, trust=trust), data_root, ("test",)))
    settings = experiment.test or experiment.val
    if settings is None:
        raise UserError("the config has no test_dataloader")
    if tta:
        steps = augmented_steps(experiment.tta_pipeline, experiment.tta_model)
        settings = replace(settings, batch_size=1, dataset=with_pipeline(settings.dataset, steps))
    model: Any = build_model(experiment.model).to(chosen)
    report = load_checkpoint(model, checkpoint, strict=True, weights=weights)
    if on_report is not None:
        on_report(report)
    dataset = open_dataset(settings, model.final_head.num_classes, "test_dataloader")
    check_labels(dataset, "test")
    loader = evaluation_loader(dataset, settings)
    groups = tuple(metrics or experiment.test_metrics)
    result, _ = run_evaluation(
        model, loader, dataset.classes, groups, chosen, tta=tta, on_prediction=on_prediction, on_progress=on_progress
    )
    return result


def evaluation_loader(dataset: Any, settings: LoaderSettings, world: World = ALONE) -> Any:
    """All samples once, in order; of several processes each has its own share."""
    positions = [(0, index) for index in range(world.rank, len(dataset), world.size)]
    size = settings.batch_size
    order = [positions[first : first + size] for first in range(0, len(positions), size)]
    return make_loader(dataset, order, settings.num_workers)


@torch.inference_mode()
def run_evaluation(
    model: nn.Module,
    loader: Any,
    classes: Sequence[str],
    groups: Sequence[str],
    device: torch.device,
    *,
    with_loss: bool = False,
    tta: bool = False,
    on_prediction: OnPrediction | None = None,
    on_progress: OnProgress | None = None,
    world: World = ALONE,
) -> tuple[dict[str, Any], ConfusionMatrix]:
    """Scores and confusion matrix over the loaders of all processes; with `with_loss` also the mean loss, as "loss".

    With `tta` a batch holds the views of one image.
    """
    confusion = ConfusionMatrix(len(classes), device=device)
    losses = []
    with in_eval_mode(model):
        for index, batch in enumerate(checked(iter(loader)), 1):
            batch = batch.to(device)
            if "label" not in batch.targets:
                raise UserError(
                    "the evaluation pipeline has no LoadAnnotations, so there are no labels to compare with: add it, "
                    "or use `terrazzo predict` to see predictions alone"
                )
            scored = [predict_views([model], batch)] if tta else predict_batch([model], batch)
            batch = first_view(batch) if tta else batch
            maps = [scores.labels() for scores in scored]
            for scores, prediction, labels in zip(scored, maps, own_labels(batch), strict=True):
                confusion.update(prediction, as_seen(labels, scores.size))
            if with_loss:
                losses += [float(loss) for loss in batch_losses(model, batch, scored)]
            if on_prediction is not None:
                on_prediction(batch, maps, loader.dataset.classes, loader.dataset.palette)
            if on_progress is not None:
                on_progress(index, len(loader))
    confusion.counts = summed(confusion.counts, world)
    result = confusion.compute(groups, classes)
    if with_loss:
        total, count = summed(torch.tensor([sum(losses), len(losses)], dtype=torch.float64), world)
        result["loss"] = float(total / count)
    return result, confusion


def own_labels(batch: Batch) -> Iterator[Tensor]:
    """Each sample's labels (H, W) without what was padded on, by the pipeline or to stack them."""
    labels = batch.targets["label"]
    padded = labels.shape[-2:] == batch.image.shape[-2:]
    for own, sample, (height, width) in zip(labels, batch.samples, batch.sizes, strict=True):
        if padded:
            left, top, right, bottom = sample.meta.get("padding", (0, 0, 0, 0))
            own = own[top : height - bottom, left : width - right]
        yield own


def as_seen(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels at the size of the stored image: a pipeline that resizes after loading them has changed theirs."""
    if tuple(labels.shape) == size:
        return labels
    return resize(labels[None, None].float(), size, mode="nearest")[0, 0].long()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the previous mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
