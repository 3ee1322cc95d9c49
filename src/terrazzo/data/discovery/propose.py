"""A config for a folder that nobody has described, with comments that say what was found and how."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from terrazzo.config.reading.markup import one_line_yaml
from terrazzo.config.short_form import expand as short
from terrazzo.data.discovery.label_facts import LabelFacts, named_facts, picture_facts
from terrazzo.data.discovery.layouts import Layout, find_layout
from terrazzo.data.pairs import find_pairs
from terrazzo.data.spec import IMAGE_SUFFIXES
from terrazzo.data.splits import load_for_data, open_splits
from terrazzo.data.statistics import survey
from terrazzo.errors import UserError
from terrazzo.transforms.formats.base import BACKGROUND, IGNORED, LABEL_FORMATS
from terrazzo.transforms.stored import TIFF_SUFFIXES, read_size, read_stored

LARGEST_CROP = 512
STEP = 32  # networks halve their maps up to five times
SAMPLE = 200  # images whose sizes are looked at
KEYS = (
    "images", "labels", "train", "val", "test", "image_suffix", "label_suffix", "label_format", "classes", "palette",
    "label_map", "ignore", "reduce_zero_label", "bands",
)  # fmt: skip


class Proposal:
    """The short form of a folder's data, and why each entry is as it is."""

    def __init__(self, root: Path, recipe: str, console: Console | None = None) -> None:
        self.root, self.console = root.resolve(), console
        self.layout = find_layout(self.root)
        self.reasons: dict[str, str] = {"images": self.layout.found}
        self.data: dict[str, Any] = {"images": self.layout.images, "labels": self.layout.labels}
        self.data |= {key: value for key, value in self.layout.splits.items() if value != ""}
        for key in ("image_suffix", "label_suffix"):
            if getattr(self.layout, key) is not None:
                self.data[key] = getattr(self.layout, key)
        if isinstance(self.data.get("val"), float):
            self.reasons["val"] = "the share held out for validation, drawn by name: no folder or list says which"
        facts = self.label_facts()
        self.data |= facts.entries
        self.reasons |= {key: reason for key, reason in facts.reasons.items() if reason}
        self.values: dict[str, Any] = {"recipe": recipe}
        self.leave_out_unseen()
        self.look_at_images()
        self.counts = self.check()

    def sections(self, split: str) -> dict[str, Any]:
        """Folders and files of a split, as the expanded config names them."""
        data = short.read_data({"root": str(self.root), "classes": ["any"], **self.data})
        return short.dataset(data, split, None)

    def label_facts(self) -> LabelFacts:
        """What the labels of the training and validation images say."""
        layout: Layout = self.layout
        section = self.sections("train")
        labels = self.root / section["data_prefix"]["seg_map_path"]
        if layout.label_format == "coco":
            return named_facts("coco", self.root, labels, [])
        endings = layout.label_suffix or IMAGE_SUFFIXES
        if layout.label_format is not None:
            endings = LABEL_FORMATS.get(layout.label_format).suffixes
        paths: list[Path] = []
        for part in (section,) if "holdout" in section else (section, self.sections("val")):
            images, place = (self.root / part["data_prefix"][key] for key in ("img_path", "seg_map_path"))
            split = self.root / part["ann_file"] if "ann_file" in part else None
            pairs = find_pairs(images, place, layout.image_suffix or IMAGE_SUFFIXES, endings, split)
            paths += [label for _, label in pairs if label is not None]
        if layout.label_format is not None:
            return named_facts(layout.label_format, self.root, labels, paths)
        return picture_facts(self.root, labels, paths, self.console)

    def leave_out_unseen(self) -> None:
        """Take classes out that no training label shows: nothing could learn them."""
        train = self.open("train")
        counts = np.zeros(len(self.data["classes"]), np.int64)
        with ThreadPoolExecutor() as pool:
            paths = {path for _, path in train.pairs if path is not None}
            work = pool.map(train.check_label, paths)
            hidden = self.console is None
            for found in track(
                work, "counting pixels", len(paths), console=self.console, transient=True, disable=hidden
            ):
                counts += found
        unseen = [index for index, count in enumerate(counts.tolist()) if not count]
        if unseen and len(unseen) < len(counts):
            names = ", ".join(self.data["classes"][index] for index in unseen[:8]) + (
                ", ..." if len(unseen) > 8 else ""
            )
            self.data = without_classes(self.data, unseen)
            reason = (
                f"no training pixel: {names}" if len(unseen) < 30 else f"{len(unseen)} numbers without a pixel left out"
            )
            self.reasons["classes"] = f"{self.reasons.get('classes', '')}; {reason}"

    def look_at_images(self) -> None:
        """Bands, mean and std where images are not of 8 bits and RGB or grey; sizes, and from these the crop."""
        train = self.open("train")
        paths = [image for image, _ in train.pairs]
        step = -(-len(paths) // SAMPLE)
        sizes = Counter(read_size(path) for path in paths[::step])
        heights, widths = zip(*sizes.elements(), strict=True)
        self.values["crop"] = "x".join(str(crop_length(float(np.median(side)))) for side in (heights, widths))
        (height, width), count = sizes.most_common(1)[0]
        kinds = "all" if len(sizes) == 1 else f"{count} of {sizes.total()}"
        self.reasons["crop"] = f"height x width; {kinds} images are {height}x{width}"
        if len(sizes) > 1:
            self.reasons["crop"] += f", from {min(heights)}x{min(widths)} to {max(heights)}x{max(widths)}"
        if paths[0].suffix.lower() in (".npy", ".png", *TIFF_SUFFIXES):
            image = read_stored(paths[0])
            if image.dtype != np.uint8 or image.shape[2] not in (1, 3, 4):
                self.data["bands"] = list(range(1, image.shape[2] + 1))
                self.reasons["bands"] = f"{image.dtype}, {image.shape[2]} bands, numbered from 1; name those to use"
                found = survey(self.open("train"), "train", self.console)
                for key, numbers in (("mean", found.mean), ("std", found.std)):
                    self.values[key] = [float(f"{number:.5g}") for number in numbers]
                self.reasons["mean"] = "of the training images, as `terrazzo data stats` computes them"

    def open(self, split: str) -> Any:
        """A split's data set."""
        data = {"root": str(self.root), **self.data}
        scale = {"mean": "none", "std": "none"} if "mean" not in self.values else {}
        config = load_for_data({**self.values, **scale, "data": data})
        return open_splits(config, [split])[split]

    def check(self) -> dict[str, int]:
        """The number of images of each split; a test set without labels is left out. Raises UserError."""
        counts = {split: len(self.open(split)) for split in ("train", "val")}
        if "test" in self.data:
            try:
                counts["test"] = len(self.open("test"))
            except UserError:
                del self.data["test"]
        return counts

    def text(self, target: Path) -> str:
        """The YAML file that is to stand at `target`."""
        from terrazzo.config.short_form.schema import editor_line

        counts = " + ".join(f"{count} {split}" for split, count in self.counts.items())
        batch = max(2, min(8, self.counts["train"]))
        root = Path(os.path.relpath(self.root, target.absolute().parent)).as_posix()
        lines = [
            editor_line(),
            f"# Proposed by `terrazzo data init` for {self.root.name}: {counts} images. What each line says was found;",
            "# look it over, then: terrazzo data browse, terrazzo train.",
            entry("recipe", self.values["recipe"], "`terrazzo recipe list` shows the others"),
            "data:",
            entry("root", root, "relative to this file", 2),
        ]
        lines += [entry(key, self.data[key], self.reasons.get(key, ""), 2) for key in KEYS if key in self.data]
        scale = [key for key in ("crop", "mean", "std") if key in self.values]
        lines += [entry(key, self.values[key], self.reasons.get(key, "")) for key in scale]
        lines += [entry("batch", batch, "images at a time, on each device"), entry("iterations", 20000, "or `epochs:`")]
        return "\n".join(lines) + "\n"


def without_classes(data: Mapping[str, Any], unseen: Sequence[int]) -> dict[str, Any]:
    """The entries without some classes, whose pixels are ignored where they occur after all."""
    classes, label_format = data["classes"], data.get("label_format")
    kept = [index for index in range(len(classes)) if index not in unseen]
    new = dict(data) | {"classes": [classes[index] for index in kept]}
    if "palette" in data:
        new["palette"] = [data["palette"][index] for index in kept]
    if label_format is None:
        place = {index: kept.index(index) if index in kept else IGNORED for index in range(len(classes))}
        before = data.get("label_map") or {index: index for index in range(len(classes))}
        changed = {value: place[index] for value, index in before.items() if place[index] != value}
        return new | ({"label_map": changed} if changed else {})
    options = dict(label_format) if isinstance(label_format, Mapping) else {"type": label_format}
    if options["type"] == "rgb" and "colours" not in options:
        options["colours"] = dict(zip(classes, data["palette"], strict=True))
    if options["type"] == "yolo":
        options["names"] = [name for name in classes if name.lower() not in BACKGROUND]
    names = [classes[index] for index in unseen if classes[index].lower() not in BACKGROUND]
    new["label_format"] = options if len(options) > 1 else options["type"]
    return new | ({"ignore": names} if names else {})


def crop_length(side: float) -> int:
    """A crop's side: at most LARGEST_CROP, a multiple of STEP where images are large enough."""
    return max(STEP, int(min(side, LARGEST_CROP)) // STEP * STEP)


def entry(key: str, value: Any, comment: str = "", indent: int = 0) -> str:
    """A line `key: value  # comment`; a long comment stands above it."""
    space = " " * indent
    plain = dict(value) if isinstance(value, Mapping) else value
    line = f"{space}{key}: {one_line_yaml(plain)}"
    if not comment:
        return line
    if len(line) + len(comment) < 110:
        return f"{line}  # {comment}"
    return f"{space}# {comment}\n{line}"
