"""`terrazzo test`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrazzo.cli import common
from terrazzo.cli.common import count, opacity, overrides, picked

EXAMPLES = """\
  terrazzo test runs/street                        its config, its best weights
  terrazzo test street.yaml runs/street/last.safetensors --show-dir pictures
  terrazzo test street.yaml runs/street --eval mIoU boundary --gallery worst
  terrazzo test street.yaml a.pth --ensemble b.pth --tta"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", help="a config file (.py, .yaml, .json), a recipe name or the folder of a run")
    add("checkpoint", nargs="?", help="weights: .safetensors, .pth or the folder of a run (default: those of CONFIG)")
    add("--ensemble", nargs="+", default=[], metavar="C", help="checkpoints to average, with CHECKPOINT")

    add = parser.add_argument_group("scores").add_argument
    metrics = "mIoU, mDice, mFscore, boundary, trimap, per-image, calibration, cityscapes, depth"
    add("--eval", nargs="+", metavar="METRIC", help=f"{metrics} (default: those of the config)")
    about = "95%% intervals of the scores from N resampled test sets (1000)"
    add("--bootstrap", nargs="?", type=count, const=1000, default=0, metavar="N", help=about)
    add("--threshold-search", action="store_true", help="find the best threshold of a model with one foreground score")
    add("--tta", action="store_true", help="average over the views of the config's tta_pipeline")

    add = parser.add_argument_group("files").add_argument
    add("--show-dir", metavar="D", help="write each image with its predicted classes painted over it")
    add("--opacity", type=opacity, default=0.5, help="of the paint in --show-dir: 0 to 1 (default 0.5)")
    add("--out", metavar="D", help="write predicted class maps and metrics.json to this folder")
    add("--format-only", action="store_true", help="write a submission for the data set's server to --out, unscored")
    add("--confusion", metavar="F.csv", help="write the confusion matrix, and its picture beside it")
    add("--gallery", metavar="D", help="write a page of the images with the worst scores")

    add = parser.add_argument_group("data and devices").add_argument
    add("--data-root", metavar="D", help="location of the data, instead of the config's")
    add("--gpus", type=count, metavar="N", help="score in N processes, each a share of the images")
    common.add_ray_option(
        parser, "score in processes of a Ray cluster, or of one started here: N, or all it has room for"
    )
    common.add_weights_option(parser)
    common.add_config_options(parser)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    from terrazzo.evaluation.evaluate import evaluate
    from terrazzo.evaluation.outputs import Outputs
    from terrazzo.system.devices import choose_device
    from terrazzo.system.files import make_folder
    from terrazzo.system.memory import keep_freed_memory
    from terrazzo.system.process_group import launched
    from terrazzo.system.terminal import Console
    from terrazzo.training.distributed.launch import launch
    from terrazzo.training.monitoring.log import as_text, class_table, progress_bar, summary

    # Options that do not go together
    if args.checkpoint is None and not args.ensemble and Path(args.config).is_dir():
        args.checkpoint = args.config
    checkpoints = [*([args.checkpoint] if args.checkpoint else []), *args.ensemble]
    if not checkpoints:
        args.usage_error("give a CHECKPOINT, or several with --ensemble")
    if args.format_only and not args.out:
        args.usage_error("--format-only writes files: name a folder with --out D")
    found = launched()
    processes = args.gpus or 1
    single = [name for name in ("gallery", "bootstrap") if getattr(args, name)]
    if single and (processes > 1 or args.ray is not None or found is not None):
        args.usage_error(f"--{single[0].replace('_', '-')} needs every image in one process: omit --gpus and --ray")
    if args.ray is not None and found is None:
        from terrazzo.training.distributed.on_ray import launch_on_ray

        needs_gpu = choose_device(args.device).type == "cuda"
        return launch_on_ray(args.ray, without_ray(args.arguments), args.gpus, needs_gpu=needs_gpu)
    if processes > 1 and found is None:
        return launch(processes, args.arguments, cpu=args.device == "cpu")

    # The evaluation, and the files that it writes
    keep_freed_memory()
    is_main = found is None or found[1].is_main
    console = Console(soft_wrap=True, quiet=not is_main)
    outputs = Outputs(args.out, args.confusion, args.gallery)
    show = make_folder(Path(args.show_dir)) if args.show_dir else None
    writer = PredictionWriter(show, None if args.format_only else outputs.out, args.opacity)

    def on_start(dataset: Any, *settings: Any) -> None:
        writer.start(dataset)
        outputs.start(dataset, *settings)

    def on_prediction(*prediction: Any) -> None:
        writer.write(*prediction)
        outputs.write(*prediction)

    with progress_bar(console) as bar:
        task = bar.add_task("test", total=None)
        result = evaluate(
            args.config,
            checkpoints,
            overrides=overrides(args),
            metrics=args.eval,
            trust=args.trust_config,
            **picked(args, "threshold_search", "device", "data_root", "tta", "weights", "bootstrap"),
            score=not args.format_only,
            on_start=on_start,
            on_prediction=on_prediction,
            on_seen=outputs.see,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            on_report=lambda report: bar.console.print(str(report), markup=False),
        )

    # Its results
    if "per_class" in result:
        console.print(as_text(class_table(result)), markup=False)
    if result:
        console.print(summary(result), markup=False)
    if "best_threshold" in result:
        console.print(f"to use it: --cfg-options model.decode_head.threshold={result['best_threshold']}", markup=False)
    for line in outputs.finish(result) if is_main else ():
        console.print(line, markup=False)
    if args.show_dir:
        console.print(f"pictures: {args.show_dir}", markup=False)
    return 0


