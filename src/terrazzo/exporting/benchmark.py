"""Speed, memory, size and mIoU of models in all the ways that they can be run, side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from terrazzo.config.load import load_config
from terrazzo.errors import UserError, nearest
from terrazzo.exporting.export import export
from terrazzo.exporting.ways import RUNTIMES, WAYS
from terrazzo.inference.load import EXPORTED, STREET, load, open_exported
from terrazzo.inference.segmenter import Segmenter

SIZE = (512, 512)  # of images, where neither the user nor a file says otherwise
WARMING = 3  # steps of each before those that count


@dataclass
class Contender:
    """A model in one of its ways, and what was measured; `failure` says why nothing was."""

    model: str
    runtime: str
    source: str  # the arguments of `tz.load`
    checkpoint: str | None = None
    preparation: str = "none"
    bytes: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # seconds of the process, which other load affects less
    memory: int | None = None
    mIoU: float | None = None
    failure: str = ""

    def figures(self, first: Contender) -> dict[str, Any]:
        """The measurements; `speed` is the median over the steps of how many times as fast as the first it was.

        `cpu_speed` is the same by the processes' own times.
        """
        kept = {"model": self.model, "runtime": self.runtime, "bytes": self.bytes}
        if self.failure:
            return kept | {"failure": self.failure}
        return kept | {
            "median": median(self.seconds),
            "p95": float(np.quantile(self.seconds, 0.95)),
            "images_per_second": 1 / median(self.seconds),
            "speed": ratio(first.seconds, self.seconds),
            "cpu_speed": ratio(first.cpu, self.cpu),
            "memory": self.memory,
            "mIoU": self.mIoU,
            "seconds": self.seconds,
        }


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median of the ratios of two series."""
    return median(a / max(b, 1e-9) for a, b in zip(first, second, strict=True))


