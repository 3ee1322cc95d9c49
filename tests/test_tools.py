"""The two entry scripts take the flags of both MMSegmentation versions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from terrazzo.cli.main import make_parser

TOOLS = Path(__file__).parents[1] / "tools"


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"tools_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "call", "expected"),
    [
        ("train", "c.py --work-dir w --resume --amp", {"work_dir": "w", "resume": True, "amp": "auto"}),
        ("train", "c.py --gpus 1 --launcher pytorch --seed 3 --deterministic --options a.b=1", {"resume": False}),
        ("train", "c.py --resume-from w/checkpoints/step_10.pt", {"work_dir": "w", "resume": True}),
        ("train", "c.py --auto-resume --no-validate --load-from x.pth", {"resume": True}),
        ("test", "c.py x.pth --eval mIoU mDice --show-dir d --opacity 1", {"eval": ["mIoU", "mDice"], "opacity": 1.0}),
        ("test", "c.py x.pth --aug-test", {"tta": True}),
        ("test", "c.py x.pth --out o --gpu-collect --launcher none", {"out": "o", "checkpoint": "x.pth"}),
    ],
)
def test_flags_of_both_versions_are_understood(name, call, expected):
    arguments = script(name).translate(call.split())
    args = vars(make_parser(arguments[0]).parse_args(arguments))
    assert {key: args[key] for key in expected} == expected


def test_seeds_and_starting_weights_become_config_keys():
    arguments = script("train").translate(["c.py", "--seed", "3", "--load-from", "x.pth", "--cfg-options", "model.a=1"])
    options = arguments[arguments.index("--cfg-options") + 1 :]
    assert options == ["model.a=1", "load_from=x.pth", "randomness.seed=3"]
