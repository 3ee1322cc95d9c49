"""`terrazzo data browse`."""

from __future__ import annotations

import argparse
from pathlib import Path

from terrazzo.cli.common import add_config_options, overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a config file (.py, .yaml, .json) or a recipe name")
    parser.add_argument("--count", type=positive, default=12, metavar="N", help="samples to show (default 12)")
    parser.add_argument("--split", default="train", metavar="NAME", help="train, val or test (default train)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples and their transforms (default 0)")
    parser.add_argument(
        "--out", default="browse.html", metavar="PAGE", help="the page; a PNG of the same name lies beside it"
    )
    parser.add_argument("--data-root", metavar="D", help="where the data lie, if not where the config says")
    add_config_options(parser)


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    from terrazzo.data.splits import load_for_data, open_splits
    from terrazzo.errors import UserError
    from terrazzo.system.files import make_folder
    from terrazzo.viz.browse import write_page

    path = Path(args.out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: the page is a .html file")
    config = load_for_data(args.config, overrides(args), trust=args.trust_config)
    dataset = open_splits(config, [args.split], data_root=args.data_root, seed=args.seed)[args.split]
    make_folder(path.parent)
    image = write_page(dataset, args.split, path, args.count, args.seed)
    print(f"page: {path}\npicture: {image}")
    return 0
