"""Wrong values anywhere in a config end in a message, never in an exception of Python's or torch's."""

from __future__ import annotations

import copy
import random
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import terrazzo as tz
from support.tiny import make_streets, tiny_config
from terrazzo.errors import UserError

VALUES: list[Any] = [
    None, True, -1, 0, 7, 10**9, 2.5, float("nan"), float("inf"), "x", "", [], {}, [1], [[1]], [-1, 0], ["x"], {"a": 1},
    {"type": "x"}, [{"type": "Resize"}], (3,), "auto",
]  # fmt: skip
REMOVED = object()


def paths(spec: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a config."""
    if path:
        yield path
    if isinstance(spec, (dict, list)):
        for key, value in spec.items() if isinstance(spec, dict) else enumerate(spec):
            yield from paths(value, (*path, key))


def mutated(config: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    part: Any = changed
    for key in path[:-1]:
        part = part[key]
    if value is REMOVED:
        del part[path[-1]]
    else:
        part[path[-1]] = copy.deepcopy(value)
    return changed


def whole_config(root) -> dict[str, Any]:
    """A config with every kind of section."""
    return tiny_config(root) | {
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 2, "val_begin": 1},
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": 1},
            "checkpoint": {"type": "CheckpointHook", "interval": 2, "save_best": "mIoU", "rule": "greater"},
            "visualization": {"type": "SegVisualizationHook"},
        },
        "custom_hooks": [
            {"type": "EMAHook", "momentum": 0.01},
            {"type": "EarlyStoppingHook", "monitor": "mIoU", "patience": 3},
        ],
        "param_scheduler": [{"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "begin": 0, "end": 2, "by_epoch": False}],
        "randomness": {"seed": 1},
        "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork"}},
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
        "log_processor": {"by_epoch": False},
        "val_pictures": 0,
    }


def test_one_wrong_value_is_a_message_or_a_run(tmp_path, mutations=40):
    config = whole_config(make_streets(tmp_path / "data"))
    cases = [(path, value) for path in paths(config) for value in (*VALUES, REMOVED)]
    chosen = random.Random(0).sample(cases, min(mutations, len(cases)))
    crashes = [
        f"{'.'.join(map(str, path))} = {value!r}: {problem!r}"
        for number, (path, value) in enumerate(chosen)
        if (problem := crash(mutated(config, path, value), tmp_path / str(number))) is not None
    ]
    assert not crashes, "\n".join(crashes)


def crash(config: dict[str, Any], work_dir: Path) -> Exception | None:
    """What a step of training raises, unless it is a message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tz.train(config, work_dir=work_dir, quiet=True, max_steps=1, device="cpu")
    except UserError:
        pass
    except Exception as problem:
        return problem
    return None


@pytest.mark.slow
def test_many_wrong_values(tmp_path):
    test_one_wrong_value_is_a_message_or_a_run(tmp_path, mutations=3000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.decode_head": 0.5}, "model.decode_head must be a Head, not 0.5"),
        ({"model.decode_head": {"_delete_": True, "type": "UNet"}}, "model.decode_head must be a Head, not UNet"),
        ({"model.decode_head.in_index": 99}, "FCNHead: in_index=99, but the head is given 2 input maps"),
        ({"model.backbone.strides": [1, 10**20]}, "backbone.strides must be a list, each item a whole number"),
        ({"train_dataloader.dataset.pipeline": [{"type": "PackSegInputs"}]}, "the pipeline loads no image"),
        ({"load_from": {"type": "BN"}}, "load_from must be a path, not {'type': 'BN'}"),
        ({"work_dir": 3}, "work_dir must be a path, not 3"),
    ],
)
def test_a_wrong_value_is_named(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(make_streets(tmp_path / "data"))
    with pytest.raises(UserError, match=re.escape(message)):
        tz.train(tz.load_config(config, changes), quiet=True, max_steps=1, device="cpu")
