"""Saving a run's state and weights, and continuing from a saved state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.inference.saved_config import describe
from terrazzo.training.optim.schedule_free import averaged
from terrazzo.training.snapshot import collect_state, restore_state, set_random_state
from terrazzo.training.state import TrainingState


def save(state: TrainingState) -> None:
    """Save what resuming needs, and the weights. Every process calls it."""
    progress = {
        "step": state.step,
        "position": state.sampler.position(state.step - state.first_step),
        "batch_in_all": state.sampler.batch_size,
        "validated_step": state.validated_step,
        "best_score": state.best.score,
        "metrics": state.metrics,
        "schedule": state.schedule.state(),
        "patience": (state.patience.best, state.patience.waited),
    }
    snapshot = collect_state(state.model, state.optimizer, state.precision, state.ema, state.group)
    if state.group.is_main:
        path = state.checkpoints.save_state(state.step, progress | snapshot)
        state.log.write(f"saved {path}")
    state.saved_step = state.step
    with averaged(state.optimizer):
        save_weights(state, state.checkpoints.last)


def save_weights(state: TrainingState, path: Path) -> None:
    """Save the weights to use as one self-contained file. Every process calls it."""
    model = state.model_to_use()
    if state.group.is_main:
        meta = describe(state.config, state.train_set.classes, state.train_set.palette)
        meta |= {"step": str(state.step), "metrics": json.dumps(state.metrics)}
        state.checkpoints.save_weights(path, model, meta)


def resume(state: TrainingState, saved: Mapping[str, Any]) -> None:
    """Continue from a saved state, also with another number of devices or batch size."""
    restore_state(saved, state.model, state.optimizer, state.precision, state.ema)
    state.step, state.validated_step, state.metrics = saved["step"], saved["validated_step"], saved["metrics"]
    state.sampler.start = epoch, sample = tuple(saved["position"])
    state.schedule.load_state(saved["schedule"])
    state.patience.best, state.patience.waited = saved["patience"]
    state.best.score = saved["best_score"] if state.checkpoints.best.exists() else None

    # An epoch has another number of steps when its batches have another size
    before, now = saved["batch_in_all"], state.sampler.batch_size
    if before != now and state.sampler.by_epoch:
        state.step = (epoch + 1) * state.sampler.batches_per_epoch - state.sampler.batches_from(sample)
        state.validated_step = min(state.validated_step, state.step)
    state.first_step = state.saved_step = state.step

    state.log.info(f"resumed at step {state.step} of {state.total}")
    if len(saved["random"]) == state.group.size:
        set_random_state(saved["random"][state.group.rank])
    if before != now:
        state.log.info(
            f"a batch now has {now} images instead of {before}: epoch {epoch + 1} continues at its sample "
            f"{sample + 1} of {state.sampler.length}, on {state.group.size} devices"
        )
