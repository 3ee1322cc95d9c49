"""`terrazzo predict`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from terrazzo.cli.common import OutputNames, add_weights_option, opacity, save_picture

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="IMAGE|FOLDER|VIDEO", help="what to segment")
    parser.add_argument(
        "--model", metavar="M", help="a self-contained .safetensors file, or a checkpoint with --config"
    )
    parser.add_argument("--config", metavar="C", help="the config or recipe of a checkpoint that brings none")
    parser.add_argument(
        "--out", default="predictions", metavar="D", help="the folder for the results (default: predictions)"
    )
    parser.add_argument("--opacity", type=opacity, default=0.5, help="of the paint: 0 to 1 (default 0.5)")
    parser.add_argument(
        "--trust-config", action="store_true", help="import the modules that the model names in custom_imports"
    )
    add_weights_option(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    from terrazzo.engine.files import make_folder
    from terrazzo.errors import UserError
    from terrazzo.inference.segmenter import load

    console = Console(highlight=False, soft_wrap=True)
    if args.model is None and args.config is None:
        load()  # says that there is no embedded model
    checkpoint = args.model if args.config else None
    segmenter = load(args.config or args.model, checkpoint, args.device, trust=args.trust_config, weights=args.weights)
    paths = expand([Path(source) for source in args.sources])
    folder = make_folder(Path(args.out))
    names, failed = OutputNames(folder), []
    for path in track(paths, "predict", console=console, transient=True):
        try:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                predict_video(segmenter, path, folder / f"{names.stem(path)}_overlay.mp4", args.opacity)
            else:
                predict_image(segmenter, path, folder, names.stem(path), args.opacity)
        except UserError as problem:  # noqa: PERF203 - one bad file does not lose the others
            failed.append(path)
            print(f"error: {problem}", file=sys.stderr)
    console.print(
        f"{len(paths) - len(failed)} of {len(paths)} segmented; class maps and pictures: {folder}", markup=False
    )
    return 1 if failed else 0


def expand(sources: list[Path]) -> list[Path]:
    """The images of folders, and the files themselves. Raises UserError for a path that does not exist."""
    from terrazzo.errors import UserError
    from terrazzo.inference.segmenter import images_in

    paths: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UserError(f"there is no file or folder {source}")
        paths += images_in(source) if source.is_dir() else [source]
    return paths


def predict_image(segmenter: Any, path: Path, folder: Path, stem: str, opacity: float) -> None:
    """`STEM.png` is the class map in its colours, `STEM_overlay.png` the picture with a legend."""
    from terrazzo.viz import add_legend

    prediction = segmenter(path)
    prediction.save(folder / f"{stem}.png")
    painted = add_legend(prediction.overlay(opacity), prediction.labels, prediction.classes, prediction.palette)
    save_picture(folder / f"{stem}_overlay.png", painted)


def predict_video(segmenter: Any, path: Path, target: Path, opacity: float) -> None:
    """The overlay, frame by frame. Raises UserError for a video that cannot be read or written."""
    import cv2

    from terrazzo.errors import UserError

    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    writer = None
    while True:
        found, frame = capture.read()
        if not found:
            break
        painted = segmenter(frame[..., ::-1].copy()).overlay(opacity)
        if writer is None:
            size = painted.shape[1], painted.shape[0]
            writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            if not writer.isOpened():
                raise UserError(
                    f"cannot write the video {target}: OpenCV finds no mp4 encoder, or no place for the file"
                )
        writer.write(painted[..., ::-1])
    capture.release()
    if writer is None:
        raise UserError(f"{path} cannot be read as a video: it is damaged, or its codec is unknown to OpenCV")
    writer.release()
