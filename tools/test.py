"""`python tools/test.py CONFIG CHECKPOINT ...` as MMSegmentation users type it; runs `terrazzo test`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from terrazzo.cli.main import main


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Test a segmentor.")
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--work-dir", help="where class maps and metrics go, if --out is not given")
    parser.add_argument("--out", help="the folder for class maps and metrics")
    parser.add_argument("--eval", nargs="+")
    parser.add_argument("--show-dir")
    parser.add_argument("--opacity", type=float, default=0.5)
    parser.add_argument("--cfg-options", "--options", nargs="+", default=[])
    parser.add_argument("--device")
    parser.add_argument("--trust-config", action="store_true")
    parser.add_argument("--tta", "--aug-test", action="store_true")
    # these said how processes shared their results and when windows closed: there is nothing to do for them
    for flag in ("--gpu-collect", "--show"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    for flag in ("--gpu-id", "--tmpdir", "--wait-time", "--local_rank", "--local-rank"):
        parser.add_argument(flag, help=argparse.SUPPRESS)
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help=argparse.SUPPRESS
    )
    return parser


def translate(arguments: Sequence[str]) -> list[str]:
    """The same call for `terrazzo test`."""
    args = make_parser().parse_args(arguments)
    command = ["test", args.config, args.checkpoint, "--opacity", str(args.opacity)]
    flags = {"--out": args.out or args.work_dir, "--show-dir": args.show_dir, "--device": args.device}
    for flag, value in flags.items():
        command += [flag, value] if value else []
    command += ["--eval", *args.eval] if args.eval else []
    command += ["--trust-config"] if args.trust_config else []
    command += ["--tta"] if args.tta else []
    return command + (["--cfg-options", *args.cfg_options] if args.cfg_options else [])


if __name__ == "__main__":
    raise SystemExit(main(translate(sys.argv[1:])))
