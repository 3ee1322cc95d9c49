"""A finding of a check: one problem, its location, and the lines of a config that repair it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from terrazzo.config.reading.markup import one_line_yaml

MOST_FILES = 5  # that a finding names
Severity = Literal["error", "advice"]
Form = Literal["short", "full", "old"]  # the vocabulary of a config: the short form, 1.x, or 0.x
# kind, in the order of reports -> its severity, and the way out in words where no line of config repairs it
KINDS: dict[str, tuple[Severity, str]] = {
    "empty-split": ("error", "correct the folders and names in the config, or add the files"),
    "unpaired": ("error", "correct the folders and names in the config, or add the files"),
    "unreadable": ("error", "replace or remove the files"),
    "no-crs": ("error", "give the files a coordinate reference system: `gdal_edit.py -a_srs EPSG:... FILE`"),
    "no-overlap": ("error", "pair images and labels of the same place, or correct their coordinate reference systems"),
    "band-count": ("error", "name the bands that all scenes have in `bands`, or leave out the others"),
    "no-data": ("error", "leave it out, or correct its no-data value: `gdal_edit.py -a_nodata VALUE FILE`"),
    "size-mismatch": ("error", "make the labels again from the images as they are"),
    "rgb-mask": ("error", "name the classes' colours in `palette` and set `label_format: rgb`"),
    "jpeg-mask": ("error", "export the labels again as PNG, without compression and smoothing"),
    "binary-255": ("error", ""),
    "shifted-labels": ("error", "set reduce_zero_label (or label_map) so that the first class is 0"),
    "needless-reduce-zero-label": ("error", ""),
    "value-outside-classes": ("error", "map them with label_map, or make the labels again"),
    "all-ignored": ("error", ""),
    "mostly-ignored": ("advice", "look at reduce_zero_label, label_map and ignore, or add labels"),
    "missing-class": ("error", "add labels that show it, or remove it from the classes"),  # advice outside training
    "train-val-copy": ("error", "take the copies out of the training data"),
    "near-duplicate": ("advice", "keep all images of one place, recording or patient in one split"),
    "imbalance": ("advice", ""),
    "odd-size": ("advice", "check that they belong here"),
    "exif-orientation": (
        "advice",
        "look at them with `terrazzo data browse`; to read them unturned, give LoadImageFromFile "
        "`color_type: color_ignore_orientation`",
    ),
    "unused-band": ("advice", ""),
    "declared-no-data": ("advice", ""),
    "other-crs": ("advice", "nothing, if that is intended"),
    "partly-labelled": ("advice", "look at them with `terrazzo data browse`"),
}
# those on labels as they are stored, whatever steps of a pipeline make of them
ABOUT_LABELS = (
    "size-mismatch", "rgb-mask", "jpeg-mask", "binary-255", "shifted-labels", "needless-reduce-zero-label",
    "value-outside-classes", "all-ignored", "mostly-ignored", "missing-class", "declared-no-data",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One problem. `changes` are keys of the data set at `where` in the config, with the values that repair it.

    `files` are all files concerned; the first five of them are shown.
    """

    kind: str
    split: str
    message: str
    class_name: str | None = None
    values: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    where: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    is_advice: bool = False  # where another kind of data would make it an error

    @property
    def severity(self) -> Severity:
        """`error` for what would spoil training."""
        milder = self.is_advice or (self.kind == "missing-class" and self.split != "train")
        return "advice" if milder else KINDS[self.kind][0]

    @property
    def advice(self) -> str:
        """The way out in words."""
        return KINDS[self.kind][1]


def such_as(files: Sequence[Path]) -> str:
    """`3 files, such as a.png`, or the one file."""
    return str(files[0]) if len(files) == 1 else f"{len(files)} files, such as {files[0]}"


def percent(part: float, whole: float) -> str:
    """`12%` or `0.0031%`."""
    share = 100 * part / max(whole, 1)
    return f"{share:.0f}%" if share >= 10 else f"{share:.2g}%"


# Repair


def fix_lines(finding: Finding, form: Form) -> dict[str, Any]:
    """Dotted keys of a config with the values that repair a finding; empty where no line does."""
    lines: dict[str, Any] = {}
    for key, value in finding.changes.items():
        if key == "rare_class_sampling":
            lines |= {key: value} if form == "short" else {"train_dataloader.sampler.type": "RareClassSampler"}
        elif form == "short":
            lines[f"data.{key}"] = value
        elif key == "classes":
            return {}  # the heads would change too
        else:
            lines[f"{finding.where}.{key}"] = value
    return lines


def as_yaml(lines: Mapping[str, Any]) -> list[str]:
    """Keys with their values as lines of YAML."""
    return [f"{key}: {one_line_yaml(value)}" for key, value in lines.items()]


def fix_text(finding: Finding, form: Form) -> str:
    """Return the line of config that repairs a finding, else other advice."""
    return "; ".join(as_yaml(fix_lines(finding, form))) or finding.advice


def all_lines(findings: Iterable[Finding], form: Form) -> dict[str, Any]:
    """The lines of all findings together; lists and maps for one key are joined."""
    joined: dict[str, Any] = {}
    for finding in findings:
        for key, value in fix_lines(finding, form).items():
            old = joined.get(key)
            if isinstance(old, dict) and isinstance(value, Mapping):
                value = old | dict(value)
            elif isinstance(old, list) and isinstance(value, list) and key != "data.classes":
                value = list(dict.fromkeys([*old, *value]))
            joined[key] = value
    return joined


def as_object(finding: Finding, form: Form) -> dict[str, Any]:
    """A finding as `--json` prints it."""
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "split": finding.split,
        "class": finding.class_name,
        "values": list(finding.values),
        "files": [str(path) for path in finding.files[:MOST_FILES]],
        "message": finding.message,
        "fix": fix_text(finding, form),
    }


def as_text(finding: Finding, form: Form) -> str:
    """Return a finding as lines for people: the problem, its files, and the repair."""
    lines = [f"{finding.severity}: {finding.kind} ({finding.split}): {finding.message}"]
    lines += [f"    {path}" for path in finding.files[:MOST_FILES]]
    if len(finding.files) > MOST_FILES:
        lines.append(f"    ... and {len(finding.files) - MOST_FILES} more")
    way = fix_text(finding, form)
    return "\n".join([*lines, f"  fix: {way}"] if way else lines)


def written_form(values: Mapping[str, Any]) -> Form:
    """The form of a config as written."""
    from terrazzo.config.short_form.expand import is_short
    from terrazzo.config.v0.upgrade import is_old

    return "short" if is_short(values) else "old" if is_old(values) else "full"


def palette_too(lines: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Lines for a short form of `values` whose palette loses the colours of the removed classes."""
    data = values.get("data") or {}
    if "data.classes" not in lines or not data.get("palette"):
        return lines
    names = [str(name) for name in data["classes"]]
    return lines | {"data.palette": [data["palette"][names.index(name)] for name in lines["data.classes"]]}
