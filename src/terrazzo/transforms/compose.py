"""Pipelines: transforms one after the other, and questions about their roles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from terrazzo.arguments import shown
from terrazzo.config.ignored import drop_ignored
from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.transforms.base import Reader, Step, check_probability, role_of
from terrazzo.transforms.crop import ResizeCrop, fuse


def build_steps(transforms: Sequence[Any]) -> list[Any]:
    """Return the transforms, those that are given as specs built; arguments without effect are dropped."""
    specs = drop_ignored({"pipeline": list(transforms)}, ("pipeline",))["pipeline"]
    steps = [TRANSFORMS.build(spec, f"pipeline.{index}") for index, spec in enumerate(specs)]
    for index, (spec, step) in enumerate(zip(specs, steps, strict=True)):
        if not callable(step):
            raise UserError(f"pipeline.{index} must be a section with the `type` of a transform, not {shown(spec)}")
    return steps


class Nested(Step):
    """A step that runs other steps, whose roles determine its own."""

    transforms: list[Any]

    @property
    def random(self) -> bool:  # type: ignore[override]
        return any(role_of(step).random for step in self.transforms)

    @property
    def moves_pixels(self) -> bool:  # type: ignore[override]
        return any(role_of(step).moves_pixels for step in self.transforms)

    @property
    def packs(self) -> bool:  # type: ignore[override]
        return bool(self.transforms) and all(role_of(step).packs for step in self.transforms)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transforms})"

    def leaves(self) -> Iterator[Any]:
        """The steps, those inside other steps included."""
        for step in self.transforms:
            yield from step.leaves() if isinstance(step, Nested) else [step]

    def mapped(self, function: Callable[[Any], Any]) -> Any:
        """Return the step with `function` applied to every step, those inside other steps included."""
        changed = copy.copy(self)
        changed.transforms = [
            step.mapped(function) if isinstance(step, Nested) else function(step) for step in self.transforms
        ]
        return changed


@TRANSFORMS.register
class Compose(Nested):
    """Apply `transforms` (specs or built ones) in order; a step that yields several samples makes the result a list.

    A resize and the random crop after it become one step; `transforms` are the steps as they run.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = fuse(build_steps(transforms))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        return apply_all(self.transforms, sample, rng)

    def reader(self, kind: str) -> Reader | None:
        """Return the first step that reads "image", "label", "depth"... from a file, None where there is none.

        A first step that declares nothing reads the image, where no other one does.
        """
        for step in self.leaves():
            if kind in role_of(step).reads:
                return step
        if kind == "image" and self.transforms and not role_of(self.transforms[0]).is_declared:
            return self.transforms[0]
        return None

    def as_written(self) -> list[Any]:
        """The steps as the config lists them, none joined."""
        joined = (
            (step.resize, step.random_crop) if isinstance(step, ResizeCrop) else (step,) for step in self.transforms
        )
        return [step for steps in joined for step in steps]

    def after_reading(self) -> Compose:
        """Return the pipeline for an image at hand: without steps that read, pack, or need more than the image."""
        reader = self.reader("image")
        return Compose([step for step in self.transforms if step is not reader and works_on(step, ("image",))])

    def image_values(self) -> Compose:
        """Return the pipeline up to the values that a model's preprocessor sees: reading, and changes of values alone.

        Steps that draw random numbers or move pixels are not among them.
        """
        reader = self.reader("image")
        known = ("image", *role_of(reader).reads)

        def is_plain(step: Any) -> bool:
            return works_on(step, known) and not (role_of(step).random or role_of(step).moves_pixels)

        first = [] if reader is None else [reader]
        return Compose([*first, *(step for step in self.transforms if step is not reader and is_plain(step))])


def works_on(step: Any, targets: Sequence[str]) -> bool:
    """Return True for a step that neither reads nor packs, and needs nothing but these targets."""
    role = role_of(step)
    return not (role.reads or role.packs) and set(role.needs) <= set(targets)


def apply_all(steps: Sequence[Any], sample: Any, rng: np.random.Generator) -> Any:
    """Run the steps on a sample, or on every sample of a list."""
    for index, step in enumerate(steps):
        if isinstance(sample, list):
            return [apply_all(steps[index:], item, rng) for item in sample]
        sample = step(sample, rng)
    return sample


@TRANSFORMS.register
class RandomApply(Nested):
    """Apply `transforms` with probability `prob`, else nothing."""

    random = True

    def __init__(self, transforms: Any, prob: float = 0.5) -> None:
        check_probability(prob, "RandomApply's prob")
        self.transforms, self.prob = [as_pipeline(transforms)], prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        return self.transforms[0](sample, rng) if rng.random() < self.prob else sample


@TRANSFORMS.register
class RandomChoice(Nested):
    """Apply one of `transforms`, each a transform or a list of them, with probabilities `prob` (equal when None)."""

    random = True

    def __init__(self, transforms: Sequence[Any], prob: Sequence[float] | None = None) -> None:
        self.transforms = [as_pipeline(choice) for choice in transforms]
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        return self.transforms[int(rng.choice(len(self.transforms), p=self.prob))](sample, rng)


def as_pipeline(transforms: Any) -> Compose:
    """Return one transform or several as a pipeline."""
    return Compose(transforms if isinstance(transforms, (list, tuple)) else [transforms])


def reading_types(kind: str) -> list[str]:
    """The names of the registered transforms that read "image", "label", "depth"... from files."""
    return [name for name in TRANSFORMS if getattr(TRANSFORMS.get(name), "reads", None) == kind]
