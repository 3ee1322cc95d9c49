"""A training run: everything that it needs is set up first, then one loop runs through it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.config.auto_scale_lr import scaled, with_base_batch
from terrazzo.config.config import Config
from terrazzo.config.experiment import Experiment, make_experiment
from terrazzo.data.build import open_dataset
from terrazzo.data.checks.run import check_before_training
from terrazzo.data.loaders import checked, make_loader
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import classes_of, evaluation_loader, make_evaluator
from terrazzo.evaluation.scoring import run_evaluation
from terrazzo.evaluation.validation_loss import total_loss
from terrazzo.inference.segmenter import describe
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import load_checkpoint
from terrazzo.models.small_images import told_of_small
from terrazzo.sample import Batch
from terrazzo.system.files import write_atomically
from terrazzo.system.process_group import ALONE, World
from terrazzo.training.best import Best
from terrazzo.training.checkpoints import Checkpoints
from terrazzo.training.class_balance import make_order, set_class_weights
from terrazzo.training.distributed.parallel import Parallel, shard_model
from terrazzo.training.intervals import Calendar
from terrazzo.training.memory import place
from terrazzo.training.monitoring.log import RunLog, as_text, class_table, duration, summary
from terrazzo.training.monitoring.nonfinite import Guard, broken_gradients, broken_losses
from terrazzo.training.monitoring.pictures import ValidationPictures
from terrazzo.training.monitoring.profile import make_profile
from terrazzo.training.monitoring.progress import Meter, StepProgress, pace, pace_text
from terrazzo.training.monitoring.run_header import tell_of_run
from terrazzo.training.monitoring.trackers import Tracker, import_packages, open_trackers
from terrazzo.training.optim.build import build_optimizer
from terrazzo.training.optim.ema import EMA
from terrazzo.training.optim.precision import Precision
from terrazzo.training.optim.schedule import Schedule
from terrazzo.training.optim.schedule_free import averaged
from terrazzo.training.pretrained import load_pretrained
from terrazzo.training.run import Interrupted, Run
from terrazzo.training.signals import StopSignal
from terrazzo.training.state import collect_state, is_finite, restore_state, set_random_state
from terrazzo.training.stopping import Budget, Patience
from terrazzo.transforms.compose import reading_types


class Trainer:
    """A run's objects and its loop."""

    def __init__(
        self,
        config: Config,
        work_dir: Path,
        log: RunLog,
        device: torch.device,
        pretrained: str | None,
        resume: bool,
        check: bool = True,
        world: World = ALONE,
        max_steps: int | None = None,
        profile: int = 0,
    ) -> None:
        self.config, self.log, self.device, self.work_dir = with_base_batch(config), log, device, work_dir
        self.world = world
        self.experiment = experiment = make_experiment(self.config)
        if experiment.train is None or experiment.run is None or experiment.optimizer is None:
            raise UserError("to train, a config needs train_dataloader, optim_wrapper and train_cfg")
        import_packages(experiment.watch.trackers)
        images = experiment.train.batch_size * experiment.optimizer.accumulate * world.size
        optimizer, self.rate_note = scaled(config, experiment.optimizer, images)
        self.settings = experiment.run
        torch.manual_seed(self.settings.seed)
        model: Any = build_model(experiment.model)
        self.model, count = model, classes_of(model)
        if check and world.is_main and count is not None:
            check_before_training(experiment, count, log.console, log.say)
        world.wait()  # until the first process has looked at all of the data
        self.train_set = open_dataset(experiment.train, count, "train_dataloader", self.settings.seed)
        self.val_set = None
        if experiment.val is not None:
            self.val_set = open_dataset(experiment.val, count, "val_dataloader")
        set_class_weights(self.model, self.train_set, log)
        self.checkpoints = Checkpoints(work_dir, self.settings.keep_checkpoints)
        state = self.checkpoints.newest_state() if resume else None
        if state is None:
            self.load_weights(experiment, pretrained)
        place(self.model, self.settings, device, log.say)
        self.order = make_order(self.train_set, experiment.train, self.settings, log, world)
        averaging = self.settings.averaging
        self.calendar = Calendar(self.settings, self.order.batches_per_epoch)
        self.total = self.calendar.total
        updates = self.calendar.steps_in(self.settings.unit) / experiment.optimizer.accumulate
        self.ema = EMA(self.model, averaging, round(averaging.begin * updates)) if averaging else None
        self.parallel = Parallel(
            self.model, world, device, shard=self.settings.shard, find_unused=self.settings.find_unused_parameters
        )
        if self.ema is not None and self.parallel.is_sharded:
            shard_model(self.ema.average)
        self.optimizer = build_optimizer(
            self.model, optimizer, experiment.optimizer.paramwise, experiment.optimizer.constructor
        )
        if self.settings.compile:
            self.parallel.compile()
        self.precision = Precision(device, experiment.optimizer.amp)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule = Schedule(experiment.optimizer.schedule, rates, self.order.batches_per_epoch, self.total)
        self.guard = Guard(self.model, self.settings.skip_nan, log, world)
        self.best = Best(self.settings)
        self.patience = Patience(self.settings.early_stopping, self.settings.lower_is_better)
        self.budget = Budget(self.settings.time_limit, max_steps)
        self.step = self.first_step = self.saved_step = self.validated_step = 0
        torch.manual_seed(self.settings.seed + world.rank)  # each process has dropout of its own
        self.metrics: dict[str, Any] = {}
        if state is not None:
            self.resume(state)
        elif resume:
            log.say(f"nothing to resume in {work_dir}: starting afresh")
        elif self.checkpoints.earlier:
            log.say(f"the states of an earlier run in {self.checkpoints.folder} go when this one saves its first")
        log.forget_after(self.step)
        if world.is_main:
            text = self.config.dump()
            write_atomically(work_dir / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))
        tell_of_run(self)
        self.profile = make_profile(self, profile)

    # Setting up

    def load_weights(self, experiment: Experiment, pretrained: str | None) -> None:
        if experiment.load_from:
            self.log.say(str(load_checkpoint(self.model, experiment.load_from, classes=self.train_set.classes)))
        else:
            self.log.say(load_pretrained(self.model, pretrained, experiment.model))

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        restore_state(state, self.model, self.optimizer, self.precision, self.ema)
        self.step, self.validated_step, self.metrics = state["step"], state["validated_step"], state["metrics"]
        self.order.start = epoch, sample = tuple(state["position"])
        self.schedule.load_state(state["schedule"])
        self.patience.best, self.patience.waited = state["patience"]
        self.best.score = state["best_score"] if self.checkpoints.best.exists() else None
        before, now = state["batch_in_all"], self.order.batch_size
        if before != now and self.order.by_epoch:
            self.step = (epoch + 1) * self.order.batches_per_epoch - self.order.batches_from(sample)
            self.validated_step = min(self.validated_step, self.step)
        self.first_step = self.saved_step = self.step
        self.log.say(f"resumed at step {self.step} of {self.total}")
        if len(state["random"]) == self.world.size:
            set_random_state(state["random"][self.world.rank])
        if before != now:
            self.log.say(
                f"a batch has {now} images now, it had {before}: epoch {epoch + 1} goes on at its sample {sample + 1} "
                f"of {self.order.length}, on {self.world.size} devices"
            )

    # The loop

    def run(self) -> Run:
        """Train to the end. A run that fails or is interrupted has saved what it had."""
        self.log.begin(self.step, self.total, self.open_trackers)
        with StopSignal() as stop, StepProgress(self.log.console, self.total, self.step) as progress:
            try:
                self.fit(stop, progress)
            except Interrupted:
                self.profile.finish()
                self.save()
                self.log.end("stopped", self.step)
                self.log.say(f"stopped at step {self.step} of {self.total}, state saved; to continue: {self.command()}")
                return self.result(finished=False)
            except Exception:
                self.rescue()
                self.log.end("failed", self.step)
                raise
        self.profile.finish()
        self.log.end("finished", self.step)
        result = self.result()
        self.log.say(f"weights: {result.last}" + (f", best: {result.best}" if result.best else ""))
        return result

    def open_trackers(self) -> list[Tracker]:
        trackers = self.experiment.watch.trackers
        return open_trackers(trackers, self.work_dir, self.config.to_dict(), self.step, self.log.say)

    def rescue(self) -> None:
        """Save the state of a failing run, unless its weights are broken or saving is what fails."""
        if self.step > self.saved_step and self.world.size == 1 and is_finite(self.model):
            with suppress(UserError):
                self.save()
        if self.saved_step:
            self.log.say(f"the state of step {self.saved_step} is saved; to continue from it: {self.command()}")

    def fit(self, stop: StopSignal, progress: StepProgress) -> None:
        """The loop: one step for each batch, and what happens at intervals."""
        optimizer, model, settings = self.optimizer, self.model, self.settings
        assert self.experiment.optimizer is not None
        accumulate, clip = self.experiment.optimizer.accumulate, self.experiment.optimizer.clip_grad
        batches = self.batches()
        meter = Meter()
        model.train()
        if self.step and self.is_time_to_validate():  # the last one was cut short
            with averaged(optimizer):
                self.validate(stop, progress)
        while self.step < self.total:
            with self.profile.part("waiting for data"):
                batch = meter.wait_for(batches)
            self.schedule.apply(optimizer, self.step)
            rate = optimizer.param_groups[0]["lr"]
            is_update = (self.step + 1) % accumulate == 0 or self.step + 1 == self.total
            with self.parallel.synchronised(is_update or self.calendar.saves(self.step + 1)):
                losses = self.losses(batch)
                total = total_loss(losses)
                is_sound = self.guard.accepts(broken_losses(losses, total), self.step + 1, rate, batch, self.losses)
                if is_sound:
                    with self.profile.part("backward"):
                        self.precision.backward(total / accumulate)
            self.step += 1
            if is_update:
                broken = broken_gradients(model) if self.precision.name != "fp16" else []  # there the scaler looks
                if self.guard.accepts(broken, self.step, rate, batch, self.losses):
                    with self.profile.part("optimizer"):
                        self.precision.update(optimizer, model, clip)
                optimizer.zero_grad(set_to_none=True)
                if self.ema is not None:
                    self.ema.update(model, -(-self.step // accumulate))
            if is_sound:
                meter.add(losses)
            with meter.paused():
                self.profile.end_of_step()
            progress.update(self.step, meter, rate)
            if self.step % settings.log_interval == 0 or self.step == self.total:
                self.log_losses(meter, progress)
            with meter.paused():
                if self.is_time_to_validate():
                    with averaged(optimizer):
                        self.validate(stop, progress)
                if self.calendar.saves(self.step):
                    self.save()
            if self.patience.is_over and self.step < self.total:
                self.end_early()
                break
            ends = stop.requested or self.budget.is_spent(self.step - self.first_step)
            if (is_update or self.world.size == 1) and self.step < self.total and self.world.any(ends):
                raise Interrupted

    def batches(self) -> Iterator[Batch]:
        """Batches from the current step on, without reading those before it."""
        assert self.experiment.train is not None
        workers = self.experiment.train.num_workers
        return checked(make_loader(self.train_set, self.order, workers, self.device.type == "cuda"))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The model's losses on a batch, in the run's precision."""
        with self.profile.part("transfer to the device"):
            batch = batch.to(self.device)
        with self.profile.part("preprocessing"):
            images, targets = self.model.preprocess.pad(self.model.preprocess(batch.image), batch.targets, batch.sizes)
        target = self.model.target
        if target not in targets:
            raise UserError(
                f"no step of the training pipeline reads a {target}, so there is nothing to learn from: add one "
                f"({', '.join(reading_types(target))})"
            )
        labels = targets.pop("label").long() if "label" in targets else targets["depth"]
        with told_of_small(images), self.precision.autocast(), self.profile.part("rest of the forward pass"):
            return self.parallel.loss(images, labels, **targets)

    def is_time_to_validate(self) -> bool:
        """Whether a validation is due at this step and not done yet."""
        return self.calendar.validates(self.step) and self.val_set is not None and self.validated_step < self.step

    # What happens at intervals

    def end_early(self) -> None:
        """End a run that makes no progress any more."""
        self.log.say(
            f"stopped early at step {self.step}: {self.patience.waited} validations without a better score than "
            f"{self.patience.best:.2f}"
        )
        self.save()

    def log_losses(self, meter: Meter, progress: StepProgress) -> None:
        if not meter.steps:  # all left out
            return
        values = self.world.mean(meter.means())
        rate = self.optimizer.param_groups[0]["lr"]
        times = pace(meter, self.order.batch_size, self.device)
        self.log.record(self.step, "train", values | {"lr": rate} | times)
        text = (
            f"step {self.step}/{self.total}  lr {rate:.3g}  loss {values['loss']:.4f}  "
            f"{pace_text(times)}  left {progress.time_left()}  "
        )
        self.log.note(text + "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "loss"))
        if not self.log.console.is_terminal:
            self.log.console.print(text.rstrip(), markup=False)
        meter.reset()

    @cached_property
    def val_loader(self) -> Any:
        """The validation set's loader, whose workers wait from one validation to the next."""
        assert self.experiment.val is not None
        return evaluation_loader(self.val_set, self.experiment.val, self.world, self.device, persistent=True)

    def validate(self, stop: StopSignal, progress: StepProgress) -> None:
        """Score the model (its average, with EMA) on the validation set, and keep the best weights."""
        assert self.val_set is not None
        started = time.monotonic()
        loader = self.val_loader
        model: Any = self.weights_to_use()
        settings, classes = self.experiment.val_evaluator, self.val_set.classes
        evaluator = make_evaluator(model, settings, classes, device=self.device)
        count = self.experiment.watch.pictures if self.world.is_main else 0
        pictures = ValidationPictures(count, -(-len(self.val_set) // self.world.size), self.val_set.read_image)
        with progress.validating(len(loader)) as show:

            def on_progress(done: int, total: int) -> None:
                show(done)
                if self.world.size == 1 and stop.requested and done < total:
                    raise Interrupted

            result = run_evaluation(
                [model],
                loader,
                evaluator,
                self.device,
                with_loss=True,
                on_prediction=pictures.add,
                on_progress=on_progress,
                world=self.world,
            )
        self.metrics, self.validated_step = result, self.step
        self.log.record(self.step, "val", result)
        self.log.say(f"step {self.step}  val  {summary(result)}  ({duration(time.monotonic() - started)})")
        if "per_class" in result:
            self.log.note(as_text(class_table(result)))
        if evaluator.single_class is not None:
            self.log.say(
                f"warning: every pixel was predicted as '{evaluator.single_class}'; train longer, or look at labels "
                "and learning rate"
            )
        if (picture := pictures.draw()) is not None:
            self.log.picture(self.step, picture)
        score = self.best.of(result)
        self.patience.note(score)
        self.schedule.note(result)
        if self.best.improves(score):
            self.save_weights(self.checkpoints.best)

    def save(self) -> None:
        """Save the state to resume from, and the weights."""
        progress = {
            "step": self.step,
            "position": self.order.position(self.step - self.first_step),
            "batch_in_all": self.order.batch_size,
            "validated_step": self.validated_step,
            "best_score": self.best.score,
            "metrics": self.metrics,
            "schedule": self.schedule.state(),
            "patience": (self.patience.best, self.patience.waited),
        }
        state = collect_state(self.model, self.optimizer, self.precision, self.ema, self.world)
        if self.world.is_main:
            path = self.checkpoints.save_state(self.step, progress | state)
            self.log.note(f"saved {path}")
        self.saved_step = self.step
        with averaged(self.optimizer):
            self.save_weights(self.checkpoints.last)

    def weights_to_use(self) -> nn.Module:
        """The model that is scored and saved: the average, with EMA."""
        return self.parallel.whole(self.ema.average if self.ema is not None else self.model)

    def save_weights(self, path: Path) -> None:
        model = self.weights_to_use()
        if not self.world.is_main:
            return
        meta = describe(self.config.to_dict(), self.train_set.classes, self.train_set.palette)
        self.checkpoints.save_weights(path, model, meta | {"step": str(self.step), "metrics": json.dumps(self.metrics)})

    def command(self) -> str:
        """What continues this run; the work dir's own config has every option of the command line in it."""
        config, folder = (shlex.quote(str(path)) for path in (self.work_dir / "config.yaml", self.work_dir))
        return f"terrazzo train {config} --work-dir {folder} --resume"

    def result(self, finished: bool = True) -> Run:
        best = self.checkpoints.best if self.checkpoints.best.exists() else None
        return Run(best, self.checkpoints.last, self.metrics, self.log.path, finished, self.work_dir)
