"""The time of training steps: parts of a step by the clock, operators by torch's profiler."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from terrazzo.system.files import write_whole
from terrazzo.training.state import TrainingState

WARMUP = 3  # steps before the clock starts, in which memory is allocated and algorithms are chosen
OPERATOR_STEPS = 3  # after the timed ones, since torch's profiler slows them down
MOST_OPERATORS = 5
LOSSES = "terrazzo.models.losses"
PARTS = (  # in the order of a step
    "waiting for data", "transfer to the device", "preprocessing", "backbone", "neck", "decode head",
    "auxiliary head", "losses", "rest of the forward pass", "teacher", "backward", "optimizer", "everything else",
)  # fmt: skip


class StepProfile:
    """Times the parts of `steps` steps after a warm-up, then reports to the log and to `profile.json`.

    Without steps, and in other processes than the first, it does nothing. A compiled model is one part.
    """

    def __init__(self, steps: int, state: TrainingState) -> None:
        self.steps, self.state, self.device = steps, state, state.device
        self.spent: dict[str, float] = defaultdict(float)
        self.open: list[tuple[str, float]] = []  # name and start of each part
        self.done = self.timed = 0
        self.began: float | None = None
        self.total = 0.0
        self.parts: dict[str, float] = {}  # what was spent in the timed steps
        self.watched = 0  # steps seen by torch's profiler
        self.profiler: Any = None
        self.operators: dict[str, tuple[float, int]] = {}  # time and calls of each
        self.is_on = steps > 0 and state.group.is_main
        self.restore: list[Callable[[], Any]] = []  # calls that remove what times the model
        if self.is_on and not state.settings.compile:
            self.watch(state.model)

    def watch(self, model: Any) -> None:
        """Time the model's backbone, neck, heads and losses."""
        parts = [(getattr(model, name, None), name) for name in ("backbone", "neck")]
        own_losses = [module for module in model.modules() if type(module).__module__.startswith(LOSSES)]
        for module, name in (*parts, *((module, "losses") for module in own_losses)):
            if isinstance(module, nn.Module):
                before = module.register_forward_pre_hook(lambda *_, name=name: self.enter(name))
                after = module.register_forward_hook(lambda *_: self.leave())
                self.restore += [before.remove, after.remove]
        for name in ("decode_head", "auxiliary_head"):
            found = getattr(model, name, None)
            heads: Any = found if isinstance(found, nn.ModuleList) else filter(None, [found])
            for head in heads:
                head.loss = self.timed_call(head.loss, name.replace("_", " "))
                self.restore.append(partial(delattr, head, "loss"))

    def timed_call(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function whose calls are counted as a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return timed

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside under a name; nested parts are counted under their own names only."""
        if not self.is_on:
            yield
            return
        self.enter(name)
        yield
        self.leave()

    def enter(self, name: str) -> None:
        """Begin a part; between steps, in a validation, the model's parts are not counted."""
        if self.began is None and name != PARTS[0]:
            return
        if self.began is None and self.timed == self.steps:
            self.profiler = start_profiler(self.device)
        now = self.now()
        self.began = now if self.began is None else self.began
        self.open.append((name, now))

    def leave(self) -> None:
        """End the innermost part."""
        if not self.open:
            return
        name, started = self.open.pop()
        spent = self.now() - started
        self.spent[name] += spent
        if self.open:
            self.spent[self.open[-1][0]] -= spent

    def now(self) -> float:
        """The clock, read when the device has finished its work."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()

    def end_of_step(self) -> None:
        """End a step; time until the next one is not counted."""
        if not self.is_on:
            return
        self.done += 1
        if self.profiler is not None:
            self.profiler.stop()
            add_operators(self.operators, self.profiler, self.device)
            self.profiler = None
            self.watched += 1
        elif self.done <= WARMUP:
            self.spent.clear()
        elif self.began is not None:
            self.total += self.now() - self.began
            self.timed += 1
            self.parts = dict(self.spent)
        self.began = None
        if self.watched == OPERATOR_STEPS:
            self.finish()

    def finish(self) -> None:
        """Report what has been measured, and stop measuring."""
        if not self.is_on:
            return
        self.is_on = False
        for restore in self.restore:
            restore()
        if not self.timed:
            self.state.log.info(f"profile: the run is too short, the clock starts after {WARMUP} steps")
            return
        seconds = self.total / self.timed
        parts = {name: spent / self.timed for name, spent in self.parts.items()}
        parts["everything else"] = max(0.0, seconds - sum(parts.values()))
        parts = {name: parts[name] for name in PARTS if name in parts}
        report = {
            "steps": self.timed,
            "seconds": seconds,
            "images_per_second": self.state.sampler.batch_size / seconds,
            "parts": parts,
            "operators": most_expensive(self.operators, self.watched),
            "hint": hint(
                {name: spent / seconds for name, spent in parts.items()},
                self.device.type,
                self.state.loader.num_workers,
                self.state.precision.name or "float32",
            ),
        }
        path = self.state.log.work_dir / "profile.json"
        write_whole(path, json.dumps(report, indent=1) + "\n")
        self.state.log.info(f"{as_text(report)}\nprofile: {path}")


def as_text(report: Mapping[str, Any]) -> str:
    """The time of a step by its parts, and the operators that take most, as text."""
    seconds = report["seconds"]
    lines = [
        f"profile of {report['steps']} steps: {seconds:.3f} s a step, {report['images_per_second']:.3g} images/s",
        *(f"  {100 * spent / seconds:5.1f} %  {spent:8.4f} s  {part}" for part, spent in report["parts"].items()),
    ]
    if report["operators"]:
        lines.append("most expensive operators (share of the time in all of them, calls a step):")
    lines += [f"  {100 * one['share']:5.1f} %  {one['calls']:6.0f}  {one['name']}" for one in report["operators"]]
    return "\n".join([*lines, report["hint"]])


def start_profiler(device: torch.device) -> Any:
    """Start torch's profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it reports its own start and end
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)
    profiler.start()
    return profiler


