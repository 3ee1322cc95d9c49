"""`terrazzo train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrazzo.cli.common import add_config_options, budget, count, overrides, picked
from terrazzo.errors import UserError

# options of the command line that set a key of the config
KEYS = {
    "auto_scale_lr": "auto_scale_lr.enable",
    "time_limit": "train_cfg.time_limit",
    "deterministic": "randomness.deterministic",
    "compile": "compile",
    "channels_last": "channels_last",
    "track": "track",
    "load_from": "load_from",
    "seed": "randomness.seed",
    "fold": "data.fold",
}

BUDGET = 7200.0  # seconds
ALL = "all"  # folds

EXAMPLES = """\
  terrazzo train street.yaml                       into runs/street, or runs/street-2 if that has a run
  terrazzo train street.yaml --resume              continue the newest run of street.yaml
  terrazzo train data/street --budget 2h           plan a config for a folder and two hours, train it, score it
  terrazzo train street.yaml --backbone timm/convnext_tiny
                                                   an encoder of timm with a feature pyramid
  terrazzo train street.yaml --fold 2              validate on the second of `data: {folds: 5}`
  terrazzo train street.yaml --fold all            each of them in turn, in runs/street-folds; then their ensemble
  terrazzo train street.yaml --seeds 3             three runs, in runs/street-seeds; mean and deviation
  terrazzo train pspnet_r50-d8_4xb2-40k_cityscapes-512x1024 --data-root /data/cityscapes --gpus 4
  terrazzo train street.yaml --load-from street    start from the weights of the bundled model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = "a config file (.py, .yaml, .json), a recipe name, the folder of a run, or a folder of images and labels"
    parser.add_argument("config", help=about)

    group = parser.add_argument_group("where results go")
    add = group.add_argument
    add("--work-dir", metavar="D", help="the folder of the run (default: runs/<the config's name>, then -2, -3 ...)")
    among = group.add_mutually_exclusive_group().add_argument
    among("--resume", action="store_true", help="continue the newest state in the work dir, if any")
    among("--resume-from", metavar="STATE", help="continue a certain state, RUN/checkpoints/step_N.pt, or a run")
    among("--overwrite", action="store_true", help="replace the run that the work dir has")
    add("--track", nargs="+", metavar="T", help="also write curves and pictures for tensorboard, wandb, mlflow, csv")

    add = parser.add_argument_group("data and weights").add_argument
    add("--data-root", metavar="D", help="location of the data, instead of the config's")
    add("--no-check", action="store_true", help="start without checking all of the data")
    about = "another network in place of the config's: an encoder such as timm/convnext_tiny, or r50, with --head"
    add("--backbone", metavar="B", help=about)
    add("--head", metavar="H", help="fpn (default), uper, segformer, unet, linear, eomt, aspp, psp or fcn")
    about = "weights of the backbone, none, or auto: the published ones where they are on this machine"
    add("--pretrained", metavar="PATH|none|auto", help=about)
    add("--load-from", metavar="PATH", help="weights of the whole model to start from, or of a run's folder")
    about = "the part of the config's `data.folds` to validate on, from 1 on; all: each in turn, then their ensemble"
    add("--fold", type=fold, metavar="K|all", help=about)
    add("--seed", type=int, metavar="N", help="of weights, order and augmentation, instead of the config's")
    about = "train N times, with seeds from --seed (default 0) on, each in its own folder in the work dir"
    add("--seeds", type=count, metavar="N", help=about)
    add("--deterministic", action="store_true", help="the same bits on every run, also on a GPU")

    add = parser.add_argument_group("length, speed and memory").add_argument
    about = "plan the config anew for this time, 20m or 2h, as `terrazzo plan` does (a folder's default: 2h)"
    add("--budget", type=budget, metavar="T", help=about)
    add("--time-limit", metavar="T", help="save and stop after this time: 90 (seconds), 55m, 1h30m")
    add("--max-steps", type=count, metavar="N", help="save and stop after N steps of this session")
    add("--amp", nargs="?", const="auto", choices=["auto", "bf16", "fp16"], help="mixed precision (default type: auto)")
    add("--channels-last", action="store_true", help="lay out images with their channels together, for mixed precision")
    add("--compile", action="store_true", help="speed up steps with torch.compile")
    add("--find-batch", action="store_true", help="find the number of images that fit into a step, and stop")
    add("--profile", nargs="?", type=count, const=20, default=0, metavar="N", help="report the time of N steps by part")

    add = parser.add_argument_group("several devices").add_argument
    add("--gpus", type=count, default=1, metavar="N", help="train in N processes, one per GPU of this machine")
    add("--max-restarts", type=int, default=0, metavar="N", help="with --gpus: how often a failed run is resumed")
    add("--auto-scale-lr", action="store_true", help="scale the learning rate with the images of a step")
    add("--fsdp", action="store_true", help="shard weights and moments among the devices")
    add("--slurm", type=count, nargs="?", const=1, metavar="NODES", help="write a batch file for SLURM and stop")
    add_config_options(parser)
    parser.set_defaults(usage_error=parser.error)


