"""Scores of checkpoints on a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from terrazzo.config.datasets import with_pipeline
from terrazzo.config.evaluators import EvaluatorSettings, checked_metric
from terrazzo.config.experiment import LoaderSettings, make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import common_classes, open_dataset
from terrazzo.data.checks.run import check_labels
from terrazzo.data.discovery.data_root import locate
from terrazzo.data.loaders import make_loader
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError
from terrazzo.evaluation.scoring import OnPrediction, OnProgress, OnSeen, run_evaluation
from terrazzo.inference.exported_model import ExportedModel, for_exported, is_exported, open_model
from terrazzo.metrics import DepthEvaluator, Evaluator
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import load_checkpoint, read_checkpoint
from terrazzo.models.protocols import Segmentor, as_segmentor
from terrazzo.registry import METRICS
from terrazzo.system.devices import choose_device
from terrazzo.system.process_group import SINGLE_PROCESS, ProcessGroup, joined

OnStart = Callable[[Any, "Evaluator | DepthEvaluator | None", "str | None"], None]


def evaluate(
    config: Any,
    checkpoint: str | Path | nn.Module | Sequence[str | Path],
    *,
    overrides: dict[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    trust: bool = False,
    tta: bool = False,
    on_start: OnStart | None = None,
    on_prediction: OnPrediction | None = None,
    on_seen: OnSeen | None = None,
    on_progress: OnProgress | None = None,
    on_report: Callable[[Any], None] | None = None,
    data_root: str | Path | None = None,
    weights: str | None = None,
    bootstrap: int = 0,
    threshold_search: bool = False,
    score: bool = True,
) -> dict[str, Any]:
    """Test a checkpoint, or a model, on the config's test set: `{"aAcc", "mIoU", "mAcc", "per_class"}`, in percent.

    The probabilities of several checkpoints are averaged. With `tta` each image is predicted in the views of the
    config's `tta_pipeline`. `data_root` replaces the config's location of the data; `weights` is "model" or "ema" (the
    average) for a checkpoint with both. `bootstrap` draws give "intervals", `threshold_search` "best_threshold".
    Without `score` the test set needs no labels. Each of several processes scores its share. Raises UserError for a
    config or checkpoint at fault, and for a test set without labels.
    """
    # Settings: metrics, data, augmented views
    chosen = choose_device(device)
    experiment = make_experiment(locate(load_config(config, overrides, trust=trust), data_root, ("test",)))
    evaluator_settings = experiment.test_evaluator
    named = tuple(checked_metric({"type": name}, "--eval") for name in metrics or ()) or evaluator_settings.metrics
    named += ({"type": "threshold"},) if threshold_search else ()
    evaluator_settings = replace(evaluator_settings, metrics=named)
    settings = experiment.test or experiment.val
    if settings is None:
        raise UserError("the config has no test_dataloader")
    if tta:
        if not experiment.tta_pipeline:
            raise UserError(
                "--tta: the config has no `tta_pipeline`; give it one: LoadImageFromFile, then TestTimeAug with a list "
                "of choices for each further step"
            )
        if experiment.tta_model.rpartition(".")[2] != "SegTTAModel":
            raise UserError(f"tta_model: '{experiment.tta_model}' is unknown; use SegTTAModel, the mean of the views")
        views = with_pipeline(settings.dataset, list(experiment.tta_pipeline))
        settings = replace(settings, batch_size=1, dataset=views)

    # Models, data and metrics
    if isinstance(checkpoint, nn.Module):
        models = [as_segmentor(checkpoint)]
    else:
        paths = [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint)
        models = load_models(experiment.model, paths, chosen, weights, on_report, trust)
    settings = fit_to_models(settings, models, tta)
    dataset = open_dataset(settings, classes_of(models[0]), "test_dataloader", classes=common_classes(experiment))
    evaluator = None
    if score and not evaluator_settings.format_only:
        check_labels(dataset, "test")
        evaluator = make_evaluator(models[0], evaluator_settings, dataset, bootstrap, chosen)

    # The evaluation, by this process or by several
    if on_start is not None:
        on_start(dataset, evaluator, evaluator_settings.output_dir)
    with joined(chosen.type) as group:
        return run_evaluation(
            [model.to(group.device(chosen)) for model in models],
            evaluation_loader(dataset, settings, group, chosen),
            evaluator,
            group.device(chosen),
            tta=tta,
            on_prediction=on_prediction,
            on_seen=on_seen,
            on_progress=on_progress,
            group=group,
        )


def load_models(
    model: dict[str, Any],
    paths: Sequence[str | Path],
    device: torch.device,
    weights: str | None = None,
    on_report: Callable[[Any], None] | None = None,
    trust: bool = False,
) -> list[Segmentor]:
    """The models of some checkpoints; each of several is built from its own file's config if it has one, or `model`.

    Raises UserError for an ensemble of models with different classes, and of depth estimators.
    """
    models: list[Segmentor] = []
    for path in paths:
        if is_exported(path):
            models.append(cast("Segmentor", open_model(path, trust)))
            continue
        own = read_checkpoint(path).meta.get("config") if len(paths) > 1 else None
        built = build_model(make_experiment(own).model if isinstance(own, Mapping) else model).to(device)
        report = load_checkpoint(built, path, strict=True, weights=weights)
        models.append(as_segmentor(built))
        if on_report is not None:
            on_report(report)
    counts = {str(path): built.final_head.out_channels for path, built in zip(paths, models, strict=True)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in counts.items())
        raise UserError(f"an ensemble's models give logits for the same classes, but {listed}")
    if len(models) > 1 and models[0].target == "depth":
        raise UserError("an ensemble averages the probabilities of classes; these models estimate depth")
    return models


def fit_to_models(settings: LoaderSettings, models: Sequence[Any], tta: bool) -> LoaderSettings:
    """The settings for exported models, whose graphs resize. Raises UserError for what they cannot be combined with."""
    exported = [model for model in models if isinstance(model, ExportedModel)]
    if not exported:
        return settings
    if tta:
        raise UserError("--tta: an exported model runs one view; test the checkpoint that it comes from")
    trees = [for_exported(settings.dataset, model) for model in exported]
    if (len(exported) < len(models) and trees[0] != settings.dataset) or any(tree != trees[0] for tree in trees):
        raise UserError("an ensemble of exported models and checkpoints needs a test pipeline that does not resize")
    return replace(settings, dataset=trees[0])


def classes_of(model: Segmentor) -> int | None:
    """The number of classes of the model's data; None if it is not about classes."""
    return None if model.target == "depth" else int(model.final_head.num_classes)


