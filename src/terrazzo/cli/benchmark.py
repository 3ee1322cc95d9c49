"""`terrazzo benchmark`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from terrazzo.cli.common import count, image_size, print_table
from terrazzo.exporting.ways import WAYS

EXAMPLES = """\
  terrazzo benchmark street.safetensors --size 512x1024
  terrazzo benchmark street.safetensors street-int8.onnx --check street.yaml --out speed
  terrazzo benchmark model.pth --config CONFIG --ways torch openvino --threads 4"""
COLUMNS = ("model", "runtime", "median", "p95", "images/s", "speed", "memory", "file", "mIoU")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    about = "checkpoints, run in all ways, and exported files (default: the embedded model for street scenes)"
    add("models", nargs="*", default=["street"], metavar="MODEL", help=about)
    add("--config", metavar="C", help="the config or recipe of checkpoints that contain none")
    add("--size", type=image_size, metavar="HxW", help="of the image (default: 512x512, or what a file takes)")
    add("--check", metavar="CONFIG", help="also tell the mIoU on this config's validation set")
    add("--ways", nargs="+", metavar="WAY", help=f"of running checkpoints (default: all): {', '.join(WAYS)}")
    add("--threads", type=count, metavar="N", help="of each model (default: as many as the libraries take)")
    add("--steps", type=count, default=20, metavar="N", help="images that each model segments (default 20)")
    add("--out", metavar="D", help="write benchmark.json, and with --check benchmark.png, to this folder")


def run(args: argparse.Namespace) -> int:
    from terrazzo.exporting.benchmark import benchmark
    from terrazzo.system.files import make_folder, write_whole
    from terrazzo.system.terminal import Console
    from terrazzo.viz.scatter import speed_and_score

    console = Console(soft_wrap=True)
    folder = make_folder(Path(args.out)) if args.out else None
    with console.status("loading") as status:
        found = benchmark(
            args.models,
            args.size,
            args.check,
            config=args.config,
            ways=args.ways or tuple(WAYS),
            threads=args.threads,
            steps=args.steps,
            on_step=status.update,
        )
    results = found["results"]
    measured = [row for row in results if "median" in row]
    columns = COLUMNS if args.check else COLUMNS[:-1]
    print_table(columns, [cells(row)[: len(columns)] for row in measured], numbers=columns[2:])
    height, width = found["size"]
    console.print(f"from an image of {height}x{width} to its class map; speed: times as fast as the first")
    for row in results:
        if "failure" in row:
            console.print(f"{row['model']}, {row['runtime']}: {row['failure']}")
    if folder is not None:
        write_whole(folder / "benchmark.json", json.dumps(found, indent=1))
        written = [folder / "benchmark.json"]
        if args.check:
            written.append(speed_and_score(folder / "benchmark.png", measured))
        console.print("written: " + ", ".join(map(str, written)))
    return 0


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    memory, score = row["memory"], row["mIoU"]
    return (
        row["model"],
        row["runtime"],
        f"{1000 * row['median']:.1f} ms",
        f"{1000 * row['p95']:.1f} ms",
        f"{row['images_per_second']:.3g}",
        f"{row['speed']:.2f}",
        "-" if memory is None else f"{memory / 2**20:.0f} MiB",
        f"{row['bytes'] / 2**20:.1f} MiB",
        "-" if score is None else f"{score:.2f}",
    )
