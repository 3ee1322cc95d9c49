"""Pictures side by side, and the legend of classes and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw

from terrazzo.errors import UserError
from terrazzo.viz.fonts import draw_text, drawable, text_width

PAPER = (255, 255, 255)
INK = (32, 36, 42)
SMALLEST_TEXT = 7  # pixels


def _text_size(extent: float) -> int:
    """Return a readable text size for a picture that is `extent` pixels long."""
    return int(np.clip(round(extent / 30), 12, 40))


def legend(
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    length: int,
    position: Literal["right", "below"] = "right",
    size: int | None = None,
) -> np.ndarray:
    """Draw a swatch and a name for each class: a strip `length` pixels high for the right side, or as wide for below.

    Names take further columns or rows where one is not enough. `size` is the text's, in pixels.
    """
    size = size or _text_size(length)
    names = drawable(classes)
    gap, line, swatch = round(size * 0.6), round(size * 1.7), round(size * 1.1)
    widths = [swatch + gap + int(np.ceil(text_width(name, size))) for name in names]
    spots: list[tuple[int, int]] = []
    if position == "right":
        rows = max(1, (length - gap) // line)
        left, reach = gap, length
        for start in range(0, len(names), rows):
            spots += [(left, gap + line * row) for row in range(len(names[start : start + rows]))]
            left += max(widths[start : start + rows]) + 2 * gap
        shape = (left if names else 0, reach)
    else:
        left, top = gap, gap
        for width in widths:
            if left > gap and left + width + gap > length:
                left, top = gap, top + line
            spots.append((left, top))
            left += width + 2 * gap
        shape = (length, top + line if names else 0)
    strip = Image.new("RGB", shape, PAPER)
    draw = ImageDraw.Draw(strip)
    for (x, y), name, colour in zip(spots, names, palette, strict=True):
        box = (x, y, x + swatch, y + swatch)
        draw.rounded_rectangle(box, radius=swatch // 5, fill=tuple(int(c) for c in colour), outline=(120, 124, 130))
        draw_text(draw, x + swatch + gap, y + swatch / 2, name, size, INK)
    return np.array(strip)


def add_legend(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    position: Literal["right", "below"] = "right",
    ignore_index: int = 255,
) -> np.ndarray:
    """Return the picture with a legend of the classes that occur in `labels`, at the right or below.

    The legend is at most as large as the picture: beside a small one its text is smaller, and the rarest classes are
    left out where even that is too large.
    """
    if len(classes) != len(palette):
        raise UserError(f"{len(classes)} class names and {len(palette)} colours; give one colour for each class")
    numbers, counts = np.unique(labels[labels != ignore_index], return_counts=True)
    height, width = image.shape[:2]
    shown = drawable(classes)
    axis, length, most = (1, height, width) if position == "right" else (0, width, height)
    for size in range(_text_size((height * width) ** 0.5), SMALLEST_TEXT - 1, -1):
        for kept in (len(numbers), *(range(len(numbers) - 1, 0, -1) if size == SMALLEST_TEXT else ())):
            present = sorted(numbers[np.argsort(-counts, kind="stable")[:kept]].tolist())
            names, colours = [shown[index] for index in present], [palette[index] for index in present]
            strip = legend(names, colours, length, position, size)
            if strip.shape[axis] <= most:
                return np.concatenate([image, strip], axis=axis)
    return image


def side_by_side(
    pictures: Sequence[np.ndarray], captions: Sequence[str] = (), gap: int = 8, below: bool = False
) -> np.ndarray:
    """Return RGB pictures in a row, resized to the first one's height, with captions above (or `below`) them."""
    if captions and len(captions) != len(pictures):
        raise UserError(f"{len(pictures)} pictures and {len(captions)} captions; give one for each picture, or none")
    height = pictures[0].shape[0]
    row = [_to_height(np.atleast_3d(picture), height) for picture in pictures]
    size = _text_size(max(height, row[0].shape[1]))
    spare = min((cell.shape[1] - text_width(text, size) for cell, text in zip(row, captions, strict=False)), default=0)
    if spare < 0:  # small pictures
        size = SMALLEST_TEXT
    strip = round(size * 1.9) if captions else 0
    top, middle = (0, height + strip / 2) if below else (strip, strip / 2)
    total = sum(picture.shape[1] for picture in row) + gap * (len(row) - 1)
    sheet = Image.new("RGB", (total, height + strip), PAPER)
    draw, left = ImageDraw.Draw(sheet), 0
    for index, picture in enumerate(row):
        sheet.paste(Image.fromarray(picture), (left, top))
        if captions:
            start = left + (picture.shape[1] - text_width(captions[index], size)) / 2
            draw_text(draw, start, middle, captions[index], size, INK)
        left += picture.shape[1] + gap
    return np.array(sheet)


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    picture = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    smaller = height < picture.shape[0]
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(resized)
