"""Every file of every split, read once: what the findings are made from."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from terrazzo.data.build import agree_on_classes
from terrazzo.data.checks.cache import Facts, Key, Stamp, recall, remember, stamp
from terrazzo.data.checks.facts import ImageFacts, LabelFacts, image_facts, stored_label_facts, value_counts
from terrazzo.data.checks.finding import Finding
from terrazzo.data.dataset import SegmentationDataset, build_dataset, leaves
from terrazzo.data.pairs import PairingError
from terrazzo.data.wrappers import WRAPPERS
from terrazzo.errors import UserError
from terrazzo.transforms.decode import map_label
from terrazzo.transforms.loading import LoadAnnotations, LoadImageFromFile

MAPPING = ("reduce_zero_label", "label_map", "ignore")  # what turns stored values into classes
MOST_EXCLUDED = 100  # files that a repair leaves out; more are not a few bad ones
AT_ONCE = 256  # files read between two writes to the cache


@dataclass
class Entry:
    """An image with its label, and what is known of them; None: not looked at."""

    image: Path
    label: Path | None
    seen: ImageFacts | None = None
    marked: LabelFacts | None = None


@dataclass
class Part:
    """A data set on disk, at its place in the config."""

    where: str
    dataset: SegmentationDataset
    entries: list[Entry]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; empty where nothing says how many there are."""
        return self.dataset.classes

    def mapping(self) -> dict[str, Any]:
        """`reduce_zero_label`, `label_map` and `ignore` as the pipeline applies them."""
        step = label_step(self.dataset)
        own = {key: getattr(step, key, None) for key in MAPPING}
        return {key: getattr(self.dataset, key) if value is None else value for key, value in own.items()}

    def place_of(self, key: str) -> str:
        """Where a setting of the mapping stands below the data set: in it, or in the step that has its own value."""
        steps = self.dataset.pipeline.transforms
        if getattr(label_step(self.dataset), key, None) is None:
            return key
        return f"pipeline.{steps.index(label_step(self.dataset))}.{key}"

    def mapped(self, values: Sequence[int]) -> list[int]:
        """The classes that stored label values stand for."""
        if not values:
            return []
        mapping = self.mapping()
        array = np.array([values], np.uint8 if max(values) <= 255 else np.int32)
        ignore = mapping["ignore"] or ()
        return map_label(array, bool(mapping["reduce_zero_label"]), mapping["label_map"], ignore)[0].tolist()

    def classes_of(self, label: LabelFacts) -> Counter[int]:
        """Pixels of a label by class (255: ignored)."""
        counts: Counter[int] = Counter()
        for value, mapped in zip(label.counts, self.mapped(list(label.counts)), strict=True):
            counts[mapped] += label.counts[value]
        return counts

    def without(self, files: Iterable[Path]) -> dict[str, Any]:
        """The change of the config that leaves out files; none where there are too many, or nothing would be left."""
        files = list(files)
        if not files or len(files) > MOST_EXCLUDED or {entry.image for entry in self.entries} <= set(files):
            return {}
        names = [name_below(self.dataset.root, path) for path in files]
        return {"exclude": list(dict.fromkeys([*self.dataset.exclude, *names]))}


@dataclass
class Split:
    """Training, validation or test data, of one or several parts."""

    name: str
    parts: list[Part] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # on files that do not come together

    @property
    def entries(self) -> list[Entry]:
        return [entry for part in self.parts for entry in part.entries]


def name_below(root: Path, path: Path) -> str:
    """A file's path below a folder, as `exclude` takes it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def open_split(name: str, spec: Mapping[str, Any], num_classes: int | None, where: str, opened: Any = None) -> Split:
    """The parts of a split with their files, none of them read; `opened` is its data set where there is one already.

    Raises UserError for mistakes in the config itself.
    """
    split = Split(name)
    known = iter(leaves(opened) if opened is not None else ())
    for place, leaf in leaf_specs(spec, where):
        dataset = next(known, None)
        part = open_part(split, leaf, place) if dataset is None else part_of(dataset, place)
        if part is not None:
            if num_classes is not None:
                agree_on_classes(part.dataset, num_classes, where)
            split.parts.append(part)
            report_unused_labels(split, part)
    return split


def leaf_specs(spec: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The data sets on disk inside any wrappers, with their places in the config."""
    if str(spec.get("type", "")).rpartition(".")[2] not in WRAPPERS:
        yield where, spec
        return
    if "dataset" in spec:
        yield from leaf_specs(spec["dataset"], f"{where}.dataset")
    for index, part in enumerate(spec.get("datasets", ())):
        yield from leaf_specs(part, f"{where}.datasets.{index}")


def open_part(split: Split, spec: Mapping[str, Any], where: str) -> Part | None:
    """A data set without the images that have no label; these, and a folder that is empty, become findings."""
    root = Path(spec.get("data_root", ""))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no image of the same name")
        try:
            dataset = build_dataset(dict(spec), where)
        except PairingError as problem:
            names = [name_below(root, path) for path in problem.files]
            excluded = [*spec.get("exclude", ()), *names]
            part = None
            if problem.files:
                quiet = Split(split.name)
                part = open_part(quiet, {**spec, "exclude": excluded}, where)
            changes = {"exclude": excluded} if part is not None and len(names) <= MOST_EXCLUDED else {}
            split.findings.append(
                Finding(
                    problem.kind,
                    "error",
                    split.name,
                    str(problem),
                    "correct the folders and names in the config, or add the files",
                    files=problem.files,
                    where=where,
                    changes=changes,
                )
            )
            return part
    return part_of(dataset, where)


