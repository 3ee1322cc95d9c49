"""The entry point: it dispatches to a command and reports errors in one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import terrazzo
from terrazzo.cli.parser import INSTEAD, Parser, spelled
from terrazzo.errors import UserError, nearest, out_of_memory
from terrazzo.system.failures import line_of_users, shortage_of, told, unexpected
from terrazzo.system.printable import PrintableStream, printable
from terrazzo.system.supervision import memory_limit, supervised

LOWER = "take a smaller batch, crop, image or model, fewer workers, or --amp"

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
        "port": "write a module for MMSegmentation in terrazzo's own terms",
    },
    "training": {
        "plan": "write a config for a folder and a budget of time, each choice with its reason",
        "train": "train a model from a config or a recipe",
        "runs": "list runs with their best scores and the differences between their configs",
        "log": "plot the curves of runs",
    },
    "trained models": {
        "test": "score a checkpoint on a data set",
        "compare": "show which model is better, and whether chance could explain the difference",
        "predict": "segment images, folders or videos",
        "export": "write a model as a file that runs without terrazzo",
        "serve": "answer requests for segmentation over HTTP, and show models on a page",
        "benchmark": "time models in torch, ONNX Runtime and OpenVINO, side by side",
        "checkpoint": "inspect, publish, average and convert checkpoints",
        "weights": "fetch published weights, and list those on this machine",
    },
}
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}
EXAMPLES = """\
  terrazzo predict photo.jpg                         segment with the bundled model
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
            examples = f"examples:\n{module.EXAMPLES}\n" if hasattr(module, "EXAMPLES") else ""
            sub.epilog = f"{examples}--debug shows the traceback of an unexpected error."
            module.add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 for success, 1 for failure, 2 for wrong usage, 70 for a fault of ours.

    A fault in a module of the user's own is a failure. An error that has no message of its own is raised with
    `--debug`, and for `arguments` that a program gives.
    """
    raises = arguments is not None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    raises |= "--debug" in arguments
    arguments = spelled([argument for argument in arguments if argument != "--debug"])
    if raises or memory_limit() is None:
        return answer(arguments, raises)
    return supervised(
        lambda: answer(arguments, raises), lambda: print(f"\nerror: {no_memory(arguments)}", file=sys.stderr)
    )


def no_memory(arguments: Sequence[str], shortage: BaseException | None = None) -> UserError:
    """The message that a command has too little memory."""
    limit = memory_limit()
    raised = "" if limit is None else f", or raise the limit of {limit / 2**20:,.0f} MiB that `ulimit` sets"
    return out_of_memory(f"for `terrazzo {' '.join(arguments[:1])}`", LOWER + raised, shortage or MemoryError())


def answer(arguments: list[str], raises: bool) -> int:
    """Run a command and return its exit code; its errors are one line each."""
    try:
        with redirect_stdout(PrintableStream(sys.stdout)), redirect_stderr(PrintableStream(sys.stderr)):
            try:
                if memory_limit() is not None:  # whose BLAS waits for ever where there is no room when it is loaded
                    importlib.import_module("scipy.linalg")
                return run(arguments)
            except BrokenPipeError:
                raise
            except Exception as problem:
                if (shortage := shortage_of(problem)) is not None:
                    print(f"error: {no_memory(arguments, shortage)}", file=sys.stderr)
                elif isinstance(problem, (UserError, OSError)):
                    print(f"error: {told(problem)}", file=sys.stderr)
                elif raises:
                    raise
                else:
                    print(f"error: {unexpected(problem)}", file=sys.stderr)
                    return 1 if line_of_users(problem) else 70
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
    except BrokenPipeError:  # `terrazzo ... | head`: the reader has stopped
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - else the interpreter complains at exit
    return 1


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    parser = make_parser(command)
    if not arguments:
        parser.print_help()
        return 0
    if command is not None and command not in COMMANDS:
        parser.error(f"there is no command '{command}'{meant(command)}")
    args = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
    warnings.showwarning = partial(show_warning, set())
    for name, level in (("OPENCV_LOG_LEVEL", "OFF"), ("OPENCV_FFMPEG_LOGLEVEL", "-8")):
        os.environ.setdefault(name, level)  # our own message names the file that cannot be decoded
    return importlib.import_module(f"terrazzo.cli.{args.command}").run(args)


def meant(command: str) -> str:
    """The command that was probably meant by an unknown one."""
    if command in INSTEAD:
        return f"; did you mean 'terrazzo {INSTEAD[command]}'?"
    if Path(command).suffix in (".yaml", ".yml", ".py", ".json"):
        return f"; did you mean 'terrazzo train {command}'?"
    return nearest(command, COMMANDS) or f": there are {', '.join(COMMANDS)}"


def show_warning(told: set[str], message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning as one line, unless it was `told` before: a command may read a config several times."""
    text = printable(str(message))
    if text not in told:
        told.add(text)
        print(f"warning: {text}", file=sys.stderr)
