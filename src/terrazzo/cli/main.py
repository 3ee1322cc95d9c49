"""The entry point: it dispatches to a command and reports errors in one line."""

from __future__ import annotations

import argparse
import importlib
import io
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
    "runs": "list runs with their best scores and the differences between their configs",
    "test": "score a checkpoint on a data set",
    "predict": "segment images, folders or videos",
    "recipe": "list, search and show the official recipes",
    "config": "show a config as resolved",
    "data": "prepare data sets",
    "model": "list the parts of models, and show what a model costs",
    "checkpoint": "inspect, publish, average and convert checkpoints",
    "weights": "fetch published weights, and list those on this machine",
    "demo": "train, test and show a small model on synthetic street scenes, offline, in minutes",
    "doctor": "report what is installed and what is missing",
}


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The program's parser, with the arguments of the one command that is called."""
    parser = argparse.ArgumentParser(prog="terrazzo", description="Semantic segmentation in plain PyTorch.")
    parser.add_argument("--version", action="version", version=f"terrazzo {terrazzo.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        if name == command:
            importlib.import_module(f"terrazzo.cli.{name}").add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 for success, 1 for failure, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    args = make_parser(command).parse_args(arguments, argparse.Namespace(arguments=arguments))
    warnings.showwarning = show_warning
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # our own message names the file that cannot be decoded
    try:
        return importlib.import_module(f"terrazzo.cli.{args.command}").run(args)
    except (UserError, OSError) as problem:
        if isinstance(problem, BrokenPipeError):  # `terrazzo ... | head`: the reader has stopped
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - else the interpreter complains at exit
        else:
            print(f"error: {problem}", file=sys.stderr)
    except RuntimeError as problem:
        if type(problem).__name__ != "OutOfMemoryError":  # torch's; importing torch only for this check would be slow
            raise
        reason = str(problem).splitlines()[0]
        print(f"error: {reason}: take a smaller batch, crop or model, or --amp", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 1


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning as one line."""
    print(f"warning: {message}", file=sys.stderr)
