"""A page of a data set's samples, as stored and as training sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from terrazzo.data.dataset import LoadError
from terrazzo.data.statistics import loaded
from terrazzo.data.wrappers import Dataset, MultiImageMixDataset
from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.painting import as_picture, overlay
from terrazzo.transforms.base import role_of
from terrazzo.viz.layout import INK, PAPER, font, legend, side_by_side
from terrazzo.viz.report import write_report

CAPTIONS = ("as stored", "its labels", "after transforms", "its labels")
OPACITY = 0.65
WIDEST = 640  # of a picture on the page


@dataclass
class View:
    """A sample before and after its transforms: RGB pictures and class maps (H, W), None without labels."""

    name: str
    pictures: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray | None, np.ndarray | None]


def choose(length: int, count: int, seed: int) -> list[int]:
    """Which samples to show: in the order of the data set, the same for the same seed."""
    return sorted(np.random.default_rng(seed).permutation(length)[:count].tolist())


def look(dataset: Dataset, index: int) -> View:
    """A sample as stored and as the pipeline gives it. Raises UserError where it cannot be read."""
    leaf, inner = dataset.origins()[index]
    before, after = loaded(leaf, inner), dataset[0, index]
    if isinstance(after, LoadError):
        raise UserError(after.message)
    after = after[0] if isinstance(after, list) else after
    path = leaf.pairs[inner][1]
    stored = leaf.read_label(path) if path is not None else None
    return View(leaf.pairs[inner][0].name, (picture(before), picture(after)), (stored, after.label))


def picture(sample: Sample) -> np.ndarray:
    """A sample's image as RGB uint8; the middle slice of a volume."""
    image = sample.image
    assert image is not None
    if image.ndim == 4:
        image = np.moveaxis(image[:, image.shape[1] // 2], 0, -1)
    return as_picture(image)


def write_page(dataset: Dataset, split: str, path: Path, count: int, seed: int) -> Path:
    """Draw `count` samples into a page that holds all it shows, and beside it a PNG, whose path is returned."""
    views = [look(dataset, index) for index in choose(len(dataset), count, seed)]
    classes, palette = list(dataset.classes), [tuple(colour) for colour in dataset.palette]
    shares = [shares_of([view.labels[place] for view in views], len(classes)) for place in (0, 1)]
    rows = [row(view, palette) for view in views]
    present = [index for index in range(len(classes)) if shares[0][index] or shares[1][index]]
    colours = {classes[index]: palette[index] for index in present}
    image = path.with_suffix(".png")
    sheet = Image.fromarray(draw_sheet(rows, colours, [share[present] for share in shares]))
    sheet.save(image)
    summary = {
        "split": split,
        "images": len(dataset),
        "shown": len(views),
        "classes shown": f"{len(present)} of {len(classes)}",
        "seed": seed,
    }
    table: list[dict[str, str | float | None]] = [
        {
            "class": classes[index],
            "% of stored pixels": float(shares[0][index]),
            "% after transforms": float(shares[1][index]),
            "on images": f"{sum(bool(np.any(view.labels[0] == index)) for view in views)} of {len(views)}",
        }
        for index in present
    ]
    write_report(
        path,
        f"Samples of {split}",
        [(name, str(value)) for name, value in summary.items()],
        table=table,
        pictures=[
            [(caption, shown(cell)) for caption, cell in captioned(view.name, cells)]
            for view, cells in zip(views, rows, strict=True)
        ],
        subtitle="transforms: " + (", ".join(transform_names(dataset)) or "none"),
        palette=colours,
    )
    return image


def captioned(name: str, cells: Sequence[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """The pictures of a sample, its name before the first caption."""
    (first, picture), *others = cells
    return [(f"{name}, {first}", picture), *others]


def row(view: View, palette: Sequence[Sequence[int]]) -> list[tuple[str, np.ndarray]]:
    """Captions and pictures of a sample."""
    cells = []
    for place, (image, label) in enumerate(zip(view.pictures, view.labels, strict=True)):
        cells.append((CAPTIONS[2 * place], image))
        if label is not None:
            label = label[label.shape[0] // 2] if label.ndim == 3 else label
            cells.append((CAPTIONS[2 * place + 1], overlay(image, label, palette, OPACITY)))
    return cells


def shares_of(labels: Sequence[np.ndarray | None], count: int) -> np.ndarray:
    """Percent of each class among the pixels that count."""
    pixels = np.zeros(count, np.int64)
    for label in labels:
        if label is not None:
            pixels += np.bincount(label[label < count], minlength=count)
    return 100 * pixels / max(1, pixels.sum())


def transform_names(dataset: Dataset) -> list[str]:
    """The transforms between reading and packing, those of a mixture last."""
    first = dataset.leaves()[0].pipeline
    steps = [step for step in first.as_written() if step is not first.reader("image")]
    if isinstance(dataset, MultiImageMixDataset):
        for mixing, pipeline in dataset.stages:
            steps += [*([] if mixing is None else [mixing]), *pipeline.as_written()]
    return [type(step).__name__ for step in steps if not (role_of(step).reads or role_of(step).packs)]


def shown(image: np.ndarray) -> np.ndarray:
    """A picture no wider than the page needs."""
    height, width = image.shape[:2]
    if width <= WIDEST:
        return image
    size = (WIDEST, max(1, round(height * WIDEST / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def draw_sheet(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]],
    colours: Mapping[str, Sequence[int]],
    shares: Sequence[np.ndarray],
    height: int = 240,
    gap: int = 12,
) -> np.ndarray:
    """All samples one below the other, then the legend and the histogram of the classes."""
    strips = []
    for cells in rows:
        captions, images = zip(*cells, strict=True)
        width = max(1, round(images[0].shape[1] * height / images[0].shape[0]))
        first = np.asarray(cv2.resize(images[0], (width, height), interpolation=cv2.INTER_AREA))
        strips.append(side_by_side([first, *images[1:]], captions))
    width = max(480, *(strip.shape[1] for strip in strips))
    if colours:
        strips.append(legend(list(colours), list(colours.values()), width, "below", 14))
        strips.append(histogram(colours, shares, width))
    sheet = np.full((sum(strip.shape[0] + gap for strip in strips) + gap, width + 2 * gap, 3), PAPER, np.uint8)
    top = gap
    for strip in strips:
        sheet[top : top + strip.shape[0], gap : gap + strip.shape[1]] = strip
        top += strip.shape[0] + gap
    return sheet


def histogram(
    colours: Mapping[str, Sequence[int]], shares: Sequence[np.ndarray], width: int, line: int = 30
) -> np.ndarray:
    """For each class a bar of its share of the stored pixels, and below it a paler one of that after transforms."""
    letters = font(14)
    strip = Image.new("RGB", (width, line * (len(colours) + 1)), PAPER)
    draw = ImageDraw.Draw(strip)
    left = 24 + max(int(letters.getlength(name)) for name in colours)
    most = max(1e-9, *(float(share.max()) for share in shares))
    scale = (width - left - 120) / most
    title = "share of the pixels: as stored, and paler after transforms"
    draw.text((0, line / 2), title, fill=INK, font=letters, anchor="lm")
    for place, (name, colour) in enumerate(colours.items()):
        top = (place + 1) * line
        before, after = (float(share[place]) for share in shares)
        draw.text((left - 12, top + line / 2), name, fill=INK, font=letters, anchor="rm")
        solid = tuple(int(channel) for channel in colour)
        pale = tuple(int(channel + (255 - channel) * 0.55) for channel in colour)
        draw.rectangle((left, top + 4, left + scale * before, top + 14), fill=solid, outline=(150, 150, 150))
        draw.rectangle((left, top + 15, left + scale * after, top + 25), fill=pale, outline=(150, 150, 150))
        place_of_text = (left + scale * max(before, after) + 8, top + line / 2)
        draw.text(place_of_text, f"{before:.2f}%  {after:.2f}%", fill=INK, font=letters, anchor="lm")
    return np.array(strip)
