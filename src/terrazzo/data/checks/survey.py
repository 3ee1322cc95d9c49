"""Every file of every split, read once: the facts behind the findings."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from terrazzo.config.datasets import DataTree, FolderData, folders
from terrazzo.data.build import agree_on_classes, open_folder
from terrazzo.data.checks.facts import (
    Facts,
    ImageFacts,
    Key,
    LabelFacts,
    Stamp,
    image_facts,
    recall,
    remember,
    stamp,
    stored_label_facts,
)
from terrazzo.data.checks.finding import ABOUT_LABELS, Finding
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.pairs import PairingError, suffixes
from terrazzo.errors import UserError
from terrazzo.system.failures import told
from terrazzo.system.terminal import Console
from terrazzo.system.text import readable_name
from terrazzo.transforms.base import is_ours
from terrazzo.transforms.labels import LabelMapping, value_counts
from terrazzo.transforms.loading import LoadAnnotations, LoadImageFromFile
from terrazzo.transforms.parts import file_of
from terrazzo.transforms.reading import unbound

MOST_EXCLUDED = 100  # files that a repair skips; more are not a few bad ones
AT_ONCE = 256  # files read between two writes to the cache


@dataclass
class Entry:
    """An image with its label, and the facts of both, which are empty until they are read."""

    image: Path
    label: Path | None
    seen: ImageFacts = field(default_factory=ImageFacts)
    marked: LabelFacts = field(default_factory=LabelFacts)


@dataclass
class DatasetSurvey:
    """A data set on disk with its files, as a part of a split."""

    split: str
    dataset: SegmentationDataset
    entries: list[Entry]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; empty where nothing sets how many there are."""
        return self.dataset.classes

    @property
    def mapping(self) -> LabelMapping:
        """The mapping of label values as the pipeline applies it."""
        return self.dataset.mapping

    def key_of(self, setting: str) -> str:
        """Return the key of a setting of the mapping: in the data set, or in the step that has its own value."""
        steps, wanted = self.dataset.pipeline.as_written(), self.dataset.pipeline.reader("label")
        index = next((index for index, step in enumerate(steps) if step is wanted), None)
        has_own = getattr(unbound(wanted), setting, None) is not None
        return setting if index is None or not has_own else f"pipeline.{index}.{setting}"

    def classes_of(self, label: LabelFacts) -> Counter[int]:
        """Count the pixels of a label by class (255: ignored)."""
        counts: Counter[int] = Counter()
        for value, mapped in zip(label.counts, self.mapping.classes_of(list(label.counts)), strict=True):
            counts[mapped] += label.counts[value]
        return counts

    def without(self, files: Iterable[Path]) -> dict[str, Any]:
        """Return the change of the config that skips files; none where they are too many, or nothing would remain."""
        files = list(files)
        if not files or len(files) > MOST_EXCLUDED or {entry.image for entry in self.entries} <= set(files):
            return {}
        return excluding(self.dataset.data, files)

    def finding(self, kind: str, message: str, *, files: Iterable[Path | None] = (), **more: Any) -> Finding:
        """Return a finding on some files of the data set: on stored labels, a user's own steps may make it right."""
        named = tuple(path for path in files if path is not None)
        if kind in ABOUT_LABELS and (own := self.dataset.label_changes):
            more |= {"is_advice": True, "changes": {}}
            message += f". So they are stored: {', '.join(own)}, of the project's own, may change that"
        return Finding(kind, self.split, message, files=named, where=self.dataset.data.where, **more)


@dataclass
class SplitSurvey:
    """Training, validation or test data, from one or several data sets."""

    name: str
    parts: list[DatasetSurvey] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # on images and labels that do not belong together

    @classmethod
    def of(cls, name: str, datasets: Iterable[SegmentationDataset]) -> SplitSurvey:
        """Return the survey of data sets before any file is read."""
        different = dict.fromkeys(datasets)
        return cls(name, [DatasetSurvey(name, one, [Entry(*pair) for pair in one.pairs]) for one in different])

    @property
    def entries(self) -> list[Entry]:
        return [entry for part in self.parts for entry in part.entries]


def excluding(data: FolderData, files: Iterable[Path]) -> dict[str, Any]:
    """The change of a data section that skips files, named by their paths below its root."""
    root = Path(data.data_root)
    named = map(file_of, files) if data.windows is not None else files  # windows are drawn anew in every epoch
    below = [path.relative_to(root) if path.is_relative_to(root) else path for path in named]
    names = [readable_name(path.as_posix()) for path in below]
    return {"exclude": list(dict.fromkeys([*suffixes(data.exclude), *names]))}


def open_split(name: str, tree: DataTree, num_classes: int | None, classes: Sequence[str] = ()) -> SplitSurvey:
    """Open the data sets of a split, reading no file. Raises UserError for mistakes in the config itself."""
    opened: list[SegmentationDataset] = []
    findings: list[Finding] = []
    for data in folders(tree):
        dataset = open_paired(name, data, findings)
        if dataset is not None:
            if num_classes is not None:
                agree_on_classes(dataset, num_classes, f"{name}_dataloader", classes)
            opened.append(dataset)
    return split_of(name, opened, findings)


