"""Schedules and parameter groups of the official recipes, as MMSegmentation has them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch

import terrazzo as tz
from support.paths import GOLDEN
from terrazzo.config.experiment import make_experiment
from terrazzo.training.optim.build import build_optimizer

with gzip.open(GOLDEN / "parameter_groups.jsonl.gz", "rt") as lines:
    PARAMETER_GROUPS = {Path(fact["config"]).stem: fact["groups"] for fact in map(json.loads, lines)}
with gzip.open(GOLDEN / "learning_rates.jsonl.gz", "rt") as lines:
    LEARNING_RATES = [json.loads(line) for line in lines]


def rates_and_decays(recipe: str) -> dict[str, tuple[float, float]]:
    """Rate and weight decay of every parameter of a recipe's model."""
    experiment = make_experiment(tz.load_config(recipe))
    with torch.device("meta"):
        model = tz.build_model(experiment.model)
    settings = experiment.optimizer
    optimizer = build_optimizer(model, settings.optimizer, settings.paramwise, settings.constructor)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
