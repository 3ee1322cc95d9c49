"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

from terrazzo.config import parse_override


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--cfg-options`, `--trust-config` and `--device`."""
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set config keys: a.b=c a.0.b='[1,2]'"
    )
    parser.add_argument(
        "--trust-config", action="store_true", help="run a .py config as a program instead of reading it safely"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """`--cfg-options` as dotted keys and values."""
    return dict(parse_override(text) for text in args.cfg_options)