def part_of(dataset: SegmentationDataset, where: str) -> Part:
    """An opened data set, none of its files read."""
    return Part(where, dataset, [Entry(image, label) for image, label in dataset.pairs])


def report_unused_labels(split: Split, part: Part) -> None:
    """A finding on labels that belong to no image."""
    dataset = part.dataset
    unused = dataset.folders.unused_labels(dataset.exclude) if dataset.folders is not None else []
    if unused and dataset.folders is not None:
        listed = ", ".join(path.name for path in unused[:5])
        split.findings.append(
            Finding(
                "unpaired",
                "error",
                split.name,
                f"{len(unused)} labels in {dataset.folders.labels} have no image of the same name: {listed}; add the "
                "images, or take the labels away",
                files=tuple(unused),
                where=part.where,
                changes=part.without(unused),
            )
        )


# Reading


def label_step(dataset: SegmentationDataset) -> Any:
    """The step of the pipeline that reads labels."""
    steps = [step for step in dataset.pipeline.transforms if type(step).__name__.startswith("Load")]
    return next((step for step in steps if is_label_step(step)), None) or LoadAnnotations()


def is_label_step(step: Any) -> bool:
    name = type(step).__name__
    return "Annotation" in name and "Depth" not in name


def image_steps(dataset: SegmentationDataset) -> list[Any]:
    """The steps of the pipeline that read images."""
    steps = [step for step in dataset.pipeline.transforms if type(step).__name__.startswith(("Load", "Inferencer"))]
    return [step for step in steps if "Annotation" not in type(step).__name__] or [LoadImageFromFile()]


def read_image_facts(dataset: SegmentationDataset, index: int) -> ImageFacts:
    sample, rng = dataset.start(index), np.random.default_rng(0)
    for step in image_steps(dataset):
        sample = step(sample, rng)
    assert sample.image is not None
    return image_facts(sample.image, sample.meta.get("layout", "HWC"))


def read_label_facts(dataset: SegmentationDataset, index: int) -> LabelFacts:
    sample, step = dataset.start(index), label_step(dataset)
    assert sample.label_path is not None
    if type(step) is LoadAnnotations and dataset.label_format is not None:
        label = step.read(sample)
        return LabelFacts(label.shape, value_counts(label))
    if type(step) is LoadAnnotations:
        return stored_label_facts(sample.label_path, step.imdecode_backend)
    sample.meta = {key: value for key, value in sample.meta.items() if key not in MAPPING}
    label = step(sample, np.random.default_rng(0)).label
    return LabelFacts(label.shape, value_counts(label))


@dataclass(frozen=True)
class Task:
    """A file to read, for one or several entries."""

    read: Callable[[SegmentationDataset, int], Facts]
    dataset: SegmentationDataset
    index: int

    def run(self, key: Key) -> tuple[Stamp | None, Facts]:
        stamped = stamp(key[0])
        try:
            return stamped, self.read(self.dataset, self.index)
        except (UserError, OSError, ValueError) as problem:
            kind = ImageFacts if self.read is read_image_facts else LabelFacts
            return stamped, kind(error=str(problem))


def read_all(splits: Sequence[Split], *, images: bool = True, console: Console | None = None) -> None:
    """Read the files of all entries, but for those that have not changed since they were last read."""
    tasks: dict[Key, Task] = {}
    uses: list[tuple[Entry, Key | None, Key | None]] = []
    for part in (part for split in splits for part in split.parts):
        look, mark = f"{image_steps(part.dataset)}", f"label: {label_reader(part.dataset)}"
        for index, entry in enumerate(part.entries):
            image_key = (entry.image, look) if images else None
            label_key = (entry.label, mark) if entry.label is not None else None
            if image_key is not None:
                tasks.setdefault(image_key, Task(read_image_facts, part.dataset, index))
            if label_key is not None:
                tasks.setdefault(label_key, Task(read_label_facts, part.dataset, index))
            uses.append((entry, image_key, label_key))
    known = recall(list(tasks))
    known |= run_tasks({key: task for key, task in tasks.items() if key not in known}, console)
    for entry, image_key, label_key in uses:
        if image_key is not None:
            entry.seen = known[image_key]  # type: ignore[assignment]
        if label_key is not None:
            entry.marked = known[label_key]  # type: ignore[assignment]


def label_reader(dataset: SegmentationDataset) -> str:
    """What reads labels, whatever it maps them to: the cache keeps stored values."""
    step, form = label_step(dataset), dataset.label_format
    if type(step) is not LoadAnnotations:
        return repr(step)
    if form is None or form.is_index:  # labels inside an index file are no files, and so never in the cache
        return f"LoadAnnotations({step.imdecode_backend})"
    return f"{type(form).__name__}({vars(form)})"


def run_tasks(tasks: Mapping[Key, Task], console: Console | None) -> dict[Key, Facts]:
    """Read files in several threads (decoders and hashes run outside of Python's lock), some at a time."""
    found: dict[Key, Facts] = {}
    keys = list(tasks)
    pool = ThreadPoolExecutor(os.cpu_count())

    def in_turn() -> Iterator[None]:
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            read = {}
            for key, result in zip(some, pool.map(lambda key: tasks[key].run(key), some), strict=True):
                read[key] = result
                yield
            remember(read)
            found.update({key: facts for key, (_, facts) in read.items()})

    bar = track(
        in_turn(),
        "checking files",
        total=len(keys),
        console=console,
        transient=True,
        disable=console is None or not console.is_terminal,
    )
    try:
        for _ in bar:
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return found
