"""Validation during training: scores, pictures, and the best weights so far."""

from __future__ import annotations

import time

from terrazzo.evaluation.evaluate import make_evaluator
from terrazzo.evaluation.scoring import run_evaluation
from terrazzo.models.protocols import as_segmentor
from terrazzo.system.arithmetic import ceil_div
from terrazzo.training.monitoring.log import as_text, class_table, duration, summary
from terrazzo.training.monitoring.pictures import ValidationPictures
from terrazzo.training.monitoring.progress import StepProgress
from terrazzo.training.run import Interrupted
from terrazzo.training.saving import save_weights
from terrazzo.training.signals import StopSignal
from terrazzo.training.state import TrainingState


def is_time_to_validate(state: TrainingState) -> bool:
    """Return whether a validation is due at this step and has not been done yet."""
    return state.intervals.validates(state.step) and state.val_set is not None and state.validated_step < state.step


def validate(state: TrainingState, stop: StopSignal, progress: StepProgress) -> None:
    """Score the model (its average, with EMA) on the validation set, and keep the best weights."""
    assert state.val_loader is not None and state.val_set is not None
    started, log, loader, alone = time.monotonic(), state.log, state.val_loader, state.group.size == 1

    # Prediction and scores
    model = as_segmentor(state.model_to_use())
    evaluator = make_evaluator(model, state.experiment.val_evaluator, state.val_set.classes, device=state.device)
    count = state.experiment.watch.pictures if state.group.is_main else 0
    pictures = ValidationPictures(count, ceil_div(len(state.val_set), state.group.size), state.val_set.read_image)
    with progress.validating(len(loader)) as show:

        def on_progress(done: int, total: int) -> None:
            show(done)
            if alone and stop.requested and done < total:
                raise Interrupted

        result = run_evaluation(
            [model],
            loader,
            evaluator,
            state.device,
            with_loss=True,
            on_prediction=pictures.add,
            on_progress=on_progress,
            group=state.group,
        )
    state.metrics, state.validated_step = result, state.step

    # Report
    log.record(state.step, "val", result)
    log.info(f"step {state.step}  val  {summary(result)}  ({duration(time.monotonic() - started)})")
    if "per_class" in result:
        log.write(as_text(class_table(result)))
    if evaluator.single_class is not None:
        log.info(
            f"warning: every pixel was predicted as '{evaluator.single_class}'; train longer, or check labels and "
            "learning rate"
        )
    if (picture := pictures.draw()) is not None:
        log.picture(state.step, picture)

    # What depends on the score
    score = state.best.of(result)
    state.patience.note(score)
    state.schedule.note(result)
    if state.best.improves(score):
        save_weights(state, state.checkpoints.best)
