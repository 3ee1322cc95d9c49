"""A config for a folder without a description, with comments on what was found and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.discovery.draft import Draft
from terrazzo.data.discovery.finder import find_layout
from terrazzo.data.discovery.label_facts import label_facts
from terrazzo.data.discovery.layouts import section_pairs
from terrazzo.data.discovery.leftovers import with_labelled_validation
from terrazzo.data.discovery.length import epochs_text, proposed_steps
from terrazzo.data.discovery.scenes import stored_bands
from terrazzo.data.discovery.volumes import volume_facts
from terrazzo.data.pairs import PairingError
from terrazzo.data.statistics import survey
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError, some
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.terminal import Console
from terrazzo.transforms.decode import TIFF_SUFFIXES, has_fourth_band, read_size, read_stored
from terrazzo.transforms.formats.base import BACKGROUND, IGNORED
from terrazzo.transforms.planes import plane_of

LARGEST_CROP = 512
STEP = 32  # networks halve their maps up to five times
MOST_SURVEYED = 2000  # images, or windows, whose mean and deviation are computed
WIDEST = 1.5  # factor by which windows of scenes are scaled, up and down
TEMPERATURE = 0.5  # of rare-class sampling: a class of half of the pixels is drawn 0.4 times as often as a rare one
SAMPLE = 200  # images whose sizes are read


class Proposal(Draft):
    """The short form of a folder's data, with the reason for each entry."""

    def __init__(self, root: Path, recipe: str, console: Console | None = None) -> None:
        super().__init__(root.resolve())
        self.console = console
        layout = with_labelled_validation(find_layout(self.root))
        if "train" not in layout.splits:
            raise UserError(f"{root} has no training images: {layout.found}, of the split {', '.join(layout.splits)}")
        self.splits, self.notes = tuple(layout.splits), layout.notes
        self.reasons["images"] = layout.found
        self.data = layout.entries()
        if layout.windows is not None:
            self.reasons["windows"] = (
                "height x width in pixels: scenes are read in windows, random in training, on a grid in validation"
            )
        if layout.has_holdout and layout.windows is not None:
            self.reasons["val"] = "the share held out for validation: blocks of the ground, with a margin around them"
        elif layout.has_holdout:
            self.reasons["val"] = (
                "the share held out for validation, drawn by name, as no folder or list assigns images to it"
            )
        if layout.unlabelled:
            other = "`skip`, or `error`" if layout.unlabelled == "background" else "`error`"
            self.reasons["unlabelled"] = f"{layout.unlabelled_count} images have no label; or {other}"
        if layout.has_volumes:
            facts = volume_facts(layout, console)
            self.data["cache"] = "disk"
            self.reasons["cache"] = "slices are kept once they are read, as a volume is compressed as a whole"
        else:
            facts = label_facts(self.root, layout.described_sections(), console)
        self.data |= facts.entries
        self.notes = (*self.notes, *facts.notes)
        self.reasons |= {key: reason for key, reason in facts.reasons.items() if reason}
        self.set("recipe", recipe, "`terrazzo recipe list` shows the others")
        if layout.windows is not None and (found := stored_bands(section_pairs(layout.section("train"))[0][0])):
            self.name_bands(*found)
        if layout.windows is not None:
            self.leave_out_unusable_scenes()
        self.remove_unseen_classes()
        self.add_image_facts()
        self.counts = {split: len(self.open(split)) for split in self.splits}

    def leave_out_unusable_scenes(self) -> None:
        """Exclude scenes that lie elsewhere than the labels, have other bands than the first one, or no data."""
        try:
            self.open("train")
        except PairingError as problem:
            excluded = self.data.get("exclude", [])
            new = [path.relative_to(self.root).as_posix() for path in problem.files]
            if not set(new) - set(excluded):
                raise
            self.data["exclude"] = [*excluded, *new]
            self.notes = (*self.notes, f"left out: {problem}")
            self.leave_out_unusable_scenes()  # of another kind

    def remove_unseen_classes(self) -> None:
        """Remove classes that no training label shows, as nothing could learn them."""
        train = self.open("train")
        counts = np.zeros(len(self.data["classes"]), np.int64)
        paths = list(dict.fromkeys(path for _, path in train.pairs if path is not None))
        for found in in_threads(train.check_label, paths, "counting pixels", self.console):
            counts += found
        unseen = [index for index, count in enumerate(counts.tolist()) if not count]
        if len(unseen) >= len(counts) - 1:
            shown = [name for index, name in enumerate(self.data["classes"]) if index not in unseen]
            raise UserError(
                f"the training labels in {train.folders.labels if train.folders else self.root} show "
                f"{some(shown) or 'no class'} alone, of the classes {some(self.data['classes'], 8)}: there is nothing "
                "to learn; add labels that show another one, or correct the names"
            )
        if unseen:
            names = some((self.data["classes"][index] for index in unseen), 8)
            few = len(unseen) < 30
            reason = f"no training pixel: {names}" if few else f"{len(unseen)} numbers without a pixel omitted"
            self.data = without_classes(self.data, unseen)
            self.reasons["classes"] = f"{self.reasons.get('classes', '')}; {reason}"

    def add_image_facts(self) -> None:
        """Add the crop by the sizes of images, and bands, mean and std of images other than 8-bit RGB or grey."""
        train = self.open("train")
        paths = [image for image, _ in train.pairs]
        if train.scenes is not None:
            self.add_scene_facts(train)
            return

        # the crop
        step = ceil_div(len(paths), SAMPLE)
        sizes = Counter(read_size(path) for path in paths[::step])
        heights, widths = zip(*sizes.elements(), strict=True)
        self.values["crop"] = "x".join(str(crop_length(float(np.median(side)))) for side in (heights, widths))
        (height, width), count = sizes.most_common(1)[0]
        kinds = "all" if len(sizes) == 1 else f"{count} of {sizes.total()}"
        self.reasons["crop"] = f"height x width; {kinds} images are {height}x{width}"
        if len(sizes) > 1:
            self.reasons["crop"] += f", from {min(heights)}x{min(widths)} to {max(heights)}x{max(widths)}"

        # bands and their scale
        is_plane = plane_of(paths[0]) is not None
        if is_plane or paths[0].suffix.lower() in (".npy", ".png", *TIFF_SUFFIXES):
            image = read_stored(paths[0])
            is_picture = image.dtype == np.uint8 and image.shape[2] in (1, 3, 4)
            if not is_picture or (not is_plane and has_fourth_band(paths[0])):
                self.name_bands(str(image.dtype), image.shape[2])
                self.add_scale()

    def add_scene_facts(self, train: Any) -> None:
        """Add crop, scales and sampling for the windows of scenes, and their bands."""
        side = self.data["windows"]
        self.values |= {"crop": crop_length(side / WIDEST), "ratio_range": [round(1 / WIDEST, 2), WIDEST]}
        self.values["rare_class_sampling"] = TEMPERATURE
        self.reasons["crop"] = "height x width, cut out of a window that is scaled by a random factor (ratio_range)"
        self.reasons["ratio_range"] = "narrower than the usual one: the pixels of scenes have a size on the ground"
        self.reasons["rare_class_sampling"] = "windows with rare classes are drawn more often; lower is stronger"
        if "bands" in self.data:
            self.add_scale()

    def name_bands(self, kind: str, count: int) -> None:
        """Add the bands of images that are no pictures."""
        self.data["bands"] = list(range(1, count + 1))
        self.reasons["bands"] = f"{kind}, {count} bands, numbered from 1; name those to use"

    def add_scale(self) -> None:
        """Add mean and std of the bands."""
        found = survey(self.open("train"), "train", self.console, MOST_SURVEYED)
        for key, numbers in (("mean", found.mean), ("std", found.std)):
            self.values[key] = [float(f"{number:.5g}") for number in numbers]
        self.reasons["mean"] = "of the training images, as `terrazzo data stats` computes them"

    def with_length(self) -> Proposal:
        """The proposal with a batch and the length of training that suits the number of images."""
        images = self.counts["train"]
        batch = max(2, min(8, images))
        steps = proposed_steps(images, batch)
        self.set("batch", batch, "images per step on each device")
        self.set("iterations", steps, epochs_text(images, batch, steps))
        return self

    def introduction(self, command: str) -> list[str]:
        """The first comments of the file, which say what it is."""
        counts = " + ".join(f"{count} {split}" for split, count in self.counts.items())
        what = "windows" if "windows" in self.data else "images"
        return [
            f"Proposed by `terrazzo {command}` for {self.root.name}: {counts} {what}. Review what was found, then:",
            "terrazzo data browse, terrazzo train.",
        ]


