"""The entry point: it dispatches to a command and reports errors in one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import terrazzo
from terrazzo.cli.parser import INSTEAD, Parser, spelled
from terrazzo.errors import UserError, nearest

# group -> command -> what it does; its module is terrazzo.cli.<command>
GROUPS = {
    "start here": {
        "demo": "train, test and show a small model on synthetic street scenes, offline, in minutes",
        "doctor": "report what is installed and what is missing",
    },
    "data and configs": {
        "data": "prepare data sets: a config for a folder, a check, statistics",
        "recipe": "list, search and show the official recipes",
        "config": "show a config as resolved",
        "model": "list the parts of models, and show what a model costs",
    },
    "training": {
        "train": "train a model from a config or a recipe",
        "runs": "list runs with their best scores and the differences between their configs",
        "log": "plot the curves of runs",
    },
    "trained models": {
        "test": "score a checkpoint on a data set",
        "predict": "segment images, folders or videos",
        "checkpoint": "inspect, publish, average and convert checkpoints",
        "weights": "fetch published weights, and list those on this machine",
    },
}
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}
EXAMPLES = """\
  terrazzo predict photo.jpg                         segment with the model that comes along
  terrazzo data init my_images                       write my_images.yaml, a config for a folder
  terrazzo train my_images.yaml                      train; results go to runs/my_images
  terrazzo test runs/my_images                       score its best weights
  terrazzo predict photo.jpg --model runs/my_images  use them

terrazzo COMMAND --help says more about a command."""


def make_parser(command: str | None = None) -> Parser:
    """The program's parser, with the arguments of the one command that is called."""
    listed = (
        f"{group}:\n" + "".join(f"  {name:<11} {about}\n" for name, about in commands.items())
        for group, commands in GROUPS.items()
    )
    parser = Parser(
        prog="terrazzo",
        usage="terrazzo COMMAND ...",
        description="Semantic segmentation in plain PyTorch.\n\n" + "\n".join(listed),
        epilog=f"examples:\n{EXAMPLES}",
    )
    parser.add_argument("--version", action="version", version=f"terrazzo {terrazzo.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(name, prog=f"terrazzo {name}", description=about[0].upper() + about[1:] + ".")
        if name == command:
            module = importlib.import_module(f"terrazzo.cli.{name}")
            sub.epilog = f"examples:\n{module.EXAMPLES}" if hasattr(module, "EXAMPLES") else None
            module.add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 for success, 1 for failure, 2 for wrong usage."""
    arguments = spelled(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    parser = make_parser(command)
    if not arguments:
        parser.print_help()
        return 0
    if command is not None and command not in COMMANDS:
        parser.error(f"there is no command '{command}'{meant(command)}")
    args = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
    warnings.showwarning = show_warning
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


def meant(command: str) -> str:
    """The command that was probably meant by an unknown one."""
    if command in INSTEAD:
        return f"; did you mean 'terrazzo {INSTEAD[command]}'?"
    if Path(command).suffix in (".yaml", ".yml", ".py", ".json"):
        return f"; did you mean 'terrazzo train {command}'?"
    return nearest(command, COMMANDS) or f": there are {', '.join(COMMANDS)}"


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning as one line."""
    print(f"warning: {message}", file=sys.stderr)
