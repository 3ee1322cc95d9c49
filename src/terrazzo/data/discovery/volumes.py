"""NIfTI volumes and their labels in a folder: nnU-Net's layout, and any with a folder of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from terrazzo.data.discovery.files import FileTree, place_of, split_word
from terrazzo.data.discovery.layouts import FolderLayout, section_pairs
from terrazzo.data.discovery.splits import Location, combine
from terrazzo.data.discovery.value_facts import LabelFacts
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError
from terrazzo.system.terminal import Console
from terrazzo.system.text import read_json
from terrazzo.transforms.labels import IGNORED
from terrazzo.transforms.planes import MODALITY, NIFTI_SUFFIXES, is_nifti, read_values

DESCRIPTION = "dataset.json"  # of nnU-Net and of the Decathlon


def volumes_and_labels(tree: FileTree) -> FolderLayout | None:
    """Volumes in folders of images and of labels, by the words in the folders' names."""
    volumes = {
        folder: found
        for folder, paths in tree.folders.items()
        if (found := [path for path in paths if is_nifti(Path(path.name))])
    }
    kinds = {folder: place_of(folder).role.kind for folder in volumes}
    images = {folder: paths for folder, paths in volumes.items() if kinds[folder] == "image"}
    locations = []
    for folder in images:
        word = split_word(folder.parts)
        alike = [other for other in volumes if kinds[other] == "label" and split_word(other.parts) == word]
        if alike:
            locations.append(Location(folder, min(alike, key=lambda other: distance(folder, other)), word))
    if not locations:
        return None
    image_pattern, label_pattern, splits = combine(locations, tree, images)
    suffixes = [suffix_of(path) for location in locations for path in images[location.images]]
    image_suffix = min(suffixes, key=lambda suffix: (not suffix.startswith("_0000"), suffix))
    endings: Counter[str] = Counter()  # of labels, after the name of an image
    for location in locations:
        names = [path.name for path in images[location.images] if path.name.endswith(image_suffix)]
        cores = [name.removesuffix(image_suffix) for name in names]
        endings.update(
            path.name.removeprefix(core)
            for path in volumes[location.labels]
            for core in cores
            if path.name.startswith(core) and not path.name[len(core)].isalnum()
        )
    if not endings:
        return None
    ((label_suffix, _),) = endings.most_common(1)
    return FolderLayout(
        tree.root,
        image_pattern,
        label_pattern,
        splits,
        image_suffix=image_suffix,
        label_suffix=label_suffix,
        has_volumes=True,
        found=f"{suffixes.count(image_suffix)} NIfTI volumes; each slice is an image",
    )


def distance(folder: PurePosixPath, other: PurePosixPath) -> int:
    """The number of steps from one folder to another."""
    common = sum(one == two for one, two in zip(folder.parts, other.parts, strict=False))
    return len(folder.parts) + len(other.parts) - 2 * common


def suffix_of(path: PurePosixPath) -> str:
    """The end of a volume's name: nnU-Net's number of its channel, and the suffix."""
    channel = MODALITY.search(path.name)
    return channel[0] if channel else next(end for end in reversed(NIFTI_SUFFIXES) if path.name.lower().endswith(end))


def volume_facts(layout: FolderLayout, console: Console | None = None) -> LabelFacts:
    """The classes of volumes: those that a dataset.json names, or those that the labels show."""
    facts, described = LabelFacts(), layout.root / DESCRIPTION
    if described.is_file():
        values = described_classes(described)
        reason = f"from {DESCRIPTION}"
        facts.named_in = described
    else:
        pairs = [pair for section in layout.described_sections() for pair in section_pairs(section)]
        labels = [label for _, label in pairs if label is not None]
        found: set[int] = set()
        for shown in in_threads(values_in, labels, "reading labels", console):
            found |= shown
        names = {value: "background" if value == 0 else f"class_{value}" for value in sorted(found)}
        values, reason = names, f"the values in {len(labels)} volumes; rename them"
    ignored = [value for value, name in values.items() if name.lower() == "ignore"]
    kept = [value for value in sorted(values) if value not in ignored]
    facts.add("classes", [values[value] for value in kept], reason)
    moved = {value: index for index, value in enumerate(kept) if value != index}
    if moved:
        facts.add("label_map", moved, "the values have gaps")
    if ignored:
        facts.add("ignore", ignored, "the value called ignore")
    return facts


def described_classes(path: Path) -> dict[int, str]:
    """The name of each label value in a dataset.json of nnU-Net (names to values) or the Decathlon (the reverse)."""
    content = read_json(path)
    labels = content.get("labels") if isinstance(content, Mapping) else None
    try:
        pairs = [(str(name), value) for name, value in labels.items()]  # type: ignore[union-attr]
        if all(name.isdecimal() for name, _ in pairs):
            return {int(value): str(name) for value, name in pairs}
        return {int(value): name for name, value in pairs}
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{path}: `labels` gives each class one value, such as {{background: 0, tumour: 1}}; regions of several "
            "values are not classes of their own: name the values that labels hold"
        ) from None


def values_in(path: Path) -> set[int]:
    """The values in a volume of labels."""
    values = np.unique(np.rint(read_values(path, path.stat().st_mtime_ns)).astype(np.int64))
    return {int(value) for value in values if value != IGNORED}
