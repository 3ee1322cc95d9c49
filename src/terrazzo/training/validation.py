"""Validation during training: scores, pictures, and the best weights so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from terrazzo.evaluation.evaluate import make_evaluator
from terrazzo.evaluation.scoring import as_seen, own_maps, run_evaluation
from terrazzo.models.protocols import as_segmentor
from terrazzo.sample import Batch, Sample
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.painting import as_picture
from terrazzo.training.monitoring.log import as_text, class_table, duration, summary
from terrazzo.training.monitoring.progress import StepProgress
from terrazzo.training.saving import save_weights
from terrazzo.training.state import TrainingState
from terrazzo.training.stopping import Interrupted, SessionEnd, score_of
from terrazzo.viz.grid import compared, picture_grid

CAPTIONS = ("image", "label", "prediction")


def is_time_to_validate(state: TrainingState) -> bool:
    """Return whether a validation is due at this step and has not been done yet."""
    return state.intervals.validates(state.step) and state.val_set is not None and state.validated_step < state.step


def validate(state: TrainingState, end: SessionEnd, progress: StepProgress) -> None:
    """Score the model (its average, with EMA) on the validation set, and keep the best weights."""
    assert state.val_loader is not None and state.val_set is not None
    for observer in state.observers:
        observer.before_validation(state)
    started, log, loader, alone = time.monotonic(), state.log, state.val_loader, state.group.size == 1

    # Prediction and scores
    model = as_segmentor(state.model_to_use())
    evaluator = make_evaluator(model, state.experiment.val_evaluator, state.val_set, device=state.device)
    count = state.experiment.watch.pictures if state.group.is_main else 0
    pictures = ValidationPictures(count, ceil_div(len(state.val_set), state.group.size), state.val_set.read_image)
    confidences: list[float] = []
    with progress.validating(len(loader)) as show:

        def on_progress(done: int, total: int) -> None:
            show(done)
            if alone and end.requested and done < total:
                raise Interrupted

        result = run_evaluation(
            [model],
            loader,
            evaluator,
            state.device,
            with_loss=True,
            on_prediction=pictures.add,
            on_scores=lambda scores: confidences.append(scores.mean_confidence()),
            on_progress=on_progress,
            group=state.group,
        )
    state.metrics, state.confidences, state.validated_step = result, confidences, state.step
    for observer in state.observers:
        observer.after_validation(state)

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
    state.schedule.note(result)
    if state.best.note(result):
        save_weights(state, state.checkpoints.best)


def check_targets(state: TrainingState) -> None:
    """Raise UserError for a score of `save_best`, of a `monitor` that no validation will compute.

    A metric that cannot be computed of no images is not known before the first validation, which then checks.
    """
    if state.val_set is None:
        return
    evaluator = make_evaluator(as_segmentor(state.model), state.experiment.val_evaluator, state.val_set)
    try:
        scores = evaluator.compute()
    except Exception:  # of any metric, also a user's
        return
    for target in (state.best.target, state.best.watched, *(part.target for part in state.schedule.plateaus)):
        score_of(scores | {"loss": None}, target)


class ValidationPictures:
    """Pictures of `count` of a validation's samples, spread over all `length` of them."""

    def __init__(self, count: int, length: int, read_image: Callable[[Sample], np.ndarray]) -> None:
        self.read_image = read_image
        self.wanted = {index * length // count for index in range(count)}
        self.seen = 0
        self.rows: list[list[np.ndarray]] = []
        self.colours: dict[str, Sequence[int]] = {}  # of the classes that may occur
        self.present: set[int] = set()

    def add(self, batch: Batch, maps: list[Tensor], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        """Keep the samples of a batch that are to be shown; predictions (H, W) are classes or depth."""
        numbers = range(self.seen, self.seen + len(maps))
        self.seen += len(maps)
        if self.wanted.isdisjoint(numbers):
            return
        is_depth = maps[0].is_floating_point()
        if not is_depth:
            self.colours = dict(zip(classes, palette, strict=True))
        own = own_maps(batch, "depth" if is_depth else "label")
        for number, sample, target, prediction in zip(numbers, batch.samples, own, maps, strict=True):
            if number not in self.wanted:
                continue
            pair = [as_seen(target, prediction.shape).cpu().numpy(), prediction.cpu().numpy()]
            if not is_depth:
                self.present.update(*(np.unique(labels).tolist() for labels in pair))
            self.rows.append(compared(as_picture(self.read_image(sample)), pair, palette))

    def draw(self) -> np.ndarray | None:
        """The grid as an RGB picture; None if nothing was predicted."""
        if not self.rows:
            return None
        shown = {name: colour for index, (name, colour) in enumerate(self.colours.items()) if index in self.present}
        return picture_grid(self.rows, CAPTIONS, shown)