def fold(text: str) -> int | str:
    """The number of a fold, or all of them."""
    return ALL if text == ALL else count(text)


def run(args: argparse.Namespace) -> int:
    if args.budget or is_data(args.config):
        return run_planned(args)
    if args.fold == ALL:
        return run_folds(args)
    if args.fold and not (args.work_dir or args.resume_from):
        use_own_folder(args)
    return run_seeds(args) if args.seeds else run_once(args)


def is_data(source: str) -> bool:
    """Return True for a folder that is neither a run's nor called like a recipe."""
    from terrazzo import recipes

    folder = Path(source)
    is_run = (folder / "config.yaml").is_file()
    return folder.is_dir() and not is_run and source not in recipes.names() and source not in recipes.families()


def use_own_folder(args: argparse.Namespace) -> None:
    """Give a fold its own work dir: `street-fold2`."""
    from terrazzo.training.train import run_name
    from terrazzo.training.work_dir import DEFAULT, choose_folder

    base = DEFAULT / f"{run_name(args.config)}-fold{args.fold}"
    args.work_dir = str(choose_folder(base, args.resume, args.overwrite))
    args.arguments = [*args.arguments, "--work-dir", args.work_dir]


def run_planned(args: argparse.Namespace) -> int:
    """Plan a config for a budget, train it, and print its scores with intervals and the command that exports it."""
    from terrazzo.training.planning.run import score_run, write_plan
    from terrazzo.training.work_dir import DEFAULT, check_free, choose_folder

    for flag in ("seeds", "fold", "slurm", "find_batch", "resume_from", "data_root", "backbone"):
        if getattr(args, flag):
            args.usage_error(f"--{flag.replace('_', '-')} needs a config: write it with `terrazzo plan {args.config}`")
    if args.gpus > 1:
        args.usage_error(f"--gpus needs a config: write it with `terrazzo plan {args.config} --device cuda`")
    source = Path(args.config)
    name = source.stem if source.is_file() else source.resolve().name
    folder = Path(args.work_dir or choose_folder(DEFAULT / name, args.resume, args.overwrite))
    check_free(folder, args.resume, args.overwrite)
    plan = folder / "plan.yaml"
    if not (args.resume and plan.is_file()):
        text = write_plan(source, plan, args.budget or BUDGET, args.device)
        print(f"{text}\nconfig: {plan}", flush=True)
    args.config, args.work_dir = str(plan), str(folder)
    if code := run_once(args):
        return code
    print(score_run(folder, args.device))
    return 0


def run_seeds(args: argparse.Namespace) -> int:
    """Train once with each seed, and print the mean and deviation; `--resume` leaves finished runs alone."""
    from terrazzo.training.train import run_name
    from terrazzo.training.work_dir import DEFAULT

    base = Path(args.work_dir or DEFAULT / f"{run_name(args.config)}-seeds")
    first = args.seed or 0
    return run_several(args, "seed", range(first, first + args.seeds), base)


