"""Which command was asked for; what goes wrong ends here, in one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

import terrazzo
from terrazzo.errors import UserError

# command -> what it does; its module is terrazzo.cli.<command>
COMMANDS = {
    "train": "train a model from a config or a recipe",
    "log": "plot the curves of runs",
    "runs": "list runs with their best scores, and what their configs do not share",
    "test": "score a checkpoint on a data set",
    "predict": "segment images, folders or videos",
    "recipe": "list, search and show the official recipes",
    "config": "show a config as resolved",
    "data": "prepare data sets",
    "model": "list the parts of models, and say what a model costs",
    "checkpoint": "inspect, publish, average and convert checkpoints",
    "weights": "fetch published weights, and list those that are here",
    "demo": "train, test and show a small model on drawn street scenes, offline, in minutes",
    "doctor": "say what is installed and whether it fits",
}


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The program's parser; only the command that is asked for brings its own arguments."""
    parser = argparse.ArgumentParser(prog="terrazzo", description="Semantic segmentation in plain PyTorch.")
    parser.add_argument("--version", action="version", version=f"terrazzo {terrazzo.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        if name == command:
            importlib.import_module(f"terrazzo.cli.{name}").add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 if it did its work, 1 if it failed, 2 if it was called wrongly."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    args = make_parser(command).parse_args(arguments, argparse.Namespace(arguments=arguments))
    warnings.showwarning = show_warning
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # our own message names the file that cannot be decoded
    try:
        return importlib.import_module(f"terrazzo.cli.{args.command}").run(args)
    except (UserError, OSError) as problem:
        if isinstance(problem, BrokenPipeError):  # `terrazzo ... | head`: nobody reads on
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - else the interpreter complains at its end
        else:
            print(f"error: {problem}", file=sys.stderr)
    except RuntimeError as problem:
        if type(problem).__name__ != "OutOfMemoryError":  # torch's, which is not imported for its name's sake
            raise
        reason = str(problem).splitlines()[0]
        print(f"error: {reason}: take a smaller batch, crop or model, or --amp", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 1


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning as one line."""
    print(f"warning: {message}", file=sys.stderr)
