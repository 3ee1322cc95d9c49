"""`terrazzo plan`."""

from __future__ import annotations

import argparse
from pathlib import Path

from terrazzo.cli.common import budget, new_config

EXAMPLES = """\
  terrazzo plan data/street                        write street.yaml, for 2 hours on the best device here
  terrazzo plan data/street --budget 20m           for 20 minutes
  terrazzo plan street.yaml --out street-plan.yaml plan for the data of a config"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="FOLDER|CONFIG", help="a folder of images and labels, or a config in the short form")
    add("--budget", type=budget, default=7200.0, metavar="T", help="time for training: 90s, 20m, 2h (default: 2h)")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    add("--out", metavar="FILE", help="the config to write (default: <name of FOLDER>.yaml)")
    add("--force", action="store_true", help="replace an existing config")


def run(args: argparse.Namespace) -> int:
    """Write the config, print it, and name the next commands."""
    from terrazzo.training.planning.run import write_plan

    source = Path(args.source)
    target = new_config(args, source.stem if source.is_file() else source.resolve().name)
    print(write_plan(source, target, args.budget, args.device))
    print(f"config: {target}\nnext: terrazzo data browse {target}; terrazzo train {target}")
    return 0
