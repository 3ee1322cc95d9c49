"""The progress bar of a training run, and the averages that it shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from terrazzo.system.terminal import Console
from terrazzo.training.monitoring.log import duration, progress_bar

T = TypeVar("T")


class Meter:
    """Mean losses since the last reset, seconds for a step, and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.steps = 0
        self.waited = 0.0
        self.started = time.monotonic()

    def wait_for(self, batches: Iterator[T]) -> T:
        """Return the next batch, and count the time spent waiting for it."""
        started = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - started
        return batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent inside from the time of the steps."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.started += time.monotonic() - started

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add one step's losses, and their sum as "loss"."""
        self.steps += 1
        values = {name: value.detach() for name, value in losses.items()}
        values["loss"] = sum(value for name, value in values.items() if "loss" in name)  # type: ignore[assignment]
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self) -> dict[str, float]:
        return {name: self.mean(name) for name in self._sums}

    def mean(self, name: str) -> float:
        return float(self._sums[name]) / self.steps

    @property
    def seconds_per_step(self) -> float:
        return (time.monotonic() - self.started) / max(1, self.steps)

    @property
    def waiting_share(self) -> float:
        return self.waited / max(1e-9, time.monotonic() - self.started)


def pace(meter: Meter, images: int, device: torch.device) -> dict[str, float]:
    """The pace of steps with so many images: "seconds" a step, images a second, the share of waiting for data.

    On a GPU also the peak "memory", in MiB.
    """
    seconds = meter.seconds_per_step
    values = {"seconds": seconds, "images_per_second": images / seconds, "data_share": meter.waiting_share}
    if device.type == "cuda":
        values["memory"] = torch.cuda.max_memory_allocated(device) / 2**20
    return values


def pace_text(values: Mapping[str, float]) -> str:
    """The pace as text."""
    text = f"{values['seconds']:.3f} s/step  data {100 * values['data_share']:.0f}%"
    text += f"  {values['images_per_second']:.3g} images/s"
    return text + (f"  {values['memory']:.0f} MiB" if "memory" in values else "")


class StepProgress:
    """A bar over a run's steps."""

    def __init__(self, console: Console, total: int, first: int) -> None:
        self.total, self.first, self.step = total, first, first
        self.started = time.monotonic()
        fields = "loss {task.fields[loss]} lr {task.fields[rate]} {task.fields[pace]} left {task.fields[left]}"
        self.bar = progress_bar(console, fields)
        self.task = self.bar.add_task("train", total=total, completed=first, loss="-", rate="-", pace="-", left="-")

    def __enter__(self) -> StepProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, step: int, meter: Meter, rate: float) -> None:
        """Show a finished step."""
        self.step = step
        if self.bar.console.is_terminal:
            pace = f"{meter.seconds_per_step:.2f} s/step, data {100 * meter.waiting_share:.0f}%"
            loss = f"{meter.mean('loss'):.3f}"
            self.bar.update(self.task, completed=step, loss=loss, rate=f"{rate:.2g}", pace=pace, left=self.time_left())

    def time_left(self) -> str:
        """An estimate from the mean pace so far, validations included."""
        done = self.step - self.first
        return duration((time.monotonic() - self.started) / done * (self.total - self.step)) if done else "-"

    @contextmanager
    def validating(self, total: int) -> Iterator[Callable[[int], None]]:
        """Show a second bar for a validation; the function it yields takes the number of batches done."""
        task = self.bar.add_task("val", total=total, loss="-", rate="-", pace="", left="-")
        try:
            yield lambda done: self.bar.update(task, completed=done)
        finally:
            self.bar.remove_task(task)
