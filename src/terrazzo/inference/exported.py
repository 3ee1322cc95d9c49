"""Exported models: what their files say, and how they are run. This module imports no torch."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.runtime import DEFAULT_THRESHOLD, OwnWindows, Placement, spread_of
from terrazzo.inference.windows import Window, blend_windows
from terrazzo.system.arithmetic import ceil_div

TILED = "model_type"  # a key that only files for programs which cut maps into tiles have
CONFIDENT_ROWS = 256  # whose probabilities are computed at a time where only the highest is asked for
CONFIDENT_PIXELS = 1 << 16  # of an image, whose confidence stands for all
BYTES_PER_PIXEL = 2048.0  # of memory that one pass takes, which files do not say: enough for most models
FIXED_SIZE = re.compile(r"Resize(?:ShortestEdge)?\(scale=[\[(]?(\d+)(?:, (\d+))?")
RESIZINGS = ("Resize", "ResizeShortestEdge", "ResizeToMultiple")  # steps of a test pipeline that a graph contains


@dataclass(frozen=True)
class ModelFacts:
    """The metadata of an exported file; each field is stored as JSON under its name."""

    classes: list[str]
    palette: list[list[int]]
    bands: int = 3
    image_type: str = "uint8"  # of the stored images
    threshold: float | None = None  # of a single output channel: foreground is where its sigmoid is above
    pipeline: list[dict[str, Any]] = field(default_factory=list)  # the steps before the graph, such as reading
    suffixes: list[str] = field(default_factory=list)
    windows: dict[str, Any] = field(default_factory=dict)  # crop_size, stride, blending: images are run in windows
    outputs: list[str] = field(default_factory=lambda: ["labels"])
    size: list[int] | None = None  # height and width, where the graph takes no other
    preprocessing: dict[str, Any] = field(default_factory=dict)  # what the graph does to an image before the network
    precision: str = "f32"  # of the network; the steps before and after it have f32
    quantization: dict[str, Any] = field(default_factory=dict)  # of int8: calibration_images, left_out (layers in f32)
    training_images: dict[str, Any] = field(default_factory=dict)  # their fingerprint, where the model had one
    source: str = ""
    licence: str = ""
    parity: dict[str, Any] = field(default_factory=dict)  # agreement with the model in torch
    terrazzo: str = ""  # the version that wrote the file

    def own_windows(self) -> OwnWindows:
        """The windows that the model was made for."""
        if self.size is not None:
            return OwnWindows((self.size[0], self.size[1]), is_fixed=True)
        if self.windows:
            (height, width), stride = self.windows["crop_size"], self.windows["stride"]
            return OwnWindows((height, width), max(0.0, 1 - min(stride[0] / height, stride[1] / width)))
        for step in self.preprocessing.get("resizing", ()):
            if found := FIXED_SIZE.match(step):  # the graph leaves images of this size as they are, and no others
                return OwnWindows((int(found[2] or found[1]), int(found[1])), is_fixed=True)
        crop = self.preprocessing.get("crop")
        return OwnWindows((crop[0], crop[1]) if crop else None)

    def texts(self) -> dict[str, str]:
        """Each field as JSON."""
        return {name: json.dumps(value, ensure_ascii=False) for name, value in asdict(self).items()}

    @classmethod
    def read(cls, texts: Mapping[str, str], path: Any) -> ModelFacts:
        """The facts in a file's metadata. Raises UserError where they are not those of an exported model."""
        if TILED in texts:
            raise UserError(
                f"{path} takes tiles of maps, for Deepness and geodeep: export the model without --for, too"
            )
        if "classes" not in texts or "palette" not in texts:
            raise UserError(
                f"{path} was not exported by terrazzo: its metadata has no `classes` and `palette`, without which the "
                'labels mean nothing. Add them as JSON, such as classes=["road", "car"] and '
                "palette=[[128, 64, 128], [0, 0, 142]], to a model that takes stored images, with the preprocessing "
                "inside; or export the model again with `terrazzo export`"
            )
        try:
            values = {item.name: json.loads(texts[item.name]) for item in fields(cls) if item.name in texts}
            facts = cls(**values)
            assert len(facts.classes) == len(facts.palette) and all(isinstance(name, str) for name in facts.classes)
            assert all(len(colour) == 3 and set(map(type, colour)) == {int} for colour in facts.palette)
            assert isinstance(facts.bands, int) and isinstance(facts.windows, dict) and isinstance(facts.pipeline, list)
        except (AssertionError, TypeError, ValueError):
            raise UserError(f"{path}: its metadata is damaged; export the model again") from None
        return facts


class Session(Protocol):
    """A loaded file that can be run."""

    path: Path

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """The "labels" (N, H, W) or "logits" (N, K, H, W) of images (N, H, W, C). Raises UserError where it fails."""


