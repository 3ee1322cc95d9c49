"""`terrazzo compare`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from terrazzo.cli.common import add_weights_option, picked, print_table

EXAMPLES = """\
  terrazzo compare runs/street runs/street-2       on the test set of their configs
  terrazzo compare street.safetensors street-int8.onnx --data street.yaml
  terrazzo compare runs/a runs/b runs/c --out abc.html --no-speed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    about = "folders of runs, checkpoints, exported files; each later one is compared with the first"
    add("models", nargs="+", metavar="RUN", help=about)
    add("--data", metavar="CONFIG", help="compare on the test set of this config (default: that of the runs' own)")
    add("--data-root", metavar="D", help="location of the data, instead of the config's")
    add("--config", metavar="C", help="the config or recipe of checkpoints that contain none")
    add("--out", metavar="F.html", default="comparison.html", help="the page to write (default: comparison.html)")
    add("--no-speed", action="store_true", help="leave out speed, memory and size, which take some steps on the CPU")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--trust-config", action="store_true", help="run the configs' Python code, and programs (.pt2) of others")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    add_weights_option(parser)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    from terrazzo.evaluation.compare import compare
    from terrazzo.evaluation.comparison_page import as_values, columns, model_rows, write_comparison
    from terrazzo.exporting.benchmark import time_models
    from terrazzo.system.files import make_folder
    from terrazzo.system.terminal import Console

    if len(args.models) < 2:
        args.usage_error("give at least two: what to compare with, and what to compare")
    path = Path(args.out)
    if path.suffix.lower() not in (".html", ".htm"):
        args.usage_error(f"--out: the page is HTML; name it {path.with_suffix('.html').name}")
    make_folder(path.parent)
    console = Console(soft_wrap=True)
    with console.status("loading") as status:
        ranking = compare(
            args.models,
            args.data,
            trust=args.trust_config,
            on_step=status.update,
            **picked(args, "config", "device", "data_root", "weights"),
        )
        models = [(one.source, one.checkpoint, one.segmenter) for one in ranking.contestants]
        speeds = [] if args.no_speed else time_models(models, ranking.size, on_step=status.update)
        write_comparison(path, ranking, speeds)
    if args.json:
        print(json.dumps(as_values(ranking, speeds) | {"page": str(path)}, indent=1))
        return 0
    heads = columns(bool(speeds))
    print_table(heads, model_rows(ranking, speeds), numbers=heads[1:])
    if speeds:
        height, width = ranking.size
        console.print(f"time from an image of {height}x{width} to its class map on the CPU; speed: times the first's")
    for figures in speeds:
        if "failure" in figures:
            console.print(f"{figures['model']} was not timed: {figures['failure']}")
    first = ranking.contestants[0].name
    for outcome in ranking.outcomes:
        console.print(outcome.verdict(first))
        for sign, word in ((1, "better"), (-1, "worse")):
            if found := [class_text(outcome, name) for name in outcome.classes(sign)]:
                console.print(f"  significantly {word}: {', '.join(found)}")
    console.print("this is about the choice of images; training with another seed changes scores too (train --seeds N)")
    console.print(f"written: {path}")
    return 0


def class_text(outcome: Any, name: str) -> str:
    """A class and its difference."""
    return f"{name} {outcome.differences[name].value:+.2f}"
