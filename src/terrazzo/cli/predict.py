"""`terrazzo predict`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from terrazzo.cli import common
from terrazzo.cli.common import (
    add_weights_option,
    amount_of_memory,
    count,
    image_size,
    opacity,
    picked,
    positive,
    shard,
    share,
)

EXAMPLES = """\
  terrazzo predict photo.jpg                            with the bundled model, for street scenes
  terrazzo predict 'drive/**/*.jpg' --model runs/street  with the best weights of a run
  terrazzo predict scene.tif --model best.safetensors --polygons classes.gpkg
  terrazzo predict clip.mp4 --model best.safetensors --out painted
  terrazzo predict photo.jpg --model x.pth --config pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"""

TOOLS = ("labelme", "coco", "cvat", "label-studio", "geojson", "yolo", "fiftyone")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources",
        nargs="*",
        metavar="IMAGE|FOLDER|VIDEO",
        help="images, scenes and videos (also by their address), patterns, folder trees",
    )
    add("--camera", type=int, action="append", default=[], metavar="N", help="a camera: 0 is the first; Ctrl-C ends it")

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
    add("--no-overlay", action="store_true", help="write class maps alone, no painted pictures")
    about = "skip images of more pixels, or raise the limits of the decoders (default: theirs)"
    add("--max-pixels", type=count, metavar="N", help=about)

    about = "also a folder with images and labels for a labelling tool, to be corrected there; again for another one"
    add("--to", action="append", default=[], choices=TOOLS, help=about)

    add = parser.add_argument_group("many images, and videos").add_argument
    add(
        "--resume", action="store_true", help="skip what an earlier run has done, and continue scenes that it has begun"
    )
    about = "take each Nth image of a folder or pattern, and each Nth frame of a video"
    add("--every", type=count, default=1, metavar="N", help=about)
    about = "do one of N parts, 1/N to N/N: of the images, or of the windows where there are fewer scenes than parts"
    add("--shard", type=shard, metavar="I/N", help=about)
    common.add_ray_option(parser, "predict in the processes of a Ray cluster, or of one started here")
    about = "of a video, average probabilities over time: the weight of the frames before, from 0 to below 1"
    add("--smooth", type=share, default=0.0, metavar="W", help=about)
    add("--labels", action="store_true", help="of a video, also write the class maps: a lossless video of grey values")

    add = parser.add_argument_group("scenes, and whatever else does not fit memory").add_argument
    about = "what one image may take, beyond which it is predicted in windows (default: 2G)"
    add("--memory", type=amount_of_memory, default=2 << 30, metavar="M", help=about)
    add("--window", type=image_size, metavar="HxW", help="predict in windows of this size (default: the model's own)")
    about = "what neighbouring windows share: 0 to below 1 (default: as far as the model sees, or its test_cfg)"
    add("--overlap", type=share, metavar="R", help=about)
    about = "pixel size at which whole-slide images are read, in microns (default: the model's, else the slide's own)"
    add("--microns", type=positive, metavar="UM", help=about)
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
    from terrazzo.inference.labelling.write import check_tools, write_labels
    from terrazzo.inference.load import NOTE
    from terrazzo.inference.many.setup import Setup
    from terrazzo.inference.many.shards import Shard
    from terrazzo.inference.many.sources import find_items
    from terrazzo.inference.runtime import Memory
    from terrazzo.inference.video.predict import VideoOptions
    from terrazzo.inference.video.reading import VIDEO_SUFFIXES
    from terrazzo.system.files import make_folder
    from terrazzo.system.remote import is_remote_path
    from terrazzo.system.terminal import Console
    from terrazzo.training.monitoring.log import progress_bar

    # What is to be done
    console = Console(soft_wrap=True)
    take_model(args)
    wanted = wanted_results(args)
    if args.model is None and args.config is None:
        console.print(NOTE)
    is_remote = is_remote_path(args.out)
    scratch = ExitStack()
    setup = Setup(
        out=Path(scratch.enter_context(TemporaryDirectory(prefix="terrazzo-")) if is_remote else args.out),
        source=args.config or args.model,
        checkpoint=args.model if args.config else None,
        trust=args.trust_config,
        memory=Memory(args.memory, args.window, args.overlap),
        wanted=wanted,
        video=VideoOptions(args.opacity, not args.no_overlay, args.labels, args.smooth, args.every),
        shard=Shard(*args.shard) if args.shard else None,
        address=args.out if is_remote else None,
        **picked(args, "device", "weights", "max_pixels", "microns", "palette"),
    )
    segmenter = setup.segmenter()
    items = find_items(args.sources, setup.out, (*segmenter.suffixes, *VIDEO_SUFFIXES), args.every)
    made = [tool for tool in args.to if args.resume and (setup.out / tool).exists()]
    tools = [tool for tool in args.to if tool not in made]
    check_tools(tools, items, setup.out)
    make_folder(setup.out)

    # The images
    with scratch, progress_bar(console, "{task.fields[text]}") as bar:
        work = setup.run(segmenter, Bars(bar))
        items = work.plan(items)
        task = bar.add_task("predict", total=len(items), text="")

        def on_end(_: Any) -> None:
            bar.advance(task)

        if args.ray is None:
            outcomes = work.run(items, on_end)
        else:
            from terrazzo.inference.many.cluster import run_on_ray

            outcomes = run_on_ray(setup, work, items, args.ray, on_end)
        if tools:
            done = {outcome.item for outcome in outcomes if not outcome.problem}
            task = bar.add_task("labels", total=len(done), text="")
            segmented = [item for item in items if item in done]
            folders = write_labels(tools, segmented, setup.out, segmenter, lambda: bar.advance(task))
    if made:
        console.print(f"of an earlier run, left as they are: {', '.join(str(setup.out / tool) for tool in made)}")
    if tools:
        console.print(f"to correct, and then for `terrazzo data init`: {', '.join(map(str, folders))}")
    return report(console, items, outcomes, args.out)


def report(console: Any, items: Sequence[Any], outcomes: Sequence[Any], out: str) -> int:
    """Print how many items have been segmented, and the errors of the others. Raises the first unexpected one."""
    order = {item: number for number, item in enumerate(items)}
    failed = sorted((outcome for outcome in outcomes if outcome.problem), key=lambda outcome: order[outcome.item])
    done = sum(outcome.was_done for outcome in outcomes)
    before = f" ({done} before)" if done else ""
    console.print(f"{len(items) - len(failed)} of {len(items)} segmented{before}; class maps and pictures: {out}")
    for outcome in outcomes:
        if outcome.note:
            console.print(outcome.note)
    for outcome in failed:
        print(f"error: {outcome.problem}", file=sys.stderr)
    for outcome in failed:
        if outcome.unexpected is not None:
            raise outcome.unexpected
    return 1 if failed else 0


class Bars:
    """The bars of scenes and videos that are being predicted."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.tasks: dict[Any, Any] = {}

    def __call__(self, item: Any, progress: Any) -> None:
        """Show the progress of an item; None is its end."""
        from terrazzo.training.monitoring.log import duration

        if progress is None:
            if item in self.tasks:
                self.bar.remove_task(self.tasks.pop(item))
            return
        if item not in self.tasks:
            self.tasks[item] = self.bar.add_task(item.name, total=progress.total, text="")
        left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
        text = f"{progress.speed:.1f} {progress.unit}{left}"
        self.bar.update(self.tasks[item], completed=progress.done, text=text)


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
    args.sources = [*kept, *(f"camera:{number}" for number in args.camera)]
    if not args.sources:
        args.usage_error("give at least one image, folder or video")


