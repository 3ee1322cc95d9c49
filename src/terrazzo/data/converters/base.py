"""The declaration of a converter, and the jobs of which its plan consists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from terrazzo.data.converters.raw import Missing, Raw
from terrazzo.errors import some
from terrazzo.registry import Registry

CONVERTERS = Registry("converter", "terrazzo.data.converters")


@dataclass(frozen=True)
class Job:
    """Files to write (`outputs`, below OUT) from the arrays (images, in RGB order) or bytes that `make` yields.

    A job with a `source` copies that file instead; one with `renew` writes its output in every run.
    """

    outputs: tuple[str, ...]
    make: Callable[[], Iterable[Any]] | None = None
    source: Path | None = None
    renew: bool = False


@dataclass(frozen=True)
class Options:
    """The edge of tiles and the step between them, in pixels."""

    tile: int = 0
    stride: int = 0


Plan = Callable[[Raw, Options], list[Job]]


@dataclass(frozen=True)
class Converter:
    """The published form of a data set and the plan of its conversion.

    `needs` describes the contents of RAW, packed or unpacked, and `example` names one of its images; `splits` are those
    of the declaration `dataset` that are written, `optional` those that may be absent without a note.
    """

    name: str
    dataset: str
    needs: str
    plan: Plan
    example: str = ""
    splits: Sequence[str] = ("train", "val")
    optional: Sequence[str] = ()
    options: Options = field(default_factory=Options)

    def jobs(self, raw: Raw, options: Options) -> list[Job]:
        """The jobs for the files that RAW shows. Raises Missing where some are not there."""
        jobs = self.plan(raw, options)
        if not jobs:
            raise Missing(f"there are no images such as {self.example}")
        return jobs


def converter(name: str, dataset: str, needs: str, **more: Any) -> Callable[[Plan], Plan]:
    """Decorator: register a function as the plan of a Converter of these facts."""

    def register(plan: Plan) -> Plan:
        CONVERTERS.register(Converter(name, dataset, needs, plan, **more))
        return plan

    return register


def make(output: str, function: Callable[..., Any], *arguments: Any) -> Job:
    """A job that writes one file."""
    return Job((output,), partial(single, function, *arguments))


def single(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The result of a function as a list of it."""
    return [function(*arguments)]


def copy(output: str, source: Path) -> Job:
    """A job that copies a file unchanged."""
    return Job((output,), source=source)


def text(output: str, lines: Iterable[str]) -> Job:
    """A job that writes a list of names."""
    return Job((output,), partial(single, str.encode, "".join(f"{line}\n" for line in lines)), renew=True)


def by_stem(paths: Iterable[Path], *endings: str) -> dict[str, Path]:
    """Files by their names without the first of `endings` that matches."""
    found = {}
    for path in paths:
        ending = next(ending for ending in endings if path.name.lower().endswith(ending.lower()))
        found[path.name[: -len(ending)]] = path
    return found


def chosen(files: Mapping[str, Path], names: Iterable[str], what: str) -> dict[str, Path]:
    """The files of these names. Raises Missing for names without one."""
    names = list(names)
    absent = [name for name in names if name not in files]
    if absent:
        raise Missing(f"{len(absent)} {what} images are missing, such as {absent[0]}")
    return {name: files[name] for name in names}


def matched(images: Mapping[str, Path], labels: Mapping[str, Path], what: str) -> list[tuple[str, Path, Path]]:
    """(name, image, label) of every image. Raises Missing if there are no images or some have no label."""
    if not images:
        raise Missing(f"there are no {what} images")
    absent = [name for name in images if name not in labels]
    if absent:
        raise Missing(f"{len(absent)} of {len(images)} {what} images have no label: {some(absent)}")
    return [(name, images[name], labels[name]) for name in sorted(images)]
