"""The two entry scripts take the flags of both MMSegmentation versions, or say what takes their place."""

from __future__ import annotations

import importlib.util

import pytest

from support.paths import REPOSITORY
from terrazzo.cli.main import make_parser

TOOLS = REPOSITORY / "tools"


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"tools_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(name: str, call: str) -> dict:
    """What `terrazzo train` or `terrazzo test` reads of a call of the script."""
    positional = {"train": "c.py", "test": "c.py x.pth"}[name]
    arguments = script(name).translate(f"{positional} {call}".split())
    return vars(make_parser(arguments[0]).parse_args(arguments))


@pytest.mark.parametrize(
    ("name", "call", "expected"),
    [
        ("train", "--work-dir w --resume --amp", {"work_dir": "w", "resume": True, "amp": "auto"}),
        ("train", "--auto-resume", {"resume": True}),
        ("train", "--work-dir=w --seed=1", {"work_dir": "w", "seed": 1}),
        ("train", "--resume-from w/latest.pth --work-dir v", {"work_dir": "v", "resume_from": "w/latest.pth"}),
        ("train", "--resume=w/latest.pth", {"resume_from": "w/latest.pth", "resume": False}),
        ("train", "--resume w/latest.pth", {"resume_from": "w/latest.pth", "config": "c.py"}),
        ("train", "--load-from x.pth", {"load_from": "x.pth"}),
        ("train", "--seed 3 --deterministic", {"seed": 3, "deterministic": True}),
        ("train", "--no-validate", {"cfg_options": [("train_cfg.val_interval", 10**9)]}),
        ("train", "--options a.b=1 --cfg-options c=2", {"cfg_options": [("c", 2), ("a.b", 1)]}),
        ("train", "--gpu-id 0", {"device": None}),
        ("train", "--gpus 2", {"gpus": 2, "device": None}),
        ("train", "--gpu-id 2", {"device": "cuda:2"}),
        ("train", "--gpu-ids 1", {"device": "cuda:1"}),
        ("train", "--launcher pytorch --local_rank=0 --local-rank 0", {"resume": False}),
        ("train", "--data-root d --auto-scale-lr", {"data_root": "d", "auto_scale_lr": True}),
        ("train", "--no-check", {"no_check": True}),
        ("train", "--pretrained none --device cpu --trust-config", {"pretrained": "none", "trust_config": True}),
        ("test", "--eval mIoU mDice --show-dir d --opacity 1", {"eval": ["mIoU", "mDice"], "opacity": 1.0}),
        ("test", "--out o --launcher none", {"out": "o", "checkpoint": "x.pth"}),
        ("test", "--work-dir w", {"out": "w"}),
        ("test", "--work-dir w --out o", {"out": "o"}),
        ("test", "--out results/a.pkl", {"out": "results/a"}),
        ("test", "--tta", {"tta": True}),
        ("test", "--format-only --eval-options imgfile_prefix=o", {"format_only": True, "out": "o"}),
        ("test", "--confusion c.csv", {"confusion": "c.csv"}),
        ("test", "--format-only", {"format_only": True, "out": "format_results"}),
        ("test", "--format-only --out o", {"format_only": True, "out": "o"}),
        ("test", "--aug-test", {"tta": True}),
        ("test", "--gpu-id 1", {"device": "cuda:1"}),
        ("test", "--options a.b=1 --cfg-options c=2", {"cfg_options": [("c", 2), ("a.b", 1)]}),
        ("test", "--launcher slurm --local_rank 1", {"device": None}),
    ],
)
def test_flags_of_both_versions_are_understood(name, call, expected):
    args = parsed(name, call)
    assert {key: args[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "call", "instead"),
    [
        ("train", "--diff_seed", "every process draws from a seed of its own"),
        ("train", "--diff-seed", "every process draws from a seed of its own"),
        ("test", "--show", "--show-dir D writes the painted images"),
        ("test", "--wait-time 2", "--show-dir D writes the painted images"),
        ("test", "--gpu-collect", "counts are summed over the devices"),
        ("test", "--tmpdir t", "counts are summed over the devices"),
        ("test", "--eval-options efficient_test=True", "--eval names the metrics"),
    ],
)
def test_a_flag_with_nothing_to_do_says_what_takes_its_place_in_one_line(name, call, instead, capsys):
    parsed(name, call)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(call.split()[0].replace("diff-", "diff_")) and instead in line


def test_a_list_of_devices_is_bad_usage_and_says_how_to_choose_them(capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed("train", "--gpu-ids 0 1")
    assert stopped.value.code == 2 and "--gpu-ids" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "call", "flag"),
    [
        ("train", "--work_dir w", "--work-dir"),
        ("train", "--work_dir=w", "--work-dir"),
        ("train", "--cfg_options a=1", "--cfg-options"),
        ("train", "--auto_scale_lr", "--auto-scale-lr"),
        ("test", "--show_dir d", "--show-dir"),
        ("test", "--confussion c.csv", "--confusion"),
    ],
)
def test_a_misspelt_flag_is_answered_with_the_right_one(name, call, flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(name, call)
    assert stopped.value.code == 2
    assert f"did you mean '{flag}'" in capsys.readouterr().err.splitlines()[-1]
