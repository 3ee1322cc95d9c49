"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--cfg-options`, `--trust-config` and `--device`."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        type=override,
        metavar="KEY=VALUE",
        help="set config keys: a.b=c a.0.b='[1,2]'",
    )
    parser.add_argument(
        "--trust-config", action="store_true", help="run a .py config as a program instead of reading it safely"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    """`--weights`."""
    parser.add_argument(
        "--weights",
        choices=["model", "ema"],
        help="of a checkpoint with both: as trained, or averaged (default: what the saving program tests with)",
    )


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """`--cfg-options` as dotted keys and values."""
    return dict(args.cfg_options)


def override(text: str) -> tuple[str, Any]:
    """One of `--cfg-options`."""
    from terrazzo.config import parse_override
    from terrazzo.errors import UserError

    try:
        return parse_override(text)
    except UserError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1")
    return int(text)


def opacity(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 (the image alone) to 1 (the colours alone)")
    return value


class OutputNames:
    """Names of output files after those of the images: no name twice, and none that would overwrite an image."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.taken: set[str] = set()

    def stem(self, image: Path) -> str:
        """The image's own stem, or one with its folder's name or a number where that is taken."""
        numbered = (f"{image.stem}_{number}" for number in itertools.count(2))
        for stem in itertools.chain((image.stem, f"{image.parent.name}_{image.stem}"), numbered):
            overwrites = any((folder / f"{stem}.png").resolve() == image.resolve() for folder in self.folders)
            if stem not in self.taken and not overwrites:
                break
        self.taken.add(stem)
        return stem


def save_picture(path: Path, picture: Any) -> None:
    """Write an RGB array (H, W, 3) as a PNG. Raises UserError where that is not possible."""
    import cv2

    from terrazzo.system.files import write_whole

    write_whole(path, cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
