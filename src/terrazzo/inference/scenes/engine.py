"""Windows of a scene are read, predicted, blended and written, three things at a time, with flat memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.exported import sigmoid
from terrazzo.inference.runtime import DEFAULT_THRESHOLD, Placement
from terrazzo.inference.scenes.grid import ALIGNMENT, Span, chunks, reaching, rows_of_part, total_weights, window_spans
from terrazzo.inference.scenes.store import Store
from terrazzo.inference.windows import gaussian_window
from terrazzo.sample import Sample
from terrazzo.system.memory import release_freed_memory, return_large_blocks
from terrazzo.transforms import Compose
from terrazzo.transforms.resize import Resize, ResizeShortestEdge
from terrazzo.transforms.scenes import Scene

BLOCKS_AHEAD = 1  # that wait to be written


@dataclass(frozen=True)
class Windows:
    """The grid of a scene: windows of `size` (height, width) that share `overlap`, in chunks of `widest` columns."""

    size: tuple[int, int]
    overlap: float
    widest: int
    at_once: int = 1  # windows in a batch
    fixed: bool = False  # the model takes no other size


@dataclass
class Progress:
    """The progress of a scene, for a bar."""

    total: int  # windows
    done: int = 0
    pixels: int = 0
    started: float = field(default_factory=time.perf_counter)
    unit = "megapixels a second"

    @property
    def speed(self) -> float:
        """Megapixels a second."""
        return self.pixels / 1e6 / max(1e-6, time.perf_counter() - self.started)

    @property
    def seconds_left(self) -> float:
        """The time until the end."""
        return (self.total - self.done) / max(1e-6, self.done / max(1e-6, time.perf_counter() - self.started))


class SceneRun:
    """The prediction of one scene into a store, or of a `part` (index, count) of its rows of windows."""

    def __init__(
        self,
        segmenter: Any,
        scene: Scene,
        windows: Windows,
        store: Store,
        on_progress: Callable[[Progress], None] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.runtime, self.scene, self.windows, self.store = segmenter.runtime, scene, windows, store
        self.pipeline = window_pipeline(segmenter)
        self.on_progress = on_progress or (lambda progress: None)
        height, width = scene.size
        anchor = scene.georeference.anchor() if scene.georeference else (0, 0)
        self.rows, self.columns = (
            window_spans(length, size, windows.overlap, origin, fixed=windows.fixed)
            for length, size, origin in zip((height, width), windows.size, anchor, strict=True)
        )
        self.totals = total_weights(self.rows), total_weights(self.columns)
        self.chunks = chunks(self.columns, windows.widest)
        self.part = rows_of_part(self.rows, *part)

    def run(self) -> None:
        """Predict whatever the store does not have yet. Raises UserError where that is impossible."""
        return_large_blocks()
        work = []
        for number, own in enumerate(self.chunks):
            top, bottom = max(self.part[0], self.store.rows.get(number, 0)), self.part[1]
            left, right = own[0].start, own[-1].done
            if top < bottom and (rows := reaching(self.rows, top, bottom)):
                work.append(Chunk(number, rows, reaching(self.columns, left, right), top, left))
        if not self.store.rows:
            self.refuse_unreadable()
        self.progress = Progress(sum(len(chunk.rows) * len(chunk.columns) for chunk in work))
        with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
            pending: deque[Future[None]] = deque()
            strips = self.strips(work, reader)
            try:
                for chunk in work:
                    self.run_chunk(chunk, strips, writer, pending)
                while pending:
                    pending.popleft().result()
            finally:
                for waiting in pending:
                    waiting.cancel()

    def refuse_unreadable(self) -> None:
        """Raise the error of reading a scene of which none of five places, from top to bottom, can be read."""
        height, width = self.scene.size
        problem: UserError | None = None
        for quarter in range(5):
            row = quarter * (height - 1) // 4
            try:
                self.scene.read(row, row + 1, 0, min(width, ALIGNMENT))
            except UserError as found:
                problem = problem or found
            else:
                return
        assert problem is not None
        raise problem

    def strips(self, work: Sequence[Chunk], reader: ThreadPoolExecutor) -> Iterator[Strip]:
        """The strip of each row of windows, the next of which is being read."""
        jobs = iter([(chunk, row) for chunk in work for row in chunk.rows])
        strip: Strip | None = None
        first = next(jobs, None)
        coming = None if first is None else reader.submit(self.read_strip, *first, None)
        while coming is not None:
            strip = coming.result()
            following = next(jobs, None)
            coming = None if following is None else reader.submit(self.read_strip, *following, strip)
            yield strip

    def read_strip(self, chunk: Chunk, row: Span, before: Strip | None) -> Strip:
        """The pixels under a row of windows, of which those shared with the row `before` are not read again."""
        left, right = chunk.columns[0].start, chunk.columns[-1].stop
        top = row.start
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        if before is not None and before.chunk is chunk and top < before.bottom:
            skipped = top - before.top
            parts.append((before.image[skipped:], before.valid[skipped:]))
            top = before.bottom
        damaged: list[list[int]] = []
        if top < row.stop:
            parts.append(self.read_part(top, row.stop, left, right, chunk.columns, damaged))
        image = join([part[0] for part in parts])
        valid = join([part[1] for part in parts])
        return Strip(chunk, row.start, row.stop, left, image, valid, damaged)

    def read_part(
        self, top: int, bottom: int, left: int, right: int, columns: Sequence[Span], damaged: list[list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A part of the scene; where it is damaged, the windows' columns of it that can be read."""
        try:
            image, valid = self.scene.read(top, bottom, left, right)
            return image, np.ones(image.shape[:2], bool) if valid is None else valid
        except UserError as problem:
            if bottom - top <= self.windows.size[0] and len(columns) == 1:
                raise problem from None
        image = np.zeros((bottom - top, right - left, self.scene.bands), np.float32)
        valid = np.zeros(image.shape[:2], bool)
        for column in columns:
            place = slice(column.start - left, column.done - left)
            try:
                part, filled = self.scene.read(top, bottom, column.start, column.done)
            except UserError:
                damaged.append([top, bottom, column.start, column.done])
                continue
            image[:, place] = part
            valid[:, place] = True if filled is None else filled
        return image, valid

    def run_chunk(
        self, chunk: Chunk, strips: Iterator[Strip], writer: ThreadPoolExecutor, pending: deque[Future[None]]
    ) -> None:
        """Predict a chunk's rows of windows from above; sums that the next row adds to are carried over."""
        carry: np.ndarray | None = None  # K, rows that are shared with the row of windows before, chunk's columns
        canvas: np.ndarray | None = None  # sums (K, h, w) from the present window's left border on
        for row in chunk.rows:
            strip = next(strips)
            height = row.done - row.start  # rows that no later window reaches
            coming: np.ndarray | None = None
            known = 0  # columns of the canvas that windows further left have added to
            for column, logits in self.predict_row(row, chunk.columns, strip):
                width, block = column.done - column.start, None
                place = slice(column.start - strip.left, column.stop - strip.left)
                if logits is not None:
                    if canvas is None:
                        canvas = np.empty((len(logits), *map(max_length, (chunk.rows, chunk.columns))), np.float32)
                    sums = canvas[:, : len(row), : len(column)]
                    sums[:, :, known:] = 0
                    if carry is not None:
                        sums[:, : carry.shape[1], known:] = carry[:, :, place][:, :, known:]
                    sums += logits
                    if coming is None:
                        coming = np.zeros((len(sums), len(row) - height, strip.image.shape[1]), np.float32)
                    coming[:, :, place][:, :, :width] = sums[:, height:, :width]
                    block = sums[:, :height, :width].copy()
                    known = len(column)
                known = max(0, known - width)
                if canvas is not None:
                    canvas[:, :, :known] = canvas[:, :, width : width + known]
                if row.start >= chunk.top and column.start >= chunk.left:
                    valid = strip.part(row.start, row.done, column.start, column.done)[1]
                    pending.append(writer.submit(self.write, row.start, column.start, block, valid.copy()))
                    self.progress.pixels += valid.size
                while len(pending) > BLOCKS_AHEAD:
                    pending.popleft().result()
                self.progress.done += 1
                self.on_progress(self.progress)
            carry = coming
            release_freed_memory()
            if row.start >= chunk.top:
                pending.append(writer.submit(self.store.commit, chunk.number, row.done, strip.damaged))

    def predict_row(self, row: Span, columns: Sequence[Span], strip: Strip) -> Iterator[tuple[Span, np.ndarray | None]]:
        """Each window's logits (K, h, w) times its weights; None for one without data."""
        for _, same_size in groupby(columns, len):
            for group in batched(list(same_size), self.windows.at_once):
                parts = [strip.part(row.start, row.stop, column.start, column.stop) for column in group]
                logits = iter(self.predict([image for image, valid in parts if valid.any()]))
                for column, (_, valid) in zip(group, parts, strict=True):
                    yield column, next(logits) if valid.any() else None

    def predict(self, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """The weighted logits (K, h, w) of windows (h, w, C) of one size."""
        if not images:
            return
        rng = np.random.default_rng(0)
        samples = [self.pipeline(Sample(image=image, original_size=image.shape[:2]), rng) for image in images]
        inputs = np.stack([np.asarray(sample.image) for sample in samples])
        height, width = images[0].shape[:2]
        share = gaussian_window(height, width)
        for scores in self.runtime.infer(inputs, [Placement.of(sample, sample.size) for sample in samples]):
            logits = scores.logits
            logits *= share
            yield logits

    def write(self, top: int, left: int, sums: np.ndarray | None, valid: np.ndarray) -> None:
        """Put the results of a complete block (h, w) into the store."""
        layers = self.store.layers
        height, width = valid.shape
        no_data = no_data_of(layers["labels"].dtype)
        if sums is None:
            for name, (bands, dtype) in layers.items():
                self.store.write(name, top, left, np.full((bands, height, width), blank(dtype), dtype))
            return
        rows, columns = self.totals[0][top : top + height], self.totals[1][left : left + width]
        sums /= rows[:, None] * columns
        labels = decide(sums, self.runtime.threshold).astype(layers["labels"].dtype)
        labels[~valid] = no_data
        self.store.write("labels", top, left, labels[None])
        if len(layers) > 1:
            shares = probabilities(sums)
            shares[:, ~valid] = np.nan
            results = {"probabilities": shares, "confidence": shares.max(0, keepdims=True)}
            for name in layers.keys() & results:
                self.store.write(name, top, left, results[name])


@dataclass(frozen=True)
class Chunk:
    """Columns `left` to `right` of a scene, from row `top` on, and the windows that contribute to them."""

    number: int
    rows: Sequence[Span]
    columns: Sequence[Span]
    top: int
    left: int


@dataclass(frozen=True)
class Strip:
    """The pixels (h, w, C) under a row of windows, and which of them hold data (h, w)."""

    chunk: Chunk
    top: int
    bottom: int
    left: int
    image: np.ndarray
    valid: np.ndarray
    damaged: list[list[int]]

    def part(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
        """A part of the image and of the mask, in the scene's coordinates."""
        place = slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)
        return self.image[place], self.valid[place]


def window_pipeline(segmenter: Any) -> Compose:
    """A model's test pipeline without resizing to fixed sizes: windows keep the scene's pixels."""
    return Compose([step for step in segmenter.pipeline.as_written() if not is_of_fixed_size(step)])


def is_of_fixed_size(step: Any) -> bool:
    """Return whether a step brings images of any size to one."""
    return isinstance(step, ResizeShortestEdge) or (isinstance(step, Resize) and step.scale is not None)


def batched(items: Sequence[Any], count: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), count):
        yield items[first : first + count]


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array of parts below each other, of their common type."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def max_length(spans: Sequence[Span]) -> int:
    return max(map(len, spans))


def decide(logits: np.ndarray, threshold: float | None) -> np.ndarray:
    """The class (h, w) of logits (K, h, w); for one channel, 1 where its sigmoid is above `threshold`."""
    if len(logits) == 1:
        return sigmoid(logits[0]) > (DEFAULT_THRESHOLD if threshold is None else threshold)
    best, labels = logits[0].copy(), np.zeros(logits.shape[1:], np.uint16)
    for index, channel in enumerate(logits[1:], 1):  # ten times as fast as argmax along the first axis
        np.copyto(labels, index, where=channel > best)
        np.maximum(best, channel, out=best)
    return labels


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Class probabilities (K, h, w) of logits; one channel becomes background and foreground."""
    if len(logits) == 1:
        foreground = sigmoid(logits)
        return np.concatenate([1 - foreground, foreground])
    powers = np.exp(logits - logits.max(0))
    powers /= powers.sum(0)
    return powers


def blank(dtype: str) -> float:
    """The value of a pixel without data in a layer of a type."""
    return np.nan if np.dtype(dtype).kind == "f" else no_data_of(dtype)


def no_data_of(dtype: str) -> int:
    """The label of a pixel without data: 255, or the largest of wider types."""
    return int(np.iinfo(dtype).max)