def split_of(name: str, datasets: Iterable[SegmentationDataset], findings: Iterable[Finding] = ()) -> SplitSurvey:
    """Return the survey of data sets that are open, with findings on labels that belong to no image."""
    split = SplitSurvey.of(name, datasets)
    split.findings += findings
    for part in split.parts:
        pairing = part.dataset.folders
        unused = pairing.unused_labels(pairing.candidates()) if pairing is not None else []
        if unused and pairing is not None:
            message = (
                f"{len(unused)} labels in {pairing.labels} have no image of the same name: "
                f"{', '.join(path.name for path in unused[:5])}; add the images, or remove the labels"
            )
            split.findings.append(part.finding("unpaired", message, files=unused, changes=part.without(unused)))
    return split


def open_paired(split: str, data: FolderData, findings: list[Finding]) -> SegmentationDataset | None:
    """Open a data set without the images that have no label; these, and a folder that is empty, become findings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no image of the same name")
        try:
            return open_folder(data)
        except PairingError as problem:
            changes = excluding(data, problem.files)
            others: list[Finding] = []  # of another kind, on the rest
            rest = open_paired(split, replace(data, **changes), others) if problem.files else None
            helps = rest is not None and len(problem.files) <= MOST_EXCLUDED
            found = Finding(
                problem.kind,
                split,
                str(problem),
                files=problem.files,
                where=data.where,
                changes=changes if helps else {},
            )
            findings += [found, *others]
            return rest


# Reading


def read_image_facts(dataset: SegmentationDataset, index: int) -> ImageFacts:
    sample = unbound(dataset.image_reader)(dataset.start(index), np.random.default_rng(0))
    reader = unbound(dataset.image_reader)
    is_picture = isinstance(reader, LoadImageFromFile) and reader.bands is None and reader.color_type == "color"
    return image_facts(sample.pixels, sample.meta.get("layout", "HWC"), sample.image_path if is_picture else None)


def read_label_facts(dataset: SegmentationDataset, index: int) -> LabelFacts:
    """Read the values of a label as they are stored."""
    sample = dataset.start(index)
    assert sample.label_path is not None
    if dataset.scenes is not None and sample.image_path is not None:
        stored, counts = dataset.scenes.label(sample.image_path)
        return LabelFacts(stored.shape, value_counts(stored[counts][None]))
    step = dataset.label_reader(sample.label_path)
    if not isinstance(step, LoadAnnotations):
        label = dataset.label_by(unbound(step), sample)
    elif dataset.label_format is not None:
        label = step.read(sample)
    else:
        return stored_label_facts(sample.label_path, step.imdecode_backend)
    return LabelFacts(label.shape, value_counts(label))


@dataclass(frozen=True)
class Task:
    """A file to read, for one or several entries; its facts are `kept` for later runs."""

    read: Callable[[SegmentationDataset, int], Facts]
    dataset: SegmentationDataset
    index: int
    kept: bool

    def run(self, key: Key) -> tuple[Stamp | None, Facts]:
        stamped = stamp(key[0])
        try:
            return stamped, self.read(self.dataset, self.index)
        except (UserError, OSError, ValueError) as problem:
            kind = ImageFacts if self.read is read_image_facts else LabelFacts
            return stamped, kind(error=told(problem))


def read_all(splits: Sequence[SplitSurvey], *, images: bool = True, console: Console | None = None) -> None:
    """Read the files of all entries, except those that have not changed since they were last read."""
    tasks: dict[Key, Task] = {}
    uses: list[tuple[Entry, str, Key]] = []
    for part in (part for split in splits for part in split.parts):
        image_step = unbound(part.dataset.image_reader)
        has_reader = part.dataset.pipeline.reader("label") is not None or not part.dataset.label_changes
        for index, entry in enumerate(part.entries):
            if images and part.dataset.scenes is None:  # which scenes are good has been seen when they were opened
                key = (entry.image, f"[{image_step}]")
                tasks.setdefault(key, Task(read_image_facts, part.dataset, index, is_ours(image_step)))
                uses.append((entry, "seen", key))
            if entry.label is not None and has_reader:
                label_step = unbound(part.dataset.label_reader(entry.label))
                key = (entry.label, f"label: {label_reading(part.dataset, label_step)}")
                tasks.setdefault(key, Task(read_label_facts, part.dataset, index, is_ours(label_step)))
                uses.append((entry, "marked", key))
    known = recall([key for key, task in tasks.items() if task.kept])
    known |= run_tasks({key: task for key, task in tasks.items() if key not in known}, console)
    for entry, name, key in uses:
        setattr(entry, name, known[key])


def label_reading(dataset: SegmentationDataset, step: Any) -> str:
    """Describe how labels are read, whatever they are mapped to: the cache keeps stored values."""
    form = dataset.label_format
    if dataset.scenes is not None:
        return dataset.scenes.key
    if not isinstance(step, LoadAnnotations):
        return repr(step)
    if form is None or form.is_index:  # labels inside an index file are not files, and so never in the cache
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
            remember({key: result for key, result in read.items() if tasks[key].kept})
            found.update({key: facts for key, (_, facts) in read.items()})

    hidden = console is None or not console.is_terminal
    try:
        for _ in track(in_turn(), "checking files", len(keys), console=console, transient=True, disable=hidden):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return found