def add_operators(operators: dict[str, tuple[float, int]], profiler: Any, device: torch.device) -> None:
    """Add each operator's own time on the device, and its calls."""
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            spent, calls = operators.get(event.key, (0.0, 0))
            operators[event.key] = spent + getattr(event, key), calls + event.count


def most_expensive(operators: Mapping[str, tuple[float, int]], steps: int) -> list[dict[str, Any]]:
    """The operators that took most time over so many steps: their shares of it, and their calls in a step."""
    total = sum(spent for spent, _ in operators.values()) or 1.0
    return [
        {"name": name.removeprefix("aten::"), "share": spent / total, "calls": calls / steps}
        for name, (spent, calls) in sorted(operators.items(), key=lambda item: -item[1][0])[:MOST_OPERATORS]
    ]


def hint(shares: Mapping[str, float], device: str, workers: int, precision: str, cores: int | None = None) -> str:
    """Advice on making steps faster, from the shares of a step's parts."""
    cores = cores or os.cpu_count() or 1

    def percent(*names: str) -> int:
        return round(100 * sum(shares.get(name, 0.0) for name in names))

    data, moved = percent("waiting for data"), percent("transfer to the device", "preprocessing")
    optimizer, losses, network = percent("optimizer"), percent("losses"), percent(*PARTS[3:9])
    can_use_amp = device == "cuda" and precision == "float32"
    faster = "--amp makes them faster" if can_use_amp else "a smaller model or crop makes steps faster"
    advice = (  # the first that applies
        (
            data >= 20 and workers < cores,
            f"waiting for data takes {data} %: raise `workers` (train_dataloader.num_workers), now {workers}; this "
            f"machine has {cores} cores",
        ),
        (
            data >= 20,
            f"waiting for data takes {data} % with as many workers as cores ({workers}): store the images smaller or "
            "decoded, or remove expensive transforms",
        ),
        (moved >= 20, f"moving batches to the device and normalising them takes {moved} %: take smaller crops"),
        (
            optimizer >= 30,
            f"the optimizer takes {optimizer} %: take a larger batch, or accumulate gradients "
            "(optim_wrapper.accumulative_counts)",
        ),
        (losses >= 30, f"the losses take {losses} %: a simpler loss, or a smaller crop, makes steps faster"),
        (True, f"forward pass and backward take {network + percent('backward')} %, data hardly any time: {faster}"),
    )
    return f"hint: {next(text for applies, text in advice if applies)}"
