"""`python tools/train.py CONFIG ...` as MMSegmentation users type it, in either version; runs `terrazzo train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from terrazzo.cli.legacy_flags import Replaced, add_replaced, report_replaced
from terrazzo.cli.main import main

REPLACED: Replaced = {
    "--diff_seed --diff-seed": (0, "nothing to do: every process draws from a seed of its own"),
    "--local_rank --local-rank": (1, ""),  # launchers add it; the environment says the same
    "--launcher": (1, ""),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a segmentor.")
    parser.add_argument("config")
    parser.add_argument("--work-dir")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--auto-resume", action="store_true", help="as --resume")
    parser.add_argument(
        "--resume-from", metavar="STATE", help="a state in a work dir's `checkpoints`: resumes that run"
    )
    parser.add_argument("--load-from", help="weights to start from")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the images of a step"
    )
    parser.add_argument("--no-validate", action="store_true", help="validate at the end only")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--cfg-options", nargs="+", default=[], action="extend")
    parser.add_argument("--options", nargs="+", default=[], action="extend", help="as --cfg-options")
    parser.add_argument("--gpus", type=int, help="how many devices")
    parser.add_argument("--gpu-id", "--gpu-ids", nargs="+", type=int, default=[], help="the device to train on")
    parser.add_argument("--device")
    parser.add_argument("--data-root")
    parser.add_argument("--pretrained")
    parser.add_argument("--trust-config", action="store_true")
    parser.add_argument("--no-check", action="store_true", help="start without a look at all of the data")
    add_replaced(parser, REPLACED)
    return parser


def translate(arguments: Sequence[str]) -> list[str]:
    """The same call for `terrazzo train`."""
    parser = make_parser()
    args, others = parser.parse_known_args(arguments)  # the rest are flags of `terrazzo train`
    report_replaced(args, REPLACED)
    if len(args.gpu_id) > 1:
        parser.error("--gpu-ids: name several devices in CUDA_VISIBLE_DEVICES and their number in --gpus")
    if args.gpu_id and any(args.gpu_id):  # the first device is taken anyway
        args.device = args.device or f"cuda:{args.gpu_id[0]}"
    options = [*args.cfg_options, *args.options]
    if args.resume_from:
        folder = Path(args.resume_from).parent
        args.work_dir = str(folder.parent if folder.name == "checkpoints" else folder)
    if args.load_from:
        options.append(f"load_from={args.load_from}")
    if args.seed is not None:
        options.append(f"randomness.seed={args.seed}")
    if args.deterministic:
        options.append("randomness.deterministic=True")
    if args.no_validate:
        options.append("train_cfg.val_interval=1000000000")
    command = ["train", args.config, *others]
    command += ["--gpus", str(args.gpus)] if args.gpus else []
    for flag in ("work_dir", "device", "data_root", "pretrained"):
        value = getattr(args, flag)
        command += [f"--{flag.replace('_', '-')}", value] if value else []
    command += ["--resume"] if args.resume or args.auto_resume or args.resume_from else []
    for flag in ("amp", "auto_scale_lr", "trust_config", "no_check"):
        command += [f"--{flag.replace('_', '-')}"] if getattr(args, flag) else []
    return command + (["--cfg-options", *options] if options else [])


if __name__ == "__main__":
    raise SystemExit(main(translate(sys.argv[1:])))
