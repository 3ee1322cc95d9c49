"""The setup of a training run: from a config to the state that the loop starts with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terrazzo.config.auto_scale_lr import record_base_batch_size, scale_learning_rate
from terrazzo.config.config import Config
from terrazzo.config.experiment import Experiment, LoaderSettings, OptimizerSettings, RunSettings, make_experiment
from terrazzo.data.build import common_classes, open_dataset
from terrazzo.data.checks.run import check_before_training
from terrazzo.data.pairs import PairingError
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import classes_of, evaluation_loader
from terrazzo.models.build import build_model, input_channels
from terrazzo.models.checkpoint import load_checkpoint
from terrazzo.models.finetuning import set_finetuning
from terrazzo.models.freezing import freeze, frozen_summary
from terrazzo.models.protocols import as_segmentor
from terrazzo.registry import HOOKS
from terrazzo.system.process_group import SINGLE_PROCESS, ProcessGroup
from terrazzo.training.checkpoints import Checkpoints, read_state
from terrazzo.training.class_balance import make_order, set_class_weights
from terrazzo.training.device import move_to_device
from terrazzo.training.distillation import Distillation
from terrazzo.training.distributed.parallel import Parallel, shard_model
from terrazzo.training.intervals import Intervals
from terrazzo.training.monitoring.log import RunLog
from terrazzo.training.monitoring.nonfinite import NonFiniteGuard
from terrazzo.training.monitoring.run_header import inference_cost, run_header
from terrazzo.training.monitoring.trackers import import_packages
from terrazzo.training.optim.build import build_optimizer, freeze_unscaled
from terrazzo.training.optim.ema import EMA
from terrazzo.training.optim.precision import Precision
from terrazzo.training.optim.schedule import Schedule
from terrazzo.training.pretrained import load_pretrained
from terrazzo.training.saving import resume as continue_from
from terrazzo.training.state import Observer, TrainingState
from terrazzo.training.stopping import Best
from terrazzo.training.validation import check_targets
from terrazzo.training.work_dir import was_restarted


def setup(
    config: Config,
    log: RunLog,
    device: torch.device,
    *,
    pretrained: str | None = None,
    resume: bool | Path = False,
    check: bool = True,
    group: ProcessGroup = SINGLE_PROCESS,
    model: nn.Module | None = None,
    observers: Sequence[Observer] = (),
) -> TrainingState:
    """Build a run's state; see `train` for the options. Raises UserError for a config or data at fault."""
    # The typed settings, with the learning rate for this number of images per step
    config = record_base_batch_size(config)
    experiment = make_experiment(config)
    loader, updates, settings = training_settings(experiment)
    import_packages(experiment.watch.trackers)
    optimizer, rate_note = scale_learning_rate(config, updates, loader.batch_size * updates.accumulate * group.size)
    updates = replace(updates, optimizer=optimizer)

    # The model and the data, which agree on the classes
    torch.manual_seed(settings.seed)
    model = build_model(experiment.model) if model is None else model
    freeze(model, experiment.freeze)
    freeze_unscaled(model, updates, log.info)
    cost = inference_cost(model, config) if group.is_main else ""
    data = open_data(experiment, classes_of(as_segmentor(model)), log, group, check)
    set_class_weights(model, data["train"], log)

    # The weights to start from, unless a saved state has them
    checkpoints = Checkpoints(log.work_dir, settings.keep_checkpoints)
    saved = checkpoints.newest_state(log.info) if resume is True or was_restarted() else None
    if saved is None and isinstance(resume, Path):
        saved = read_state(resume)
    if saved is None:
        start, classes = experiment.load_from, data["train"].classes
        has_start = start is not None and start.lower() != "none"
        report = load_checkpoint(model, start, classes=classes) if start and has_start else ""
        log.info(str(report or load_pretrained(model, pretrained, experiment.model)))
    if experiment.finetune == "lora" and settings.shard:
        raise UserError("finetune: lora trains little enough for one device's memory, and does not go with fsdp")
    if report := set_finetuning(model, experiment.finetune):
        log.info(report)
    if summary := frozen_summary(model):
        log.info(summary)
    move_to_device(model, settings, device, log.info)

    # The state, at the start or where the run was saved
    state = build_state(config, experiment, updates, model, data, checkpoints, log, device, group)
    state.observers = [*state.observers, *observers]
    torch.manual_seed(settings.seed + group.rank)  # each process draws its own dropout
    if saved is not None:
        continue_from(state, saved)
    elif resume:
        log.info(f"nothing to resume in {log.work_dir}: starting from scratch")
    elif checkpoints.states():
        log.info(f"the earlier run in {log.work_dir} is deleted after this one's first step")
    check_targets(state)
    log.info(run_header(state, cost, rate_note))
    return state


