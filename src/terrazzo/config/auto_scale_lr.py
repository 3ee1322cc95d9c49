"""The batch that a learning rate is meant for, and the rate for another one (Goyal et al., arXiv 1706.02677)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from terrazzo.config.config import Config
from terrazzo.config.experiment import OptimizerSettings
from terrazzo.config.reading.merge import merge
from terrazzo.config.sections import whole_number
from terrazzo.errors import UserError

SECTION = "auto_scale_lr"


@dataclass(frozen=True)
class BaseBatch:
    """The images of one step that a learning rate is meant for, and a sentence that names the source."""

    images: int
    about: str


def base_batch(config: Config) -> BaseBatch | None:
    """The batch of `auto_scale_lr.base_batch_size`, else that of the config's recipe; None without either."""
    section = config.get(SECTION) or {}
    if section.get("base_batch_size") is not None:
        images = whole_number(section, "base_batch_size", 1, SECTION)
        return BaseBatch(images, f"the config is for {images} images a step ({SECTION}.base_batch_size)")
    recipe = config.recipe
    if recipe is None or recipe.base_batch_size is None:
        return None
    about = f"the recipe is for {counted(recipe.devices, 'device')} x {counted(recipe.batch_size, 'image')}"
    if recipe.accumulate > 1:
        about += f" x {recipe.accumulate} batches a step"
    return BaseBatch(recipe.base_batch_size, f"{about} = {recipe.base_batch_size} a step")


def counted(count: int | None, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def scale_learning_rate(config: Config, optimizer: OptimizerSettings, images: int) -> tuple[dict[str, Any], str]:
    """Return the optimizer's arguments for steps of `images` images, scaled if `auto_scale_lr.enable`, and a log line.

    Raises UserError if scaling is enabled and the batch that the rate is meant for is unknown.
    """
    base = base_batch(config)
    enabled = bool((config.get(SECTION) or {}).get("enable"))
    if base is None:
        if enabled:
            raise UserError(
                "--auto-scale-lr: the batch that the learning rate is meant for is unknown: the config does not come "
                f"from a recipe; set {SECTION}.base_batch_size to the images of one step, of all devices"
            )
        return optimizer.optimizer, ""
    rate = optimizer.optimizer.get("lr")
    if images == base.images or not isinstance(rate, (int, float)):
        return optimizer.optimizer, base.about
    new = rate * images / base.images
    change = f"learning rate {rate:.4g} -> {new:.4g} (x {images}/{base.images})"
    if not enabled:
        return optimizer.optimizer, f"{base.about}, this run has {images}; --auto-scale-lr would mean {change}"
    return optimizer.optimizer | {"lr": new}, f"{base.about}: {change}"


def record_base_batch_size(config: Config) -> Config:
    """Return the config with the batch of its recipe in its values, so that a copy of its file still knows it."""
    base = base_batch(config)
    if base is None:
        return config
    section = {"enable": False, **(config.get(SECTION) or {}), "base_batch_size": base.images}
    return config.with_values(merge(config._values, {SECTION: section}))
