"""A run over many images as plain values, so that other processes can make the same one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.inference.load import load
from terrazzo.inference.many.run import ManyRun
from terrazzo.inference.many.shards import Shard
from terrazzo.inference.many.sources import Item
from terrazzo.inference.runtime import Memory
from terrazzo.inference.scenes.outputs import Wanted
from terrazzo.inference.video.predict import VideoOptions
from terrazzo.system.palette import written_palette


@dataclass(frozen=True)
class Setup:
    """A model as `tz.load` takes it, the options of its predictions, and the place of their results."""

    out: Path
    source: str | None = None  # of the model
    checkpoint: str | None = None
    device: str | None = None
    trust: bool = False
    weights: str | None = None
    max_pixels: int | None = None
    microns: float | None = None  # of a slide's pixels
    memory: Memory = field(default_factory=Memory)
    palette: str | None = None
    wanted: Wanted = field(default_factory=Wanted)
    video: VideoOptions = field(default_factory=VideoOptions)
    shard: Shard | None = None
    address: str | None = None  # of the results, on an object store

    def segmenter(self) -> Any:
        """The model. Raises UserError where it cannot be loaded."""
        raise_limits(self.max_pixels)
        segmenter = load(self.source, self.checkpoint, self.device, trust=self.trust, weights=self.weights)
        segmenter.max_pixels, segmenter.memory = self.max_pixels, self.memory
        if self.microns:
            segmenter.read_slides_at(self.microns)
        if self.palette:
            runtime = segmenter.runtime
            runtime.palette = written_palette(self.palette, runtime.classes, runtime.palette)
        return segmenter

    def run(self, segmenter: Any, on_progress: Callable[[Item, Any], None] = lambda item, progress: None) -> ManyRun:
        """A run of the model."""
        return ManyRun(segmenter, self.out, self.wanted, self.video, self.shard, on_progress, self.address)


def raise_limits(max_pixels: int | None) -> None:
    """Let Pillow and OpenCV, which reads its limit when it is imported, decode images of so many pixels."""
    from PIL import Image

    if max_pixels:
        os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max(max_pixels, 2**30))
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
