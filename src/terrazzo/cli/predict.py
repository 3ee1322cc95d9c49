"""`terrazzo predict`."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrazzo.cli.common import (
    OutputNames,
    add_weights_option,
    amount_of_memory,
    count,
    image_size,
    opacity,
    positive,
    share,
)
from terrazzo.errors import UserError

LOWER = "cut it into tiles, skip such images with --max-pixels, or take a smaller model"
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


EXAMPLES = """\
  terrazzo predict photo.jpg                            with the bundled model, for street scenes
  terrazzo predict 'drive/**/*.jpg' --model runs/street  with the best weights of a run
  terrazzo predict scene.tif --model best.safetensors --polygons classes.gpkg
  terrazzo predict clip.mp4 --model best.safetensors --out painted
  terrazzo predict photo.jpg --model x.pth --config pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="IMAGE|FOLDER|VIDEO",
        help="images, scenes (also by their address), patterns, folder trees",
    )

    add = parser.add_argument_group("the model").add_argument
    add(
        "--model",
        metavar="M",
        help="a self-contained .safetensors file, the folder of a run, an exported .onnx or .xml file, or a checkpoint "
        "with --config (default: street, the bundled model)",
    )
    add("--config", metavar="C", help="the config or recipe of a checkpoint that contains none")
    add(
        "--trust-config",
        action="store_true",
        help="import the modules in the model's custom_imports; run a .pt2 file of others",
    )
    add_weights_option(parser)
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")

    add = parser.add_argument_group("the results").add_argument
    add("--out", default="predictions", metavar="D", help="the folder for the results (default: predictions)")
    add("--opacity", type=opacity, default=0.5, help="of the class colours: 0 to 1 (default 0.5)")
    about = "colours: road=#804080,sky=skyblue; a file of them; or `names`, what the classes' names suggest"
    add("--palette", metavar="P", help=about)
    add("--probabilities", action="store_true", help="also write class probabilities: .npy (K, H, W), or a GeoTIFF")
    add("--confidence", action="store_true", help="also write the highest probability of each pixel, white for 100%%")
    about = "skip images of more pixels, or raise the limits of the decoders (default: theirs)"
    add("--max-pixels", type=count, metavar="N", help=about)

    add = parser.add_argument_group("scenes, and whatever else does not fit memory").add_argument
    about = "what one image may take, beyond which it is predicted in windows (default: 2G)"
    add("--memory", type=amount_of_memory, default=2 << 30, metavar="M", help=about)
    add("--window", type=image_size, metavar="HxW", help="predict in windows of this size (default: the model's own)")
    about = "what neighbouring windows share: 0 to below 1 (default: as far as the model sees, or its test_cfg)"
    add("--overlap", type=share, metavar="R", help=about)
    about = "pixel size at which whole-slide images are read, in microns (default: the model's, else the slide's own)"
    add("--microns", type=positive, metavar="UM", help=about)
    add("--resume", action="store_true", help="continue scenes that an interrupted run has begun")
    about = "also write the regions of a scene as polygons: .gpkg, .geojson or .parquet"
    add("--polygons", type=Path, metavar="F", help=about)
    add("--simplify", type=positive, default=0.0, metavar="METRES", help="smooth the polygons' outlines by this much")
    about = "leave out polygons of less square metres"
    add("--min-area", type=positive, default=0.0, metavar="M2", help=about)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Segment every source. Return 1 if some could not be, which are named at the end, else 0."""
    if args.max_pixels:
        os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max(args.max_pixels, 2**30))  # before its import
    from PIL import Image

    from terrazzo.inference.load import NOTE, load
    from terrazzo.inference.runtime import Memory
    from terrazzo.system.failures import explained
    from terrazzo.system.files import make_folder
    from terrazzo.system.palette import written_palette
    from terrazzo.system.terminal import Console
    from terrazzo.training.monitoring.log import progress_bar

    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, args.max_pixels or 0)
    console = Console(soft_wrap=True)
    take_model(args)
    if args.model is None and args.config is None:
        console.print(NOTE)
    checkpoint = args.model if args.config else None
    segmenter = load(args.config or args.model, checkpoint, args.device, trust=args.trust_config, weights=args.weights)
    segmenter.max_pixels = args.max_pixels
    segmenter.memory = Memory(args.memory, args.window, args.overlap)
    if args.microns:
        segmenter.read_slides_at(args.microns)
    wanted = wanted_results(args)
    if args.palette:
        runtime = segmenter.runtime
        runtime.palette = written_palette(args.palette, runtime.classes, runtime.palette)
    out = Path(args.out)
    found = expand(args.sources, out, (*segmenter.suffixes, *VIDEO_SUFFIXES))
    make_folder(out)
    names: dict[Path, OutputNames] = {}
    failed: list[str] = []  # not the errors themselves, which would keep their images in memory
    unexpected: Exception | None = None
    with progress_bar(console, "{task.fields[text]}") as bar:
        task = bar.add_task("predict", total=len(found), text="")
        for path, subfolder in found:
            try:
                folder = make_folder(out / subfolder)
                stem = names.setdefault(folder, OutputNames(folder)).stem(Path(path))
                with explained(f"to segment {path}", LOWER):
                    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
                        predict_video(segmenter, path, folder / f"{stem}_overlay.mp4", args.opacity, bar)
                    else:
                        predict_image(segmenter, path, folder / stem, wanted, bar)
            except (UserError, OSError) as problem:  # one bad file does not lose the others
                failed.append(str(problem))
            except Exception as problem:
                failed.append(f"{path}: {type(problem).__name__}")
                unexpected = unexpected or problem
            bar.advance(task)
    console.print(f"{len(found) - len(failed)} of {len(found)} segmented; class maps and pictures: {out}")
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    if unexpected is not None:
        raise unexpected
    return 1 if failed else 0


def take_model(args: argparse.Namespace) -> None:
    """Take config and checkpoint from among the images, as MMSegmentation's scripts have them: IMAGE CONFIG CHECKPOINT.

    A second one of either is bad usage.
    """
    from terrazzo.config.load import SUFFIXES
    from terrazzo.inference.load import SUFFIXES as CHECKPOINTS
    from terrazzo.recipes import names

    kept = []
    for source in args.sources:
        suffix = Path(source).suffix.lower()
        is_recipe = not suffix and not Path(source).exists() and source in names()
        option = "config" if suffix in SUFFIXES or is_recipe else "model" if suffix in CHECKPOINTS else None
        if option is None:
            kept.append(source)
        elif getattr(args, option):
            args.usage_error(f"{source} is not an image, and --{option} {getattr(args, option)} is given already")
        else:
            setattr(args, option, source)
    if not kept:
        args.usage_error("give at least one image, folder or video")
    args.sources = kept


def expand(sources: Sequence[str], out: Path, suffixes: Sequence[str]) -> list[tuple[Any, Path]]:
    """Images and videos, each with the subfolder for its results; folders are searched for `suffixes` recursively.

    A source may also be a pattern such as `drive/**/*.jpg`, the address of a scene, or a folder of adjacent tiles, one
    scene. Hidden folders and `out` itself are skipped. Raises UserError for a missing source, and for a folder without
    images.
    """
    from terrazzo.transforms.mosaic import is_mosaic
    from terrazzo.transforms.opening import check_regular
    from terrazzo.transforms.scenes import is_remote

    found: list[tuple[Any, Path]] = []
    for source in sources:
        path = Path(source)
        if is_remote(source):
            found.append((source, Path()))
        elif path.is_dir() and is_mosaic(path):
            found.append((path, Path()))
        elif path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if is_wanted(file, path, out, suffixes)]
            if not inside:
                raise UserError(f"the folder {path} contains no image or video ({', '.join(suffixes)})")
            found += [(file, file.parent.relative_to(path)) for file in inside]
        elif path.exists():
            check_regular(path)
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


def wanted_results(args: argparse.Namespace) -> Any:
    """The files to write for each image. Options of polygons without --polygons are bad usage."""
    from terrazzo.inference.scenes.outputs import Wanted
    from terrazzo.inference.scenes.polygons import Shapes, writer_of

    if args.polygons is None and (args.simplify or args.min_area):
        args.usage_error("--simplify and --min-area are about polygons: give --polygons F too")
    if args.polygons is not None:
        if len(args.sources) > 1:
            args.usage_error("--polygons writes the polygons of one scene: give one, or a VRT of several")
        writer_of(args.polygons)
    shapes = Shapes(args.simplify, args.min_area)
    return Wanted(args.opacity, args.confidence, args.probabilities, args.polygons, shapes, args.resume)


def predict_image(segmenter: Any, path: Path | str, target: Path, wanted: Any, bar: Any) -> None:
    """Write the results of one image, with a bar of its windows where it has any."""
    from terrazzo.inference.scenes.outputs import predict_to_files
    from terrazzo.training.monitoring.log import duration

    task: Any = None

    def show(progress: Any) -> None:
        nonlocal task
        left = (progress.windows - progress.done) / max(progress.speed_of_windows, 1e-6)
        text = f"windows, {progress.speed:.1f} megapixels a second, {duration(left)} left"
        if task is None:
            task = bar.add_task(Path(path).name, total=progress.windows, text=text)
        bar.update(task, completed=progress.done, text=text)

    try:
        predict_to_files(segmenter, path, target, wanted, show)
    finally:
        if task is not None:
            bar.remove_task(task)


def predict_video(segmenter: Any, path: Path, target: Path, opacity: float, bar: Any) -> None:
    """Write the overlay frame by frame. Raises UserError for a video that cannot be read or written."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    task = bar.add_task(path.name, total=total if total > 0 else None, text="")
    unfinished = target.with_name(f".{target.stem}.unfinished.mp4")  # OpenCV derives the format from the suffix
    writer, frames = None, 0
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
            frames += 1
            bar.advance(task)
        if writer is None:
            raise UserError(f"{path} cannot be read as a video: it is damaged, or its codec is unknown to OpenCV")
        writer.release()
        saved = cv2.VideoCapture(str(unfinished))
        if int(saved.get(cv2.CAP_PROP_FRAME_COUNT)) != frames:  # OpenCV says nothing about a full disk
            raise UserError(f"cannot save the video {target}: free some space or choose another folder")
        unfinished.replace(target)
    finally:
        capture.release()
        bar.remove_task(task)
        unfinished.unlink(missing_ok=True)
