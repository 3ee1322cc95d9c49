"""Training and validation data apart in space: blocks of the ground that are held out, with a margin around them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from terrazzo.errors import UserError
from terrazzo.transforms.georeference import Georeference, apply, reproject

BLOCKS = 16  # that scenes are divided into, at least about
MOST_WINDOWS = 4  # along the side of a block
SMALLEST = 8  # blocks along a window's side, in scenes of a few windows
EDGE = 8  # points along the side of a block that is drawn in another CRS


class Block(NamedTuple):
    """A square of the ground by its row and column; `space` numbers the scenes that have no place on the ground."""

    space: int
    row: int
    column: int


GROUND = -1  # the space of all georeferenced scenes


@dataclass(frozen=True)
class Blocks:
    """Squares of `side` units of the `reference`'s coordinates, from its corner on; `held` are for validation."""

    reference: Georeference | None  # of the first scene that has one
    side: float
    pixels: int  # along a side, in the first scene
    held: frozenset[Block] = frozenset()

    def numbers(self, scene: int, place: Georeference | None, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The (row, column) of the blocks (N, 2) in which pixels of a scene lie."""
        if self.space(scene, place) != GROUND or place is None:
            return np.stack([rows // self.pixels, columns // self.pixels], axis=1).astype(np.int64)
        assert self.reference is not None
        points: Any = apply(place.transform, columns + 0.5, rows + 0.5)  # type: ignore[arg-type]
        if place.crs != self.reference.crs:
            points = reproject(place.crs, self.reference.crs, *points)
        x, y = map(np.asarray, points)
        left, top = apply(self.reference.transform, 0, 0)
        return np.stack([np.floor((top - y) / self.side), np.floor((x - left) / self.side)], axis=1).astype(np.int64)

    def space(self, scene: int, place: Georeference | None) -> int:
        """The space that a scene lies in."""
        return GROUND if place is not None and place.crs and self.reference is not None else scene

    def outlines(self, scene: int, place: Georeference | None, margin: float) -> list[dict[str, Any]]:
        """The blocks held out, wider by `margin` pixels, as GeoJSON polygons in the scene's coordinates."""
        space = self.space(scene, place)
        held = [block for block in sorted(self.held) if block.space == space]
        if space != GROUND or place is None:
            side = float(self.pixels)
            corners = [(block.column * side, block.row * side) for block in held]
            rings = [ring(x - margin, y - margin, x + side + margin, y + side + margin) for x, y in corners]
            if place is not None:
                rings = [[apply(place.transform, x, y) for x, y in points] for points in rings]
            return [{"type": "Polygon", "coordinates": [points]} for points in rings]
        assert self.reference is not None
        left, top = apply(self.reference.transform, 0, 0)
        wider, found = margin * self.side / self.pixels, []
        for block in held:
            x, y = left + block.column * self.side, top - block.row * self.side
            points = ring(x - wider, y - self.side - wider, x + self.side + wider, y + wider)
            if place.crs != self.reference.crs:
                points = list(zip(*reproject(self.reference.crs, place.crs, *zip(*points, strict=True)), strict=True))
            found.append({"type": "Polygon", "coordinates": [points]})
        return found

    def offset(self, scene: int, place: Georeference | None) -> tuple[int, int]:
        """The row and column of a pixel at a block's corner; zeros where blocks are no rectangles of pixels."""
        if self.space(scene, place) != GROUND or place is None:
            return 0, 0
        assert self.reference is not None
        if place.crs != self.reference.crs:
            return 0, 0
        column, row = apply(~place.transform, *apply(self.reference.transform, 0, 0))
        return round(row), round(column)


def ring(left: float, bottom: float, right: float, top: float) -> list[tuple[float, float]]:
    """The closed outline of a rectangle, with points along its sides."""
    along = np.linspace(0, 1, EDGE, endpoint=False)
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    sides = [
        first + along[:, None] * (last - first) for first, last in zip(corners, np.roll(corners, -1, 0), strict=True)
    ]
    points = [(float(x), float(y)) for x, y in np.concatenate(sides)]
    return [*points, points[0]]


def side_of_blocks(pixels: float, window: Sequence[int]) -> int:
    """The side of blocks, in pixels, for so many labelled ones: whole windows, or parts of one in small scenes."""
    wanted, length = (pixels / BLOCKS) ** 0.5, max(window)
    if wanted >= length:
        return length * min(MOST_WINDOWS, int(wanted // length))
    parts = next((parts for parts in (2, 4, SMALLEST) if length / parts <= wanted), SMALLEST)
    return max(1, length // parts)


def blocks_of_fold(counts: Mapping[Block, np.ndarray], folds: int, fold: int) -> frozenset[Block]:
    """The blocks of the `fold`-th of so many folds, from 1 on; each has about as much of every class as the others.

    `counts` are the pixels of each class. Raises UserError where there are fewer blocks than folds.
    """
    if len(counts) < folds:
        raise UserError(
            f"{len(counts)} labelled block{'s' * (len(counts) != 1)} of the ground make no {folds} folds: lower "
            "`folds`, add scenes, or use smaller `windows`"
        )
    total = np.maximum(1, sum(counts.values()))
    shares = {block: float((pixels / total).sum()) for block, pixels in counts.items()}
    members: list[list[Block]] = [[] for _ in range(folds)]
    for block in sorted(in_random_order(counts), key=lambda block: -shares[block]):
        min(members, key=lambda own: sum(shares[one] for one in own)).append(block)
    return frozenset(members[fold - 1])


def in_random_order(blocks: Iterable[Block]) -> list[Block]:
    """Blocks in an order that depends on their places alone."""
    return sorted(blocks, key=lambda block: hashlib.sha256(repr(tuple(block)).encode()).digest())


def held_out_blocks(counts: Mapping[Block, np.ndarray], share: float) -> frozenset[Block]:
    """The blocks for validation: about a `share` of the labelled pixels, drawn by place alone.

    `counts` are the pixels of each class. No class loses more than twice the share, as far as there is a choice, and
    one that would be absent from validation gets a block of its own. Raises UserError for a single block.
    """
    if not 0 < share < 1 or len(counts) < 2:
        raise UserError(
            f"a share of {share} of {len(counts)} labelled block{'s' * (len(counts) != 1)} of the ground leaves "
            "nothing to train or to validate on: add scenes, or use smaller `windows`"
        )
    total = sum(counts.values()) + np.zeros(len(next(iter(counts.values()))))
    order = in_random_order(counts)
    held: list[Block] = []

    def taken() -> np.ndarray:
        return sum((counts[block] for block in held), np.zeros_like(total))

    def leaves(block: Block, least: float) -> bool:
        left = total - taken() - counts[block]
        return bool((left[total > 0] > least * total[total > 0]).all())

    for block in order:
        if taken().sum() >= share * total.sum():
            break
        if leaves(block, max(0.0, 1 - 2 * share)):
            held.append(block)
    for index in np.flatnonzero(total):
        having = [block for block in order if block not in held and counts[block][index] and leaves(block, 0)]
        if not taken()[index] and having:
            held.append(min(having, key=lambda block: float(counts[block].sum())))
    return frozenset(held or [min(order, key=lambda block: float(counts[block].sum()))])
