"""`terrazzo recipe`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from terrazzo.cli.common import print_table
from terrazzo.errors import UserError, nearest

if TYPE_CHECKING:
    from terrazzo.recipes import RecipeInfo

SORTS = {
    "mIoU": lambda found: -(found.miou or 0),
    "memory": lambda found: found.memory or 1e9,
    "name": lambda found: found.name,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="recipes with their published scores, memory and speed")
    listing.add_argument("--dataset", help="only recipes for this data set, such as cityscapes")
    listing.add_argument("--method", help="only recipes of this method or family, such as pspnet")
    listing.add_argument("--sort", choices=list(SORTS), default="name")
    listing.add_argument("--old", action="store_true", help="include the names of 0.x")
    search = actions.add_parser("search", help="recipes whose name has all the words")
    search.add_argument("words", nargs="+")
    show = actions.add_parser("show", help="the meaning of a recipe's name, and its config")
    show.add_argument("name")


def run(args: argparse.Namespace) -> int:
    from terrazzo.recipes import info, names

    if args.action == "show":
        show(args.name)
        return 0
    found = [info(name) for name in names()]
    if args.action == "list":
        check_filters(found, args)
    if args.action == "search":
        chosen = [item for item in found if all(word.lower() in item.name.lower() for word in args.words)]
    else:
        chosen = [item for item in found if (args.old or item.vocabulary == "1.x") and matches(item, args)]
    if not chosen:
        raise UserError("no recipe matches; `terrazzo recipe list` shows them all")
    show_list(sorted(chosen, key=SORTS[getattr(args, "sort", "name")]))
    return 0


def check_filters(items: list[RecipeInfo], args: argparse.Namespace) -> None:
    """Raise UserError for a data set or method that no recipe has, with the nearest."""
    datasets = {item.dataset for item in items}
    if args.dataset and args.dataset.lower() not in {name.lower() for name in datasets}:
        raise UserError(f"no recipe has the data set '{args.dataset}'{nearest(args.dataset, datasets)}")
    if args.method and not any(args.method.lower() in method_names(item) for item in items):
        methods = {name for item in items for name in (item.family, item.method)}
        raise UserError(f"no recipe has the method '{args.method}'{nearest(args.method, methods)}")


def method_names(item: RecipeInfo) -> set[str]:
    """The names of a recipe's method, in lower case."""
    return {item.method.lower(), item.family.lower(), item.family.replace("_", "").lower()}


def matches(item: RecipeInfo, args: argparse.Namespace) -> bool:
    """Check that a recipe has the requested data set and method."""
    return (not args.dataset or args.dataset.lower() == item.dataset.lower()) and (
        not args.method or args.method.lower() in method_names(item)
    )


def show_list(items: list) -> None:
    """Print one line for each recipe."""
    rows = []
    for item in items:
        devices = f"{item.devices} x {item.batch_size}" if item.devices else ""
        numbers = [shown(value) for value in (item.miou, item.memory, item.milliseconds)]
        rows.append((item.name, *numbers, devices, item.note))
    columns = ("recipe", "mIoU", "GB", "ms", "devices", "note")
    print_table(columns, rows, numbers=columns[1:-1])
    print(f"{len(items)} recipes; GB: training memory per device, ms: per image on one V100")


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def show(name: str) -> None:
    """Print the facts of a recipe, then its config as YAML."""
    from terrazzo.config.auto_scale_lr import base_batch, record_base_batch_size
    from terrazzo.config.load import load_config
    from terrazzo.recipes import info

    item, config = info(name), load_config(name)
    print(f"# {item.name}: {item.method} with {item.backbone} on {item.dataset}, {item.crop[0]}x{item.crop[1]} crops")
    batch = base_batch(config)
    if batch is not None:
        print(f"# {batch.about.removeprefix('the recipe is for ')}, {item.iterations} iterations")
    for score, value in item.scores.items():
        print(f"# published {score}: {value}")
    if item.memory:
        print(f"# published training memory: {item.memory} GB a device")
    if item.milliseconds:
        print(f"# published speed: {item.milliseconds} ms an image on one V100")
    if item.weights:
        print(f"# published weights: {item.weights}")
    if item.note:
        print(f"# note: {item.note}")
    if batch is not None:
        print("# with other numbers of devices or images: --auto-scale-lr scales the learning rate with them")
    print(record_base_batch_size(config).dump(), end="")
