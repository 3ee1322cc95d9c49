"""The batch that a learning rate was made for, and the rate for another one (Goyal et al., arXiv 1706.02677)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from terrazzo.config.config import Config
from terrazzo.config.experiment import OptimizerSettings, optimizer_settings, whole_number
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.recipes import info

SECTION = "auto_scale_lr"


@dataclass(frozen=True)
class Intended:
    """The images of one step that a config is for, and where that is said."""

    images: int
    about: str


def intended_batch(config: Config) -> Intended | None:
    """What `auto_scale_lr.base_batch_size` says, else the name of the recipe or file; None where neither does."""
    section = config.get(SECTION) or {}
    if section.get("base_batch_size") is not None:
        images = whole_number(section, "base_batch_size", 1, SECTION)
        return Intended(images, f"the config is for {images} images a step ({SECTION}.base_batch_size)")
    if config.name is None:
        return None
    try:
        item = info(config.name)
        repeats = optimizer_settings(load_config(config.name)).accumulate
    except UserError:
        return None
    if item.devices is None or item.batch_size is None:
        return None
    images = item.devices * item.batch_size * repeats
    text = f"the recipe is for {item.devices} device{'s' * (item.devices > 1)} x {item.batch_size} images"
    return Intended(images, f"{text}{f' x {repeats} batches a step' if repeats > 1 else ''} = {images} a step")


def scaled(config: Config, optimizer: OptimizerSettings, images: int) -> tuple[dict[str, Any], str]:
    """The optimizer's arguments, for steps of `images` images if `auto_scale_lr.enable` says so; a line for the log.

    Raises UserError where the batch that the rate is for is not known.
    """
    intended = intended_batch(config)
    wanted = bool((config.get(SECTION) or {}).get("enable"))
    if intended is None:
        if wanted:
            raise UserError(
                f"--auto-scale-lr: neither the config nor its name says which batch the learning rate is for; set "
                f"{SECTION}.base_batch_size to the images of one step, of all devices"
            )
        return optimizer.optimizer, ""
    rate = optimizer.optimizer.get("lr")
    if images == intended.images or not isinstance(rate, (int, float)):
        return optimizer.optimizer, intended.about
    new = rate * images / intended.images
    change = f"learning rate {rate:.4g} -> {new:.4g} (x {images}/{intended.images})"
    if not wanted:
        return optimizer.optimizer, f"{intended.about}, this run has {images}; --auto-scale-lr would mean {change}"
    return optimizer.optimizer | {"lr": new}, f"{intended.about}: {change}"


def with_base_batch(config: Config) -> Config:
    """The config with the batch that its rate is for written out: a copy of it does not have the recipe's name."""
    intended = intended_batch(config)
    if intended is None:
        return config
    values: dict[str, Any] = config.to_dict()
    values[SECTION] = {"enable": False, **(values.get(SECTION) or {}), "base_batch_size": intended.images}
    return Config(values, config.path, config.name)
