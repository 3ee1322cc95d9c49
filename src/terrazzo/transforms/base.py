"""The call and the roles of transforms, the loop over an image's targets, and pairs in configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # only for type checkers, and Python 3.10 has none

    def dataclass_transform(**_: Any) -> Any:
        return lambda function: function


Probability: TypeAlias = float  # the annotation of fields that must be in [0, 1]


class Transform(Protocol):
    """Change a sample, drawing whatever it needs from `rng`; never write into the arrays it was given."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any: ...


class Reader(Protocol):
    """A transform that loads an image or a target of a sample from its files."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...


class Step:
    """A transform that declares its role, for consumers of a pipeline; subclasses override what differs."""

    reads: str | tuple[str, ...] = ()  # loaded from files: "image", "label", "depth", ...
    needs: str | tuple[str, ...] = ()  # targets that another step must have loaded
    random: bool = False  # draws random numbers
    moves_pixels: bool = False  # changes the image's size, or where its pixels are
    packs: bool = False  # only prepares arrays for the batch
    changes_labels: bool = False  # gives labels other values than stored ones have, beyond the data set's mapping

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if field.type == "Probability":
                check_probability(getattr(self, field.name), f"{type(self).__name__}'s {field.name}")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def transform(cls: Any = None, *, aliases: tuple[str, ...] = ()) -> Any:
    """Decorator: make a class a frozen dataclass, and register it under its name as a transform."""
    if cls is None:
        return lambda cls: transform(cls, aliases=aliases)
    return TRANSFORMS.register(dataclasses.dataclass(frozen=True)(cls), aliases=aliases)


@dataclasses.dataclass(frozen=True)
class Role:
    """The role of a step; one that declares nothing may be random, move pixels, and change labels."""

    reads: tuple[str, ...]
    needs: tuple[str, ...]
    random: bool
    moves_pixels: bool
    packs: bool
    changes_labels: bool
    is_declared: bool


def role_of(step: Any) -> Role:
    """The role of any callable, from those attributes of `Step` that it has."""
    names = ("reads", "needs", "random", "moves_pixels", "packs", "changes_labels")
    is_declared = any(hasattr(step, name) for name in names)
    return Role(
        reads=as_names(getattr(step, "reads", ())),
        needs=as_names(getattr(step, "needs", ())),
        random=bool(getattr(step, "random", True)),
        moves_pixels=bool(getattr(step, "moves_pixels", True)),
        packs=bool(getattr(step, "packs", False)),
        changes_labels=bool(getattr(step, "changes_labels", not is_declared)),
        is_declared=is_declared,
    )


def class_of(step: Any) -> type:
    """The class of a step, or of the user's own transform inside it."""
    return type(getattr(step, "inner", step))


def is_ours(step: Any) -> bool:
    """Return True for a step of this package; one that users write may read otherwise tomorrow."""
    return class_of(step).__module__.startswith("terrazzo.")


def as_names(value: Any) -> tuple[str, ...]:
    """Return one name, several, or None as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def for_each_map(
    sample: Sample,
    function: Callable[[np.ndarray, str, Any], np.ndarray],
    interpolation: str = "bilinear",
    fill: Any = 0,
    label_fill: float | None = None,
) -> None:
    """Replace the image and every target by `function(array, interpolation, fill)`.

    `interpolation` and `fill` are the image's; targets have their own, the label `label_fill` where it is given.
    """
    if sample.image is not None:
        sample.image = function(sample.image, interpolation, fill)
    for name, target in sample.targets.items():
        own = label_fill if name == "label" and label_fill is not None else target.fill
        target.array = function(target.array, target.interpolation, own)


def copy_sample(sample: Sample) -> Sample:
    """Return a copy of a sample that shares nothing but the arrays."""
    targets = {name: dataclasses.replace(target) for name, target in sample.targets.items()}
    return dataclasses.replace(sample, targets=targets, meta=dict(sample.meta))


def image_of(sample: Sample, user: object) -> np.ndarray:
    """Return the sample's image. Raises UserError where no loader precedes `user` in the pipeline."""
    if sample.image is None:
        raise UserError(f"{type(user).__name__} needs an image: put LoadImageFromFile before it in the pipeline")
    return sample.image


def symmetric_range(value: Any, name: str) -> tuple[float, float]:
    """Return `x` as (-x, x), a pair unchanged."""
    if isinstance(value, (int, float)):
        return -abs(value), abs(value)
    return as_pair(value, name)


def check_range(value: Any, owner: str) -> None:
    """Raise UserError for anything but two numbers, the smaller first."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not pair or not all(isinstance(item, (int, float)) for item in value) or value[0] > value[1]:
        raise UserError(f"{owner} is two numbers, the smaller first, not {value!r}")


def check_probability(value: float, name: str) -> None:
    """Raise UserError for a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{name} is a probability between 0 and 1, not {value!r}")
