"""Comparison of models on the same images: which is better, and whether chance could have made the difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.config.config import Config
from terrazzo.config.datasets import same_files
from terrazzo.config.experiment import Experiment, make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.discovery.data_root import locate
from terrazzo.errors import UserError, some
from terrazzo.evaluation.shared_images import Entrant, SharedImages
from terrazzo.inference.exported_model import is_exported
from terrazzo.inference.load import load
from terrazzo.inference.saved_config import saved_config
from terrazzo.inference.segmenter import Segmenter
from terrazzo.metrics.paired import LEVEL, Difference, adjusted, iou_scores, paired_differences
from terrazzo.models.checkpoint import read_checkpoint
from terrazzo.system.devices import choose_device
from terrazzo.system.text import short_names

DRAWS = 10_000
VISIBLE = 0.005  # points; smaller differences are shown as 0.00
SPLIT = "test"  # as `terrazzo test`
FEWEST = 6  # images that can tell: the same model is better on all of fewer by chance too often


@dataclass(frozen=True)
class Contestant:
    """One of the models, the config that it was trained with (None if unknown), and its mIoU in percent."""

    name: str
    source: str
    checkpoint: str | None  # where `source` is a config that was given for it
    segmenter: Segmenter
    config: Config | None
    mIoU: float = float("nan")

    @property
    def parameters(self) -> int | None:
        """The number of parameters; None for exported models."""
        model = getattr(self.segmenter.runtime, "model", None)
        return None if model is None else sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True)
class Outcome:
    """One model against the first: differences by name ("mIoU" and classes), and the adjusted p-values of classes.

    `p` is that of mIoU, adjusted for as many models as there are. `worst` are images with the share of pixels, in
    percent, that only this model gets wrong, less those that only the first does.
    """

    name: str
    differences: dict[str, Difference]
    p: float
    class_p: dict[str, float]
    worst: list[tuple[str, float]]
    pictures: list[list[tuple[str, np.ndarray]]]
    total: int  # images compared

    def verdict(self, first: str) -> str:
        """One line: whether the model is better than the first, by how much, and what it would take to tell."""
        found = self.differences["mIoU"]
        figures = (
            f"mIoU {signed(found.value)} (95% interval {signed(found.low)} to {signed(found.high)}, p {as_p(self.p)})"
        )
        if self.p < LEVEL:
            return f"{self.name} is {'better' if found.value > 0 else 'worse'} than {first}: {figures}"
        told = f"not distinguishable on {self.total} images"
        if self.images_needed is not None:
            told += f"; about {rounded(self.images_needed)} would tell"
        return f"{self.name} and {first} are {told}: {figures}"

    @property
    def images_needed(self) -> float | None:
        """The number of images that would probably tell; None for a difference that two digits do not show."""
        found = self.differences["mIoU"]
        return max(FEWEST, found.images_needed) if abs(found.value) >= VISIBLE else None

    def classes(self, sign: int) -> list[str]:
        """The classes that are significantly better (1) or worse (-1)."""
        return [name for name, p in self.class_p.items() if p < LEVEL and self.differences[name].value * sign > 0]


@dataclass(frozen=True)
class Ranking:
    """The models in the order given, and each later one against the first."""

    contestants: list[Contestant]
    outcomes: list[Outcome]
    classes: list[str]
    palette: list[Sequence[int]]
    images: int
    size: tuple[int, int]  # of the first image: height, width


def compare(
    models: Sequence[str | Path],
    data: Any = None,
    *,
    config: str | Path | None = None,
    device: str | torch.device | None = None,
    data_root: str | Path | None = None,
    weights: str | None = None,
    trust: bool = False,
    on_step: Callable[[str], None] | None = None,
) -> Ranking:
    """Compare models, each later one with the first, by a paired bootstrap over images of mIoU and of each class.

    `models` are anything that `tz.load` takes, exported files too; `config` is that of checkpoints that contain none.
    The images are the test set of `data` (a config), by default that of the models' own configs; `data_root` replaces
    its location. Each model sees them resized as its own pipeline does. P-values of several models and of classes are
    adjusted by Holm's method. Raises UserError for fewer than two models, and for models with other classes or images.
    """
    say = on_step or (lambda text: None)
    if len(models) < 2:
        raise UserError("a comparison takes at least two models")
    chosen = choose_device(device)
    contestants = []
    for model, name in zip(models, short_names([Path(model) for model in models]), strict=True):
        say(f"loading {name}")
        contestants.append(contestant(str(model), name, config, weights, trust))
    first = contestants[0].segmenter
    for one in contestants[1:]:
        if set(one.segmenter.classes) != set(first.classes):
            raise UserError(
                f"{one.name} has other classes ({some(one.segmenter.classes)}) than {contestants[0].name} "
                f"({some(first.classes)})"
            )
    if data is None:
        experiment = own_data(contestants, data_root)
    else:
        experiment = make_experiment(locate(load_config(data, trust=trust), data_root, (SPLIT,)))

    # Counts
    shared = SharedImages(experiment, SPLIT, first.classes, where="--data", device=chosen)
    entrants = [Entrant.of(one.segmenter) for one in contestants]
    counts = []
    for one, entrant in zip(contestants, entrants, strict=True):
        counts.append(shared.count(entrant, partial(report_progress, say, one.name)))
        entrant.model.to("cpu")

    # Differences
    say("resampling")
    found = [paired_differences(counts[0], other, first.classes, DRAWS) for other in counts[1:]]
    p_values = adjusted([one["mIoU"].p for one in found])
    outcomes = []
    for index, (differences, p) in enumerate(zip(found, p_values, strict=True), 1):
        one = contestants[index]
        say(f"pictures of {one.name}")
        own = [name for name in differences if name != "mIoU"]
        worst = shared.regressions(counts[0], counts[index])
        pair, both = (entrants[0], entrants[index]), (contestants[0].name, one.name)
        outcomes.append(
            Outcome(
                one.name,
                differences,
                p,
                dict(zip(own, adjusted([differences[name].p for name in own]), strict=True)),
                worst,
                shared.pictures(pair, worst, both, first.palette),
                len(counts[0]),
            )
        )
    scored = [
        replace(one, mIoU=float(iou_scores(counted.sum(0))[0]))
        for one, counted in zip(contestants, counts, strict=True)
    ]
    return Ranking(scored, outcomes, list(first.classes), list(first.palette), len(counts[0]), shared.size)


def contestant(source: str, name: str, config: str | Path | None, weights: str | None, trust: bool) -> Contestant:
    """Load a model with the config that it was trained with; `config` stands in where its file contains none."""
    if is_exported(source):
        return Contestant(name, source, None, load(source, trust=trust), None)
    own = saved_config(read_checkpoint(source, weights))
    if own is None and config is not None:
        segmenter = load(config, source, "cpu", trust=trust, weights=weights)
        own = load_config(config, trust=trust)
        found = Contestant(name, str(config), source, segmenter, own)
    else:
        segmenter = load(source, device="cpu", trust=trust, weights=weights)
        if (Path(source) / "config.yaml").is_file():
            own = load_config(source, trust=trust)
        found = Contestant(name, source, None, segmenter, own)
    if segmenter.model.target != "label":
        raise UserError(f"{name} estimates depth, and only class maps are compared")
    return found


def own_data(contestants: Sequence[Contestant], data_root: str | Path | None) -> Experiment:
    """The experiment with the images that all models were tested on. Raises UserError where there are none."""
    found = []
    for one in contestants:
        experiment = make_experiment(locate(one.config, data_root, (SPLIT,))) if one.config is not None else None
        loader = (experiment.test or experiment.val) if experiment is not None else None
        if experiment is not None and loader is not None:
            found.append((one.name, experiment, loader.dataset))
    if not found:
        raise UserError("none of these models names labelled images: give a config that does with --data CONFIG")
    first, experiment, dataset = found[0]
    for name, _, other in found[1:]:
        if not same_files(dataset, other):
            raise UserError(
                f"{first} and {name} were not tested on the same images: give the config of those to compare them on "
                "with --data CONFIG"
            )
    return experiment


def report_progress(say: Callable[[str], None], name: str, done: int, total: int) -> None:
    """Say how far a model is."""
    say(f"{name}: image {done} of {total}")


def as_p(p: float) -> str:
    """A p-value, as far as it matters."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def signed(points: float) -> str:
    """A difference with its sign, unless it is nothing."""
    return f"{points:+.2f}" if abs(points) >= VISIBLE else "0.00"


def rounded(count: float) -> str:
    """A number of images with two digits that count."""
    if count > 1e6:
        return "more than a million"
    digits = 10 ** max(0, int(math.log10(count)) - 1)
    return f"{math.ceil(count / digits) * digits:,}"
