"""Reading steps of a pipeline, bound to a data set: its label mapping, label format and cache."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from terrazzo.sample import Sample
from terrazzo.transforms.base import Step, role_of
from terrazzo.transforms.formats.base import LabelFormat
from terrazzo.transforms.labels import LabelMapping


class Windows(Protocol):
    """Scenes whose windows are samples, by the paths of these (see transforms.parts)."""

    def image(self, path: Path) -> np.ndarray: ...

    def label(self, path: Path) -> tuple[np.ndarray, np.ndarray]: ...


class Cache(Protocol):
    """A store of arrays decoded from files; `variant` distinguishes different readings of one file."""

    def get(self, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray: ...


@dataclass(frozen=True)
class StoredFiles:
    """The way in which a data set stores its images and labels."""

    mapping: LabelMapping = field(default_factory=LabelMapping)
    label_format: LabelFormat | None = None
    cache: Cache | None = field(default=None, repr=False)
    scenes: Windows | None = field(default=None, repr=False)

    def read_through(self, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The array that `read` gives for a file, from the cache if there is one; it must not be written into."""
        return read() if self.cache is None else self.cache.get(path, variant, read)


UNKNOWN_FILES = StoredFiles()


class FileReader(Step):
    """A step that reads files, with the cache and the label mapping of the data set that it is bound to."""

    files: StoredFiles = UNKNOWN_FILES


class ClassReader(FileReader):
    """A step that maps stored labels to classes itself, by the mapping of the data set that it is bound to."""

    mapping = LabelMapping()  # of the classes that it gives

    def finished(self, sample: Sample) -> Sample:
        """Apply the parts of the data set's mapping that only this package knows to the classes that were read."""
        rest = replace(self.files.mapping, reduce_zero_label=False, label_map=None)
        if "label" in role_of(self).reads and "label" in sample.targets:
            sample.targets["label"].array = rest.apply(sample.targets["label"].array)
        return sample


@dataclass(frozen=True)
class MappedReader(Step):
    """A user's own reader of labels, whose values are mapped to classes after it has read them."""

    step: Any
    mapping: LabelMapping

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return role_of(self.step).reads

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = self.step(sample, rng)
        if "label" in sample.targets:
            sample.targets["label"].array = self.mapping.apply(sample.targets["label"].array)
        return sample


def bind(step: Any, files: StoredFiles) -> Any:
    """Return a step bound to a data set, or the step itself where that makes no difference."""
    if isinstance(step, FileReader):
        bound = copy.copy(step)
        object.__setattr__(bound, "files", files)  # the readers are frozen
        return bound
    maps_labels = "label" in role_of(step).reads and not files.mapping.is_identity
    return MappedReader(step, files.mapping) if maps_labels else step


def unbound(step: Any) -> Any:
    """The step as the config describes it; it still finds the windows of scenes."""
    if isinstance(step, MappedReader):
        return step.step
    if isinstance(step, ClassReader):
        return step
    scenes = step.files.scenes if isinstance(step, FileReader) else None
    return bind(step, StoredFiles(scenes=scenes))


def as_stored(step: Any) -> Any:
    """Return a step that reads images without the conversion to float32 that it may make."""
    if getattr(step, "to_float32", False) and is_dataclass(step) and not isinstance(step, type):
        plain = replace(step, to_float32=False)
        return bind(plain, step.files) if isinstance(step, FileReader) else plain
    return step
