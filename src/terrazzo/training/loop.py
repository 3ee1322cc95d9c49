"""The training loop: one step per batch, and what happens at intervals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from terrazzo.data.loaders import loading, make_loader
from terrazzo.data.workers import end_workers
from terrazzo.errors import UserError
from terrazzo.evaluation.scoring import total_loss
from terrazzo.models.protocols import Annealed
from terrazzo.models.small_images import explain_small_inputs
from terrazzo.sample import Batch
from terrazzo.system.arithmetic import ceil_div
from terrazzo.training.monitoring.nonfinite import broken_gradients, broken_losses
from terrazzo.training.monitoring.profile import StepProfile
from terrazzo.training.monitoring.progress import Meter, StepProgress, pace, pace_text
from terrazzo.training.optim.schedule_free import averaged
from terrazzo.training.saving import begin_files, save
from terrazzo.training.state import TrainingState
from terrazzo.training.stopping import Interrupted, SessionEnd
from terrazzo.training.validation import is_time_to_validate, validate
from terrazzo.transforms.compose import reading_types


@contextmanager
def training_batches(state: TrainingState) -> Iterator[Iterator[Batch]]:
    """The training batches from the current step on; all loader workers end with the block."""
    loader = make_loader(state.train_set, state.sampler, state.loader.num_workers, state.device.type == "cuda")
    try:
        with loading(loader) as batches:
            yield batches
    finally:
        if state.val_loader is not None:
            end_workers(state.val_loader._iterator)


def fit(
    state: TrainingState, batches: Iterator[Batch], profile: StepProfile, end: SessionEnd, progress: StepProgress
) -> None:
    """Train from the current step to the last. Raises Interrupted between two steps when the session has to stop."""
    model, optimizer, precision, accumulate = state.model, state.optimizer, state.precision, state.updates.accumulate

    def replay(batch: Batch) -> dict[str, Tensor]:
        return compute_losses(state, batch, profile)

    annealed = [module for module in model.modules() if isinstance(module, Annealed)]
    meter = Meter()
    for observer in state.observers:
        observer.start(state)
    model.train()
    if state.step and is_time_to_validate(state):  # the last validation was cut short
        begin_files(state)
        with averaged(optimizer):
            validate(state, end, progress)
    while state.step < state.total:
        # Batch and learning rate
        with profile.part("waiting for data"):
            batch = meter.wait_for(batches)
        state.schedule.apply(optimizer, state.step)
        for observer in state.observers:
            observer.before_step(state, batch)
        for module in annealed:
            module.anneal(state.step / state.total)
        rate = optimizer.param_groups[0]["lr"]

        # Losses and gradients
        is_update = (state.step + 1) % accumulate == 0 or state.step + 1 == state.total
        with state.parallel.synchronised(is_update or state.intervals.saves(state.step + 1)):
            losses = compute_losses(state, batch, profile)
            total = total_loss(losses)
            is_sound = state.guard.accepts(broken_losses(losses, total), state.step + 1, rate, batch, replay)
            if is_sound:
                with profile.part("backward"):
                    precision.backward(total / accumulate)
        state.step += 1

        # Update of the weights
        if is_update:
            broken = broken_gradients(model) if precision.name != "fp16" else []  # there the scaler looks
            if state.guard.accepts(broken, state.step, rate, batch, replay):
                with profile.part("optimizer"):
                    precision.update(optimizer, model, state.updates.clip_grad)
            optimizer.zero_grad(set_to_none=True)
            if state.ema is not None:
                state.ema.update(model, ceil_div(state.step, accumulate))

        # Progress
        for observer in state.observers:
            observer.after_step(state, batch, losses)
        begin_files(state)
        if is_sound:
            meter.add(losses)
        with meter.paused():
            profile.end_of_step()
        progress.update(state.step, meter, rate)

        # What happens at intervals
        if state.intervals.logs(state.step):
            log_losses(state, meter, progress)
        with meter.paused():
            if is_time_to_validate(state):
                with averaged(optimizer):
                    validate(state, end, progress)
            if state.intervals.saves(state.step):
                save(state)

        # The end of the run or of the session
        if state.best.patience_is_over and state.step < state.total:
            state.log.info(
                f"stopped early at step {state.step}: {state.best.waited} validations without a better score than "
                f"{state.best.last_progress:.2f}"
            )
            save(state)
            break
        ends = end.is_due(state.step - state.first_step)
        if (is_update or state.group.size == 1) and state.step < state.total and state.group.any(ends):
            raise Interrupted
    for observer in state.observers:
        observer.end(state)


def compute_losses(state: TrainingState, batch: Batch, profile: StepProfile) -> dict[str, Tensor]:
    """The model's losses on a batch, in the run's precision."""
    model = state.segmentor
    with profile.part("transfer to the device"):
        batch = batch.to(state.device)
    with profile.part("preprocessing"):
        images, targets = model.preprocess.pad(model.preprocess(batch.image), batch.targets, batch.sizes)
    if model.target not in targets:
        raise UserError(
            f"no step of the training pipeline reads a {model.target}, so there is nothing to learn from: add one "
            f"({', '.join(reading_types(model.target))})"
        )
    labels = targets.pop("label").long() if "label" in targets else targets["depth"]
    with explain_small_inputs(images), state.precision.autocast(), profile.part("rest of the forward pass"):
        losses = state.parallel.loss(images, labels, **targets)
    if state.distillation is not None:
        with state.precision.autocast(), profile.part("teacher"):
            losses |= state.distillation.losses(batch, images.shape[-2:])
    return losses


def log_losses(state: TrainingState, meter: Meter, progress: StepProgress) -> None:
    """Log the mean losses and the pace since the last call."""
    if not meter.steps:  # all skipped
        return
    values = state.group.mean(meter.means())
    rate = state.optimizer.param_groups[0]["lr"]
    times = pace(meter, state.sampler.batch_size, state.device)
    state.log.record(state.step, "train", values | {"lr": rate} | times)
    text = (
        f"step {state.step}/{state.total}  lr {rate:.3g}  loss {values['loss']:.4f}  "
        f"{pace_text(times)}  left {progress.time_left()}  "
    )
    state.log.write(text + "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "loss"))
    if not state.log.console.is_terminal:
        state.log.console.print(text.rstrip(), markup=False)
    meter.reset()
