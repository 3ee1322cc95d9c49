"""`terrazzo checkpoint`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from terrazzo.cli.common import add_weights_option
from terrazzo.system.printable import caption


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    inspect = actions.add_parser("inspect", help="show the contents of a checkpoint")
    inspect.add_argument("file", metavar="FILE", help="a .pth or .safetensors file, or weights in the cache by name")
    inspect.add_argument("--json", action="store_true", help="print JSON, with the whole config")
    publish = actions.add_parser("publish", help="write the weights alone, with their sha256 in the name")
    publish.add_argument("source", metavar="IN")
    publish.add_argument("target", metavar="OUT", help="a .safetensors or .pth file; gets eight digits of its sha256")
    publish.add_argument("--half", action="store_true", help="store weights in 16 bits: half the size")
    about = "let the file remember the training images of this config (default: those of the run that wrote IN)"
    publish.add_argument("--data", metavar="CONFIG", help=about)
    average = actions.add_parser("average", help="write the mean of several checkpoints' weights")
    average.add_argument("target", metavar="OUT", help="a .safetensors or .pth file")
    average.add_argument("sources", metavar="FILE", nargs="+")
    convert = actions.add_parser("convert", help="write a checkpoint in the other format, or under our names")
    convert.add_argument("source", metavar="IN", help="of MMSegmentation, torchvision, timm, transformers ...")
    convert.add_argument("target", metavar="OUT", help="a .safetensors or .pth file")
    convert.add_argument("--to", metavar="CONFIG", help="the config or recipe of the model")
    convert.add_argument("--trust-config", action="store_true", help="run a .py config as a program")
    for action in (inspect, publish, average, convert):
        add_weights_option(action)
    for action in (publish, average, convert):
        action.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    if args.action == "inspect":
        return inspect(args)
    from terrazzo.checkpoints.publish import average, convert, publish

    options = {"weights": args.weights, "force": args.force}
    if args.action == "publish":
        written = publish(args.source, args.target, half=args.half, data=args.data, **options)
    elif args.action == "average":
        written = average(args.target, args.sources, **options)
    else:
        written = convert(args.source, args.target, config=args.to, trust=args.trust_config, **options)
    if written.report is not None:
        print(written.report)
    contents = "weights and config: one file is the whole model" if written.self_contained else "weights, no config"
    print(f"{written.tensors} tensors, {contents}: {written.path}")
    return 0


def inspect(args: argparse.Namespace) -> int:
    from terrazzo.checkpoints.inspect import inspect_checkpoint

    found = inspect_checkpoint(args.file, args.weights)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for title, text in lines(found):
        print(f"{title:11} {text}")
    return 0


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Titles and texts about a checkpoint, the most important first."""
    rows = [
        ("file", f"{found['path']}, {found['bytes'] / 2**20:,.1f} MiB, sha256 {found['sha256'][:8]}"),
        ("parameters", f"{found['parameters']:,} in {found['tensors']} tensors ({', '.join(found['types'])})"),
    ]
    if found["other_weights"]:
        names = {"ema": "averaged", "model": "as trained"}
        rows.append(("weights", f"{names[found['weights']]}; {names[found['other_weights']]} too"))
    for title, key in (("model", "model"), ("looks like", "looks_like")):
        if found[key]:
            text = "; ".join(f"{name} {kind}" for name, kind in found[key].items()) if key == "model" else found[key]
            rows.append((title, text))
    if found.get("classes"):
        rows.append(("classes", f"{len(found['classes'])}: {', '.join(map(caption, found['classes']))}"))
    progress = [f"{key} {caption(str(found[key]))}" for key in ("step", "iter", "epoch") if found.get(key) is not None]
    rows += [("trained", ", ".join(progress))] * bool(progress)
    metrics = found.get("metrics")
    scores = {**(metrics if isinstance(metrics, dict) else {}), "best": found.get("best_score")}
    scores = {key: value for key, value in scores.items() if isinstance(value, (int, float))}
    rows += [("scores", ", ".join(f"{name} {value:.2f}" for name, value in scores.items()))] * bool(scores)
    rows += [("sections", ", ".join(map(caption, found["sections"])))] * bool(found["sections"])
    rows.append(("config", "yes (--json shows it)" if found["config"] else "none"))
    return rows
