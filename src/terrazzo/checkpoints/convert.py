"""Checkpoints in the other file format, or under the names of our models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from terrazzo.checkpoints.writing import Written, description, known, save, writable
from terrazzo.config.load import load_config
from terrazzo.inference.saved_config import describe
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import is_constant, legend_of, load_checkpoint, needed_names, read_checkpoint


def convert(
    source: str | Path,
    target: str | Path,
    *,
    config: Any = None,
    weights: str | None = None,
    force: bool = False,
    trust: bool = False,
) -> Written:
    """Write a checkpoint in the other format, with a `config` under the names of its model.

    Weights that the model does not have are omitted. The new file is self-contained if it has all that the config's
    model needs. Raises UserError where nothing fits the model.
    """
    path = writable(Path(target), force, [source])
    checkpoint = read_checkpoint(source, weights)
    if config is None:
        meta = description(checkpoint)
        save(path, checkpoint.weights, meta)
        return Written(path, len(checkpoint.weights), self_contained="config" in meta)
    values = load_config(config, trust=trust).to_dict()
    model = build_model(values)
    report = load_checkpoint(model, checkpoint)
    own = model.state_dict()
    loaded = {name: own[name] for name in own if name in report.loaded}
    complete = not needed_names(model) - set(loaded)
    if complete:
        loaded |= {name: value for name, value in own.items() if is_constant(name)}
    meta = known(checkpoint) | (describe(values, *legend_of(checkpoint)) if complete else {})
    save(path, loaded, meta)
    return Written(path, len(loaded), report, complete)
