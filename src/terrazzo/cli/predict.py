"""`terrazzo predict`."""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrazzo.cli.common import OutputNames, add_weights_option, opacity
from terrazzo.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="IMAGE|FOLDER|VIDEO", help="images, patterns, folder trees")
    add(
        "--model",
        metavar="M",
        help="a self-contained .safetensors file, or a checkpoint with --config (default: ours for street scenes)",
    )
    add("--config", metavar="C", help="the config or recipe of a checkpoint that contains none")
    add("--out", default="predictions", metavar="D", help="the folder for the results (default: predictions)")
    add("--opacity", type=opacity, default=0.5, help="of the class colours: 0 to 1 (default 0.5)")
    add("--trust-config", action="store_true", help="import the modules in the model's custom_imports")
    add_weights_option(parser)
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from terrazzo.inference.load import NOTE, load
    from terrazzo.system.files import make_folder
    from terrazzo.training.monitoring.log import progress_bar

    console = Console(highlight=False, soft_wrap=True)
    if args.model is None and args.config is None:
        console.print(NOTE, markup=False)
    checkpoint = args.model if args.config else None
    segmenter = load(args.config or args.model, checkpoint, args.device, trust=args.trust_config, weights=args.weights)
    out = Path(args.out)
    found = expand(args.sources, out, (*segmenter.suffixes, *VIDEO_SUFFIXES))
    make_folder(out)
    names: dict[Path, OutputNames] = {}
    failed = []
    with progress_bar(console) as bar:
        task = bar.add_task("predict", total=len(found))
        for path, subfolder in found:
            folder = make_folder(out / subfolder)
            stem = names.setdefault(folder, OutputNames(folder)).stem(path)
            try:
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    predict_video(segmenter, path, folder / f"{stem}_overlay.mp4", args.opacity, bar)
                else:
                    predict_image(segmenter, path, folder, stem, args.opacity)
            except UserError as problem:  # one bad file does not lose the others
                failed.append(problem)
            except MemoryError:
                failed.append(UserError(f"{path} needs more memory than there is: cut it into tiles"))
            bar.advance(task)
    done = len(found) - len(failed)
    console.print(f"{done} of {len(found)} segmented; class maps and pictures: {out}", markup=False)
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def expand(sources: Sequence[str], out: Path, suffixes: Sequence[str]) -> list[tuple[Path, Path]]:
    """Images and videos, each with the subfolder for its results; folders are searched for `suffixes` recursively.

    A source may also be a pattern such as `drive/**/*.jpg`. Hidden folders and `out` itself are skipped. Raises
    UserError for a missing source, and for a folder without images.
    """

    found: list[tuple[Path, Path]] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if is_wanted(file, path, out, suffixes)]
            if not inside:
                raise UserError(f"the folder {path} contains no image or video ({', '.join(suffixes)})")
            found += [(file, file.parent.relative_to(path)) for file in inside]
        elif path.exists():
            found.append((path, Path()))
        else:
            matches = map(Path, glob.glob(source, recursive=True))  # noqa: PTH207 - of any root
            files = sorted(match for match in matches if match.is_file())
            if not files:
                raise UserError(f"there is no file or folder {source}")
            found += [(file, Path()) for file in files]
    return found


def is_wanted(file: Path, root: Path, out: Path, suffixes: Sequence[str]) -> bool:
    """Report whether a file below `root` is an input."""
    from terrazzo.data.pairs import ending_of

    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    result = out.resolve() in file.resolve().parents and out.resolve() != root.resolve()
    return ending_of(file.name, suffixes) is not None and not hidden and not result and file.is_file()


def predict_image(segmenter: Any, path: Path, folder: Path, stem: str, opacity: float) -> None:
    """Write the class map in its colours, `STEM.png`, and the overlay with a legend, `STEM_overlay.png`."""
    from terrazzo.system.painting import save_picture
    from terrazzo.viz import add_legend

    prediction = segmenter(path)
    prediction.save(folder / f"{stem}.png")
    painted = add_legend(prediction.overlay(opacity), prediction.labels, prediction.classes, prediction.palette)
    save_picture(folder / f"{stem}_overlay.png", painted)


def predict_video(segmenter: Any, path: Path, target: Path, opacity: float, bar: Any) -> None:
    """Write the overlay frame by frame. Raises UserError for a video that cannot be read or written."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    task = bar.add_task(path.name, total=total if total > 0 else None)
    unfinished = target.with_name(f".{target.stem}.unfinished.mp4")  # OpenCV derives the format from the suffix
    writer = None
    try:
        while True:
            found, frame = capture.read()
            if not found:
                break
            painted = segmenter(frame[..., ::-1].copy()).overlay(opacity)
            if writer is None:
                size = painted.shape[1], painted.shape[0]
                writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"cannot write the video {target}: no mp4 encoder, or no permission")
            writer.write(painted[..., ::-1])
            bar.advance(task)
        if writer is None:
            raise UserError(f"{path} cannot be read as a video: it is damaged, or its codec is unknown to OpenCV")
        writer.release()
        unfinished.replace(target)
    finally:
        capture.release()
        bar.remove_task(task)
        unfinished.unlink(missing_ok=True)
