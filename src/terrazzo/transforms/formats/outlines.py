"""Masks as run lengths and as polygons, both exact."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy.spatial import cKDTree

SMALLEST = 16  # pixels of a region that is worth an outline


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) as COCO's uncompressed run lengths: down the columns, beginning with zeros."""
    flat = mask.astype(bool).T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}


def polygons(mask: np.ndarray) -> list[dict[str, Any]]:
    """The regions of a mask (H, W) as polygons along the edges of pixels: `exterior` and `holes`, rings of [x, y].

    A region is connected by the sides of pixels. A ring has only corners and does not repeat its first point; (0, 0)
    is the upper left corner of the image.
    """
    _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    found: dict[int, dict[str, Any]] = {}
    holes: list[tuple[int, list[list[int]]]] = []
    for ring in rings(mask.astype(bool)):
        x, y = ring[0]  # the first corner from above, and from the left there
        if y < mask.shape[0] and x < mask.shape[1] and mask[y, x]:
            found[int(components[y, x])] = {"exterior": ring, "holes": []}
        else:
            holes.append((int(components[y - 1, x]), ring))
    for owner, ring in holes:
        found[owner]["holes"].append(ring)
    return list(found.values())


def rings(mask: np.ndarray) -> list[list[list[int]]]:
    """The borders of a mask's regions as rings of corners [x, y], each beginning at its uppermost, then leftmost one.

    Corners are where the four pixels around a point are not in pairs. Along each row they begin and end the sides of
    rings in turn, and along each column too. A point where pixels touch diagonally is two corners.
    """
    inside = np.pad(mask, 1).astype(np.int8)
    corner = inside[:-1, :-1] - inside[:-1, 1:] - inside[1:, :-1] + inside[1:, 1:]  # 2 or -2: a diagonal
    ys, xs = np.nonzero(corner)
    kinds = corner[ys, xs]
    twice = np.where(abs(kinds) == 2, 2, 1)
    ys, xs, kinds = ys.repeat(twice), xs.repeat(twice), kinds.repeat(twice)
    is_second = np.zeros(len(ys), bool)
    is_second[1:] = (ys[1:] == ys[:-1]) & (xs[1:] == xs[:-1])

    # Along a row the first corner of a diagonal ends a side; along a column the second one, if the pixels rise (-2)
    beside, below = np.empty(len(ys), np.int64), np.empty(len(ys), np.int64)
    along_rows = np.lexsort((is_second, xs, ys))
    along_columns = np.lexsort((is_second ^ (kinds == -2), ys, xs))
    for partner, order in ((beside, along_rows), (below, along_columns)):
        partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]

    found = []
    across, down, points = beside.tolist(), below.tolist(), np.stack([xs, ys], 1).tolist()
    is_left = [True] * len(points)
    for start in range(len(points)):
        if not is_left[start]:
            continue
        ring, place = [], start
        while is_left[place]:
            partner = across[place]
            is_left[place] = is_left[partner] = False
            ring += [points[place], points[partner]]
            place = down[partner]
        found.append(ring)
    return found


def outlines(mask: np.ndarray, smallest: float = SMALLEST) -> list[list[list[float]]]:
    """The regions of a mask (H, W) as one ring of [x, y] each, moved by a pixel at most; larger regions come first.

    A ring goes to a hole and back along one line, as tools that know no holes need it. Regions of less than `smallest`
    pixels are left out.
    """
    found = []
    for region in polygons(mask):
        exterior, *holes = (simplified(ring) for ring in (region["exterior"], *region["holes"]))
        area = cv2.contourArea(exterior)
        if area < smallest:
            continue
        found.append((area, joined(exterior, holes)))
    return [ring.tolist() for _, ring in sorted(found, key=lambda one: -one[0])]


def joined(exterior: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """A ring (n, 2) that goes from its nearest corner to each hole, around it and back."""
    if not holes:
        return exterior
    nearest = cKDTree(exterior)
    parts = [[corner] for corner in exterior[:, None]]
    for hole in holes:
        gaps, corners = nearest.query(hole)
        there = int(gaps.argmin())
        here = int(corners[there])
        parts[here] += [hole[there:], hole[: there + 1], exterior[here : here + 1]]
    return np.concatenate([part for corner in parts for part in corner])


def simplified(ring: list[list[int]]) -> np.ndarray:
    """A ring (n, 2) float32 of fewer corners, none of which was farther than a pixel from the new line."""
    whole = np.array(ring, np.float32)
    fewer = cv2.approxPolyDP(whole, 0.5, True)[:, 0]
    return fewer if len(fewer) > 2 and cv2.contourArea(fewer) > 0 else whole
