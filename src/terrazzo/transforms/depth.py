"""Augmentation for depth estimation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.transforms.base import Probability, Step, image_of


@TRANSFORMS.register
@dataclass(frozen=True)
class RandomDepthMix(Step):
    """With `prob` replace a vertical strip of the image by its depth (Ishii and Yamashita, CutDepth, 2021).

    The strip starts anywhere and spans up to `mix_scale_ratio` of the width to the right of its start.
    """

    needs = "depth"
    random = True

    prob: Probability = 0.25
    mix_scale_ratio: float = 0.75

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        if "depth" not in sample.targets:
            raise UserError("RandomDepthMix needs depth: put LoadDepthAnnotation before it in the pipeline")
        image = image_of(sample, self).copy()
        width = image.shape[1]
        left = int(width * rng.random())
        span = max(int((width - left) * rng.random() * self.mix_scale_ratio), 1)
        depth = sample.targets["depth"].array[:, left : left + span, None]
        image[:, left : left + span] = np.clip(depth, 0, 255) if image.dtype == np.uint8 else depth
        sample.image = image
        return sample
