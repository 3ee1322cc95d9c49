"""Images that show the ranges of a network's activations: training images of a config."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from terrazzo.config.datasets import with_pipeline
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import open_tree
from terrazzo.data.dataset import LoadError
from terrazzo.errors import UserError
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.windows import window_grid
from terrazzo.sample import Sample

COUNT = 32  # images; more change the ranges of the bundled model's activations little


def training_images(config: Any, facts: ModelFacts, count: int = COUNT) -> list[np.ndarray]:
    """Up to `count` training images of a config, evenly spaced, each (1, H, W, C) as the exported graph takes it.

    Of a model that runs in windows they are windows. Raises UserError where there are none.
    """
    experiment = make_experiment(load_config(config))
    if experiment.train is None:
        raise UserError("8-bit files are calibrated on training images, and the config has no train_dataloader")
    dataset = open_tree(with_pipeline(experiment.train.dataset, facts.pipeline))
    leaves = [leaf for leaf in dataset.leaves() if len(leaf)]
    if not leaves:
        raise UserError("8-bit files are calibrated on training images, and the config's training set is empty")
    places = [(leaf, index) for leaf in leaves for index in range(len(leaf))]
    chosen = [places[number * len(places) // min(count, len(places))] for number in range(min(count, len(places)))]
    images = []
    for number, (leaf, index) in enumerate(chosen):
        sample = leaf[index]
        if isinstance(sample, LoadError):
            raise UserError(sample.message)
        assert isinstance(sample, Sample) and sample.image is not None
        image = sample.image
        if image.shape[2] != facts.bands:
            raise UserError(f"a training image has {image.shape[2]} bands, and the model takes {facts.bands}")
        image = one_window(image, facts, number)
        if facts.size is not None and list(image.shape[:2]) != facts.size:
            found, fixed = ("x".join(map(str, size)) for size in (image.shape[:2], facts.size))
            raise UserError(
                f"8-bit files are calibrated on training images, and one has {found} pixels, not {fixed} as --size: "
                "leave out --size, or give a config with such images"
            )
        images.append(np.ascontiguousarray(image[None].astype(facts.image_type)))
    return images


def one_window(image: np.ndarray, facts: ModelFacts, number: int) -> np.ndarray:
    """One of the windows that a model sees of an image (H, W, C), another for each `number`; or the image."""
    if not facts.windows:
        return image
    grid: Sequence[Any] = window_grid(image.shape[:2], facts.windows["crop_size"], facts.windows["stride"])
    return image[next(islice(cycle(grid), number, None))]
