"""Segmenters of torch models: self-contained checkpoints, or configs with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from terrazzo.config.custom_imports import import_custom
from terrazzo.config.datasets import FolderData, folders
from terrazzo.config.experiment import Experiment, make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import class_names, declaration
from terrazzo.data.pairs import suffixes
from terrazzo.errors import UserError
from terrazzo.hub.cache import BUNDLED
from terrazzo.inference.likeness import Fingerprint
from terrazzo.inference.load import SUFFIXES
from terrazzo.inference.saved_config import saved_config
from terrazzo.inference.segmenter import Segmenter
from terrazzo.inference.torch_runtime import TorchRuntime
from terrazzo.models.build import build_model, input_channels
from terrazzo.models.checkpoint import legend_of, load_checkpoint, read_checkpoint
from terrazzo.system.devices import choose_device
from terrazzo.system.palette import suggested_palette


def load_torch(
    source: Any,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    trust: bool = False,
    weights: str | None = None,
) -> Segmenter:
    """A Segmenter from one self-contained file, ours or MMSegmentation's with its config, or a config and weights.

    `source` may also be the folder of a run, or the name of a bundled model.

    `trust` imports the modules of `custom_imports`; `weights` is "model" or "ema" (the average) where a checkpoint has
    both. Raises UserError where the file does not specify its model.
    """
    chosen = choose_device(device)
    # The file, and the config in it or beside it
    is_name = isinstance(source, (str, Path)) and checkpoint is None
    if is_name and (str(source) in BUNDLED or Path(source).is_dir() or Path(source).suffix in SUFFIXES):
        saved = read_checkpoint(source, weights)
        config = saved_config(saved)
        if config is None:
            raise UserError(f"{saved.path} contains weights without a config: tz.load(config, file) or --config C")
        if trust:
            import_custom(config)
    else:
        config = load_config(source, trust=trust)
        if checkpoint is None:
            name = source if isinstance(source, (str, Path)) else "this"
            raise UserError(f"{name} is a config: give its weights too, tz.load(config, checkpoint='best.safetensors')")
        saved = read_checkpoint(checkpoint, weights)

    experiment = make_experiment(config)
    model: Any = build_model(experiment.model)
    load_checkpoint(model, saved, strict=True)
    segmenter = segmenter_for(model, experiment, chosen, legend_of(saved))
    segmenter.source = saved.path.name
    segmenter.fingerprint = Fingerprint.read(saved.meta.get("training_images"))
    return segmenter


def segmenter_for(
    model: Any,
    experiment: Experiment,
    device: torch.device | None = None,
    legend: tuple[list[str], list[list[int]]] | None = None,
) -> Segmenter:
    """A Segmenter of a config's model and test pipeline, with the classes and colours of a `legend` that fits."""
    count = model.final_head.num_classes
    classes, palette = class_names(experiment, count)
    saved_classes, saved_palette = legend or ([], [])
    if len(saved_classes) == count:
        classes = saved_classes
        palette = saved_palette if len(saved_palette) == count else suggested_palette(classes)
    loader = experiment.test or experiment.val
    data = next(folders(loader.dataset)) if loader else FolderData()
    runtime = TorchRuntime(model, classes, palette, bands=input_channels(experiment.model), device=device)
    endings = suffixes(data.img_suffix or declaration(data.type).img_suffix)
    return Segmenter(runtime, data.pipeline, endings)
