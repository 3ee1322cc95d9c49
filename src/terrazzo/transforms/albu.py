"""The bridge to albumentations, for users who have installed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from terrazzo.errors import UserError, nearest
from terrazzo.sample import Sample
from terrazzo.system.extras import import_extra
from terrazzo.transforms.base import Step, image_of, transform
from terrazzo.transforms.photometric import as_bytes


@transform
class Albu(Step):
    """Run transforms of albumentations, given as specs, on the image and all targets.

    A target of three axes is an image to it, one of two axes a mask.
    """

    random = True
    moves_pixels = True

    transforms: Sequence[Any]
    _built: dict[tuple[tuple[str, str], ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    keeps_specs = ("transforms",)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        kinds = {name: "image" if t.array.ndim == 3 else "mask" for name, t in sample.targets.items()}
        pipeline = self._pipeline(tuple(sorted(kinds.items())))
        pipeline.set_random_seed(int(rng.integers(2**31)))
        arrays = {
            name: as_bytes(target.array) if kinds[name] == "image" else target.array
            for name, target in sample.targets.items()
        }
        results = pipeline(image=as_bytes(image_of(sample, self)), **arrays)
        sample.image = results["image"]
        for name, target in sample.targets.items():
            target.array = results[name]
        return sample

    def _pipeline(self, kinds: tuple[tuple[str, str], ...]) -> Any:
        if kinds not in self._built:
            line = "pip install 'albumentations==2.0.8' (the last MIT release), or remove Albu from the pipeline"
            albumentations = import_extra("albumentations", "", "the steps of Albu", line)
            steps = [build(albumentations, spec) for spec in self.transforms]
            self._built[kinds] = albumentations.Compose(steps, additional_targets=dict(kinds))
        return self._built[kinds]


def build(albumentations: Any, spec: dict[str, Any]) -> Any:
    """Build a transform of albumentations from its spec; nested `transforms` are built first."""
    options = {key: value for key, value in spec.items() if key != "type"}
    if "transforms" in options:
        options["transforms"] = [build(albumentations, inner) for inner in options["transforms"]]
    if not hasattr(albumentations, spec["type"]):
        raise UserError(f"albumentations has no '{spec['type']}'{nearest(spec['type'], dir(albumentations))}")
    return getattr(albumentations, spec["type"])(**options)
