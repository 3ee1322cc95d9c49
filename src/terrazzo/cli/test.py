"""`terrazzo test`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from terrazzo.cli.common import OutputNames, add_config_options, add_weights_option, opacity, overrides, save_picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a config file (.py, .yaml, .json) or a recipe name")
    parser.add_argument("checkpoint", help="weights: .safetensors or .pth")
    parser.add_argument("--eval", nargs="+", metavar="METRIC", help="mIoU, mDice, mFscore (default: the config's)")
    parser.add_argument("--show-dir", metavar="D", help="write each image with its predicted classes painted over it")
    parser.add_argument("--opacity", type=opacity, default=0.5, help="of the paint in --show-dir: 0 to 1 (default 0.5)")
    parser.add_argument("--data-root", metavar="D", help="where the data lie, if not where the config says")
    parser.add_argument("--out", metavar="D", help="write predicted class maps and metrics.json to this folder")
    parser.add_argument("--tta", action="store_true", help="average over the views of the config's tta_pipeline")
    add_weights_option(parser)
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from terrazzo.engine.evaluate import evaluate
    from terrazzo.engine.files import make_folder
    from terrazzo.engine.log import class_table, progress_bar, summary

    console = Console(highlight=False, soft_wrap=True)
    writer = PredictionWriter(
        make_folder(Path(args.show_dir)) if args.show_dir else None,
        make_folder(Path(args.out)) if args.out else None,
        args.opacity,
    )
    with progress_bar(console) as bar:
        task = bar.add_task("test", total=None)
        result = evaluate(
            args.config,
            args.checkpoint,
            overrides=overrides(args),
            metrics=args.eval,
            device=args.device,
            trust=args.trust_config,
            data_root=args.data_root,
            tta=args.tta,
            weights=args.weights,
            on_prediction=writer.write,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            on_report=lambda report: bar.console.print(str(report), markup=False),
        )
    console.print(class_table(result))
    console.print(summary(result), markup=False)
    if args.out:
        path = Path(args.out) / "metrics.json"
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
        console.print(f"class maps and metrics: {args.out}", markup=False)
    if args.show_dir:
        console.print(f"pictures: {args.show_dir}", markup=False)
    return 0


class PredictionWriter:
    """Writes painted images and class maps while an evaluation goes on."""

    def __init__(self, show: Path | None, out: Path | None, opacity: float) -> None:
        self.show, self.out, self.opacity = show, out, opacity
        self.names = OutputNames(*(folder for folder in (show, out) if folder is not None))

    def write(self, batch: Any, maps: list[Any], classes: Any, palette: Any) -> None:
        """The predictions of one batch, under the names of the image files."""
        from dataclasses import replace

        from PIL import Image

        from terrazzo.painting import as_picture, overlay
        from terrazzo.transforms.loading import LoadImageFromFile
        from terrazzo.viz import add_legend

        for sample, prediction in zip(batch.samples, maps, strict=True):
            labels = prediction.cpu().numpy()
            name = f"{self.names.stem(sample.image_path)}.png"
            if self.show is not None:
                loader = replace(sample.meta.get("loader", LoadImageFromFile()), to_float32=False)
                painted = overlay(as_picture(loader.read(sample.image_path)), labels, palette, self.opacity)
                painted = add_legend(painted, labels, classes, palette)
                save_picture(self.show / name, painted)
            if self.out is not None:
                Image.fromarray(labels.astype("uint8" if len(classes) <= 256 else "uint16")).save(self.out / name)
