"""Schedules and parameter groups beside the real package, step by step and parameter by parameter.

Set TERRAZZO_PEER_PYTHON to a Python that imports mmsegmentation 1.2.2, and TERRAZZO_PEER_CONFIGS to a folder with its
official configs in v1/.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from support.training_facts import LEARNING_RATES, PARAMETER_GROUPS, rates_and_decays
from terrazzo.training.optim.schedule import Schedule

pytestmark = pytest.mark.slow

RATES = """
import json, sys, warnings
import torch
from mmengine.optim.scheduler import lr_scheduler
warnings.simplefilter("ignore")
for fact in json.load(sys.stdin):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=fact["lr"])
    curves = []
    for spec in fact["schedule"]:
        spec = dict(spec)
        kind = getattr(lr_scheduler, spec.pop("type"))
        if spec.pop("convert_to_iter_based", False):
            curves.append(kind.build_iter_from_epoch(optimizer, **spec, epoch_length=1000))
        else:
            curves.append(kind(optimizer, **spec))
    rates = []
    for step in range(fact["steps"]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for curve in curves:
            if not curve.by_epoch or (step + 1) % 1000 == 0:
                curve.step()
    print(json.dumps(rates), flush=True)
"""
MEMBERS = """
import json, sys, warnings
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
warnings.simplefilter("ignore")
register_all_modules()
config = Config.fromfile(sys.argv[1])
config.model.pretrained = None
for part in config.model.values():
    if isinstance(part, dict):
        part.pop("init_cfg", None)
config.optim_wrapper.type = "OptimWrapper"  # the mixed one wants a GPU
for key in ("loss_scale", "dtype"):
    config.optim_wrapper.pop(key, None)
model = MODELS.build(config.model)
names = {id(parameter): name for name, parameter in model.named_parameters()}
groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
print(json.dumps(found))
"""


def ask(program: str, *arguments: str, text: str = "") -> list[Any]:
    """The lines of JSON that a program prints in the peer's environment."""
    if "TERRAZZO_PEER_PYTHON" not in os.environ:
        pytest.skip("needs MMSegmentation: set TERRAZZO_PEER_PYTHON to a Python that imports it")
    command = [os.environ["TERRAZZO_PEER_PYTHON"], "-c", program, *arguments]
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if "Failed to import custom modules" in result.stderr:
        pytest.skip("the config needs mmpretrain, which is not in the peer's environment")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines() if line[:1] in "[{"]


@pytest.mark.timeout(900)
def test_rates_of_every_official_schedule_at_every_step():
    answers = ask(RATES, text=json.dumps(LEARNING_RATES))
    assert len(answers) == len(LEARNING_RATES)
    for fact, expected in zip(LEARNING_RATES, answers, strict=True):
        schedule = Schedule(fact["schedule"], [fact["lr"]], 1000, fact["steps"])
        rates = torch.tensor([schedule.rates(step)[0] for step in range(fact["steps"])], dtype=torch.float64)
        torch.testing.assert_close(
            rates, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-12, msg=fact["config"]
        )


@pytest.mark.parametrize("recipe", PARAMETER_GROUPS)
def test_rate_and_decay_of_every_parameter(recipe):
    if "TERRAZZO_PEER_CONFIGS" not in os.environ:
        pytest.skip("needs the official config files: set TERRAZZO_PEER_CONFIGS")
    (path,) = Path(os.environ["TERRAZZO_PEER_CONFIGS"], "v1").glob(f"*/{recipe}.py")
    (expected,) = ask(MEMBERS, str(path))
    found = rates_and_decays(recipe)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values == pytest.approx(expected[name]), name
