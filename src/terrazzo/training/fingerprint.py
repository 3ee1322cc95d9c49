"""The fingerprint of a run's training images, which goes into the files of its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError
from terrazzo.inference.likeness import Fingerprint, evenly, fingerprint
from terrazzo.training.state import TrainingState


def images_of(dataset: Dataset) -> Iterator[np.ndarray]:
    """Yield some images (H, W, C) of a data set, as they are stored, leaving out those that cannot be read."""
    origins = dataset.origins()
    for index in evenly(len(origins)):
        leaf, own = origins[index]
        try:
            yield leaf.read_image(leaf.start(own))
        except (UserError, OSError):  # which training names when it needs them
            continue


def described(found: Fingerprint | None, confidences: Sequence[float]) -> dict[str, str]:
    """The entry of a weights file's description; none without images."""
    return {} if found is None else {"training_images": json.dumps(found.with_confidence(confidences).values())}


def training_images(state: TrainingState) -> dict[str, str]:
    """The entry of a run's weights file; the images are read once, the confidences are the last validation's."""
    if not state.has_fingerprint:
        state.fingerprint, state.has_fingerprint = fingerprint(images_of(state.train_set)), True
    return described(state.fingerprint, state.confidences)
