"""`terrazzo data check`."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from terrazzo.cli.common import add_config_options, overrides

MOST_OF_A_KIND = 4  # findings of one kind in a split that are printed; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a config file, a recipe name, or a folder of images and labels")
    parser.add_argument("--data-root", metavar="D", help="folder of the data, if not that of the config")
    parser.add_argument("--json", action="store_true", help="print only the findings, as JSON")
    parser.add_argument("--fix", action="store_true", help="write the lines that fix the findings into the config")
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    """Check, repair if asked to and check again. Return 1 if a finding would spoil training, else 0."""
    from terrazzo.data.checks.finding import all_lines, as_object, as_text
    from terrazzo.data.checks.summary import summary

    report, form = check(args)
    tried: dict[str, Any] = {}
    while args.fix and not (lines := all_lines(report.findings, form)).items() <= tried.items():
        fix(args, lines, form)  # fixing one error may uncover another
        tried |= lines
        report, form = check(args)
    if args.json:
        print(json.dumps([as_object(finding, form) for finding in report.findings], indent=1, ensure_ascii=False))
        return 1 if report.errors else 0
    print(summary(report.splits))
    for (kind, split), group in itertools.groupby(report.findings, key=lambda finding: (finding.kind, finding.split)):
        alike = list(group)
        for finding in alike[:MOST_OF_A_KIND]:
            print(as_text(finding, form))
        rest = alike[MOST_OF_A_KIND:]
        if rest:
            names = ", ".join(finding.class_name for finding in rest if finding.class_name)
            print(f"... and {len(rest)} more of {kind} ({split}){': ' if names else ''}{names}")
    advice = len(report.findings) - len(report.errors)
    errors = f"{len(report.errors)} error{'' if len(report.errors) == 1 else 's'}"
    print(f"{errors}, {advice} of mere advice" if report.findings else "nothing found")
    return 1 if report.errors else 0


def check(args: argparse.Namespace) -> tuple[Any, Any]:
    """The findings, and the form that the config is written in."""
    from rich.console import Console

    from terrazzo.config.experiment import make_experiment
    from terrazzo.config.load import load_config
    from terrazzo.data.checks.finding import written_form
    from terrazzo.data.checks.run import check_experiment, check_specs, folder_specs
    from terrazzo.data.discovery.data_root import locate

    console = None if args.json else Console(stderr=True)
    if Path(args.config).is_dir():
        return check_specs(folder_specs(Path(args.config)), None, console), "short"
    written = load_config(args.config, upgrade=False, trust=args.trust_config)
    config = load_config(args.config, overrides(args), trust=args.trust_config)
    experiment = make_experiment(locate(config, args.data_root))
    return check_experiment(experiment, console=console), written_form(written)


def fix(args: argparse.Namespace, lines: dict[str, Any], form: Any) -> None:
    """Write lines into the config file and report them. Raises UserError if they cannot be written."""
    from terrazzo.config.edit import edited
    from terrazzo.config.reading.files import read_config
    from terrazzo.data.checks.finding import as_yaml, palette_too
    from terrazzo.errors import UserError
    from terrazzo.system.files import write_atomically

    path = Path(args.config)
    listed = "\n  ".join(as_yaml(lines))
    if not path.is_file() or form == "old":
        what = "is in the 0.x vocabulary (see `terrazzo config upgrade`)" if form == "old" else "is not a config file"
        raise UserError(f"--fix: {args.config} {what}; give these with --cfg-options KEY=VALUE:\n  {listed}")
    if form == "short":
        lines = palette_too(lines, read_config(path))
    try:
        text = edited(path, lines)
    except UserError as problem:
        raise UserError(f"{problem}. The lines are:\n  {listed}") from None
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print("\n".join(f"set in {path}: {line}" for line in as_yaml(lines)), file=sys.stderr)
