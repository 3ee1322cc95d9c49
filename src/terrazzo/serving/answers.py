"""Predictions as what a client accepts: class map, overlay, numbers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.scenes.prediction import ScenePrediction
from terrazzo.inference.scenes.rasters import png_chunks, save_geotiff
from terrazzo.inference.scenes.store import rows_of
from terrazzo.inference.segmenter import as_map
from terrazzo.serving.messages import Options
from terrazzo.system.painting import encoded, save_class_map
from terrazzo.transforms.formats.label_studio import packed
from terrazzo.transforms.formats.outlines import outlines, polygons, run_lengths

NO_CLASS = 255
# what a request may ask for: the key in a class's entry, and what makes it of a mask
MASKS: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "rle": ("mask", run_lengths),
    "polygons": ("polygons", polygons),
    "brushlabels": ("brush", packed),  # the two of Label Studio
    "polygonlabels": ("rings", outlines),
}
RAW = "application/vnd.terrazzo.labels+gzip"
# media type -> what it holds
ANSWERS = {
    "application/json": "the classes with their pixels and shares, and masks where they are asked for",
    "image/png": "the class map: an indexed PNG in the classes' colours, 255 for no class",
    "image/tiff": "the class map: a GeoTIFF, with the coordinates of a GeoTIFF",
    "image/jpeg": "the image with the class colours over it",
    "image/webp": "the image with the class colours over it",
    RAW: "labels and confidences for a page: gzip of H x W bytes of labels, then of confidences (255 is 1)",
}


def accepted(header: str | None) -> str | None:
    """The media type of ANSWERS that an Accept header prefers; None where it takes none of them."""
    offered = [name for name in ANSWERS if name != "image/tiff" or find_spec("rasterio")]
    best: tuple[float, int, str] | None = None
    for place, item in enumerate((header or "*/*").split(",")):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((number(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        prefix = name[:-1] if name.endswith("/*") else None
        found = next(
            (one for one in offered if name in (one, "*/*") or (prefix and one.startswith(prefix))),
            None,
        )
        if found and quality > 0 and (best is None or quality > best[0]):
            best = quality, place, found
    return best[2] if best else None


def number(text: str) -> float:
    """The quality in an Accept header; 0 where it is no number."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def keep(prediction: Any, options: Options) -> None:
    """Leave pixels of low confidence, and those of classes that were not asked for, without a class."""
    labels = prediction.labels
    if options.confidence > 0:
        labels = np.where(prediction.confidence >= options.confidence, labels, NO_CLASS).astype(labels.dtype)
    if options.classes:
        wanted = [prediction.classes.index(name) for name in options.classes]
        labels = np.where(np.isin(labels, wanted), labels, NO_CLASS).astype(labels.dtype)
    prediction.labels = labels


def encode(prediction: Any, options: Options, folder: Path, extra: Mapping[str, Any]) -> bytes:
    """The body of an answer; `extra` are entries of JSON. Raises UserError."""
    name = options.answer
    if name == "application/json":
        return json.dumps({**extra, **summary(prediction, options)}, ensure_ascii=False).encode()
    if name in ("image/jpeg", "image/webp"):
        return encoded(prediction.overlay(options.opacity), f".{name.partition('/')[2]}")
    labels = as_map(prediction.labels, len(prediction.classes))
    if name == RAW:
        confidence = np.nan_to_num(np.asarray(prediction.confidence) * 255).round().astype(np.uint8)
        return gzip.compress(np.ascontiguousarray(labels).tobytes() + confidence.tobytes(), 1, mtime=0)
    if name == "image/tiff":
        path = folder / "labels.tif"
        save_geotiff(path, labels, prediction.georeference, prediction.classes, prediction.palette)
        return path.read_bytes()
    if labels.dtype == np.uint8:
        return b"".join(png_chunks(labels, prediction.palette))
    save_class_map(folder / "labels.png", labels)
    return (folder / "labels.png").read_bytes()


def summary(prediction: Any, options: Options) -> dict[str, Any]:
    """Size and classes of a prediction, each with its pixels, its share, and its mask where that is asked for."""
    labels, names = prediction.labels, prediction.classes
    height, width = labels.shape
    counts = np.zeros(max(256, len(names) + 1), np.int64)
    for top in range(0, height, 512):
        part = np.bincount(rows_of(labels, top, top + 512).ravel(), minlength=len(counts))
        counts += part[: len(counts)]
    shown = [index for index, name in enumerate(names) if not options.classes or name in options.classes]
    classes = []
    for index in shown:
        entry = {
            "label": index,
            "name": names[index],
            "colour": "#{:02x}{:02x}{:02x}".format(*map(int, prediction.palette[index])),
            "pixels": int(counts[index]),
            "share": round(int(counts[index]) / labels.size, 6),
        }
        if options.masks:
            key, convert = MASKS[options.masks]
            entry[key] = convert(np.asarray(labels) == index)
        classes.append(entry)
    return {
        "width": width,
        "height": height,
        "classes": classes,
        "pixels_without_class": labels.size - sum(entry["pixels"] for entry in classes),
    }


def damage(prediction: Any) -> None:
    """Raise UserError for a scene of which parts cannot be read."""
    if isinstance(prediction, ScenePrediction) and prediction.damaged:
        raise UserError(prediction.damage())
