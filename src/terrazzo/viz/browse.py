"""A page of a dataset's samples, as stored and as training sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from terrazzo.data.dataset import LoadError
from terrazzo.data.statistics import loaded
from terrazzo.data.wrappers import Dataset, MultiImageMixDataset
from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.painting import as_picture, overlay, save_picture
from terrazzo.transforms.base import role_of
from terrazzo.viz.chart import as_pixels, new_figure, plotting
from terrazzo.viz.fonts import drawable
from terrazzo.viz.layout import PAPER, legend, side_by_side
from terrazzo.viz.report import write_report

CAPTIONS = ("as stored", "its labels", "after transforms", "its labels")
OPACITY = 0.65
WIDEST = 640  # of a picture on the page


@dataclass
class SampleView:
    """A sample before and after its transforms: RGB pictures and class maps (H, W), None without labels."""

    name: str
    pictures: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray | None, np.ndarray | None]


def choose_samples(length: int, count: int, seed: int) -> list[int]:
    """Draw the indices of samples to show, in the order of the dataset; the same for the same seed."""
    return sorted(np.random.default_rng(seed).permutation(length)[:count].tolist())


def view_sample(dataset: Dataset, index: int) -> SampleView:
    """Return a sample as stored and as the pipeline gives it. Raise UserError where it cannot be read."""
    leaf, inner = dataset.origins()[index]
    before, after = loaded(leaf, inner), dataset[0, index]
    if isinstance(after, LoadError):
        raise UserError(after.message)
    after = after[0] if isinstance(after, list) else after
    path = leaf.pairs[inner][1]
    stored = leaf.read_label(path) if path is not None else None
    return SampleView(leaf.pairs[inner][0].name, (picture(before), picture(after)), (stored, after.label))


def picture(sample: Sample) -> np.ndarray:
    """Return a sample's image as RGB uint8; the middle slice of a volume."""
    image = sample.image
    assert image is not None
    if image.ndim == 4:
        image = np.moveaxis(image[:, image.shape[1] // 2], 0, -1)
    return as_picture(image)


def write_page(dataset: Dataset, split: str, path: Path, count: int, seed: int) -> Path:
    """Draw `count` samples into a page that needs no other file and into a PNG beside it; return the PNG's path."""
    views = [view_sample(dataset, index) for index in choose_samples(len(dataset), count, seed)]
    classes, palette = list(dataset.classes), [tuple(colour) for colour in dataset.palette]
    shares = [class_shares([view.labels[stage] for view in views], len(classes)) for stage in (0, 1)]
    rows = [captioned_pictures(view, palette) for view in views]
    present = [index for index in range(len(classes)) if shares[0][index] or shares[1][index]]
    colours = {classes[index]: palette[index] for index in present}
    image = path.with_suffix(".png")
    save_picture(image, draw_sheet(rows, colours, [share[present] for share in shares]))
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
            [(caption, page_sized(cell)) for caption, cell in with_name(view.name, cells)]
            for view, cells in zip(views, rows, strict=True)
        ],
        subtitle="transforms: " + (", ".join(transform_names(dataset)) or "none"),
        palette=colours,
    )
    return image


def with_name(name: str, cells: Sequence[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """Put a sample's name before the caption of its first picture."""
    (first, picture), *others = cells
    return [(f"{name}, {first}", picture), *others]


def captioned_pictures(view: SampleView, palette: Sequence[Sequence[int]]) -> list[tuple[str, np.ndarray]]:
    """Return the captions and pictures of a sample."""
    cells = []
    for stage, (image, label) in enumerate(zip(view.pictures, view.labels, strict=True)):
        cells.append((CAPTIONS[2 * stage], image))
        if label is not None:
            label = label[label.shape[0] // 2] if label.ndim == 3 else label
            cells.append((CAPTIONS[2 * stage + 1], overlay(image, label, palette, OPACITY)))
    return cells


def class_shares(labels: Sequence[np.ndarray | None], count: int) -> np.ndarray:
    """Return the percentage of each class among the pixels that are not ignored."""
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


def page_sized(image: np.ndarray) -> np.ndarray:
    """Shrink a picture that is wider than WIDEST."""
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
    """Draw all samples one below the other, then the legend and the histogram of the classes."""
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
    """Draw for each class a bar of its share of the stored pixels and, paler, one of its share after transforms."""
    names = drawable(list(colours))
    solid = np.array(list(colours.values())) / 255
    rows = np.arange(len(names))
    with plotting(*names):
        figure = new_figure(width, line * (len(names) + 1.5))
        axes = figure.subplots()
        for offset, share, fill in ((-0.19, shares[0], solid), (0.19, shares[1], solid * 0.45 + 0.55)):
            axes.barh(rows + offset, share, 0.36, color=fill, edgecolor="#969696", linewidth=0.6)
        for row, (before, after) in enumerate(zip(*shares, strict=True)):
            axes.text(max(before, after), row, f"  {before:.2f}%  {after:.2f}%", va="center")
        axes.set_yticks(rows, names)
        axes.set_xticks([])
        axes.invert_yaxis()
        axes.margins(x=0.15, y=0.02)
        axes.tick_params(length=0)
        axes.spines["bottom"].set_visible(False)
        axes.set_title("share of the pixels: as stored, and paler after transforms", loc="left", fontsize=11)
        return as_pixels(figure, scale=1)
