"""`terrazzo demo`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work-dir", default="demo", help="where everything goes (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and the training (default 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    parser.add_argument("--iterations", type=int, help="training steps (default: enough for a good network)")


def run(args: argparse.Namespace) -> int:
    from terrazzo.demo.demo import ITERATIONS, run_demo

    run_demo(args.work_dir, args.seed, args.device, args.iterations or ITERATIONS)
    return 0
