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


EXAMPLES = """\
  terrazzo recipe families                         what each family is good for
  terrazzo recipe list --dataset cityscapes --sort mIoU
  terrazzo recipe search unet drive
  terrazzo recipe show segformer                   a family and its recipes
  terrazzo recipe show pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("families", help="what each family of recipes is good for")
    listing = actions.add_parser("list", help="recipes with their published scores, memory and speed")
    listing.add_argument("--dataset", help="only recipes for this data set, such as cityscapes")
    listing.add_argument("--method", help="only recipes of this method or family, such as pspnet")
    listing.add_argument("--sort", choices=list(SORTS), default="name")
    listing.add_argument("--old", action="store_true", help="include the names of 0.x")
    search = actions.add_parser("search", help="recipes whose name has all the words")
    search.add_argument("words", nargs="+")
    show = actions.add_parser("show", help="the meaning of a recipe's name, and its config; the recipes of a family")
    show.add_argument("name", help="a recipe or a family")


def run(args: argparse.Namespace) -> int:
    from terrazzo.recipes import info, names
    from terrazzo.recipes.compose import is_family

    if args.action == "show" and not is_family(args.name):
        show(args.name)
        return 0
    found = [info(name) for name in names()]
    if args.action == "families":
        show_families(found)
        return 0
    if args.action == "show":
        show_family(args.name, found)
        return 0
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
        rows.append((item.name + " *" * bool(item.note), *numbers, devices))
    columns = ("recipe", "mIoU", "GB", "ms", "devices")
    print_table(columns, rows, numbers=columns[1:])
    notes = "; * has a note, see recipe show" if any(item.note for item in items) else ""
    print(f"{len(items)} recipes; GB: training memory per device, ms: per image on one V100{notes}")


def show_families(items: list[RecipeInfo]) -> None:
    """Print what each family is good for, its number of recipes and its best scores on two data sets."""
    from terrazzo.recipes.about import ABOUT

    rows = []
    for family, about in ABOUT.items():
        own = [item for item in items if item.family == family and item.vocabulary == "1.x"]
        best = [
            max((item.miou or 0 for item in own if item.dataset.lower() == dataset), default=0)
            for dataset in ("cityscapes", "ade20k")
        ]
        rows.append((family, str(len(own)), *(f"{score:.1f}" if score else "" for score in best), about))
    columns = ("family", "recipes", "Citysc.", "ADE20K", "good for")
    print_table(columns, rows, numbers=columns[1:-1])
    print("best published mIoU; `terrazzo recipe show FAMILY` lists its recipes; a family is a `recipe:` too")


def show_family(name: str, items: list[RecipeInfo]) -> None:
    """Print what a family is good for, and its recipes."""
    from terrazzo.recipes.about import ABOUT

    own = [item for item in items if item.vocabulary == "1.x" and plain(item.family) == plain(name)]
    print(f"{own[0].family}: {ABOUT[own[0].family]}")
    print(f"for your own images: `recipe: {own[0].family}` in a config that `terrazzo data init` writes")
    show_list(sorted(own, key=SORTS["mIoU"]))


def plain(family: str) -> str:
    return family.replace("_", "").lower()


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
