"""`terrazzo data`, whose subcommands are in the modules data_<name>."""

from __future__ import annotations

import argparse
import importlib

# command -> what it does; its module is terrazzo.cli.data_<command>
COMMANDS = {
    "init": "find images, labels and classes in a folder, and write a config for them",
    "check": "find errors in a data set before training does",
    "stats": "show image sizes, mean and std of the bands, and the share of each class",
    "browse": "write a page of samples before and after their transforms, with masks, legend and class histogram",
    "convert": "convert a published data set to the layout that terrazzo reads",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        importlib.import_module(f"terrazzo.cli.data_{name}").add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    return importlib.import_module(f"terrazzo.cli.data_{args.data_command}").run(args)