class ExportedRuntime:
    """A model in a file of its own, with the whole of its preprocessing."""

    device = "cpu"
    is_concurrent = False

    def __init__(self, session: Session, facts: ModelFacts) -> None:
        self.session, self.facts = session, facts
        self.classes, self.palette = facts.classes, facts.palette
        self.bands, self.threshold = facts.bands, facts.threshold
        self.windows = facts.own_windows()
        self.spread = spread_of([facts.preprocessing.get("mean"), facts.preprocessing.get("std")], facts.bands)
        self.bytes_per_pixel = BYTES_PER_PIXEL if not facts.windows else 8.0 * (facts.bands + 2 * len(facts.classes))

    def fingerprint(self) -> str:
        return json.dumps([asdict(self.facts), file_checksums(self.session.path)])

    def infer(self, images: np.ndarray, placements: Sequence[Placement]) -> list[ExportedScores]:
        """The scores of images (N, H, W, C). Raises UserError for a wrong size or number of bands."""
        _, height, width, bands = images.shape
        if bands != self.bands:
            raise UserError(f"this model takes images of {self.bands} bands, not {bands}")
        if self.facts.size is not None and [height, width] != self.facts.size:
            fixed = "x".join(map(str, self.facts.size))
            raise UserError(
                f"this file takes images of {fixed} pixels alone, not {height}x{width}: export it without --size"
            )
        batch = ExportedBatch(self, images.astype(self.facts.image_type, copy=False))
        return [ExportedScores(batch, index, placement) for index, placement in enumerate(placements)]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, K, H, W), of windows where the model runs in them: the mean of those that overlap."""
        if not self.facts.windows:
            return self.session.run(images, "logits")

        def run(windows: Sequence[Window]) -> Iterator[np.ndarray]:
            for rows, columns in windows:
                yield self.session.run(np.ascontiguousarray(images[:, rows, columns]), "logits")

        windows = self.facts.windows
        gaussian = windows.get("blending") == "gaussian"
        return blend_windows(run, images.shape[1:3], windows["crop_size"], windows["stride"], gaussian=gaussian)


@dataclass(frozen=True)
class ExportedBatch:
    """Images that are run together, once for each output that is asked for."""

    runtime: ExportedRuntime
    images: np.ndarray  # N, H, W, C

    @cached_property
    def labels(self) -> np.ndarray:
        """(N, H, W)."""
        return self.runtime.session.run(self.images, "labels")

    @cached_property
    def logits(self) -> np.ndarray:
        """(N, K, H, W)."""
        return self.runtime.logits(self.images)


@dataclass(frozen=True)
class ExportedScores:
    """Scores of one image of a batch, computed when asked for."""

    batch: ExportedBatch
    index: int
    placement: Placement

    @cached_property
    def logits(self) -> np.ndarray:
        """(K, H, W) at the stored image's size."""
        logits = self.batch.logits[self.index]
        height, width = self.placement.size
        if logits.shape[1:] == (height, width):
            return logits
        return np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in logits])

    def labels(self) -> np.ndarray:
        runtime, size = self.batch.runtime, self.batch.images.shape[1:3]
        if not runtime.facts.windows and size == tuple(self.placement.size) and "logits" not in vars(self.batch):
            return self.batch.labels[self.index]
        if len(self.logits) > 1:
            return self.logits.argmax(0).astype(np.uint8 if len(self.logits) <= 255 else np.int32)
        threshold = runtime.threshold
        return (sigmoid(self.logits[0]) > (DEFAULT_THRESHOLD if threshold is None else threshold)).astype(np.uint8)

    def confidence(self) -> np.ndarray:
        rows = range(0, self.logits.shape[1], CONFIDENT_ROWS)
        return np.concatenate([probabilities(self.logits[:, top : top + CONFIDENT_ROWS]).max(0) for top in rows])

    def mean_confidence(self) -> float:
        logits = self.batch.logits[self.index]
        step = max(1, int((logits[0].size / CONFIDENT_PIXELS) ** 0.5))
        return float(probabilities(logits[:, ::step, ::step]).max(0).mean())

    def probabilities(self) -> np.ndarray:
        return probabilities(self.logits)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Logits (K, H, W) -> probabilities of the classes, two of them for one channel."""
    if len(logits) == 1:
        foreground = sigmoid(logits)
        return np.concatenate([1 - foreground, foreground])
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def padded_size(size: Sequence[int], preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """The size (height, width) that a graph pads images of this size to."""
    divisor = preprocessing["size_divisor"] or 1
    if least := preprocessing["padded_size"]:
        return max(size[0], least[0]), max(size[1], least[1])
    return ceil_div(size[0], divisor) * divisor, ceil_div(size[1], divisor) * divisor


def file_checksums(path: Path) -> list[int]:
    """The checksums of a model's file, and of the weights beside it where it has any."""
    return [zlib.crc32(file.read_bytes()) for file in (path, path.with_suffix(".bin")) if file.is_file()]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))
