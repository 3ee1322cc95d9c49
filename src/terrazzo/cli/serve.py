"""`terrazzo serve`."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from terrazzo.cli.common import add_weights_option, amount_of_memory, bytes_of, count, positive

EXAMPLES = """\
  terrazzo serve                                        the bundled model, on http://127.0.0.1:8000
  terrazzo serve street.onnx roads=runs/roads --port 9000
  TERRAZZO_TOKEN=secret terrazzo serve best.safetensors --host 0.0.0.0
  curl -F file=@photo.jpg -H 'Accept: image/png' http://127.0.0.1:8000/predict -o labels.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = "files, folders of runs or names, as `predict --model` takes them; NAME=MODEL gives one another name"
    parser.add_argument("models", nargs="*", default=["street"], metavar="MODEL", help=f"{about} (default: street)")
    add = parser.add_argument_group("the models").add_argument
    add("--config", metavar="C", help="the config or recipe of a checkpoint that contains none")
    add("--trust-config", action="store_true", help="import the modules in custom_imports; run .pt2 files of others")
    add_weights_option(parser)
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")

    add = parser.add_argument_group("the address").add_argument
    add("--host", default="127.0.0.1", help="0.0.0.0 for other machines too (default: 127.0.0.1, this one alone)")
    add("--port", type=port, default=8000, help="(default 8000; 0 takes a free one)")
    about = "that clients must send (default: the environment variable TERRAZZO_TOKEN, else none)"
    add("--token", default=os.environ.get("TERRAZZO_TOKEN") or None, metavar="T", help=about)

    about = "let the page keep images with corrected labels there, as `data init` reads them"
    add("--keep", type=Path, metavar="FOLDER", help=about)
    about = "fetch the images of its tasks from there, with the key in LABEL_STUDIO_API_KEY"
    add("--label-studio", type=web_address, metavar="ADDRESS", help=about)

    add = parser.add_argument_group("limits").add_argument
    add("--memory", type=amount_of_memory, default=2 << 30, metavar="M", help="that one image may take (default 2G)")
    add("--max-bytes", type=bytes_of, default=64 << 20, metavar="B", help="of a request (default 64M)")
    add("--max-pixels", type=count, default=100_000_000, metavar="N", help="of an image (default 100 million)")
    add("--timeout", type=positive, default=300.0, metavar="SECONDS", help="of a request (default 300)")
    add("--queue", type=count, default=64, metavar="N", help="requests at a time, others get 503 (default 64)")
    add(
        "--batch", type=count, default=8, metavar="N", help="images of one size that are predicted together (default 8)"
    )
    about = "milliseconds that an image waits for others of its size (default 5)"
    add("--batch-wait", type=positive, default=5.0, metavar="MS", help=about)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    from terrazzo.inference.load import NOTE
    from terrazzo.serving.app import Site
    from terrazzo.serving.label_studio import Images
    from terrazzo.serving.messages import Limits, Work
    from terrazzo.serving.page import Kept
    from terrazzo.serving.run import serve
    from terrazzo.system.files import make_folder
    from terrazzo.system.terminal import Console

    console = Console(soft_wrap=True)
    if args.token is not None and not re.fullmatch(r"[\x21-\x7e]+", args.token):
        args.usage_error("--token: use letters, digits and signs of ASCII, without spaces")
    limits = Limits(
        args.max_bytes, args.max_pixels, args.memory, max(args.timeout, 0.1), args.queue, args.batch,
        args.batch_wait / 1000,
    )  # fmt: skip
    models = sources(args)
    if any(source.path == "street" for source in models):
        console.print(NOTE)
    images = Images(args.label_studio, os.environ.get("LABEL_STUDIO_API_KEY"), limits.most_bytes)
    site = Site(images, args.token, Kept(make_folder(args.keep)) if args.keep else None)
    serve(Work(models, limits), args.host, args.port, site, console.print)
    return 0


def sources(args: argparse.Namespace) -> list[Any]:
    """The models with their names. Two of one name are bad usage, as is a config for several."""
    from terrazzo.serving.messages import ModelSource

    if args.config and len(args.models) > 1:
        args.usage_error("--config is of one checkpoint: serve it alone")
    found: dict[str, ModelSource] = {}
    for text in args.models:
        name, given, path = text.rpartition("=")
        if not given or Path(text).exists():
            name, path = Path(text).stem if Path(text).suffix else Path(text).name, text
        if not re.fullmatch(r"[\w.+ -]{1,100}", name):
            args.usage_error(f"'{name}' cannot be the name of a model: use letters, digits, - and .")
        if name in found:
            args.usage_error(f"{found[name].path} and {path} are both called {name}: give one as NAME={path}")
        found[name] = ModelSource(name, path, args.config, args.device, args.weights, args.trust_config)
    return list(found.values())


def web_address(text: str) -> str:
    """An address of a web server."""
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not an address: write http://localhost:8080")
    return text


def port(text: str) -> int:
    """A number from 0 to 65535."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: give a number from 0 to 65535")
    return int(text)
