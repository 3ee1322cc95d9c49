"""A video predicted frame by frame: while the model has one, the next are read and those before are written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.many.turns import lanes_of, thread_count, torch_threads
from terrazzo.inference.segmenter import as_map
from terrazzo.inference.video.reading import Frames
from terrazzo.inference.video.smoothing import Smoothing
from terrazzo.inference.video.writing import VideoFile
from terrazzo.system.painting import overlay
from terrazzo.viz.layout import add_legend

SMALLEST_WITH_LEGEND = 200  # pixels of a frame's height, below which compression makes a legend illegible
COMPLETE = 0.95  # of the frames that a file declares: the number is an estimate in some formats


@dataclass(frozen=True)
class VideoOptions:
    """The results to write of a video."""

    opacity: float = 0.5
    overlay: bool = True
    labels: bool = False  # class maps, as a lossless video
    smooth: float = 0.0  # weight of the frames before in the average of probabilities
    every: int = 1  # the frames to take


AS_USUAL = VideoOptions()


@dataclass
class FrameProgress:
    """The progress of a video, for a bar."""

    total: int | None
    done: int = 0
    started: float = field(default_factory=time.perf_counter)
    unit = "frames a second"

    @property
    def speed(self) -> float:
        """Frames a second."""
        return self.done / max(1e-6, time.perf_counter() - self.started)

    @property
    def seconds_left(self) -> float | None:
        """The time until the end; None where that is not known."""
        return None if self.total is None else max(0, self.total - self.done) / max(1e-6, self.speed)


def predict_video(
    segmenter: Any,
    source: Path | str,
    target: Path,
    options: VideoOptions = AS_USUAL,
    on_progress: Callable[[FrameProgress], None] = lambda progress: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Write `TARGET_overlay.mp4` with its legend, and with `labels` the class maps as `TARGET_labels.mkv`.

    A live source ends when it is stopped, and what was written is kept; a file that is stopped leaves nothing. Returns
    the files; raises UserError for a video that cannot be read or written, and after writing for one that ends early.
    """
    if options.labels and len(segmenter.classes) > 255:
        raise UserError("class maps of more than 255 classes do not fit into a video: leave out --labels")
    frames = Frames(source, options.every, segmenter.check_size)
    progress = FrameProgress(frames.count)
    smoothing = Smoothing(options.smooth, segmenter.runtime.threshold) if options.smooth else None
    legend = legend_of(frames.first.shape[:2], segmenter)
    files: dict[str, VideoFile] = {}
    with ExitStack() as stack:
        stack.callback(frames.close)
        for frame, prediction in predicted(segmenter, frames, probabilities=smoothing is not None):
            labels = as_map(prediction.labels, 255) if smoothing is None else smoothing.labels(prediction.probs)
            pictures = {}
            if options.overlay:
                painted = overlay(frame, labels, segmenter.palette, options.opacity)
                pictures["_overlay.mp4"] = np.concatenate([painted, legend], 1)
            if options.labels:
                pictures["_labels.mkv"] = labels
            for name, picture in pictures.items():
                if name not in files:
                    path = target.with_name(f"{target.name}{name}")
                    files[name] = VideoFile(path, frames.rate, picture.shape[:2], is_map=picture.ndim == 2)
                    stack.callback(files[name].discard)
                files[name].add(picture)
            progress.done += 1
            if frames.is_live and is_stopped():
                break
            on_progress(progress)
        for name, file in files.items():
            file.finish(audio=str(source) if name == "_overlay.mp4" and not frames.is_live else None)
        for file in files.values():
            file.keep()
    if frames.count is not None and not frames.is_live and progress.done < COMPLETE * frames.count:
        raise UserError(
            f"{source} ends early, after {progress.done} of {frames.count} frames, which are written: the file is "
            "truncated or damaged there"
        )
    return [file.path for file in files.values()]


def predicted(segmenter: Any, frames: Frames, *, probabilities: bool) -> Iterator[tuple[np.ndarray, Any]]:
    """Each frame with its prediction, in order; others are being predicted meanwhile."""
    lanes = lanes_of(segmenter.runtime)

    def predict(frame: np.ndarray) -> Any:
        prediction = segmenter(frame)
        _ = prediction.probs if probabilities else None
        return prediction

    with torch_threads(thread_count() // lanes if lanes > 1 else None), ThreadPoolExecutor(lanes) as pool:
        waiting: deque[tuple[np.ndarray, Future[Any]]] = deque()
        try:
            for frame in frames:
                waiting.append((frame, pool.submit(predict, frame)))
                if len(waiting) > lanes:
                    frame, prediction = waiting.popleft()
                    yield frame, prediction.result()
            while waiting:
                frame, prediction = waiting.popleft()
                yield frame, prediction.result()
        finally:
            pool.shutdown(cancel_futures=True)


def legend_of(size: tuple[int, int], segmenter: Any) -> np.ndarray:
    """The legend of all classes (H, w, 3) for frames of a size, the same beside each; of no width for small ones."""
    blank = np.empty((*size, 3), np.uint8)
    if size[0] < SMALLEST_WITH_LEGEND:
        return blank[:, :0]
    return add_legend(blank, np.arange(len(segmenter.classes)), segmenter.classes, segmenter.palette)[:, size[1] :]