def without_ray(arguments: Sequence[str]) -> list[str]:
    """The arguments of one of the processes on a cluster."""
    kept: list[str] = []
    for index, argument in enumerate(arguments):
        is_address = index and arguments[index - 1] == "--ray" and not argument.startswith("-")
        if not (argument == "--ray" or argument.startswith("--ray=") or is_address):
            kept.append(argument)
    return kept


class PredictionWriter:
    """Writes painted images and class maps during an evaluation."""

    def __init__(self, show: Path | None, out: Path | None, opacity: float) -> None:
        self.show, self.out, self.opacity = show, out, opacity
        self.read_image: Any = None  # the test set's, once it is open
        self.stems: dict[Path, str] = {}

    def start(self, dataset: Any) -> None:
        """Give each image of the test set the name of its files, the same one in every process."""
        from terrazzo.system.files import OutputNames

        self.read_image = dataset.read_image
        names = OutputNames(*(folder for folder in (self.show, self.out) if folder is not None))
        images = dict.fromkeys(leaf.pairs[index][0] for leaf, index in dataset.origins())
        self.stems = {image: names.stem(image) for image in images}

    def write(self, batch: Any, maps: list[Any], classes: Any, palette: Any) -> None:
        """Write the predictions of one batch, named after the image files."""
        import numpy as np

        from terrazzo.evaluation.scoring import targets_of
        from terrazzo.system.painting import as_picture, overlay, save_class_map, save_picture
        from terrazzo.viz import add_legend, side_by_side

        for sample, prediction, target in zip(batch.samples, maps, targets_of(batch, maps), strict=True):
            labels = prediction.cpu().numpy()
            stem = self.stems[sample.image_path]
            if prediction.is_floating_point():
                self.write_depth(stem, labels, target)
                continue
            name = f"{stem}.png"
            if self.show is not None:
                image, shown = as_picture(self.read_image(sample)), [labels] if target is None else [labels, target]
                pictures = [overlay(image, one, palette, self.opacity) for one in shown]
                painted = side_by_side(pictures, ("prediction", "label") if len(shown) == 2 else (), below=True)
                save_picture(self.show / name, add_legend(painted, np.stack(shown), classes, palette))
            if self.out is not None:
                save_class_map(self.out / name, labels)

    def write_depth(self, stem: str, depth: Any, target: Any) -> None:
        """Write depth in colours from near (blue) to far (red), beside the measured one, and as an array."""
        from terrazzo.system.painting import save_array, save_picture
        from terrazzo.viz import side_by_side
        from terrazzo.viz.grid import depth_colours

        if self.show is not None:
            shown = [depth] if target is None else [depth, target]
            captions = ("estimate", "measured") if len(shown) == 2 else ()
            save_picture(
                self.show / f"{stem}.png", side_by_side([depth_colours(one) for one in shown], captions, below=True)
            )
        if self.out is not None:
            save_array(self.out / f"{stem}.npy", depth)
