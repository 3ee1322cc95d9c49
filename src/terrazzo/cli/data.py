"""`terrazzo data`: its commands lie in modules of their own."""

from __future__ import annotations

import argparse
import importlib

# command -> what it does; its module is terrazzo.cli.data_<command>
COMMANDS = {
    "init": "find images, labels and classes in a folder, and write a config for them",
    "check": "find what is wrong with a data set before training does",
    "stats": "sizes, mean and std of the bands, and how much there is of each class",
    "browse": "a page of samples before and after their transforms, with masks, legend and class histogram",
    "convert": "bring a published data set into the layout that its declaration reads",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        importlib.import_module(f"terrazzo.cli.data_{name}").add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    return importlib.import_module(f"terrazzo.cli.data_{args.data_command}").run(args)
