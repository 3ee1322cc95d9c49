"""Published facts of each official recipe: scores, memory, speed, weights, stored in `published.json.gz`."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from terrazzo.recipes.methods import find_method
from terrazzo.recipes.words import Words

NAMED = "vit|deit|swin|mit|mscan|pcpvt|svt|convnext|beit|mae|mobilenet|unet"
BACKBONE = rf"(r\d+\w?(-.+)?|s\d+-d8|hr\d+s?|[sm]\d\d|sd|({NAMED})-.+)"


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe in one line of a listing; a fact that neither the name nor a publication gives is None."""

    name: str
    vocabulary: str  # "1.x" or "0.x"
    method: str
    family: str
    backbone: str
    dataset: str
    crop: tuple[int, int]  # height, width
    devices: int | None
    batch_size: int | None  # images a device
    iterations: int | None
    scores: dict[str, float] = field(default_factory=dict)  # in percent, under their published names
    memory: float | None = None  # GB a device in training
    milliseconds: float | None = None  # an image, on one V100
    weights: str | None = None
    note: str = ""  # where the name contradicts the content

    @property
    def miou(self) -> float | None:
        return self.scores.get("mIoU")

    @property
    def miou_multi_scale(self) -> float | None:
        """Tested at several scales and mirrored."""
        return self.scores.get("mIoU(ms+flip)")


@dataclass(frozen=True)
class RecipeRecord:
    """The recipe that a config was expanded from, and the batch that its learning rate is meant for, where known."""

    name: str
    devices: int | None = None
    batch_size: int | None = None  # images a device
    accumulate: int = 1  # batches of one optimizer step

    @property
    def base_batch_size(self) -> int | None:
        """The images of one optimizer step, of all devices."""
        return self.devices * self.batch_size * self.accumulate if self.devices and self.batch_size else None


@lru_cache(maxsize=1)
def published() -> dict[str, Any]:
    """Version -> name -> method, weights below `host`, scores, memory, milliseconds."""
    return json.loads(gzip.decompress(Path(__file__).with_name("published.json.gz").read_bytes()))


def describe(words: Words, note: str) -> RecipeInfo:
    """The facts of a recipe with these words."""
    found = find_method(words.model)
    folder = found[0].folder if found else ""
    version = "0.x" if words.older else "1.x"
    data = published()
    method, path, scores, memory, speed = data[version].get(words.name, (None, None, {}, None, None))
    tokens = [token for token in words.model.split("_") if re.fullmatch(BACKBONE, token)]
    return RecipeInfo(name=words.name, vocabulary=version, method=method or data["methods"].get(folder, folder),
        family=folder, backbone=tokens[0] if tokens else words.model, dataset=words.dataset, crop=words.crop,
        devices=words.devices, batch_size=words.batch, iterations=words.iterations, scores=dict(scores), memory=memory,
        milliseconds=speed, weights=data["host"] + path if path else None, note=note)  # fmt: skip