def build_state(
    config: Config,
    experiment: Experiment,
    updates: OptimizerSettings,
    model: nn.Module,
    data: Mapping[str, Any],
    checkpoints: Checkpoints,
    log: RunLog,
    device: torch.device,
    group: ProcessGroup,
) -> TrainingState:
    """Build what a run needs around its model and data."""
    loader, _, settings = training_settings(experiment)

    # Batches and intervals
    sampler = make_order(data["train"], loader, settings, log, group)
    intervals = Intervals(settings, sampler.batches_per_epoch)
    val_set, val_loader = data.get("val"), None
    if experiment.val is not None:
        val_loader = evaluation_loader(val_set, experiment.val, group, device, persistent=True)

    # The average is copied before the weights are sharded, and the optimizer made after
    averaging, updates_per_unit = settings.averaging, intervals.steps_in(settings.unit) / updates.accumulate
    ema = EMA(model, averaging, round(averaging.begin * updates_per_unit)) if averaging else None
    parallel = Parallel(model, group, device, shard=settings.shard, find_unused=settings.find_unused_parameters)
    if ema is not None and parallel.is_sharded:
        shard_model(ema.average)
    optimizer = build_optimizer(model, updates.optimizer, updates.paramwise, updates.constructor)
    if settings.compile:
        parallel.compile()
    rates = [parameters["lr"] for parameters in optimizer.param_groups]

    return TrainingState(
        config=config,
        experiment=experiment,
        loader=loader,
        updates=updates,
        settings=settings,
        device=device,
        group=group,
        train_set=data["train"],
        val_set=val_set,
        sampler=sampler,
        val_loader=val_loader,
        model=model,
        segmentor=as_segmentor(model),
        parallel=parallel,
        ema=ema,
        optimizer=optimizer,
        precision=Precision(device, updates.amp),
        schedule=Schedule(updates.schedule, rates, sampler.batches_per_epoch, intervals.total),
        intervals=intervals,
        distillation=distillation_of(experiment, model, data["train"], device),
        guard=NonFiniteGuard(model, settings.skip_nan, log, group),
        best=Best(settings),
        log=log,
        checkpoints=checkpoints,
        observers=[HOOKS.build(spec, "custom_hooks") for spec in settings.observers],
    )


def distillation_of(
    experiment: Experiment, model: nn.Module, dataset: Dataset, device: torch.device
) -> Distillation | None:
    """The distillation from the config's `teacher`. Raises UserError for images that it would learn nothing of."""
    has_unlabelled = any(leaf.data.unlabelled == "teacher" for leaf in dataset.leaves())
    if has_unlabelled and experiment.teacher is None:
        raise UserError("`unlabelled` leaves images without labels to a teacher: name its weights in `teacher`")
    if has_unlabelled and experiment.train is not None and experiment.train.rare_classes is not None:
        raise UserError("rare-class sampling never draws images without labels: use it without `unlabelled: teacher`")
    if experiment.teacher is None:
        return None
    return Distillation(
        experiment.teacher, as_segmentor(model), dataset.classes, input_channels(experiment.model), device
    )


def training_settings(experiment: Experiment) -> tuple[LoaderSettings, OptimizerSettings, RunSettings]:
    """The sections that training needs. Raises UserError if one is missing."""
    if experiment.train is None or experiment.optimizer is None or experiment.run is None:
        raise UserError("to train, a config needs train_dataloader, optim_wrapper and train_cfg")
    return experiment.train, experiment.optimizer, experiment.run


def open_data(
    experiment: Experiment, num_classes: int | None, log: RunLog, group: ProcessGroup, check: bool
) -> dict[str, Any]:
    """Open the data of "train" and "val"; with `check`, the first process looks at every file of them.

    Raises UserError for data at fault.
    """
    loader, _, settings = training_settings(experiment)
    classes = common_classes(experiment)
    counted = num_classes if check and group.is_main else None  # of what is checked; depth has no classes
    try:
        with warnings.catch_warnings():
            if counted is not None:  # the check reports these labels itself
                warnings.filterwarnings("ignore", message=".*no image of the same name")
            opened = {"train": open_dataset(loader, num_classes, "train_dataloader", settings.seed, classes)}
            if experiment.val is not None:
                opened["val"] = open_dataset(
                    experiment.val, num_classes, "val_dataloader", classes=opened["train"].classes
                )
    except PairingError:
        if counted is not None:
            check_before_training(experiment, counted, log.console, log.info)  # names every file, and a repair
        raise
    if counted is not None:
        check_before_training(experiment, counted, log.console, log.info, opened=opened)
    group.wait()  # until the first process has looked at all of the data
    return opened
