"""A config's data alone: the data sets of its splits, without its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrazzo.config.config import Config
from terrazzo.config.datasets import same_files
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.config.short_form import expand as short
from terrazzo.data.build import class_count, common_classes, open_dataset
from terrazzo.data.discovery.data_root import locate
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError

SPLITS = ("train", "val", "test")


def load_for_data(source: Any, overrides: dict[str, Any] | None = None, *, trust: bool = False) -> Config:
    """Load a config for its data alone: a short form may lack mean and std, which statistics are to find."""
    overrides = dict(overrides or {})
    written = load_config(source, overrides, upgrade=False, trust=trust)
    if short.is_short(written) and not {"mean", "std"} & set(written):
        overrides |= {"mean": "none", "std": "none"}
    return load_config(source, overrides, trust=trust)


def open_splits(
    config: Config, splits: Sequence[str] = (), *, data_root: str | Path | None = None, seed: int = 0
) -> dict[str, Dataset]:
    """Open the data sets of `splits` by name, by default of all that a config has; `test` is omitted where it is `val`.

    Raises UserError for a split that the config does not have.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"there is no split '{split}'; it is one of {', '.join(SPLITS)}")
    config = locate(config, data_root, splits or SPLITS)
    experiment = make_experiment(config)
    settings = {split: getattr(experiment, split) for split in splits or SPLITS}
    val, test = settings.get("val"), settings.get("test")
    if not splits and val and test and same_files(val.dataset, test.dataset):
        del settings["test"]
    for split in splits:
        if settings[split] is None:
            raise UserError(f"the config has no {split}_dataloader")
    count = class_count(experiment.model)
    if count is None:
        raise UserError("the config's model.decode_head has no num_classes")
    classes = common_classes(experiment)
    opened: dict[str, Dataset] = {}
    for split, loader in settings.items():
        if loader:
            opened[split] = open_dataset(loader, count, f"{split}_dataloader", seed, classes)
            classes = classes or opened[split].classes
    return opened
