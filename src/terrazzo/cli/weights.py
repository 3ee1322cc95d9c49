"""`terrazzo weights`."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """\
  terrazzo weights get mit_b0                      the backbone that `pretrained: mit_b0` starts from
  terrazzo weights get torchvision://resnet50
  terrazzo weights get pspnet_r50-d8_4xb2-40k_cityscapes-512x1024             the trained model
  terrazzo weights get --backbone pspnet_r50-d8_4xb2-40k_cityscapes-512x1024  what its training starts from
  terrazzo weights get onnxruntime-web             what `terrazzo export --to html` puts into its pages
  terrazzo weights list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    get = actions.add_parser("get", help="download published weights into the cache, and print their paths")
    get.add_argument(
        "names",
        nargs="+",
        metavar="NAME|URL",
        help="a recipe, a backbone such as mit_b0, a URL, or torchvision://, open-mmlab://, mmpretrain://, mmseg://, "
        "timm://, hf:// and a name; onnxruntime-web",
    )
    get.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL|FOLDER",
        help="another host of OpenMMLab's files or npm's packages; may be repeated, comes before TERRAZZO_MIRRORS",
    )
    get.add_argument("--backbone", action="store_true", help="the weights that a recipe's training starts from")
    get.add_argument("--offline", action="store_true", help="search the caches only")
    actions.add_parser("list", help="list the weights in the cache")


def run(args: argparse.Namespace) -> int:
    return get(args) if args.action == "get" else list_weights()


def get(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from terrazzo.hub.download import get_weights
    from terrazzo.system.terminal import Console

    addresses_of = starting_weights if args.backbone else published_weights
    names = [address for name in args.names for address in addresses_of(name)]
    console = Console(soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn())
    for name in names:
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(name, total=None)

            def show(address: str, done: int, total: int | None, bar: Progress = bar, task: int = task) -> None:
                bar.update(task, description=address.rpartition("/")[2], completed=done, total=total)  # type: ignore[arg-type]

            path = get_weights(name, mirrors=args.mirror, offline=args.offline, on_progress=show)
        console.print(str(path), markup=False)
    return 0


def published_weights(name: str) -> list[str]:
    """A name of weights as it is; of a recipe the address of its trained ones.

    Raises UserError for a recipe without any, and for any other name.
    """
    from terrazzo.errors import UserError, nearest
    from terrazzo.hub.cache import BUNDLED, is_file
    from terrazzo.hub.names import full_names, is_address, short_names
    from terrazzo.recipes import info, names

    if is_file(name) or is_address(name) or name in BUNDLED:
        return [name]
    if found := full_names(name):
        if len(found) > 1:
            raise UserError(f"'{name}' may mean {' or '.join(found)}: write one of them")
        return found
    if name not in names():
        known = {*short_names(), *names(), *BUNDLED}
        raise UserError(f"no weights and no recipe are called '{name}'{nearest(name, known)}")
    weights = info(name).weights
    if weights is None:
        raise UserError(f"no weights of the recipe '{name}' are published: it has to be trained")
    return [weights]


def starting_weights(name: str) -> list[str]:
    """The weights that a recipe's config specifies for parts of its model. Raises UserError without any."""
    from terrazzo.config.load import load_config
    from terrazzo.errors import UserError
    from terrazzo.training.pretrained import starts

    found = [start.checkpoint for start in starts(load_config(name)["model"])]
    if not found:
        raise UserError(f"'{name}' is trained from random weights: it specifies no weights to start from")
    return found


def list_weights() -> int:
    """Print a line for each file: its size, the state of its sha256, its name."""
    from terrazzo.hub.cache import cache_folder, known_digest
    from terrazzo.hub.names import digits

    folder = cache_folder()
    files = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    weights = [path for path in files if path.suffix != ".json"]
    for path in weights:
        print(f"{size(path):>12}  {state(path, known_digest(path), digits(path.name)):<15}  {path.name}")
    print(f"{len(weights)} files in {folder}")
    return 0


def size(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:,.1f} MiB"


def state(path: Path, digest: str, expected: str | None) -> str:
    """The state of a file: incomplete, verified or not."""
    if path.suffix == ".part":
        return "incomplete"
    if digest:
        return f"sha256 {digest[:8]}" if expected is None else "sha256 verified"
    return "not verified"