def run_folds(args: argparse.Namespace) -> int:
    """Train once for each fold, print the mean and deviation, and score the ensemble on the test images if any."""
    from terrazzo.training.planning.run import count_folds, score_folds
    from terrazzo.training.train import run_name
    from terrazzo.training.work_dir import DEFAULT

    folds = range(1, count_folds(args.config, overrides(args)) + 1)
    base = Path(args.work_dir or DEFAULT / f"{run_name(args.config)}-folds")
    if code := run_several(args, "fold", folds, base):
        return code
    print(score_folds(args.config, [base / f"fold{fold}" for fold in folds], overrides(args), args.device))
    return 0


def run_several(args: argparse.Namespace, option: str, values: Sequence[int], base: Path) -> int:
    """Train once with each value of `seed` or `fold`, into folders below `base`, and print the mean and deviation."""
    from terrazzo.cli.runs import repeat_summary
    from terrazzo.system.process_group import launched
    from terrazzo.training.monitoring.runs import open_runs, read_record
    from terrazzo.training.work_dir import check_free

    given = "--seeds" if option == "seed" else "--fold all"
    for flag in ("resume_from", "find_batch", "slurm"):
        if getattr(args, flag):
            args.usage_error(f"--{flag.replace('_', '-')} is about one run: omit {given}")
    if launched() is not None:
        args.usage_error(f"{given} trains one run after the other: start it once, with --gpus N for several processes")
    folders = {value: base / f"{option}{value}" for value in values}
    states = {value: read_record(folder).get("state") if args.resume else None for value, folder in folders.items()}
    waiting = {value: folder for value, folder in folders.items() if states[value] != "finished"}
    for folder in waiting.values():
        check_free(folder, args.resume, args.overwrite)
    kept = without_options(args.arguments, ("--seeds", f"--{option}", "--work-dir"))
    for value, folder in waiting.items():
        print(f"{option} {value}: {folder}", flush=True)
        arguments = [*kept, f"--{option}", str(value), "--work-dir", str(folder)]
        own = {option: value, "work_dir": str(folder), "arguments": arguments}
        if code := run_once(argparse.Namespace(**(vars(args) | own))):
            return code
    runs = open_runs(list(folders.values()))
    is_complete = len(runs) > 1 and all(one.best is not None for one in runs)
    print(repeat_summary(runs, f"{option}s") if is_complete else f"runs: {base}")
    return 0


def run_once(args: argparse.Namespace) -> int:
    """Train one model."""
    from terrazzo.system.process_group import launched
    from terrazzo.training.distributed.launch import launch
    from terrazzo.training.train import train

    if args.slurm:
        return write_job(args)
    if args.overwrite and args.max_restarts:
        args.usage_error("--overwrite would apply to a restart too: give a --work-dir that has no run")
    if args.gpus > 1 and launched() is None:
        return launch(args.gpus, args.arguments, restarts=args.max_restarts, cpu=args.device == "cpu")
    settings = overrides(args)
    for flag, key in KEYS.items():
        if getattr(args, flag) not in (None, False):
            settings[key] = getattr(args, flag)
    if args.backbone:
        head = {"head": args.head} if args.head else {}
        settings |= {"recipe": None, "model": {"backbone": args.backbone, **head, "_delete_": True}}
    elif args.head:
        args.usage_error("--head belongs to an encoder: name it with --backbone")
    if args.fsdp:
        settings["strategy"] = {"type": "FSDPStrategy"}
    if args.find_batch:
        return print_batch_size(args, settings)
    args.resume = args.resume_from or args.resume
    same = picked(
        args, "work_dir", "resume", "overwrite", "max_steps", "amp", "pretrained", "device", "data_root", "profile"
    )
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
    from terrazzo.training.distributed.slurm import write_batch_file
    from terrazzo.training.train import run_name
    from terrazzo.training.work_dir import DEFAULT, check_free, choose_folder

    if args.resume_from or args.overwrite:
        flag = "--overwrite" if args.overwrite else "--resume-from"
        args.usage_error(f"{flag} would apply whenever the job is requeued: give a --work-dir that has no run")
    folder = Path(args.work_dir or choose_folder(DEFAULT / run_name(args.config), args.resume))
    check_free(folder, args.resume)
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