def benchmark(
    models: Sequence[str | Path],
    size: Sequence[int] | None = None,
    check: str | Path | None = None,
    *,
    config: str | Path | None = None,
    ways: Sequence[str] = tuple(WAYS),
    threads: int | None = None,
    steps: int = 20,
    on_step: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Time models, anything that `tz.load` takes, from an image (height, width) in memory to its class map.

    Checkpoints run in all `ways`, exported files in their own. Each contender is a process of its own with so many
    `threads`; they take a step in turn, `steps` times. `config` is that of a checkpoint without one; `check`, a config,
    adds the mIoU on its validation set. int8 is calibrated on training images of `check` or `config`. Returns the
    `size` and the `results`. Raises UserError for a model that cannot be loaded, and where nothing could be measured;
    otherwise the result of a way that fails says why.
    """
    for name in ways:
        if name not in WAYS:
            raise UserError(f"there is no way '{name}' to run a model{nearest(name, WAYS)}: {', '.join(WAYS)}")
    say = on_step or (lambda text: None)
    task: dict[str, Any] = {"check": None if check is None else str(check)}
    if check is not None:
        load_config(check)  # a wrong name is told before minutes have passed
    with tempfile.TemporaryDirectory() as folder:
        contenders: list[Contender] = []
        for number, model in enumerate(models):
            if Path(model).suffix.lower() in EXPORTED:
                contenders.append(as_exported(Path(model)))
            else:
                contenders += in_all_ways(model, config, check or config, ways, Path(folder) / str(number), say)
        task["size"] = common_size(contenders, size)
        measure(contenders, task, threads, steps, Path(folder), say)
    if all(one.failure for one in contenders):
        raise UserError("; ".join(dict.fromkeys(one.failure for one in contenders)))
    first = next(one for one in contenders if not one.failure)
    return {"size": task["size"], "threads": threads, "results": [one.figures(first) for one in contenders]}


def time_models(
    models: Sequence[tuple[str | Path, str | Path | None, Segmenter]],
    size: Sequence[int],
    *,
    steps: int = 10,
    on_step: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """The figures of models as they are, timed in turn on the CPU: each is what `tz.load` takes, and what it gave."""
    contenders = []
    for source, checkpoint, segmenter in models:
        path = Path(checkpoint or source)
        if path.suffix.lower() in EXPORTED:
            contenders.append(as_exported(path))
        else:
            named = None if checkpoint is None else str(checkpoint)
            size_of_file = bytes_of(file_of(path, segmenter))
            contenders.append(Contender(path.name, "torch", str(source), named, bytes=size_of_file))
    with tempfile.TemporaryDirectory() as folder:
        measure(contenders, {"size": list(size)}, None, steps, Path(folder), on_step or (lambda text: None))
    first = next((one for one in contenders if not one.failure), contenders[0])
    return [one.figures(first) for one in contenders]


def measure(
    contenders: Sequence[Contender],
    task: dict[str, Any],
    threads: int | None,
    steps: int,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Let contenders take a step in turn, `steps` times; `folder` is for what their processes write."""
    processes = start_all(contenders, task, threads, folder, say)
    try:
        for number in range(WARMING + steps):
            say(f"step {number + 1} of {WARMING + steps}")
            for contender, process in processes[:: 1 if number % 2 else -1]:
                if not contender.failure:
                    process.step(contender, counts=number >= WARMING)
        for contender, process in processes:
            if not contender.failure:
                say(f"{contender.model}, {contender.runtime}: " + ("mIoU" if task.get("check") else "memory"))
                process.end(contender)
    finally:
        for _, process in processes:
            process.close()


def as_exported(path: Path) -> Contender:
    """A file of another runtime, as it is."""
    facts = open_exported(path).facts
    runtime = RUNTIMES[path.suffix.lower()] + ("" if facts.precision == "f32" else f"-{facts.precision}")
    return Contender(path.name, runtime, str(path), bytes=bytes_of(path))


def in_all_ways(
    model: str | Path,
    config: str | Path | None,
    training: str | Path | None,
    ways: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
) -> list[Contender]:
    """The contenders of a checkpoint, whose exports go into a folder; int8 is calibrated on images of `training`."""
    source, checkpoint = (str(model), None) if config is None else (str(config), str(model))
    segmenter = load(source, checkpoint, "cpu")
    file = file_of(Path(model), segmenter)
    folder.mkdir()
    found = []
    for name in ways:
        way = WAYS[name]
        contender = Contender(Path(model).name, name, source, checkpoint, way.preparation, bytes_of(file))
        found.append(contender)
        if way.suffix is None:
            continue
        path = folder / f"{way.precision}{way.suffix}"
        try:
            say(f"exporting {contender.model} for {name}")
            export(segmenter, path, precision=way.precision, config=training)
        except Exception as problem:  # of classes of the libraries' own: the other ways go on
            contender.failure = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        contender.source, contender.checkpoint, contender.bytes = str(path), None, bytes_of(path)
    return found


def file_of(model: Path, segmenter: Segmenter) -> Path:
    """The file that a checkpoint was read from."""
    places = (model, model / segmenter.source, STREET)  # a file, the folder of a run, the bundled model
    return next(path for path in places if path.is_file())


def bytes_of(path: Path) -> int:
    """The size of a file, with that of the weights beside it; zero where there is none."""
    files = (path, path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def common_size(contenders: Sequence[Contender], size: Sequence[int] | None) -> list[int]:
    """The size of the images. Raises UserError where a file takes another one."""
    wanted = None if size is None else list(size)
    for contender in contenders:
        path = Path(contender.source)
        fixed = open_exported(path).facts.size if path.suffix.lower() in EXPORTED and path.is_file() else None
        if fixed is not None and wanted not in (None, fixed):
            raise UserError(
                f"{contender.model} takes images of {fixed[0]}x{fixed[1]} alone, not {wanted[0]}x{wanted[1]}"
            )
        wanted = fixed or wanted
    return wanted or list(SIZE)


class Process:
    """A stopwatch (`terrazzo.exporting.stopwatch`)."""

    def __init__(self, task: dict[str, Any], threads: int | None, errors: Path) -> None:
        self.errors = errors  # what it writes about them
        own = {"OMP_WAIT_POLICY": "PASSIVE"}
        if threads is not None:
            own |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        command = [sys.executable, "-W", "ignore", "-m", "terrazzo.exporting.stopwatch", json.dumps(task)]
        pipe = subprocess.PIPE
        with errors.open("w") as file:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=file, text=True, env=os.environ | own
            )

    def hear(self, contender: Contender) -> Any:
        """Its next answer, or None where it has ended: then the contender has a failure."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"its process ended with code {self.process.returncode}"
        contender.failure = reason.removeprefix("terrazzo.errors.UserError: ")
        return None

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # its end is heard
            pass

    def step(self, contender: Contender, counts: bool) -> None:
        """One step, which `counts` or only warms up."""
        self.tell("step")
        answer = self.hear(contender)
        if answer is not None and counts:
            contender.seconds.append(answer["wall"])
            contender.cpu.append(answer["cpu"])

    def end(self, contender: Contender) -> None:
        """The last answer."""
        self.tell("end")
        answer = self.hear(contender)
        if answer is not None:
            contender.memory, contender.mIoU = answer["memory"], answer["mIoU"]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def start_all(
    contenders: Sequence[Contender], task: dict[str, Any], threads: int | None, folder: Path, say: Callable[[str], None]
) -> list[tuple[Contender, Process]]:
    """The processes of those that can run, each after its first step."""
    processes = []
    for number, contender in enumerate(contenders):
        if contender.failure:
            continue
        say(f"starting {contender.model}, {contender.runtime}")
        own = {"model": contender.source, "checkpoint": contender.checkpoint, "preparation": contender.preparation}
        process = Process(task | own, threads, folder / f"{number}.txt")
        processes.append((contender, process))
        process.hear(contender)
    return processes
