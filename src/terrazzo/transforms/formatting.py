"""The last steps of a pipeline: targets derived from others, and contiguous arrays for the batch."""

from __future__ import annotations

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample, Target
from terrazzo.transforms.base import Step, transform


def class_edges(label: np.ndarray, width: int, ignore_index: int = 255) -> np.ndarray:
    """Return 1 where two classes meet, thickened to `width`, 0 elsewhere; an ignored pixel bounds nothing."""
    values = label if label.dtype == np.uint8 else label.astype(np.float32)
    around = np.ones((3, 3), np.uint8)
    counts = label != ignore_index
    largest = cv2.dilate(np.where(counts, values, values.dtype.type(0)), around)
    smallest = cv2.erode(np.where(counts, values, values.dtype.type(255 if label.dtype == np.uint8 else 1e9)), around)
    edges = counts & ((largest != values) | (smallest != values))
    return cv2.dilate(edges.astype(np.uint8), np.ones((width, width), np.uint8))


@transform
class GenerateEdge(Step):
    """Make the target `edge` (H, W) of 0 and 1 from the label's class boundaries."""

    needs = "label"

    edge_width: int = 3
    ignore_index: int = 255

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.label is None:
            raise UserError("GenerateEdge needs a label: put LoadAnnotations before it in the pipeline")
        sample.targets["edge"] = Target(class_edges(sample.label, self.edge_width, self.ignore_index))
        return sample


@transform
class PackSegInputs(Step):
    """Make arrays contiguous and of types that torch knows."""

    packs = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.image is not None:
            image = sample.image if sample.image.ndim > 2 else sample.image[..., None]
            sample.image = np.ascontiguousarray(image)
        for target in sample.targets.values():
            array = np.ascontiguousarray(target.array)
            is_class_map = array.dtype.kind in "iu" and array.dtype != np.uint8
            target.array = array.astype(np.int64) if is_class_map else array
        return sample
