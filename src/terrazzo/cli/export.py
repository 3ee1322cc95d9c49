"""`terrazzo export`."""

from __future__ import annotations

import argparse

from terrazzo.cli.common import add_weights_option, image_size
from terrazzo.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a checkpoint (default: the embedded model for street scenes)")
    add("--config", metavar="C", help="the config or recipe of a checkpoint that contains none")
    add("--out", metavar="F", help="the file to write: .onnx, .xml (OpenVINO), .pt2 (torch.export) or .html")
    add(
        "--to",
        nargs="+",
        metavar=("FORMAT", "DIR"),
        help="onnx, openvino, torch, aotinductor (torch, compiled for this kind of machine) or html, a page for the "
        "browser; or a folder: bundle, which runs without terrazzo, or triton, a model repository (default: by --out)",
    )
    add("--ort-web", metavar="PATH", help="for html and bundle: the npm package onnxruntime-web, as .tgz or folder")
    add("--for", dest="reader", metavar="READER", help="deepness: an ONNX file for QGIS Deepness and geodeep")
    add("--resolution", type=float, metavar="CM", help="with --for: centimetres per pixel of the training images")
    add("--size", type=image_size, metavar="HxW", help="for images of this size alone (default: of any size)")
    add(
        "--outputs",
        nargs="+",
        default=["labels"],
        metavar="NAME",
        help="labels (always the first), confidence, probabilities, logits",
    )
    add(
        "--precision",
        default="f32",
        metavar="P",
        help="f32, bf16, int8 (calibrated on training images of --check or --config), or auto: the fastest that passes "
        "--check",
    )
    add("--check", metavar="CONFIG", help="refuse a model that is worse on this config's validation set")
    add(
        "--max-drop",
        type=float,
        default=0.5,
        metavar="P",
        help="points of mIoU that --check lets it lose (default 0.5; of a class 2)",
    )
    add("--trust-config", action="store_true", help="import the modules in the model's custom_imports")
    add_weights_option(parser)


def run(args: argparse.Namespace) -> int:
    from terrazzo.exporting.export import export
    from terrazzo.inference.load import NOTE
    from terrazzo.system.terminal import Console

    console = Console(soft_wrap=True)
    args.model, args.to, args.out = sorted_out(args.model, args.to, args.out)
    if args.out is None and args.to is None:
        raise UserError("give --out FILE, such as --out model.onnx")
    if args.model is None and args.config is None:
        console.print(NOTE)
    with console.status("exporting") as status:
        report = export(
            args.model,
            args.out,
            config=args.config,
            to=args.to,
            size=args.size,
            outputs=args.outputs,
            precision=args.precision,
            check=args.check,
            max_drop=args.max_drop,
            ort_web=args.ort_web,
            reader=args.reader,
            resolution=args.resolution,
            trust=args.trust_config,
            weights=args.weights,
            on_step=status.update,
        )
    console.print(str(report))
    return 0


def sorted_out(model: str | None, to: list[str] | None, out: str | None) -> tuple[str | None, str | None, str | None]:
    """MODEL, the format and what to write, from `--to FORMAT [DIR]`, after which MODEL may stand too."""
    from terrazzo.exporting.formats import FOLDERS

    if to is None:
        return model, None, out
    name, *others = to
    if others and out is None and name in FOLDERS:
        out = others.pop(0)
    if others and model is None:
        model = others.pop(0)
    if others:
        raise UserError(f"--to {' '.join(to)}: {others[0]} is one too many; a file to write is named by --out")
    return model, name, out
