"""`terrazzo data stats`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from terrazzo.cli.common import add_config_options, overrides, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", help="a config file (.py, .yaml, .json) or a recipe name")
    add("--split", nargs="+", default=[], metavar="NAME", help="train, val, test (default: all)")
    add("--data-root", metavar="D", help="folder of the data, if not that of the config")
    add("--json", action="store_true", help="print JSON instead of tables")
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print statistics of each split, then the lines of config for the mean and std of the first one."""
    from rich.console import Console

    from terrazzo.config.load import load_config
    from terrazzo.config.short_form import expand as short
    from terrazzo.data.splits import load_for_data, open_splits
    from terrazzo.data.statistics import config_lines, survey

    console, progress = Console(highlight=False, soft_wrap=True), Console(stderr=True)
    config = load_for_data(args.config, overrides(args), trust=args.trust_config)
    splits = open_splits(config, args.split, data_root=args.data_root)
    found = {split: survey(dataset, split, progress) for split, dataset in splits.items()}
    name, chosen = next(iter(found.items()))
    is_short = short.is_short(load_config(args.config, upgrade=False, trust=args.trust_config))
    lines = config_lines(chosen, config, is_short)
    if args.json:
        print(json.dumps({"splits": {split: one.as_dict() for split, one in found.items()}, "config": lines}, indent=1))
        return 0
    for split, one in found.items():
        show(console, split, one)
    target = "the config" if is_short else "the config, or --cfg-options"
    console.print(f"\nmean and std of {name}, for {target}:", markup=False)
    for line in lines:
        console.print(line, markup=False)
    return 0


def show(console: Any, split: str, statistics: Any) -> None:
    """Print a split as text, and a table of its classes."""
    sizes = [f"{width}x{height} ({count})" for (height, width), count in statistics.sizes.most_common(4)]
    more = f" and {len(statistics.sizes) - 4} more sizes" if len(statistics.sizes) > 4 else ""
    console.print(f"\n{split}: {statistics.images} images, width x height {', '.join(sizes)}{more}", markup=False)
    for key in ("mean", "std"):
        values = ", ".join(f"{value:.5g}" for value in getattr(statistics, key))
        console.print(f"{key:>4} of each band: {values}", markup=False)
    if statistics.pixels is None:
        return
    found = zip(statistics.classes, statistics.pixels, statistics.shares(), statistics.shown, strict=True)
    rows = [(name, f"{pixels:,}", f"{share:.2f}%", str(images)) for name, pixels, share, images in found]
    total = int(statistics.pixels.sum()) + statistics.ignored
    ignored = f"{100 * statistics.ignored / max(1, total):.2f}% of all"
    columns = ("class", "pixels", "share", "images")
    print_table(columns, [*rows, ("(ignored)", f"{statistics.ignored:,}", ignored, "")], numbers=columns[1:])