def make_evaluator(
    model: Segmentor, settings: EvaluatorSettings, dataset: Dataset, bootstrap: int = 0, device: Any = "cpu"
) -> Evaluator | DepthEvaluator:
    """The metrics that an evaluator's settings name, for the model's target and the classes of a data set."""
    if model.target == "depth":
        specs = [spec for spec in settings.metrics if spec != {"type": "mIoU"}] or [{"type": "depth"}]
        if wrong := [spec["type"] for spec in specs if spec["type"] != "depth"]:
            raise UserError(f"{wrong[0]} is a metric of class maps, and this model estimates depth: use depth")
        return METRICS.build(specs[0], "evaluator")
    options: dict[str, Any] = {"ignore_index": settings.ignore_index, "nan_to_num": settings.nan_to_num}
    options |= {"beta": settings.beta, "bootstrap": bootstrap, "device": device, "palette": dataset.palette}
    return Evaluator(settings.metrics, dataset.classes, **options)


def evaluation_loader(
    dataset: Any,
    settings: LoaderSettings,
    group: ProcessGroup = SINGLE_PROCESS,
    device: Any = "cpu",
    persistent: bool = False,
) -> DataLoader[Any]:
    """All samples once, in order, shared among several processes; see `make_loader` for `persistent`."""
    positions = [(0, index) for index in range(group.rank, len(dataset), group.size)]
    size = settings.batch_size
    order = [positions[first : first + size] for first in range(0, len(positions), size)]
    pin_memory = torch.device(device).type == "cuda"
    return make_loader(dataset, order, settings.num_workers, pin_memory, persistent)
