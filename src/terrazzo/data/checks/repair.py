"""The lines of a config that repair findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from terrazzo.config.reading.markup import one_line_yaml
from terrazzo.data.checks.finding import MOST_FILES, Finding

# the vocabulary of a config: the short form, 1.x, or 0.x
Form = Literal["short", "full", "old"]


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


def fix_text(finding: Finding, form: Form) -> str:
    """Return the line of config that repairs a finding, else other advice."""
    lines = fix_lines(finding, form)
    return "; ".join(f"{key}: {one_line_yaml(value)}" for key, value in lines.items()) or finding.advice


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
