"""`terrazzo train`."""

from __future__ import annotations

import argparse

from terrazzo.cli.common import add_config_options, overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a config file (.py, .yaml, .json) or a recipe name")
    parser.add_argument("--work-dir", help="where logs and weights go (default: runs/<the config's name>)")
    parser.add_argument("--resume", action="store_true", help="continue the newest state in the work dir, if any")
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=["auto", "bf16", "fp16"],
        help="mixed precision; alone it chooses the type",
    )
    parser.add_argument("--data-root", metavar="D", help="where the data lie, if not where the config says")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the images of a step"
    )
    parser.add_argument("--pretrained", metavar="PATH|none", help="weights of the backbone, or none")
    parser.add_argument("--no-check", action="store_true", help="start without a look at all of the data")
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    from terrazzo.engine.train import train

    settings = overrides(args) | ({"auto_scale_lr.enable": True} if args.auto_scale_lr else {})
    outcome = train(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        overrides=settings,
        amp=args.amp,
        pretrained=args.pretrained,
        device=args.device,
        trust=args.trust_config,
        data_root=args.data_root,
        check=not args.no_check,
    )
    return 0 if outcome.finished else 1
