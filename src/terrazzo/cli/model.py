"""`terrazzo model`."""

from __future__ import annotations

import argparse
from typing import Any

from terrazzo.cli.common import add_config_options, count, image_size, overrides, print_table

KINDS = ("backbones", "necks", "heads", "losses", "segmentors", "own")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = actions.add_parser("info", help="show what a model costs: parameters, FLOPs, features, memory")
    info.add_argument("config", metavar="NAME|CONFIG", help="a recipe name or a config file (.py, .yaml, .json)")
    about = "size of the input (default: the config's crop size); --shape H W is the same"
    info.add_argument("--size", type=image_size, metavar="HxW", help=about)
    info.add_argument("--shape", type=count, nargs="+", metavar="N", help=argparse.SUPPRESS)
    add_config_options(info)
    listing = actions.add_parser("list", help="list the types that a config's model can be built from")
    listing.add_argument("--kind", choices=KINDS, help="only this kind; own: types registered outside terrazzo")


def run(args: argparse.Namespace) -> int:
    return {"info": info, "list": list_types}[args.action](args)


def info(args: argparse.Namespace) -> int:
    from terrazzo.config.load import load_config
    from terrazzo.models.info import model_info

    config = load_config(args.config, overrides(args), trust=args.trust_config)
    if args.shape:  # of MMSegmentation's get_flops.py: H W, or one length for both
        args.size = image_size("x".join(map(str, args.shape)))
    show(model_info(config, args.size))
    return 0


def show(found: Any) -> None:
    """Print a ModelInfo."""
    _, channels, height, width = found.input_shape
    print(f"{found.type}, one image of {channels}x{height}x{width}, {found.output_shape[1]} output channels")
    rows = [(part.name, part.type, f"{part.parameters:,}", giga(part.flops)) for part in found.parts]
    rows += [("all", "", f"{found.parameters:,}", giga(found.flops))]
    print_table(("part", "type", "parameters", "GFLOPs"), rows, numbers=("parameters", "GFLOPs"))
    if found.trainable != found.parameters:
        print(f"trainable: {found.trainable:,}")
    rows = [
        (map_.source, str(map_.channels), f"{map_.stride:g}", f"{map_.height}x{map_.width}") for map_ in found.features
    ]
    columns = ("features of", "channels", "stride", "size")
    print_table(columns, rows, numbers=columns[1:])
    weights, activations = found.weight_bytes / 2**20, found.activation_bytes / 2**20
    print(f"memory in float32: {weights:,.1f} MiB of weights, at most {activations:,.1f} MiB of images and features")
    print("GFLOPs are counted as in torch, two for each multiply-add; inference does not run auxiliary heads")


def list_types(args: argparse.Namespace) -> int:
    from terrazzo.models.info import list_types as types_by_kind

    for kind, types in types_by_kind(args.kind).items():
        print(kind)
        width = max(map(len, types))
        for name, about in types.items():
            print(f"  {name:{width}}  {about}".rstrip())
    return 0


def giga(count: int) -> str:
    return f"{count / 1e9:,.2f}"
