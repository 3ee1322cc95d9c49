"""Class maps from small logits, without logits at the map's size.

Bilinear interpolation is a convex combination: where the corners of a cell agree on the class, so does every point
between them. So only the pixels of cells on the borders between classes have their logits interpolated, some at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.inference.runtime import DEFAULT_THRESHOLD

FLIPS = {"horizontal": (False, True), "vertical": (True, False), "diagonal": (True, True)}  # of rows, of columns
STRIP = 2**18  # pixels of the output that are decided together
CHUNK = 2**17  # logits that are interpolated together


@dataclass(frozen=True)
class InterpolationWeights:
    """Row i of a resized axis is the sum of `weight[i, t]` times source row `index[i, t]`; the weights sum to one."""

    index: Tensor  # n, t int64
    weight: Tensor  # n, t float32

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """Source lines that one output line reads: 1 without resizing, 2 for one resizing, 3 or more for two."""
        return self.index.shape[1]

    def part(self, start: int, stop: int, first: int = 0) -> InterpolationWeights:
        """Output lines `start` to `stop`, of a source that begins at line `first`."""
        return InterpolationWeights(self.index[start:stop] - first, self.weight[start:stop])

    def flip(self) -> InterpolationWeights:
        """The same with the output reversed."""
        return InterpolationWeights(self.index.flip(0), self.weight.flip(0))

    def span(self) -> tuple[int, int]:
        """The source lines that are read: first, and one past the last."""
        return int(self.index.min()), int(self.index.max()) + 1

    def after(self, inner: InterpolationWeights) -> InterpolationWeights:
        """These weights on a source that is itself the output of `inner`: two resizings as one."""
        index = inner.index[self.index].flatten(1)
        weight = (inner.weight[self.index] * self.weight[..., None]).flatten(1)
        first = index.min(1, keepdim=True).values
        offsets = index - first
        width = int(offsets.max()) + 1
        dense = weight.new_zeros(len(index), width).scatter_add_(1, offsets, weight)
        last = index.max(1, keepdim=True).values
        return InterpolationWeights(torch.minimum(first + torch.arange(width, device=index.device), last), dense)


def bilinear(source: int, size: int, align_corners: bool, device: torch.device | str = "cpu") -> InterpolationWeights:
    """The weights of `F.interpolate(mode="bilinear")` from `source` to `size` lines."""
    index = torch.arange(size, dtype=torch.float32, device=device)
    if source == size:
        return InterpolationWeights(torch.arange(size, device=device)[:, None], torch.ones(size, 1, device=device))
    if align_corners:
        scale = (source - 1) / (size - 1) if size > 1 else 0.0
        position = index * torch.tensor(scale, dtype=torch.float32)
    else:
        position = ((index + 0.5) * torch.tensor(source / size, dtype=torch.float32) - 0.5).clamp(min=0)
    first = position.long().clamp(max=source - 1)
    second = (first + 1).clamp(max=source - 1)
    share = (position - first).clamp(0, 1)
    return InterpolationWeights(torch.stack([first, second], 1), torch.stack([1 - share, share], 1))


Axes = tuple[InterpolationWeights, InterpolationWeights]  # rows, columns
Resizings = tuple[InterpolationWeights, InterpolationWeights, InterpolationWeights]


@dataclass(frozen=True)
class LogitsGeometry:
    """The relation between logits (K, h, w) and the stored image.

    They are resized to the network's input, the `window` (top, left, bottom, right) of it is kept and flipped back, and
    resized to `own_size`; all sizes are (height, width).
    """

    head_size: tuple[int, int]
    input_size: tuple[int, int]
    own_size: tuple[int, int]
    window: tuple[int, int, int, int] | None = None
    flip: str | None = None
    align_corners: bool = False
    device: torch.device | str = "cpu"

    @cached_property
    def axes(self) -> tuple[Resizings, Resizings]:
        """Of rows and of columns: the window on the logits, the stored image on the window, and it on the logits."""
        top, left, bottom, right = self.window or (0, 0, *self.input_size)
        flips = FLIPS[self.flip] if self.flip else (False, False)
        found = []
        for axis, (start, stop) in enumerate(((top, bottom), (left, right))):
            whole = bilinear(self.head_size[axis], self.input_size[axis], self.align_corners, self.device)
            inner = whole.part(start, stop).flip() if flips[axis] else whole.part(start, stop)
            outer = bilinear(len(inner), self.own_size[axis], self.align_corners, self.device)
            found.append((inner, outer, outer.after(inner)))
        return found[0], found[1]


def class_map(logits: Tensor, geometry: LogitsGeometry, threshold: float | None = None) -> Tensor:
    """Logits (K, h, w) -> the classes (H, W) of the stored image, uint8 where they fit.

    Equal to resizing the logits twice and taking the largest (or, for one channel, those whose sigmoid is above
    `threshold`), except where two classes tie within rounding.
    """
    dtype = torch.uint8 if len(logits) <= 255 else torch.int16
    result = torch.empty(geometry.own_size, dtype=dtype, device=logits.device)
    (inner_rows, outer_rows, rows), (inner_columns, outer_columns, columns) = geometry.axes
    height, width = geometry.own_size
    step = max(1, STRIP // width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        first, last = outer_rows.part(start, stop).span()
        top, bottom = inner_rows.part(first, last).span()
        strip = logits[:, top:bottom]
        pixels = Pixels(strip, threshold)
        coarse = decide(strip.flatten(1), threshold, axis=0).view(strip.shape[1:]).to(dtype)
        middle = inner_rows.part(first, last, top)
        window = refine(coarse, (middle, inner_columns), (middle, inner_columns), pixels)
        own = outer_rows.part(start, stop, first), outer_columns
        result[start:stop] = refine(window, own, (rows.part(start, stop, top), columns), pixels)
    return result


def refine(coarse: Tensor, weights: Axes, on_logits: Axes, pixels: Pixels) -> Tensor:
    """The class map (n, m) at the finer grid of `weights` on the class map `coarse`.

    Where the corners of a cell differ, the class comes from the logits, on which the same grid is `on_logits`.
    """
    rows, columns = weights
    if rows.width == columns.width == 1:
        return coarse[rows.index[:, 0]][:, columns.index[:, 0]]
    mixed = 255 if coarse.dtype == torch.uint8 else -1
    cells = coarse.clone()
    for down in range(rows.width):
        for right in range(columns.width):
            corner = shifted(shifted(coarse, 0, down), 1, right)
            cells.masked_fill_(corner != coarse, mixed)
    fine = cells[:, columns.index.min(1).values][rows.index.min(1).values]
    positions = (fine == mixed).flatten().nonzero().flatten()
    if len(positions):
        fine.view(-1)[positions] = pixels.classes(positions, on_logits).to(fine.dtype)
    return fine


def shifted(grid: Tensor, axis: int, by: int) -> Tensor:
    """The neighbour of each position at distance `by` along an axis; the last line is its own neighbour."""
    if not by:
        return grid
    return torch.cat([grid.narrow(axis, by, grid.shape[axis] - by), grid.narrow(axis, grid.shape[axis] - by, by)], axis)


class Pixels:
    """Logits (K, h, w) of a strip, interpolated at single positions."""

    def __init__(self, strip: Tensor, threshold: float | None = None) -> None:
        self.strip, self.threshold = strip, threshold

    @cached_property
    def table(self) -> Tensor:
        """Logits by position (h * w, K)."""
        return self.strip.flatten(1).T.to(torch.promote_types(self.strip.dtype, torch.float32)).contiguous()

    def values(self, positions: Tensor, weights: Axes) -> Tensor:
        """Logits (p, K) at flat positions of the grid that `weights` make on the strip."""
        rows, columns = weights
        row, column = positions // len(columns), positions % len(columns)
        down, across = (rows.index * self.strip.shape[2]).int(), columns.index.int()
        index = joined(down[row], across[column], torch.add)
        weight = joined(rows.weight[row], columns.weight[column], torch.mul)
        return F.embedding_bag(index, self.table, per_sample_weights=weight.to(self.table.dtype), mode="sum")

    def classes(self, positions: Tensor, weights: Axes) -> Tensor:
        """Classes (p) at flat positions of the grid."""
        size = max(1, CHUNK // len(self.strip))
        return torch.cat([decide(self.values(part, weights), self.threshold) for part in positions.split(size)])


def joined(down: Tensor, across: Tensor, join: Any) -> Tensor:
    """Each pixel's row weights (p, t) joined with each of its column weights (p, s), as (p, t * s)."""
    count, width = across.shape
    result = across.new_empty(count, down.shape[1] * width)
    for tap in range(result.shape[1]):  # many times faster than broadcasting over such short axes
        join(down[:, tap // width], across[:, tap % width], out=result[:, tap])
    return result


def decide(values: Tensor, threshold: float | None = None, axis: int = 1) -> Tensor:
    """The class with the largest logit along an axis; for one channel, 1 where its sigmoid is above `threshold`."""
    if values.shape[axis] == 1:
        return values.select(axis, 0).sigmoid() > (DEFAULT_THRESHOLD if threshold is None else threshold)
    return values.max(axis).indices


def own_logits(logits: Tensor, geometry: LogitsGeometry) -> Iterator[Tensor]:
    """Logits (p, K) of the stored image's pixels, row after row, a strip at a time."""
    rows, columns = (axis[2] for axis in geometry.axes)
    step = max(1, CHUNK // (len(logits) * len(columns)))
    for start in range(0, len(rows), step):
        part = rows.part(start, start + step)
        top, bottom = part.span()
        positions = torch.arange(len(part) * len(columns), device=logits.device)
        weights = part.part(0, len(part), top), columns
        yield Pixels(logits[:, top:bottom]).values(positions, weights)
