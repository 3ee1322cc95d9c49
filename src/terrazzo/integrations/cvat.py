"""An auto-annotation function for CVAT: `cvat-cli task auto-annotate --function-module terrazzo.integrations.cvat`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from terrazzo.inference.load import load
from terrazzo.system.extras import import_extra
from terrazzo.transforms.formats.base import BACKGROUND
from terrazzo.transforms.formats.outlines import outlines


class SegmentationFunction:
    """A detection function that returns a mask for each class in an image, or polygons where CVAT asks for these.

    `model` and `device` are as in `tz.load`. Pixels below CVAT's confidence threshold, and those of a class called
    background, are left unlabelled.
    """

    def __init__(self, model: str | None = None, device: str | None = None) -> None:
        self.api = import_extra("cvat_sdk.auto_annotation", "cvat", "CVAT's auto-annotation functions")
        self.segmenter = load(model, device=device)
        names = enumerate(self.segmenter.classes)
        self.shown = {index: name for index, name in names if name.lower() not in BACKGROUND}

    @cached_property
    def spec(self) -> Any:
        """The labels: the model's classes, by their numbers."""
        labels = [self.api.label_spec(name, index, type="mask") for index, name in self.shown.items()]
        return self.api.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """The shapes in a PIL image."""
        from cvat_sdk.masks import encode_mask

        prediction = self.segmenter.predict(image)
        labels = prediction.labels
        sure = prediction.confidence >= context.conf_threshold if context.conf_threshold else np.True_
        shapes = []
        for index in np.unique(labels).tolist():
            mask = (labels == index) & sure
            if index not in self.shown or not mask.any():
                continue
            if context.conv_mask_to_poly:
                rings = (np.array(ring, float).ravel().tolist() for ring in outlines(mask))
                shapes += [self.api.polygon(index, points) for points in rings]
            else:
                shapes.append(self.api.mask(index, encode_mask(mask)))
        return shapes


create = SegmentationFunction
