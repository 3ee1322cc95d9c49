"""`terrazzo data convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from terrazzo.data.converters.base import CONVERTERS
from terrazzo.data.converters.run import convert
from terrazzo.data.spec import dataset_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="the data set, see below")
    add("raw", metavar="RAW", help="its download: a folder of archives or of their contents; only read")
    add("out", metavar="OUT", help="folder for the result; files already in it are kept")
    add("--workers", type=int, help="processes (default: one per core)")
    add("--link", action="store_true", help="link unchanged files instead of copying them")
    add("--tile", type=int, metavar="PIXELS", help="edge of the tiles into which large images are cut")
    add("--stride", type=int, metavar="PIXELS", help="step between tiles")
    listed = [f"  {name}: {CONVERTERS.get(name).needs}" for name in CONVERTERS]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "contents of RAW:\n" + "\n".join(listed)


def run(args: argparse.Namespace) -> int:
    """Convert, then report the images of each split and how a config names them."""
    console = Console(stderr=True)
    report = convert(
        args.name,
        args.raw,
        args.out,
        workers=args.workers,
        link=args.link,
        tile=args.tile,
        stride=args.stride,
        console=console,
    )
    for note in report.notes:
        print(f"note: {note}")
    dataset = dataset_spec(CONVERTERS.get(args.name).dataset)
    counts = ", ".join(f"{count} {split}" for split, count in report.images.items())
    done = f"{report.written} files or groups of tiles written, {report.kept} present before"
    print(f"{args.name}: {counts} images in {Path(args.out)} ({done})")
    print(f"in a config: type='{dataset.name}', data_root='{Path(args.out)}'")
    return 0
