"""Colours of classes, and class maps as colours: alone, over the image, and where they are wrong."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from terrazzo.errors import UserError, is_out_of_memory
from terrazzo.system.files import write_atomically, write_whole

IGNORED = (0, 0, 0)
STRIP = 512  # rows

WRONG, RIGHT = (226, 48, 42), (20, 160, 70)


def colour_map(labels: np.ndarray, palette: Sequence[Sequence[int]], ignore_index: int = 255) -> np.ndarray:
    """The class map (H, W) in the palette's colours (H, W, 3), ignored pixels black.

    Raises UserError for a class that the palette has no colour for.
    """
    labels = np.asarray(labels)
    painted = np.empty((*labels.shape, 3), np.uint8)
    table = np.array([*palette, IGNORED], np.uint8)
    for rows in strips(labels):
        part = labels[rows]
        counted = part[part != ignore_index]
        if counted.size and not 0 <= counted.min() <= counted.max() < len(palette):
            worst = counted.min() if counted.min() < 0 else counted.max()
            raise UserError(
                f"the class map contains the value {worst}, but the palette has colours for 0 to {len(palette) - 1}; "
                f"give a palette with more colours, or mark ignored pixels with {ignore_index}"
            )
        painted[rows] = table[np.where(part == ignore_index, len(palette), part).astype(np.intp)]
    return painted


def strips(labels: np.ndarray) -> Iterator[slice]:
    """Yield the rows of a class map some at a time, as painting all of a large one takes many times its memory."""
    for start in range(0, len(labels), STRIP):
        yield slice(start, start + STRIP)


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
    ignore_index: int = 255,
) -> np.ndarray:
    """The class map (H, W) over an RGB image (H, W, 3); ignored pixels show the image.

    An `opacity` of 1 gives only the colour map, with ignored pixels black.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"opacity is {opacity}; it ranges from 0 (only the image) to 1 (only the colours)")
    labels = np.asarray(labels)
    painted = colour_map(labels, palette, ignore_index)
    if opacity == 1:
        return painted
    _check_size(image, labels, "image")
    for rows in strips(labels):
        mixed = image[rows] + (painted[rows].astype(np.float32) - image[rows]) * np.float32(opacity)
        painted[rows] = np.rint(np.where((labels[rows] == ignore_index)[..., None], image[rows], mixed))
    return painted


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image of any kind (H, W, C) as RGB uint8 for display: its first three bands, or one as grey.

    Values of more than 8 bits are stretched, band by band, from the 2nd to the 98th percentile; no data is black.
    """
    bands = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if bands.dtype == np.uint8:
        return np.ascontiguousarray(bands)
    bands = bands.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a band without any data
        low, high = np.nanpercentile(bands, (2, 98), axis=(0, 1))
    stretched = (bands - low) / np.maximum(high - low, 1e-6) * 255
    return np.clip(np.nan_to_num(stretched), 0, 255).astype(np.uint8)


def error_map(
    labels: np.ndarray, prediction: np.ndarray, image: np.ndarray | None = None, ignore_index: int = 255
) -> np.ndarray:
    """Wrong pixels in red over the paled image (or plain light grey), ignored pixels black; RGB (H, W, 3)."""
    _check_size(prediction, labels, "prediction")
    if image is not None:
        _check_size(image, labels, "image")
    canvas = np.full((*labels.shape, 3), 236, np.uint8) if image is None else paled(image)
    canvas[labels != prediction] = WRONG
    canvas[labels == ignore_index] = IGNORED
    return canvas


def change_map(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, image: np.ndarray, ignore_index: int = 255
) -> np.ndarray:
    """Pixels that only the second of two class maps has wrong in red, right in green; RGB (H, W, 3) as `error_map`."""
    canvas = paled(image)
    was_right, is_right = before == labels, after == labels
    canvas[was_right & ~is_right] = WRONG
    canvas[is_right & ~was_right] = RIGHT
    canvas[labels == ignore_index] = IGNORED
    return canvas


def paled(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) in light greys, as a ground for colours."""
    grey = image.astype(np.float32).mean(-1, keepdims=True)
    return np.repeat(110 + grey * 0.5, 3, axis=-1).astype(np.uint8)


def encoded(picture: np.ndarray, suffix: str) -> bytes:
    """An RGB picture (H, W, 3) or a map (H, W) as the bytes of a file with this suffix.

    Raises UserError for a format that OpenCV cannot write.
    """
    pixels = np.ascontiguousarray(picture[..., ::-1] if picture.ndim == 3 else picture)
    try:
        return cv2.imencode(suffix, pixels)[1].tobytes()
    except cv2.error as problem:
        if is_out_of_memory(problem):
            raise
        raise UserError(f"no picture can be written as '{suffix}': use .png or .jpg") from None


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture (H, W, 3) or a map (H, W) in the format of the path's suffix.

    Raises UserError if the file cannot be written.
    """
    write_whole(path, encoded(picture, path.suffix))


def save_class_map(path: Path, labels: np.ndarray, palette: Sequence[Sequence[int]] = ()) -> None:
    """Write a class map (H, W) as a grey picture, in the colours of a `palette` of up to 256.

    Raises UserError if the file cannot be written.
    """
    if labels.max(initial=0) > 255 or len(palette) > 256:
        picture = Image.fromarray(labels.astype(np.uint16))
    else:
        picture = Image.fromarray(labels.astype(np.uint8))
        if len(palette):
            picture.putpalette([int(channel) for colour in palette for channel in colour])
    data = io.BytesIO()
    try:
        picture.save(data, Image.registered_extensions().get(path.suffix.lower(), path.suffix[1:]))
    except (KeyError, ValueError, OSError) as problem:
        raise UserError(f"cannot save a class map as {path}: {problem}; use .png") from None
    write_whole(path, data.getvalue())


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file. Raises UserError if it cannot be written."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array)

    write_atomically(path, write)


def _check_size(array: np.ndarray, labels: np.ndarray, name: str) -> None:
    if np.shape(array)[:2] != np.shape(labels):
        theirs, ours = ("x".join(map(str, shape)) for shape in (np.shape(array)[:2], np.shape(labels)))
        raise UserError(f"the {name} is {theirs} and the class map {ours} (height x width); resize one to the other")
