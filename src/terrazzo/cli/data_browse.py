"""`terrazzo data browse`."""

from __future__ import annotations

import argparse
from pathlib import Path

from terrazzo.cli.common import add_config_options, count, overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", help="a config file (.py, .yaml, .json) or a recipe name")
    add("--count", type=count, default=12, metavar="N", help="samples to show (default 12)")
    add("--split", default="train", metavar="NAME", help="train, val or test (default train)")
    add("--seed", type=int, default=0, help="seed of the samples and their transforms (default 0)")
    add("--out", default="browse.html", metavar="PAGE", help="the page; a PNG of the same name is written beside it")
    add("--data-root", metavar="D", help="folder of the data, if not that of the config")
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    from terrazzo.data.splits import load_for_data, open_splits
    from terrazzo.errors import UserError
    from terrazzo.system.files import make_folder
    from terrazzo.viz.browse import write_page

    path = Path(args.out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: the name must end in .html or .htm")
    config = load_for_data(args.config, overrides(args), trust=args.trust_config)
    dataset = open_splits(config, [args.split], data_root=args.data_root, seed=args.seed)[args.split]
    make_folder(path.parent)
    image = write_page(dataset, args.split, path, args.count, args.seed)
    print(f"page: {path}\npicture: {image}")
    return 0