def wanted_results(args: argparse.Namespace) -> Any:
    """The files to write for each image. Options of polygons without --polygons are bad usage."""
    from terrazzo.inference.scenes.outputs import Wanted
    from terrazzo.inference.scenes.polygons import Shapes, writer_of
    from terrazzo.system.remote import is_remote_path

    if args.ray is not None and (args.shard or args.camera):
        args.usage_error("--ray splits the images itself: omit --shard and --camera")
    if args.shard and any(Path(source).resolve() == Path(args.out).resolve() for source in args.sources):
        args.usage_error("--shard: other parts would take the results in --out for images: give another folder")
    if args.to and (args.shard or is_remote_path(args.out)):
        args.usage_error("--to needs all class maps in a local --out: omit --shard, or repeat all with --resume alone")
    if args.polygons is None and (args.simplify or args.min_area):
        args.usage_error("--simplify and --min-area are about polygons: give --polygons F too")
    if args.polygons is not None:
        if len(args.sources) > 1:
            args.usage_error("--polygons writes the polygons of one scene: give one, or a VRT of several")
        writer_of(args.polygons)
    shapes = Shapes(args.simplify, args.min_area)
    overlay = not args.no_overlay
    return Wanted(args.opacity, overlay, args.confidence, args.probabilities, args.polygons, shapes, args.resume)
