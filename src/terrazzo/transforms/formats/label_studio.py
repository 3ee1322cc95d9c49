"""Label Studio's JSON and JSON-MIN exports: one file for many images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.raster import Patch, ellipse, polygon, trimmed
from terrazzo.transforms.formats.shapes import NAMELESS, IndexLabels

KINDS = ("brush", "polygon", "rectangle", "ellipse")  # of objects with an area, also as `brushlabels`
WIDTHS = (3, 4, 8, 16)  # bits of run lengths that we write
LONGEST = 1 << WIDTHS[-1]  # values of a run
RUN_BITS = 2  # of the number of a run's width among the four in the head


@LABEL_FORMATS.register(name="label_studio")
class LabelStudioLabels(IndexLabels):
    """Brush strokes, polygons, rectangles and ellipses; of several annotators the last one's count."""

    names_classes = True
    noun = "region"
    about = "a Label Studio export with a list of tasks"

    @classmethod
    def images(cls, content: Any) -> Mapping[str, Any]:
        if not isinstance(content, list) or not content:
            raise ValueError("it is not a list of tasks")
        found = {image_of(task): regions_of(task) for task in content}
        return {image: regions for image, regions in found.items() if regions is not None}

    def size_of(self, content: Any) -> tuple[Any, Any] | None:
        return next(((one["original_height"], one["original_width"]) for one in content), None)

    def objects(self, content: Any) -> Any:
        return content

    def name_of(self, item: Any) -> str:
        return str(item["name"])

    def covers(self, item: Any) -> bool:
        return bool(item["kind"])

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        kind, value = item["kind"], item["value"]
        if kind == "brush":
            return trimmed(unpacked(value["rle"], size))
        scale = np.array([size[1], size[0]]) / 100  # all else is in percent of the image's size
        if kind == "polygon":
            return polygon(np.array(value["points"], np.float64) * scale, size)
        corner = np.array([value["x"], value["y"]], np.float64) * scale
        turn = float(value.get("rotation") or 0)
        if kind == "ellipse":
            return ellipse(corner, np.array([value["radiusX"], value["radiusY"]]) * scale, turn, size)
        width, height = np.array([value["width"], value["height"]], np.float64) * scale
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        along, down = np.array([cosine, sine]) * width, np.array([-sine, cosine]) * height
        return polygon([corner, corner + along, corner + along + down, corner + down], size)


def image_of(task: Any) -> str:
    """The image of a task: the first text in its data with the suffix of a file."""
    values = task.get("data", task)
    texts = [value for value in (values.get("image"), *values.values()) if isinstance(value, str)]
    named = [text for text in [*texts, task.get("file_upload") or ""] if PurePosixPath(text).suffix]
    if not named:
        raise ValueError("a task names no image")
    return named[0]


def regions_of(task: Any) -> list[dict[str, Any]] | None:
    """The regions of a task: of its last annotation that was not cancelled, or those that JSON-MIN lists.

    None for a task that nobody has annotated. Predictions count in a file for import alone, which has no annotations.
    """
    if "data" not in task:
        listed = [value for value in task.values() if isinstance(value, list)]
        return [as_region(one, one) for many in listed for one in many if isinstance(one, dict)]
    annotations: list[Any] = next(
        (task[key] for key in ("annotations", "completions", "predictions") if key in task), []
    )
    kept = [one for one in annotations if not one.get("was_cancelled")]
    if not kept:
        return None
    results = kept[-1]["result"]
    named: dict[Any, str] = {}  # class by region, where a stroke and its label are two results
    for result in results:
        for name in names_in(result.get("value") or {}):
            named.setdefault(result.get("id"), name)
    named.pop(None, None)
    shapes = [result for result in results if "original_width" in result and result.get("type") != "labels"]
    return [as_region(one, one["value"], named.get(one.get("id"), "")) for one in shapes]


def as_region(result: Mapping[str, Any], value: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """A region as size, kind, name and value; `name` is its class where the value has none."""
    kind = str(result.get("type") or next((key for key in value if key.endswith("labels")), ""))
    kind = kind.removesuffix("labels")
    if not kind:
        kind = "brush" if "rle" in value else "polygon" if "points" in value else "rectangle"
    name = next(iter(names_in(value)), name or NAMELESS)
    sizes = {key: result.get(key) for key in ("original_height", "original_width")}
    return {"kind": kind if kind in KINDS else "", "name": name, "value": value, **sizes}


def names_in(value: Mapping[str, Any]) -> list[str]:
    """The classes that a result's value names."""
    return [str(name) for key, names in value.items() if key.endswith("labels") for name in names or ()]


def unpacked(data: Any, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) of a brush: the alpha of RGBA bytes that are packed as runs of bits.

    The head has the number of bytes (32 bits), the width of a byte less one (5), and four widths of run lengths less
    one (4 each). A run begins with a bit that is 1 where one byte is repeated and 0 where each is given, then the
    number of its width, and its length less one. Raises ValueError for a mask of another size.
    """
    bits = np.unpackbits(np.asarray(data, np.int64).astype(np.uint8))
    position = 0

    def numbers(count: int, width: int) -> np.ndarray:
        nonlocal position
        end = position + count * width
        if end > len(bits):
            raise ValueError("its run lengths end too early")
        found = bits[position:end].reshape(count, width) @ (1 << np.arange(width, dtype=np.int64)[::-1])
        position = end
        return found

    total, width = int(numbers(1, 32)[0]), int(numbers(1, 5)[0]) + 1
    if total != 4 * size[0] * size[1]:
        raise ValueError(f"run lengths for {total} bytes in an image of {size[0]}x{size[1]} pixels")
    widths = (numbers(4, 4) + 1).tolist()
    values = np.zeros(total, np.uint8)
    filled = 0
    while filled < total:
        repeats, chosen = numbers(1, 1)[0], numbers(1, RUN_BITS)[0]
        count = int(numbers(1, widths[chosen])[0]) + 1
        if count > total - filled:
            raise ValueError("its run lengths are longer than the mask")
        values[filled : filled + count] = numbers(1 if repeats else count, width)
        filled += count
    return values.reshape(*size, 4)[..., 3] > 0


def packed(mask: np.ndarray) -> list[int]:
    """The bytes of a brush whose mask (H, W) is non-zero: what `unpacked` reads, of repeated runs alone."""
    flat = np.repeat(mask.astype(bool).ravel(), 4)  # RGBA
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    ends = np.append(starts[1:], flat.size)
    bits = [f"{flat.size:032b}{7:05b}", *(f"{width - 1:04b}" for width in WIDTHS)]
    for start, end, value in zip(starts.tolist(), ends.tolist(), flat[starts].tolist(), strict=True):
        for begin in range(start, end, LONGEST):
            count = min(LONGEST, end - begin)
            chosen = next(index for index, width in enumerate(WIDTHS) if count <= 1 << width)
            bits.append(f"1{chosen:02b}{count - 1:0{WIDTHS[chosen]}b}{255 * value:08b}")
    text = np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")
    return np.packbits(text).tolist()