def without_classes(data: Mapping[str, Any], unseen: Sequence[int]) -> dict[str, Any]:
    """The entries without some classes, whose pixels are ignored wherever they occur."""
    classes, label_format = data["classes"], data.get("label_format")
    kept = [index for index in range(len(classes)) if index not in unseen]
    new = dict(data) | {"classes": [classes[index] for index in kept]}
    if "palette" in data:
        new["palette"] = [data["palette"][index] for index in kept]
    if label_format is None:
        moved = {index: kept.index(index) if index in kept else IGNORED for index in range(len(classes))}
        before = data.get("label_map") or {index: index for index in range(len(classes))}
        changed = {value: moved[index] for value, index in before.items() if moved[index] != value}
        return new | ({"label_map": changed} if changed else {})
    options = dict(label_format) if isinstance(label_format, Mapping) else {"type": label_format}
    if options["type"] == "rgb" and not isinstance(options.get("colours"), (str, Mapping)):
        options["colours"] = dict(zip(classes, options.get("colours") or data["palette"], strict=True))
    if options["type"] == "yolo":
        options["names"] = [name for name in classes if name.lower() not in BACKGROUND]
    names = [classes[index] for index in unseen if classes[index].lower() not in BACKGROUND]
    new["label_format"] = options if len(options) > 1 else options["type"]
    return new | ({"ignore": names} if names else {})


def crop_length(side: float) -> int:
    """The side of a crop: at most LARGEST_CROP, and a multiple of STEP."""
    return max(STEP, int(min(side, LARGEST_CROP)) // STEP * STEP)
