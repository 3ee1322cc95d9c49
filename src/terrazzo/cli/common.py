"""Arguments, tables and output files that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError, printable

PIPE_WIDTH = 240  # of tables that are not printed to a terminal


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--cfg-options`, `--trust-config` and `--device`."""
    add = parser.add_argument
    add(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        type=override,
        metavar="KEY=VALUE",
        help="set config keys: a.b=c a.0.b='[1,2]'",
    )
    add("--trust-config", action="store_true", help="run a .py config as a program instead of reading it safely")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    """`--weights`."""
    parser.add_argument(
        "--weights",
        choices=["model", "ema"],
        help="of a checkpoint with both: as trained, or averaged (default: what the saving program tests with)",
    )


def add_ray_option(parser: argparse.ArgumentParser, about: str) -> None:
    """`--ray`."""
    parser.add_argument("--ray", nargs="?", type=ray_address, const="", metavar="ADDRESS", help=about)


def ray_address(text: str) -> str:
    """The address of a cluster, such as `ray://head:10001` or `head:6379`."""
    if text and re.fullmatch(r"(ray://)?[\w.-]+:\d+|auto|local", text) is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no cluster's address: put --ray last, or write ray://HOST:PORT")
    return text


def picked(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The arguments that a function takes under the same names."""
    return {name: getattr(args, name) for name in names}


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """`--cfg-options` as dotted keys and values."""
    return dict(args.cfg_options)


def override(text: str) -> tuple[str, Any]:
    """One of `--cfg-options`."""
    from terrazzo.config.reading.merge import parse_override

    try:
        return parse_override(text)
    except UserError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def number(text: str, fits: Callable[[float], bool], wanted: str) -> float:
    """A real number that `fits`; `wanted` describes such a one in the message about any other text."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")  # which fits nothing
    if not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not {wanted}")
    return value


def opacity(text: str) -> float:
    """A number from 0 to 1."""
    return number(text, lambda value: 0 <= value <= 1, "a number from 0 (only the image) to 1 (only the colours)")


def share(text: str) -> float:
    """A number from 0 to below 1."""
    return number(text, lambda value: 0 <= value < 1, "a share from 0 to below 1, such as 0.25")


def shard(text: str) -> tuple[int, int]:
    """The number of a part and of all parts in `3/16`."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not a part: write 1/16 to 16/16 for sixteen of them")
    return int(match[1]), int(match[2])


def positive(text: str) -> float:
    """A number of at least 0."""
    return number(text, lambda value: 0 <= value < float("inf"), "a number of at least 0")


def bytes_of(text: str) -> int:
    """Bytes, such as `64M`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text, re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper())) if match else 0
    if not size:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of bytes: write 64M or 500K")
    return size


def amount_of_memory(text: str) -> int:
    """Bytes, such as `2G` or `800M`."""
    try:
        size = bytes_of(text)
    except argparse.ArgumentTypeError:
        size = 0
    if size < 64 << 20:
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount of memory of at least 64M: write 2G or 800M")
    return size


def budget(text: str) -> float:
    """Seconds, written as 90, 20m or 2h."""
    from terrazzo.config.duration import seconds

    try:
        found = seconds(text)
    except UserError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError("a budget is a time above 0")
    return found


def image_size(text: str) -> tuple[int, int]:
    """The height and width in `512x1024`, or one length for both."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size: write HEIGHTxWIDTH, such as 512x1024")
    return int(match[1]), int(match[2] or match[1])


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Print rows below a header, the columns of `numbers` aligned right; only the last column is ever wrapped."""
    from rich.table import Table

    from terrazzo.system.terminal import Console

    table = Table(box=None, pad_edge=False)
    for name in columns:
        side: Any = "right" if name in numbers else "left"
        table.add_column(name, justify=side, no_wrap=name != columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


def new_config(args: argparse.Namespace, name: str) -> Path:
    """The file of a config to be written, `--out` or NAME.yaml. Raises UserError for one that is there already."""
    target = Path(args.out or f"{name}.yaml")
    if target.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"--out {target}: the name must end in .yaml or .yml")
    if target.exists() and not args.force:
        raise UserError(f"{target} exists already: --force replaces it, --out FILE writes elsewhere")
    return target
