"""A plan on disk, and the results of the run that follows it."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import evaluate
from terrazzo.system.devices import choose_device
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.terminal import Console
from terrazzo.training.monitoring.log import as_text, class_table, summary
from terrazzo.training.planning.plan import make_plan
from terrazzo.training.speed import rounded

DRAWS = 1000  # resampled test sets, for the intervals


def write_plan(source: Path, target: Path, budget: float, device: str | None = None) -> str:
    """Plan for the data of a folder or config and a budget in seconds; write the config to `target` and return it.

    Groups of images go to a table beside it.
    """
    draft, groups = make_plan(source, budget, device, Console(stderr=True))
    place = choose_device(device).type
    introduction = [
        f"Planned by `terrazzo plan` for {draft.root.name}: {rounded(budget)} on {place}, with the reason for each "
        "choice. Review it, then:",
        "terrazzo data browse, terrazzo train.",
    ]
    make_folder(target.parent)
    if groups:
        table = target.with_name(f"{target.stem}-groups.csv").absolute()
        draft.data["groups"] = Path(os.path.relpath(table, draft.root)).as_posix()
        rows = io.StringIO()
        csv.writer(rows, lineterminator="\n").writerows([("image", "group"), *groups])
        write_whole(table, rows.getvalue())
    text = draft.text(target, introduction)
    write_whole(target, text)
    return text


def count_folds(source: str | Path, overrides: dict[str, Any]) -> int:
    """The number of folds of a config. Raises UserError for one without any."""
    data = load_config(source, overrides, upgrade=False).get("data")
    found = data.get("folds") if isinstance(data, Mapping) else None
    if not isinstance(found, int):
        raise UserError(f"--fold all: {source} has no folds: set `data: {{folds: 5}}`, in the short form")
    return found


def score_folds(
    source: str | Path, folders: Sequence[Path], overrides: dict[str, Any], device: str | None = None
) -> str:
    """The scores of the ensemble of all folds on the config's test images; without any, the command that scores it."""
    data = load_config(source, overrides, upgrade=False)["data"]
    if not data.get("test"):
        names = [shlex.quote(str(folder)) for folder in folders]
        command = f"terrazzo test {shlex.quote(str(source))} {names[0]} --ensemble {' '.join(names[1:])}"
        return (
            "an ensemble of the folds is scored on images that none of them has seen, which `data.test` names; or: "
            f"{command} --data-root D"
        )
    result = evaluate(source, folders, overrides=overrides, device=device, bootstrap=DRAWS)
    title = f"ensemble of {len(folders)} folds on {data['test']}: {summary(result)}"
    return f"{as_text(class_table(result)).rstrip()}\n{title}  (95% intervals of {DRAWS} resampled sets of images)"


def score_run(folder: Path, device: str | None = None) -> str:
    """The scores of a finished run with 95 % intervals, where its report is, and the command that exports it."""
    result = evaluate(folder, folder, device=device, bootstrap=DRAWS)
    name = shlex.quote(str(folder))
    lines = [
        as_text(class_table(result)).rstrip(),
        f"{summary(result)}  (95% intervals of {DRAWS} resampled sets of images)",
        f"report: {folder / 'report.html'}",
        f"next: terrazzo export {name} --out {shlex.quote(f'{folder.name}.onnx')}",
    ]
    return "\n".join(lines)
