"""`terrazzo config`."""

from __future__ import annotations

import argparse

from terrazzo.cli.common import add_config_options, overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the config as resolved, in the 1.x vocabulary")
    show.add_argument("config", help="a config file (.py, .yaml, .json) or a recipe name")
    show.add_argument("--as-written", action="store_true", help="do not upgrade or expand it")
    add_config_options(show)


def run(args: argparse.Namespace) -> int:
    from terrazzo.config.load import load_config

    config = load_config(args.config, overrides(args), upgrade=not args.as_written, trust=args.trust_config)
    print(config.dump(), end="")
    return 0
