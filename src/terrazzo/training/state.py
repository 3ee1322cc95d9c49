"""The state of a training run: what its loop reads and changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from terrazzo.config.config import Config
from terrazzo.config.experiment import Experiment, LoaderSettings, OptimizerSettings, RunSettings
from terrazzo.data.loaders import TrainingSampler
from terrazzo.data.wrappers import Dataset
from terrazzo.inference.likeness import Fingerprint
from terrazzo.models.protocols import Segmentor
from terrazzo.sample import Batch
from terrazzo.system.process_group import ProcessGroup
from terrazzo.training.checkpoints import Checkpoints
from terrazzo.training.distillation import Distillation
from terrazzo.training.distributed.parallel import Parallel
from terrazzo.training.intervals import Intervals
from terrazzo.training.monitoring.log import RunLog
from terrazzo.training.monitoring.nonfinite import NonFiniteGuard
from terrazzo.training.optim.ema import EMA
from terrazzo.training.optim.precision import Precision
from terrazzo.training.optim.schedule import Schedule
from terrazzo.training.stopping import Best


class Observer(Protocol):
    """A listener that the loop calls between two of its steps."""

    def start(self, state: TrainingState) -> None: ...

    def before_step(self, state: TrainingState, batch: Batch) -> None: ...

    def after_step(self, state: TrainingState, batch: Batch, losses: Mapping[str, Tensor]) -> None: ...

    def before_validation(self, state: TrainingState) -> None: ...

    def after_validation(self, state: TrainingState) -> None: ...

    def end(self, state: TrainingState) -> None: ...


@dataclass
class TrainingState:
    """A run between two steps. `setup` builds it, `fit` advances it, `save` and `resume` store and continue it."""

    # settings and environment
    config: Config
    experiment: Experiment
    loader: LoaderSettings
    updates: OptimizerSettings
    settings: RunSettings
    device: torch.device
    group: ProcessGroup

    # data
    train_set: Dataset
    val_set: Dataset | None  # None without validation
    sampler: TrainingSampler
    val_loader: DataLoader | None

    # the model, and what updates it
    model: nn.Module
    segmentor: Segmentor  # the model under its contract
    parallel: Parallel
    ema: EMA | None
    optimizer: Optimizer
    precision: Precision
    schedule: Schedule

    # what happens when
    intervals: Intervals
    guard: NonFiniteGuard
    distillation: Distillation | None
    best: Best

    # where results go
    log: RunLog
    checkpoints: Checkpoints

    # progress
    observers: Sequence[Observer] = ()  # of the loop, from registered hooks
    step: int = 0
    first_step: int = 0  # of this session
    saved_step: int = 0
    validated_step: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last validation
    confidences: list[float] = field(default_factory=list)  # of its images, the mean of each
    fingerprint: Fingerprint | None = None  # of the training images, once weights are saved
    has_fingerprint: bool = False

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.intervals.total

    def model_to_use(self) -> nn.Module:
        """The model that is scored and saved: the average, with EMA. Every process calls it."""
        return self.parallel.whole(self.ema.average if self.ema is not None else self.model)
