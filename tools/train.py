"""`python tools/train.py CONFIG ...` as MMSegmentation users type it, in either version; runs `terrazzo train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from terrazzo.cli.legacy_flags import Replaced, add_replaced, report_replaced
from terrazzo.cli.main import main
from terrazzo.cli.parser import spelled

REPLACED: Replaced = {
    "--diff_seed --diff-seed": (0, "nothing to do: every process draws from a seed of its own"),
    "--local_rank --local-rank": (1, ""),  # launchers add it; the environment says the same
    "--launcher": (1, ""),
}


def make_parser() -> argparse.ArgumentParser:
    """The flags that `terrazzo train` does not have; the rest are its own."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--auto-resume", action="store_true", help="as --resume")
    parser.add_argument("--no-validate", action="store_true", help="validate at the end only")
    parser.add_argument("--options", nargs="+", default=[], action="extend", help="as --cfg-options")
    parser.add_argument("--gpu-id", "--gpu-ids", nargs="+", type=int, default=[], help="the device to train on")
    add_replaced(parser, REPLACED)
    return parser


def translate(arguments: Sequence[str]) -> list[str]:
    """The same call for `terrazzo train`."""
    parser = make_parser()
    args, others = parser.parse_known_args(spelled(arguments))
    report_replaced(args, REPLACED)
    if len(args.gpu_id) > 1:
        parser.error("--gpu-ids: name several devices in CUDA_VISIBLE_DEVICES and their number in --gpus")
    command = ["train", *others]
    if args.gpu_id and any(args.gpu_id):  # the first device is taken anyway
        command += ["--device", f"cuda:{args.gpu_id[0]}"]
    command += ["--resume"] if args.auto_resume else []
    options = [*args.options, *(["train_cfg.val_interval=1000000000"] if args.no_validate else [])]
    return command + (["--cfg-options", *options] if options else [])


if __name__ == "__main__":
    raise SystemExit(main(translate(sys.argv[1:])))
