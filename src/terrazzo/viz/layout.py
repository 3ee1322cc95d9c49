"""Pictures side by side, and the legend of classes and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from terrazzo.errors import UserError

PAPER = (255, 255, 255)
INK = (32, 36, 42)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the typeface of all pictures, `size` pixels high."""
    return ImageFont.load_default(size)


def _text_size(extent: int) -> int:
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
    letters, gap, line = font(size), round(size * 0.6), round(size * 1.7)
    swatch = round(size * 1.1)
    widths = [swatch + gap + int(np.ceil(letters.getlength(name))) for name in classes]
    spots: list[tuple[int, int]] = []
    if position == "right":
        rows = max(1, (length - gap) // line)
        left, reach = gap, length
        for start in range(0, len(classes), rows):
            spots += [(left, gap + line * row) for row in range(len(classes[start : start + rows]))]
            left += max(widths[start : start + rows]) + 2 * gap
        shape = (left if classes else 0, reach)
    else:
        left, top = gap, gap
        for width in widths:
            if left > gap and left + width + gap > length:
                left, top = gap, top + line
            spots.append((left, top))
            left += width + 2 * gap
        shape = (length, top + line if classes else 0)
    strip = Image.new("RGB", shape, PAPER)
    draw = ImageDraw.Draw(strip)
    for (x, y), name, colour in zip(spots, classes, palette, strict=True):
        box = (x, y, x + swatch, y + swatch)
        draw.rounded_rectangle(box, radius=swatch // 5, fill=tuple(int(c) for c in colour), outline=(120, 124, 130))
        draw.text((x + swatch + gap, y + swatch / 2), name, fill=INK, font=letters, anchor="lm")
    return np.array(strip)


def add_legend(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    position: Literal["right", "below"] = "right",
    ignore_index: int = 255,
) -> np.ndarray:
    """Return the picture with a legend of the classes that occur in `labels`, at the right or below."""
    if len(classes) != len(palette):
        raise UserError(f"{len(classes)} class names and {len(palette)} colours; give one colour for each class")
    present = [int(index) for index in np.unique(labels) if index != ignore_index]
    names, colours = [classes[index] for index in present], [palette[index] for index in present]
    height, width = image.shape[:2]
    size = _text_size(max(height, width))
    strip = legend(names, colours, height if position == "right" else width, position, size)
    return np.concatenate([image, strip], axis=1 if position == "right" else 0)


def side_by_side(pictures: Sequence[np.ndarray], captions: Sequence[str] = (), gap: int = 8) -> np.ndarray:
    """Return RGB pictures in a row, resized to the first one's height, with captions above them where given."""
    if captions and len(captions) != len(pictures):
        raise UserError(f"{len(pictures)} pictures and {len(captions)} captions; give one for each picture, or none")
    height = pictures[0].shape[0]
    row = [_to_height(np.atleast_3d(picture), height) for picture in pictures]
    size = _text_size(max(height, row[0].shape[1]))
    header = round(size * 1.9) if captions else 0
    total = sum(picture.shape[1] for picture in row) + gap * (len(row) - 1)
    sheet = Image.new("RGB", (total, height + header), PAPER)
    draw, left = ImageDraw.Draw(sheet), 0
    for index, picture in enumerate(row):
        sheet.paste(Image.fromarray(picture), (left, header))
        if captions:
            middle = (left + picture.shape[1] / 2, header / 2)
            draw.text(middle, captions[index], fill=INK, font=font(size), anchor="mm")
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
