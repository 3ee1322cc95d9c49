"""Pictures of samples one below the other, under one legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from terrazzo.system.painting import colour_map
from terrazzo.viz.layout import PAPER, legend, side_by_side


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """Return depth (H, W) in colours from near (blue) to far (red), RGB."""
    span = np.ptp(depth) if depth.size else 0
    steps = np.uint8(255 * (depth - depth.min()) / max(span, 1e-9))
    return np.ascontiguousarray(cv2.applyColorMap(steps, cv2.COLORMAP_TURBO)[..., ::-1])


def compared(
    picture: np.ndarray, maps: Sequence[np.ndarray], palette: Sequence[Sequence[int]], height: int = 240
) -> list[np.ndarray]:
    """Return a picture (H, W, 3) and its class or depth maps in colours, all at most `height` pixels high."""
    scale = min(1.0, height / picture.shape[0])
    size = max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))
    small = [at_size(one, size) for one in maps]
    painted = [depth_colours(one) if one.dtype.kind == "f" else colour_map(one, palette) for one in small]
    return [cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), *painted]


def at_size(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map by the nearest pixel."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(size, labels.shape, strict=True))
    return labels[rows.astype(np.intp)][:, columns.astype(np.intp)]


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    colours: Mapping[str, Sequence[int]],
    gap: int = 8,
) -> np.ndarray:
    """Stack rows of RGB pictures, captions over the first one, and a legend of class names and colours below."""
    strips = [side_by_side(row, () if index else captions, gap) for index, row in enumerate(rows)]
    width = max(480, *(strip.shape[1] for strip in strips))
    if colours:
        strips.append(legend(list(colours), list(colours.values()), width, "below", 14))
    sheet = np.full((sum(strip.shape[0] + gap for strip in strips), width, 3), PAPER, np.uint8)
    top = 0
    for strip in strips:
        sheet[top : top + strip.shape[0], : strip.shape[1]] = strip
        top += strip.shape[0] + gap
    return sheet
