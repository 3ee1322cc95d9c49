"""Reading steps of a pipeline, bound to a data set: its label mapping, label format and cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from terrazzo.sample import Sample
from terrazzo.transforms.base import Step, role_of
from terrazzo.transforms.formats.base import LabelFormat
from terrazzo.transforms.labels import LabelMapping


class Cache(Protocol):
    """A store of arrays decoded from files; `variant` distinguishes different readings of one file."""

    def get(self, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray: ...


@dataclass(frozen=True)
class StoredFiles:
    """The way in which a data set stores its images and labels."""

    mapping: LabelMapping = field(default_factory=LabelMapping)
    label_format: LabelFormat | None = None
    cache: Cache | None = field(default=None, repr=False)

    def read_through(self, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The array that `read` gives for a file, from the cache if there is one; it must not be written into."""
        return read() if self.cache is None else self.cache.get(path, variant, read)


UNKNOWN_FILES = StoredFiles()


@dataclass(frozen=True)
class BoundStep(Step):
    """A step that reads files, bound to the data set that stores them.

    A step with a method `load(sample, files)` takes that into account itself; the labels of any other one are mapped to
    classes after it has read them.
    """

    step: Any
    files: StoredFiles

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return role_of(self.step).reads

    @property
    def mapping(self) -> LabelMapping:
        """The mapping that is applied, with the values that the step itself sets."""
        own = getattr(self.step, "mapping_with", None)
        return self.files.mapping if own is None else own(self.files.mapping)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if hasattr(self.step, "load"):
            return self.step.load(sample, self.files)
        sample = self.step(sample, rng)
        if "label" in sample.targets:
            sample.targets["label"].array = self.mapping.apply(sample.targets["label"].array)
        return sample


def bind(step: Any, files: StoredFiles) -> Any:
    """Return a step bound to a data set, or the step itself where that makes no difference."""
    reads = role_of(step).reads
    maps_labels = "label" in reads and (hasattr(step, "load") or not files.mapping.is_identity)
    keeps_images = "image" in reads and hasattr(step, "load") and files.cache is not None
    return BoundStep(step, files) if maps_labels or keeps_images else step


def unbound(step: Any) -> Any:
    """The step as the config describes it."""
    return step.step if isinstance(step, BoundStep) else step


def as_stored(step: Any) -> Any:
    """Return a step that reads images without the conversion to float32 that it may make."""
    if getattr(step, "to_float32", False) and is_dataclass(step) and not isinstance(step, type):
        return replace(step, to_float32=False)
    return step
