"""Saving a run's state and weights, and continuing from a saved state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from terrazzo.errors import UserError
from terrazzo.inference.saved_config import describe
from terrazzo.system.files import write_whole
from terrazzo.training.distributed.parallel import gathered, sharded_like
from terrazzo.training.fingerprint import training_images
from terrazzo.training.optim.schedule_free import averaged
from terrazzo.training.state import TrainingState

START_OVER = "resume with the config.yaml of the work dir, or train in another --work-dir"


def begin_files(state: TrainingState) -> None:
    """Make the files of the work dir this run's, after its first step: until then an earlier run's stay as they are."""
    log = state.log
    if log.has_begun or not log.writes:
        return
    log.has_begun = True
    log.forget_after(state.first_step)
    state.checkpoints.forget_after(state.first_step)
    write_whole(log.work_dir / "config.yaml", state.config.dump())
    if log.run is not None:
        log.run.note_first_step()


def save(state: TrainingState) -> None:
    """Save the weights, then what resuming needs, so that no state is without them. Every process calls it."""
    with averaged(state.optimizer):
        save_weights(state, state.checkpoints.last)
    progress = {
        "step": state.step,
        "position": state.sampler.position(state.step - state.first_step),
        "batch_in_all": state.sampler.batch_size,
        "validated_step": state.validated_step,
        "best_score": state.best.score,
        "metrics": state.metrics,
        "schedule": state.schedule.state(),
        "classes": list(state.train_set.classes),
        "patience": (state.best.last_progress, state.best.waited),
    }
    tensors = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "optimizer_type": type(state.optimizer).__name__,
        "scaler": state.precision.scaler.state_dict(),
        "ema": state.ema.average.state_dict() if state.ema is not None else None,
        "gradients": {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None},
    }
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    snapshot = progress | gathered(tensors) | {"random": state.group.gather(random)}
    if state.group.is_main:
        state.log.write(f"saved {state.checkpoints.save_state(state.step, snapshot)}")
    state.saved_step = state.step


def save_weights(state: TrainingState, path: Path) -> None:
    """Save the weights to use as one self-contained file. Every process calls it."""
    model = state.model_to_use()
    if state.group.is_main:
        meta = describe(state.config, state.train_set.classes, state.train_set.palette)
        meta |= {"step": str(state.step), "metrics": json.dumps(state.metrics), **training_images(state)}
        state.checkpoints.save_weights(path, model, meta)


def resume(state: TrainingState, saved: Mapping[str, Any]) -> None:
    """Continue from a saved state, also with another number of devices or batch size."""
    restore_tensors(state, saved)
    state.step, state.validated_step, state.metrics = saved["step"], saved["validated_step"], saved["metrics"]
    state.sampler.start = epoch, sample = tuple(saved["position"])
    state.schedule.load_state(saved["schedule"])
    state.best.last_progress, state.best.waited = saved["patience"]
    state.best.score = saved["best_score"] if state.checkpoints.best.exists() else None

    # An epoch has another number of steps when its batches have another size
    before, now = saved["batch_in_all"], state.sampler.batch_size
    if before != now and state.sampler.by_epoch:
        state.step = (epoch + 1) * state.sampler.batches_per_epoch - state.sampler.batches_from(sample)
        state.validated_step = min(state.validated_step, state.step)
    state.first_step = state.saved_step = state.step

    state.log.info(f"resumed at step {state.step} of {state.total}")
    if len(saved["random"]) == state.group.size:
        random = saved["random"][state.group.rank]
        torch.set_rng_state(random["cpu"])
        if torch.cuda.is_available() and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"])
    if before != now:
        state.log.info(
            f"a batch now has {now} images instead of {before}: epoch {epoch + 1} continues at its sample "
            f"{sample + 1} of {state.sampler.length}, on {state.group.size} devices"
        )


def restore_tensors(state: TrainingState, saved: Mapping[str, Any]) -> None:
    """Restore weights, moments and gradients. Raises UserError if classes, model or optimizer are others."""
    classes = list(state.train_set.classes)
    if saved.get("classes", classes) != classes:
        before, now = (", ".join(names) for names in (saved["classes"], classes))
        raise UserError(f"the saved state is of the classes {before}, and the config has {now}: {START_OVER}")
    kind = type(state.optimizer).__name__
    if saved["optimizer_type"] != kind:
        raise UserError(f"the saved state is of the optimizer {saved['optimizer_type']}, not {kind}: {START_OVER}")
    try:
        load_weights(state.model, saved["model"])
        state.optimizer.load_state_dict(sharded_moments(saved["optimizer"], state.optimizer))
    except (RuntimeError, ValueError, KeyError) as problem:
        details = " ".join(str(problem).split())
        raise UserError(f"the saved state does not fit this config ({details[:300]}): {START_OVER}") from None
    if state.precision.name == "fp16" and saved["scaler"]:
        state.precision.scaler.load_state_dict(saved["scaler"])
    if state.ema is not None:
        load_weights(state.ema.average, saved["ema"] or saved["model"])
    for name, parameter in state.model.named_parameters():
        if name in saved["gradients"]:
            parameter.grad = sharded_like(saved["gradients"][name].to(parameter.device), parameter)


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load whole weights into a model that may be sharded."""
    own = model.state_dict()
    model.load_state_dict({name: sharded_like(value, own.get(name, value)) for name, value in weights.items()})


def sharded_moments(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's whole state, each moment sharded as its parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def like(value: Any, parameter: Tensor) -> Any:
        is_moment = isinstance(value, Tensor) and value.shape == parameter.shape
        return sharded_like(value, parameter) if is_moment else value

    return {
        **state,
        "state": {
            index: {name: like(value, parameters[index]) for name, value in entries.items()}
            for index, entries in state["state"].items()
        },
    }
