"""An exported model where evaluation expects a torch model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from terrazzo.config.datasets import DataTree, FolderData, changed_folders
from terrazzo.inference.argmax import LogitsGeometry
from terrazzo.inference.exported import RESIZINGS, ExportedRuntime
from terrazzo.inference.load import EXPORTED, open_exported
from terrazzo.inference.predict import View
from terrazzo.inference.runtime import Placement
from terrazzo.sample import Batch


class ExportedModel:
    """The runtime of a file, under the part of a Segmentor's contract that evaluation uses."""

    target = "label"
    training = False

    def __init__(self, runtime: ExportedRuntime) -> None:
        self.runtime = runtime
        count = len(runtime.classes)
        outputs = 1 if runtime.threshold is not None else count
        self.final_head = SimpleNamespace(
            num_classes=count, out_channels=outputs, threshold=runtime.threshold, align_corners=False, ignore_index=255
        )

    def train(self, mode: bool = True) -> ExportedModel:
        return self

    def eval(self) -> ExportedModel:
        return self

    def to(self, device: Any) -> ExportedModel:
        return self

    def views(self, batch: Batch) -> list[View]:
        """The logits of each image of a batch, which holds the images as they are stored."""
        found = []
        for image, sample, (height, width) in zip(batch.image.cpu(), batch.samples, batch.sizes, strict=True):
            pixels = image[:, :height, :width].permute(1, 2, 0).contiguous().numpy()
            (scores,) = self.runtime.infer(pixels[None], [Placement.of(sample, (height, width))])
            logits = torch.from_numpy(scores.logits)
            size = (logits.shape[1], logits.shape[2])
            found.append((logits, LogitsGeometry(head_size=size, input_size=size, own_size=size)))
        return found


def open_model(path: str | Path, trust: bool = False) -> ExportedModel:
    """The model of an exported file. Raises UserError as `open_exported` does."""
    return ExportedModel(open_exported(Path(path), trust))


def is_exported(path: str | Path) -> bool:
    """Return True for a file that holds an exported model, by its suffix."""
    return Path(path).suffix.lower() in EXPORTED


def for_exported(tree: DataTree, model: ExportedModel) -> DataTree:
    """A tree of data sets whose pipelines leave resizing to the model's graph, unless the model runs in windows."""
    if model.runtime.facts.windows:
        return tree
    return changed_folders(tree, with_resizing)


def with_resizing(data: FolderData, steps: Sequence[Any] = ()) -> FolderData:
    """A data set whose images are resized by `steps` after they are read, in place of the steps that do so now."""
    outside = [step for step in data.pipeline if is_outside(step)]
    pipeline = (*outside[:1], *steps, *outside[1:])
    return data if pipeline == tuple(data.pipeline) else replace(data, pipeline=pipeline)


def is_outside(step: Any) -> bool:
    """Return True for the config of a step that no graph contains."""
    return not isinstance(step, dict) or step.get("type") not in RESIZINGS
