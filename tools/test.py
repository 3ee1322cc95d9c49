"""`python tools/test.py CONFIG CHECKPOINT ...` as MMSegmentation users type it; runs `terrazzo test`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from terrazzo.cli.legacy_flags import Replaced, add_replaced, report_replaced
from terrazzo.cli.main import main

REPLACED: Replaced = {
    "--show": (0, "no windows are opened: --show-dir D writes the painted images"),
    "--wait-time": (1, "no windows are opened: --show-dir D writes the painted images"),
    "--gpu-collect": (0, "nothing to do: counts are summed over the devices, no results are gathered"),
    "--tmpdir": (1, "nothing to do: counts are summed over the devices, no results are gathered"),
    "--local_rank --local-rank": (1, ""),  # launchers add it; the environment says the same
    "--launcher": (1, ""),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Test a segmentor.")
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--work-dir", help="where class maps and metrics go, if --out is not given")
    parser.add_argument("--out", help="the folder for class maps and metrics")
    parser.add_argument("--eval", nargs="+")
    parser.add_argument("--eval-options", nargs="+", default=[], help="imgfile_prefix=D is the folder of --format-only")
    parser.add_argument("--show-dir")
    parser.add_argument("--opacity", type=float, default=0.5)
    parser.add_argument("--cfg-options", nargs="+", default=[], action="extend")
    parser.add_argument("--options", nargs="+", default=[], action="extend", help="as --cfg-options")
    parser.add_argument("--gpu-id", type=int, help="the device to test on")
    parser.add_argument("--device")
    parser.add_argument("--data-root")
    parser.add_argument("--trust-config", action="store_true")
    parser.add_argument("--tta", "--aug-test", action="store_true")
    parser.add_argument("--format-only", action="store_true")
    add_replaced(parser, REPLACED)
    return parser


def translate(arguments: Sequence[str]) -> list[str]:
    """The same call for `terrazzo test`."""
    args, others = make_parser().parse_known_args(arguments)  # the rest are flags of `terrazzo test`
    report_replaced(args, REPLACED)
    if args.gpu_id:  # the first device is taken anyway
        args.device = args.device or f"cuda:{args.gpu_id}"
    out = args.out or args.work_dir or ("format_results" if args.format_only else None)
    for option in args.eval_options:
        key, _, value = option.partition("=")
        if key == "imgfile_prefix":
            out = value
        else:
            print(f"--eval-options {key}: nothing to do, --eval names the metrics", file=sys.stderr)
    if out and out.endswith((".pkl", ".pickle")):
        out = out.rpartition(".")[0]
        print(f"--out: nothing is pickled; class maps and metrics.json go to the folder {out}", file=sys.stderr)
    command = ["test", args.config, args.checkpoint, *others, "--opacity", str(args.opacity)]
    flags = {"--out": out, "--show-dir": args.show_dir, "--device": args.device, "--data-root": args.data_root}
    for flag, value in flags.items():
        command += [flag, value] if value else []
    command += ["--eval", *args.eval] if args.eval else []
    command += ["--tta"] if args.tta else []
    command += ["--format-only"] if args.format_only else []
    command += ["--trust-config"] if args.trust_config else []
    options = [*args.cfg_options, *args.options]
    return command + (["--cfg-options", *options] if options else [])


if __name__ == "__main__":
    raise SystemExit(main(translate(sys.argv[1:])))
