"""A recipe under composition: what its name says, then what its family makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from terrazzo.recipes.datasets import Data
from terrazzo.recipes.words import Words

Part = dict[str, Any]


@dataclass
class Plan:
    """Everything about a recipe that a family may set, with what most recipes have as a start."""

    words: Words
    data: Data
    model: Part = field(default_factory=dict)
    preprocessor: Part = field(default_factory=dict)
    optimizer: Part = field(default_factory=dict)  # the whole wrapper
    schedule: list[Part] = field(default_factory=list)
    train_pipeline: list[Part] = field(default_factory=list)
    test_pipeline: list[Part] = field(default_factory=list)
    repeat: int = 0  # times that the training data are repeated
    batch: int = 4
    workers: int = 4
    iterations: int = 80000
    interval: int | None = None  # between validations and between checkpoints; by default a tenth of the run
    loop: Part = field(default_factory=dict)  # more of `train_cfg`
    checkpoint: Part = field(default_factory=dict)  # more of the checkpoint hook
    settings: Part = field(default_factory=dict)  # more top-level sections; None leaves a section out

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    @property
    def crop(self) -> list[int]:
        return list(self.words.crop)

    def use_few_workers(self) -> None:
        """Two workers a device where it trains on two images."""
        self.workers = 2 if self.batch == 2 else 4

    @property
    def odd(self) -> bool:
        """A crop of 769 = 8 x 96 + 1: its corners stay aligned through strides of 8."""
        return self.crop[0] % 2 == 1

    @property
    def align_corners(self) -> bool:
        return self.odd

    def slide(self, crop: list[int] | None = None, stride: list[int] | None = None) -> Part:
        """Testing window by window: of the crop's size, moved by two thirds of it."""
        crop = crop or self.crop
        return {"mode": "slide", "crop_size": crop, "stride": stride or [s * 2 // 3 + s % 2 for s in crop]}

    @property
    def test_cfg(self) -> Part:
        return self.slide() if self.odd or self.data.slide else {"mode": "whole"}
