"""The lines of a short form's keys in the expanded config, and `terrazzo config explain`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import terrazzo as tz
from terrazzo.cli.main import main
from terrazzo.config.config import Config
from terrazzo.config.short_form.schema import DataKeys, ShortForm, key_names

STREET = """\
recipe: unet
data:
  root: data/street
  classes: [road, sky, car]
model:
  decode_head: {channels: 32}
batch: 4
lr: 1e-3
ema: 0.99
"""
# a value of each key that changes the expanded config
VALUES: dict[str, Any] = {
    "recipe": "segformer",
    "model": {"decode_head": {"channels": 8}},
    "optimizer": {"lr": 0.3},
    "lr": 0.2,
    "pretrained": "weights.pth",
    "load_from": "whole.pth",
    "batch": 3,
    "iterations": 400,
    "epochs": 7,
    "val_interval": 11,
    "checkpoint_interval": 12,
    "log_interval": 13,
    "resize": "64x96",
    "ratio_range": [0.9, 1.1],
    "crop": "32x64",
    "photometric": {"hue_delta": 9},
    "teacher": {"weights": "teacher.safetensors", "features": 3},
    "in_channels": 1,
    "mean": "none",
    "std": "none",
    "class_weight": [1, 2, 3],
    "rare_class_sampling": 0.05,
    "amp": "bf16",
    "ema": 0.9,
    "swa": 0.5,
    "early_stopping": {"patience": 3},
    "time_limit": "1h",
    "skip_nan": 2,
    "workers": 1,
    "seed": 5,
    "deterministic": True,
    "compile": True,
    "channels_last": True,
    "activation_checkpointing": True,
    "fsdp": True,
    "find_unused_parameters": True,
    "custom_imports": {"imports": ["my_head"]},
    "track": "csv",
    "val_pictures": 1,
    "freeze": ["backbone"],
    "finetune": "lora",
    "rare_class_crops": ["a"],
    "data.root": "elsewhere",
    "data.images": "img",
    "data.labels": "masks",
    "data.train": "train.txt",
    "data.val": 0.25,
    "data.test": "test.txt",
    "data.classes": ["x", "y"],
    "data.palette": [[1, 1, 1], [2, 2, 2], [3, 3, 3]],
    "data.ignore": [9],
    "data.label_map": {7: 1},
    "data.reduce_zero_label": True,
    "data.bands": [1, 2, 3, 4],
    "data.resolution": 0.5,
    "data.microns": 0.25,
    "data.windows": "96x128",
    "data.label_format": {"type": "coco", "holes": False},
    "data.image_suffix": ".jpg",
    "data.label_suffix": "_mask.png",
    "data.exclude": ["bad.png"],
    "data.unlabelled": "skip",
    "data.cache": "ram",
    "data.folds": 5,
    "data.fold": 2,
    "data.groups": "groups.csv",
}


def write(path: Path, key: str, value: Any = None) -> tuple[Path, set[int]]:
    """A short form, with a key set in it unless that is None, and the lines that this takes."""
    values: dict[str, Any] = {"recipe": "unet", "data": {"root": "d", "classes": ["a", "b", "c"]}}
    if key not in ("mean", "std", "in_channels"):
        values["mean"] = "none"
    if key in ("data.fold", "data.groups"):
        values["data"]["folds"] = 4
    if key == "data.resolution":
        values["data"]["bands"] = [1, 2, 3]
    section, _, name = key.rpartition(".")
    if value is not None:
        (values[section] if section else values)[name] = value
    text = yaml.safe_dump(values, sort_keys=False)
    path.write_text(text)
    node = yaml.compose(text)
    start = 0
    for part in filter(None, (section, name)):
        start, node = next(((one.start_mark.line, two) for one, two in node.value if one.value == part), (start, node))
    return path, set(range(start + 1, max(start + 1, node.end_mark.line) + 1))


def leaves(value: Any, path: str = "", typed: str = "") -> Iterator[tuple[str, str, Any]]:
    """Path, path with the types of steps in place of their indices, and value of whatever holds nothing else."""
    if isinstance(value, dict):
        items = [(key, key, item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        items = [(i, item.get("type", i) if isinstance(item, dict) else i, item) for i, item in enumerate(value)]
    else:
        yield path, typed, value
        return
    for key, name, item in items:
        yield from leaves(item, f"{path}.{key}".lstrip("."), f"{typed}.{name}".lstrip("."))


def test_every_key_has_a_value_here():
    assert set(VALUES) == {*ShortForm.model_fields, *(f"data.{key}" for key in DataKeys.model_fields)} - {"data"}
    assert set(key_names()) == {*VALUES, "data"}


@pytest.mark.parametrize("key", VALUES)
def test_what_a_key_changes_knows_its_line(key, tmp_path):
    plain = tz.load_config(write(tmp_path / "plain.yaml", key)[0])
    path, lines = write(tmp_path / "street.yaml", key, VALUES[key])
    config = tz.load_config(path)
    before = {(typed, repr(value)) for _, typed, value in leaves(plain.to_dict())}
    changed = [name for name, typed, value in leaves(config.to_dict()) if (typed, repr(value)) not in before]
    assert changed
    for name in changed:
        if key == "data.val" and name.startswith("train_dataloader.dataset.data_prefix"):
            continue  # the folder of all images, unless `val` is a share: no key of its own
        origin = config.origin(name)
        assert origin is not None and origin.startswith(f"{path}:"), name
        assert int(origin.rpartition(":")[2]) in lines, (name, origin)


def explained(capsys, key: str, *config: Any) -> list[str]:
    assert main(["config", "explain", key, *map(str, config)]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("batch", "4", "7:  batch: 4"),
        ("train_dataloader.batch_size", "4", "7:  batch: 4"),
        ("lr", "0.001", "8:  lr: 1e-3"),
        ("optim_wrapper.optimizer.lr", "0.001", "8:  lr: 1e-3"),
        ("data.root", "'data/street'", "3:  root: data/street"),
        ("model.decode_head.channels", "32", "6:  decode_head: {channels: 32}"),
        ("model.decode_head.num_classes", "3", "4:  classes: [road, sky, car]"),
        ("model.decode_head.type", "'FCNHead'", "1:  recipe: unet"),
        ("custom_hooks.0.type", "'EMAHook'", "9:  ema: 0.99"),
    ],
)
def test_explain_names_the_line_of_the_short_form(tmp_path, capsys, key, value, line):
    path = tmp_path / "street.yaml"
    path.write_text(STREET)
    assert explained(capsys, key, path)[1:] == [f"value: {value}", f"set at {path}:{line}"]


def test_explain_names_the_key_to_set(tmp_path, capsys):
    path = tmp_path / "street.yaml"
    path.write_text(STREET)
    text = explained(capsys, "val_dataloader.num_workers", path)
    assert text[1:] == ["value: 4", f"set by terrazzo: {path} does not set `workers`"]
    text = explained(capsys, "train_dataloader.dataset.pipeline.3.crop_size", path)
    assert text[-1] == f"set by terrazzo: {path} does not set `crop`"
    assert explained(capsys, "workers", path)[-1] == f"not set in {path}; default: 4"
    assert explained(capsys, "compile", path)[-1] == f"not set in {path}"
    assert "such as model.type" in explained(capsys, "model", path)[-1]


def test_explain_describes_keys_as_the_schema_does(capsys):
    for key in ("batch", "data.label_map", "early_stopping.patience", "compile"):
        section, _, name = key.rpartition(".")
        model = {"": ShortForm, "data": DataKeys}.get(section)
        text = explained(capsys, key)
        assert len(text) == 1 and (model is None or text[0] == f"{key}: {model.model_fields[name].description}")
    assert main(["config", "explain", "bacth"]) == 1
    assert "did you mean 'batch'" in capsys.readouterr().err


def test_a_mapping_without_lines_expands_alike():
    values = yaml.safe_load(STREET)
    config = tz.load_config(values)
    assert isinstance(config, Config) and config.origin("train_dataloader.batch_size") is None
    assert config.train_dataloader.batch_size == 4
