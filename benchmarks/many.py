"""Images a second of `terrazzo predict` on many images, this tree and an earlier one in turn.

    python benchmarks/many.py FOLDER --before CHECKOUT [--images 500] [--turns 3] [--model M]

FOLDER holds pictures, which are repeated (as links) until there are enough. Each turn runs the program of both trees,
the other one first every second time, on the same images into an empty folder; the seconds are those of the whole
command less those of the same command with one image, which load the libraries and the model. The class maps of both
trees are compared.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TREE = Path(__file__).resolve().parents[1]


def seconds(tree: Path, images: Path, out: Path, model: list[str]) -> float:
    """The seconds of one command."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "terrazzo", "predict", str(images), "--out", str(out), *model]
    started = time.perf_counter()
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tree / "src")}, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures")
    parser.add_argument("--before", type=Path, required=True, help="a checkout of an earlier tree")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    model = ["--model", args.model] if args.model else []
    with tempfile.TemporaryDirectory() as scratch:
        images, one = Path(scratch) / "images", Path(scratch) / "one"
        images.mkdir()
        one.mkdir()
        found = sorted(args.folder.resolve().glob("*.*"))
        for index, path in zip(range(args.images), itertools.cycle(found), strict=False):
            (images / f"{index:05d}{path.suffix}").symlink_to(path)
        (one / found[0].name).symlink_to(found[0])
        trees = {"before": args.before.resolve(), "now": TREE}
        speeds: dict[str, list[float]] = {name: [] for name in trees}
        for turn in range(args.turns):
            for name in list(trees)[:: 1 if turn % 2 else -1]:
                start = seconds(trees[name], one, Path(scratch) / "start", model)
                whole = seconds(trees[name], images, Path(scratch) / name, model)
                speeds[name].append((args.images - 1) / (whole - start))
            print({name: round(values[-1], 2) for name, values in speeds.items()}, flush=True)
        maps = [sorted(Path(scratch, name).glob("[0-9]*[0-9].png")) for name in trees]
        same = sum(one.read_bytes() == other.read_bytes() for one, other in zip(*maps, strict=True))
    print(", ".join(f"{name} {median(values):.2f} images a second" for name, values in speeds.items()))
    ratios = [now / before for before, now in zip(*speeds.values(), strict=True)]
    print(
        f"ratio {median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)}); {same} of {args.images} equal"
    )


if __name__ == "__main__":
    main()
