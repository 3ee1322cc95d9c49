"""`python tools/train.py CONFIG ...` as MMSegmentation users type it, in either version; runs `terrazzo train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from terrazzo.cli.main import main


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
    parser.add_argument("--no-validate", action="store_true", help="validate at the end only")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--cfg-options", "--options", nargs="+", default=[])
    parser.add_argument("--device")
    parser.add_argument("--pretrained")
    parser.add_argument("--trust-config", action="store_true")
    # what chose devices there: one process uses the first device here
    parser.add_argument("--gpus", "--gpu-id", "--gpu-ids", nargs="+", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help=argparse.SUPPRESS
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--diff_seed", "--diff-seed", action="store_true", help=argparse.SUPPRESS)
    return parser


def translate(arguments: Sequence[str]) -> list[str]:
    """The same call for `terrazzo train`."""
    args = make_parser().parse_args(arguments)
    command = ["train", args.config]
    options = list(args.cfg_options)
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
    for flag, value in (("--work-dir", args.work_dir), ("--device", args.device), ("--pretrained", args.pretrained)):
        command += [flag, value] if value else []
    command += ["--resume"] if args.resume or args.auto_resume or args.resume_from else []
    command += ["--amp"] if args.amp else []
    command += ["--trust-config"] if args.trust_config else []
    return command + (["--cfg-options", *options] if options else [])


if __name__ == "__main__":
    raise SystemExit(main(translate(sys.argv[1:])))
