"""The files that a layout leaves out: images without a label, test images, and pictures that belong to neither."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from terrazzo.data.discovery.files import FileTree, split_of, split_word
from terrazzo.data.discovery.layouts import HELD_OUT, FolderLayout, format_name, section_pairs
from terrazzo.data.pairs import Pair
from terrazzo.data.spec import LABEL_SUFFIXES
from terrazzo.errors import UserError, some
from terrazzo.system.text import readable_name
from terrazzo.transforms.decode import read_size
from terrazzo.transforms.formats.base import LABEL_FORMATS

MOST_BACKGROUND = 0.95  # share of the images that may be nothing but background; beyond, names do not match
MOST_SIZES = 200  # images whose sizes are read
THUMBNAIL = 4  # times smaller, in pixels, than any image with a label
MOST_EXCLUDED = 20  # images without a label that a config names one by one


def pairs_of(layout: FolderLayout) -> dict[str, list[Pair]]:
    """The images of each split, with their labels; none where files that a list names are missing."""
    found: dict[str, list[Pair]] = {}
    for split in layout.splits:
        if split == "val" and layout.has_holdout:
            continue
        try:
            found[split] = section_pairs(layout.section(split), strict=False)
        except UserError:
            found[split] = []
    return found


def usual_meaning(layout: FolderLayout) -> str:
    """The usual meaning of an image without a label in a format: `skip`, or `background`."""
    name = format_name({"label_format": layout.label_format})
    return LABEL_FORMATS.get(name).unlabelled if name is not None else "skip"


def labelled_count(layout: FolderLayout) -> int:
    """The number of images with a label."""
    return sum(label is not None for pairs in pairs_of(layout).values() for _, label in pairs)


def with_leftovers(layout: FolderLayout, tree: FileTree) -> FolderLayout:
    """The layout with its images without a label left out, or as background, and with notes on them.

    A test split without any label, as benchmarks publish them, is dropped; one of training or validation images stays,
    for whoever opens it to report.
    """
    found = pairs_of(layout)
    if len(layout.splits) > 1 and "test" in found and not any(label for _, label in found["test"]):
        layout = replace(layout, splits={split: word for split, word in layout.splits.items() if split != "test"})
        del found["test"]

    # images of another split's folder, where the pattern of the training images covers it
    relative = {
        image: PurePosixPath(image.relative_to(layout.root).as_posix())
        for pairs in found.values()
        for image, _ in pairs
    }
    exclude = set()
    if not any(split_word_is_used(layout, split) for split in ("val", "test")):
        for image, _ in found.get("train", ()) if not is_list(layout.splits.get("train")) else ():
            folder = relative[image].parent
            if split_of(split_word(folder.parts)) in ("val", "test"):
                exclude.add(f"{folder}/*")

    # images without a label
    kept = {
        split: [(image, label) for image, label in pairs if f"{relative[image].parent}/*" not in exclude]
        for split, pairs in found.items()
    }
    labelled = {relative[image].parent for pairs in kept.values() for image, label in pairs if label is not None}
    missing = [
        relative[image]
        for pairs in kept.values()
        if any(label is not None for _, label in pairs)
        for image, label in pairs
        if label is None
    ]
    usual = usual_meaning(layout)
    all_pairs = [pair for pairs in kept.values() for pair in pairs]
    thumbnails = small_images(layout.root, missing, all_pairs) if usual == "background" else set()
    alone = [path for path in missing if path.parent in labelled and path not in thumbnails]
    folders = {f"{path.parent}/*" for path in missing if path.parent not in labelled}
    total = sum(len(pairs) for pairs in kept.values())
    unlabelled = None
    if usual == "background" and alone and len(missing) <= MOST_BACKGROUND * total:
        unlabelled = "background"
        exclude |= folders | set(map(str, thumbnails))
    elif len(missing) <= MOST_EXCLUDED:
        exclude |= {str(path) for path in missing}
    else:
        unlabelled = "skip"
    notes = []
    if unlabelled == "background":
        notes.append(f"{len(alone)} of {total} images have no label and count as background: {some(alone, 3)}")
        missing = [path for path in missing if path not in set(alone)]
    if missing:
        notes.append(f"left out: {len(missing)} of {total} images, which have no label: {some(missing, 3)}")
    if not isinstance(layout.label_format, Mapping):  # of several masks for each image, not all are named here
        notes += unused_pictures(tree, {path for pairs in kept.values() for pair in pairs for path in pair if path})
    return replace(
        layout,
        exclude=tuple(sorted(map(readable_name, exclude))),
        unlabelled=unlabelled,
        unlabelled_count=len(alone) if unlabelled == "background" else len(missing),
        notes=tuple(notes),
    )


def small_images(root: Path, missing: Sequence[PurePosixPath], pairs: Sequence[Pair]) -> set[PurePosixPath]:
    """The thumbnails among images without a label: those far smaller than any image that has one."""
    sizes = [math.prod(read_size(image)) for image, label in pairs if label is not None][:MOST_SIZES]
    some_missing = missing[:MOST_SIZES] if sizes else ()
    return {path for path in some_missing if THUMBNAIL * math.prod(read_size(root / path)) <= min(sizes)}


def with_labelled_validation(layout: FolderLayout) -> FolderLayout:
    """The layout with training images held out where no validation image has a label, as challenges publish them."""
    found = pairs_of(layout).get("val", ())
    if not found or "train" not in layout.splits or any(label is not None for _, label in found):
        return layout
    note = f"left out: the {len(found)} images of {layout.splits['val']}, none of which has a label"
    return replace(layout, splits={**layout.splits, "val": HELD_OUT}, notes=(*layout.notes, note))


def split_word_is_used(layout: FolderLayout, split: str) -> bool:
    """Report whether a split is a folder of its own."""
    return isinstance(layout.splits.get(split), str) and not is_list(layout.splits[split])


def is_list(word: str | float | None) -> bool:
    """Report whether the entry of a split names a file."""
    return isinstance(word, str) and Path(word).suffix != ""


def unused_pictures(tree: FileTree, used: Sequence[Path] | set[Path]) -> list[str]:
    """A note on the pictures of the tree that are neither an image nor a label, by folder."""
    names = {path.relative_to(tree.root).as_posix() for path in used}
    counts = Counter(
        str(folder)
        for folder, paths in tree.holding(LABEL_SUFFIXES).items()
        for path in paths
        if str(path) not in names
    )
    if not counts:
        return []
    listed = some((f"{count} in {folder}/" for folder, count in counts.most_common()), 4)
    return [f"left out: {counts.total()} pictures that belong to no label, or to no image: {listed}"]
