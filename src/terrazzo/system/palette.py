"""Colours for classes that have none."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

Palette = list[tuple[int, int, int]]
# The first ones are chosen by eye; the rest are as far from each other as possible.
FIRST = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (127, 127, 127), (188, 189, 34), (23, 190, 207), (255, 215, 80), (0, 63, 92), (173, 255, 180), (120, 0, 60),
)  # fmt: skip


def default_palette(num_classes: int) -> Palette:
    """Distinct RGB colours, always the same; fewer classes get the first ones."""
    return list(_farthest(num_classes))


@cache
def _farthest(count: int) -> tuple[tuple[int, int, int], ...]:
    levels = np.linspace(0, 255, 22).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 1, 3)
    grid = np.concatenate([np.array(FIRST, np.uint8)[:, None], grid])
    lab = cv2.cvtColor(grid.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    usable = (lab[:, 0] > 22) & (lab[:, 0] < 93)  # neither black nor white, which are for text and ignored pixels
    chosen = list(range(len(FIRST)))
    distance = np.where(usable, np.inf, -1.0)
    for index in chosen:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[index], axis=1))
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return tuple((int(r), int(g), int(b)) for r, g, b in grid[chosen[:count], 0])
