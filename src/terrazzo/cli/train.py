"""`terrazzo train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from terrazzo.cli.common import add_config_options, count, overrides, picked
from terrazzo.errors import UserError

# options of the command line that set a key of the config
KEYS = {
    "auto_scale_lr": "auto_scale_lr.enable",
    "time_limit": "train_cfg.time_limit",
    "deterministic": "randomness.deterministic",
    "compile": "compile",
    "channels_last": "channels_last",
    "track": "track",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", help="a config file (.py, .yaml, .json) or a recipe name")
    add("--work-dir", help="where logs and weights go (default: runs/<the config's name>)")
    add("--resume", action="store_true", help="continue the newest state in the work dir, if any")
    add("--amp", nargs="?", const="auto", choices=["auto", "bf16", "fp16"], help="mixed precision (default type: auto)")
    add("--data-root", metavar="D", help="location of the data, instead of the config's")
    add("--auto-scale-lr", action="store_true", help="scale the learning rate with the images of a step")
    add("--pretrained", metavar="PATH|none", help="weights of the backbone, or none")
    add("--no-check", action="store_true", help="start without checking all of the data")
    add("--gpus", type=count, default=1, metavar="N", help="train in N processes, one per GPU of this machine")
    add("--max-restarts", type=int, default=0, metavar="N", help="with --gpus: how often a failed run is resumed")
    add("--find-batch", action="store_true", help="find the number of images that fit into a step, and stop")
    add("--slurm", type=count, nargs="?", const=1, metavar="NODES", help="write a batch file for SLURM and stop")
    add("--fsdp", action="store_true", help="shard weights and moments among the devices")
    add("--time-limit", metavar="T", help="save and stop after this time: 90 (seconds), 55m, 1h30m")
    add("--max-steps", type=count, metavar="N", help="save and stop after N steps of this session")
    add("--deterministic", action="store_true", help="the same bits on every run, also on a GPU")
    add("--channels-last", action="store_true", help="lay out images with their channels together, for mixed precision")
    add("--compile", action="store_true", help="speed up steps with torch.compile")
    add("--track", nargs="+", metavar="T", help="also write curves and pictures for tensorboard, wandb, mlflow, csv")
    add("--profile", nargs="?", type=count, const=20, default=0, metavar="N", help="report the time of N steps by part")
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    from terrazzo.system.process_group import launched
    from terrazzo.training.distributed.launch import launch
    from terrazzo.training.train import train

    if args.slurm:
        return write_job(args)
    if args.gpus > 1 and launched() is None:
        return launch(args.gpus, args.arguments, restarts=args.max_restarts, cpu=args.device == "cpu")
    settings = overrides(args)
    for flag, key in KEYS.items():
        if getattr(args, flag):
            settings[key] = getattr(args, flag)
    if args.fsdp:
        settings["strategy"] = {"type": "FSDPStrategy"}
    if args.find_batch:
        return print_batch_size(args, settings)
    same = picked(args, "work_dir", "resume", "max_steps", "amp", "pretrained", "device", "data_root", "profile")
    outcome = train(args.config, overrides=settings, trust=args.trust_config, check=not args.no_check, **same)
    return 0 if outcome.finished else 1


def print_batch_size(args: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Print the largest batch that fits."""
    from terrazzo.config.experiment import make_experiment
    from terrazzo.config.load import load_config
    from terrazzo.data.discovery.data_root import locate
    from terrazzo.system.devices import choose_device
    from terrazzo.training.batch_size import find_batch_size
    from terrazzo.training.train import precision_overrides

    config = load_config(args.config, settings | precision_overrides(args.amp), trust=args.trust_config)
    experiment, device = make_experiment(locate(config, args.data_root)), choose_device(args.device)
    if device.type != "cuda":
        raise UserError(f"--find-batch measures the memory of a GPU; this is {device}")
    found, planned = find_batch_size(experiment, device), experiment.train.batch_size if experiment.train else 0
    print(f"up to {found} images of this config fit into one step on this device (the config has {planned}); to leave")
    spare = f"train_dataloader.batch_size={max(1, int(0.9 * found))}"
    print(f"some memory free: --cfg-options {spare} --auto-scale-lr")
    return 0


def write_job(args: argparse.Namespace) -> int:
    """Write a batch file for `sbatch`."""
    from pathlib import Path

    from terrazzo.training.distributed.slurm import write_batch_file
    from terrazzo.training.train import run_name

    folder = Path(args.work_dir or Path("runs") / run_name(args.config))
    kept = without_options(args.arguments, ("--slurm", "--gpus", "--work-dir", "--resume"))
    path = write_batch_file(
        folder, [*kept, "--work-dir", str(folder.resolve()), "--resume"], nodes=args.slurm, gpus=args.gpus
    )
    print(f"written: {path}\ncheck it, then: sbatch {path}")
    return 0


def without_options(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """The command line without some options and their values."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        if argument.startswith("--"):
            dropping = argument.partition("=")[0] in names
        if not dropping:
            kept.append(argument)
        elif not argument.startswith("--") or "=" in argument or argument == "--resume":
            dropping = False  # the option is complete
    return kept
