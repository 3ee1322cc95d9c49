"""Class weights and sampling from the statistics of the training labels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from torch import nn

from terrazzo.config.experiment import LoaderSettings, RunSettings
from terrazzo.data.checks.balance import measure_balance
from terrazzo.data.loaders import RareClassSampler, TrainingSampler
from terrazzo.data.wrappers import Dataset
from terrazzo.models.heads.base import LogitsHead
from terrazzo.models.losses.set_criterion import SetCriterion
from terrazzo.system.process_group import SINGLE_PROCESS, ProcessGroup
from terrazzo.training.monitoring.log import RunLog
from terrazzo.transforms.members import shard_of

NO_OBJECT = 0.1  # weight of "no object" among the classes of masks (MaskFormer, Cheng et al., NeurIPS 2021)


def make_order(
    dataset: Dataset, loader: LoaderSettings, settings: RunSettings, log: RunLog, group: ProcessGroup = SINGLE_PROCESS
) -> TrainingSampler:
    """The order of training samples by the loader's sampler."""
    length, by_epoch = len(dataset), settings.unit == "epoch"
    options: dict[str, Any] = {"seed": settings.seed, "by_epoch": by_epoch, "drop_last": loader.drop_last}
    options |= {"rank": group.rank, "world": group.size}
    if loader.rare_classes is None:
        shards = shard_lengths(dataset)
        return TrainingSampler(length, loader.batch_size, shuffle=loader.shuffle, shards=shards, **options)
    balance = measure_balance(dataset, log.console)
    chances = balance.rare_class_chances(loader.rare_classes)
    log.info(f"rare-class sampling: {listed(dataset.classes, chances)}")
    return RareClassSampler(length, loader.batch_size, balance.pixels > 0, chances, **options)


def shard_lengths(dataset: Dataset) -> list[int]:
    """The numbers of samples in a row that come from one shard each; empty where not all are stored so."""
    images = [leaf.pairs[index][0] for leaf, index in dataset.origins()]
    if not images or any(shard_of(image) is None for image in {image.parent: image for image in images}.values()):
        return []
    return [len(list(group)) for _, group in groupby(image.parent for image in images)]


def set_class_weights(model: nn.Module, dataset: Any, log: RunLog) -> None:
    """Set the weights of losses whose class_weight is `auto` from the training labels."""
    if not any(is_waiting(module) for module in model.modules()):
        return
    weights = measure_balance(dataset, log.console).median_frequency_weights()
    log.info(f"class_weight auto: {listed(dataset.classes, weights)}")
    for owner in model.modules():
        one_channel = isinstance(owner, LogitsHead) and owner.out_channels == 1
        for loss in filter(is_waiting, owner.modules() if one_channel else ()):
            loss.class_weight = [weights[1] / weights[0]]  # type: ignore[assignment]
        if isinstance(owner, SetCriterion) and is_waiting(owner.loss_cls):
            owner.loss_cls.class_weight = [*weights, NO_OBJECT]  # type: ignore[assignment]
    for loss in filter(is_waiting, model.modules()):
        loss.class_weight = weights  # type: ignore[assignment]


def is_waiting(module: nn.Module) -> bool:
    return isinstance(getattr(module, "class_weight", None), str)


def listed(classes: Iterable[str], values: Iterable[float]) -> str:
    """Classes with their numbers: `sky 0.52, road 0.31`."""
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(classes, values, strict=True))
