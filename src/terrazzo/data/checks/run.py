"""The check as a whole: of a config, of a folder, and before training and testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from terrazzo.config.datasets import DataTree, data_tree, same_files
from terrazzo.config.experiment import Experiment
from terrazzo.data.build import class_count, common_classes
from terrazzo.data.checks.balance import balance_findings
from terrazzo.data.checks.files import file_findings
from terrazzo.data.checks.finding import KINDS, Finding, as_yaml
from terrazzo.data.checks.overlap import overlap_findings
from terrazzo.data.checks.scenes import scene_findings
from terrazzo.data.checks.survey import SplitSurvey, open_split, read_all, split_of
from terrazzo.data.checks.values import gather, value_findings
from terrazzo.data.discovery.finder import find_layout
from terrazzo.data.discovery.label_facts import encoded_label_facts
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError
from terrazzo.system.terminal import Console

MOST_TEXT = 300  # characters of a repair in a message


@dataclass(frozen=True)
class CheckReport:
    """The surveyed splits and all findings, errors first."""

    splits: list[SplitSurvey]
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """Findings that would spoil training."""
        return [finding for finding in self.findings if finding.severity == "error"]


def check_experiment(
    experiment: Experiment,
    num_classes: int | None = None,
    *,
    only: Sequence[str] = ("train", "val", "test"),
    opened: Mapping[str, Dataset] | None = None,
    console: Console | None = None,
) -> CheckReport:
    """Check the splits of an experiment, opening those that are not in `opened`.

    Raises UserError for mistakes in the config itself.
    """
    opened = opened or {}
    trees: dict[str, DataTree] = {}
    for name in only:
        loader = getattr(experiment, name)
        if loader is not None and not any(
            same_files(loader.dataset, tree) for tree in trees.values() if name == "test"
        ):
            trees[name] = loader.dataset
    if not trees:
        raise UserError("the config names no data: it has none of train_dataloader, val_dataloader, test_dataloader")
    count = num_classes if num_classes is not None else class_count(experiment.model)
    splits, classes = [], common_classes(experiment)
    for name, tree in trees.items():
        is_open = name in opened
        splits.append(split_of(name, opened[name].leaves()) if is_open else open_split(name, tree, count, classes))
        classes = classes or next((part.classes for part in splits[-1].parts), ())
    report = check_splits(splits, console)
    if has_class_weights(experiment.model) or (experiment.train and experiment.train.rare_classes):
        return CheckReport(report.splits, [finding for finding in report.findings if finding.kind != "imbalance"])
    return report


def has_class_weights(spec: Any) -> bool:
    """Return True if a part of a model weights classes."""
    if isinstance(spec, Mapping):
        return spec.get("class_weight") is not None or any(map(has_class_weights, spec.values()))
    return isinstance(spec, (list, tuple)) and any(map(has_class_weights, spec))


def check_specs(
    specs: Mapping[str, Mapping[str, Any]], num_classes: int | None, console: Console | None = None
) -> CheckReport:
    """Check splits by their data sections."""
    trees = {name: data_tree(spec, f"{name}_dataloader.dataset") for name, spec in specs.items()}
    return check_splits([open_split(name, tree, num_classes) for name, tree in trees.items()], console)


def check_splits(splits: list[SplitSurvey], console: Console | None = None, *, images: bool = True) -> CheckReport:
    """Read all files of the splits (without `images`, labels alone), and report the findings."""
    read_all(splits, images=images, console=console)
    found = list(findings_on(splits))
    kinds, names = list(KINDS), [split.name for split in splits]
    found.sort(key=lambda one: (one.severity != "error", names.index(one.split), kinds.index(one.kind)))
    return CheckReport(splits, found)


def findings_on(splits: Sequence[SplitSurvey]) -> Iterator[Finding]:
    in_use = {value for split in splits for part in split.parts for value in gather(part).stored}
    for split in splits:
        yield from split.findings
        yield from file_findings(split)
        yield from scene_findings(split)
        about_values = list(value_findings(split, in_use))
        yield from about_values
        if not any(finding.severity == "error" for finding in about_values):
            yield from balance_findings(split)
    named = {split.name: split for split in splits}
    for name in ("val", "test"):
        if "train" in named and name in named:
            yield from overlap_findings(named["train"], named[name])


def check_before_training(
    experiment: Experiment,
    num_classes: int,
    console: Console | None,
    say: Callable[[str], None],
    opened: Mapping[str, Dataset] | None = None,
) -> None:
    """Check training and validation data and report the findings; `opened` are the splits that are open already.

    Raises UserError with the first of the errors.
    """
    report = check_experiment(experiment, num_classes, only=("train", "val"), opened=opened, console=console)
    for finding in report.findings:
        if finding is next(iter(report.errors), None):  # which is raised
            continue
        say(f"data check, {finding.severity}: {finding.message}")
    stop_at_errors(report, " `terrazzo data check` shows more; --no-check trains all the same.")


def check_labels(dataset: Dataset, split: str, console: Console | None = None) -> None:
    """Raise UserError for the first thing that is wrong with the labels of an opened data set."""
    stop_at_errors(check_splits([SplitSurvey.of(split, dataset.leaves())], console, images=False))


def stop_at_errors(report: CheckReport, ending: str = "") -> None:
    """Raise UserError with the first of the errors and its repair, if there is one; `ending` closes the message."""
    if not report.errors:
        return
    first, *others = report.errors
    lines = "; ".join(f"`{line}`" for line in as_yaml(first.changes))
    if 0 < len(lines) < MOST_TEXT and "classes" not in first.changes:
        repair = f" Repair: {lines} in the data section."
    else:
        repair = f" {first.advice[0].upper()}{first.advice[1:]}." if first.advice else ""
    rest = f" And {len(others)} more {'finding' if len(others) == 1 else 'findings'}." if others else ""
    raise UserError(first.message.removesuffix(".") + "." + repair + rest + ending)


def folder_specs(root: Path) -> dict[str, dict[str, Any]]:
    """Dataset sections for the splits of a folder of images and labels. Raises UserError where these are not found."""
    layout = replace(find_layout(root), exclude=())  # what `data init` leaves out is a finding
    if layout.unlabelled == "skip":
        layout = replace(layout, unlabelled=None)
    facts = encoded_label_facts(root, layout.described_sections())
    classes = facts.dataset_options() if facts is not None else {}
    return {split: layout.section(split) | classes for split in layout.splits}
