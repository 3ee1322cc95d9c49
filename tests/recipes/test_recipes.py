"""Every official recipe, composed by name, equals its official config key for key; new names of the same parts work."""

from __future__ import annotations

import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from support.paths import GOLDEN, SHARED
from terrazzo import recipes
from terrazzo.errors import UserError

FILES = {"1.x": "config_v1.jsonl.gz", "0.x": "config_v0.jsonl.gz"}
COUNTS = {"1.x": 681, "0.x": 644}
# Sections that mean something; what else stands in an official file is its own variable
OURS = """model data_preprocessor train_dataloader val_dataloader test_dataloader val_evaluator test_evaluator
optim_wrapper param_scheduler train_cfg val_cfg test_cfg default_hooks custom_hooks tta_model tta_pipeline auto_scale_lr
randomness env_cfg default_scope vis_backends visualizer log_processor log_level load_from resume custom_imports
find_unused_parameters"""
OLDER = """model data optimizer optimizer_config lr_config runner total_iters fp16 checkpoint_config evaluation
log_config dist_params log_level load_from resume_from auto_resume workflow cudnn_benchmark custom_imports"""
SECTIONS = {"1.x": set(OURS.split()), "0.x": set(OLDER.split())}
SELECTION = GOLDEN / "recipes.jsonl.gz"  # a few records, for where the rest is absent
TWICE = "fpn_poolformer_s36_8x4_512x512_40k_ade20k"  # a name of both versions


def plain(value: Any) -> Any:
    """A golden value with lists for tuples."""
    if isinstance(value, dict):
        return plain(value["__tuple__"]) if set(value) == {"__tuple__"} else {k: plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=2)
def golden(version: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Official configs by folder, then by name."""
    path = SHARED / "golden" / FILES[version]
    folders: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    with gzip.open(path if path.exists() else SELECTION, "rt") as lines:
        for record in map(json.loads, lines):
            folder, name = record["path"].split("/")
            if record.get("version", version) == version:
                folders[folder][name.removesuffix(".py")] = plain(record["cfg"])
    return dict(folders)


def differences(ours: Any, official: Any, path: str) -> Iterator[str]:
    """Where two values differ, the first place first."""
    if isinstance(ours, dict) and isinstance(official, dict):
        for key in [*official, *(key for key in ours if key not in official)]:
            if key not in ours or key not in official:
                yield f"{path}.{key}: {'missing' if key not in ours else 'should not be there'}"
            else:
                yield from differences(ours[key], official[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(official, list) and len(ours) == len(official):
        for index, pair in enumerate(zip(ours, official, strict=True)):
            yield from differences(*pair, f"{path}.{index}")
    elif ours != official or isinstance(ours, bool) != isinstance(official, bool):
        yield f"{path}: {ours!r} is officially {official!r}"


@pytest.mark.parametrize(("version", "folder"), [(version, folder) for version in FILES for folder in golden(version)])
def test_recipe_equals_the_official_config(version: str, folder: str) -> None:
    wrong = []
    for name, official in golden(version)[folder].items():
        ours = recipes.recipe(name, "0.x" if name == TWICE and version == "0.x" else None)
        official = {key: value for key, value in official.items() if key in SECTIONS[version]}
        wrong += [f"{name} {place}" for place in list(differences(ours, official, ""))[:1]]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("version", FILES)
def test_names_are_the_official_ones(version: str) -> None:
    official = {name for folder in golden(version).values() for name in folder}
    if len(official) < COUNTS[version]:
        pytest.skip(f"needs all official names: {SHARED / 'golden' / FILES[version]} is absent")
    ours = {name for name in recipes.names() if recipes.info(name).vocabulary == version or name == TWICE}
    assert ours == official


def test_names_and_recipes_are_read_fast() -> None:
    recipes.recipe(recipes.names()[0])  # imports what is needed
    start = time.perf_counter()
    recipes.names()
    assert time.perf_counter() - start < 0.1
    start = time.perf_counter()
    for name in recipes.names()[:100]:
        recipes.recipe(name)
    assert (time.perf_counter() - start) / 100 < 0.01


def test_a_recipe_shares_nothing_with_another_call() -> None:
    name = "segformer_mit-b0_8xb1-160k_cityscapes-1024x1024"
    changed = recipes.recipe(name)
    changed["model"]["backbone"]["num_layers"].append(7)
    changed["val_dataloader"]["dataset"]["pipeline"].clear()
    again = recipes.recipe(name)
    assert again["model"]["backbone"]["num_layers"] == [2, 2, 2, 2]
    assert again["val_dataloader"]["dataset"]["pipeline"]
    assert changed["test_dataloader"]["dataset"]["pipeline"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "deeplabv3plus_r34-d8_2xb4-40k_camvid-360x480",
            {
                "model.backbone.depth": 34,
                "model.decode_head.c1_in_channels": 64,
                "data_preprocessor.size": [360, 480],
                "train_dataloader.batch_size": 4,
                "train_dataloader.dataset.type": "BaseSegDataset",
                "train_dataloader.dataset.data_root": "data/camvid",
                "val_dataloader.dataset.data_prefix": {"img_path": "images/val", "seg_map_path": "labels/val"},
                "train_cfg.max_iters": 40000,
            },
        ),
        (
            "segformer_mit-b1_1xb8-80k_myset-512x512",
            {"train_dataloader.dataset.data_root": "data/myset", "optim_wrapper.optimizer.type": "AdamW"},
        ),
        ("pspnet_s101-d8_4xb2-amp-40k_ade20k-512x512", {"optim_wrapper.type": "AmpOptimWrapper"}),
        ("upernet_convnext-tiny_4xb4-80k_loveda-512x512", {"model.decode_head.num_classes": 7}),
        ("fcn_hr32_4xb2-ohem-40k_cityscapes-512x1024", {"model.decode_head.sampler.type": "OHEMPixelSampler"}),
        ("mask2former_swin-t_8xb2-80k_potsdam-512x512", {"model.decode_head.loss_cls.class_weight": [1.0] * 6 + [0.1]}),
        ("san-vit-b16_4xb4-20k_pascal-context-59-640x640", {"train_cfg.max_iters": 20000}),
    ],
)
def test_new_names_of_the_same_parts(name: str, expected: dict[str, Any]) -> None:
    config = recipes.recipe(name)
    for key, value in expected.items():
        found: Any = config
        for part in key.split("."):
            found = found[part]
        assert found == value, key
    assert name not in recipes.names()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pspnet_r50-d8_4xb2-40k_cityscapes-512x1042", None),  # another crop is another recipe
        ("pspnet_r50-d8_512x1024_40k_cityscape", "did you mean 'pspnet_r50-d8_512x1024_40k_cityscapes'"),
        ("pspnett_r50-d8_4xb2-40k_cityscapes-512x1024", "did you mean 'pspnet_r50-d8_4xb2-40k_cityscapes-512x1024'"),
        (
            "pspnet_r51-d8_4xb2-40k_cityscapes-512x1024",
            "no recipe is called 'pspnet_r51-d8_.*there is no backbone 'r51-d8'; did you mean 'pspnet_r50-d8_4xb2-40k",
        ),
        ("bisenetv2", "a family of recipes: `terrazzo recipe list --method bisenetv2`"),
        ("fast_scnn", "a family of recipes"),
        ("pspnett", "did you mean 'pspnet'"),
        ("pspnet_r50-d8_4xb2-apm-40k_cityscapes-512x1024", "unknown option 'apm'; did you mean 'amp'"),
    ],
)
def test_unknown_words_are_named(name: str, message: str | None) -> None:
    if message is None:
        assert recipes.recipe(name)["data_preprocessor"]["size"] == [512, 1042]
        return
    with pytest.raises(UserError, match=message):
        recipes.recipe(name)


def test_the_one_name_of_both_versions() -> None:
    assert "train_dataloader" in recipes.recipe(TWICE)
    assert "data" in recipes.recipe(TWICE, "0.x")
    assert recipes.info(TWICE, "0.x").vocabulary == "0.x"


def test_info_tells_what_is_published() -> None:
    info = recipes.info("pspnet_r50-d8_4xb2-40k_cityscapes-512x1024")
    assert (info.method, info.family, info.backbone) == ("PSPNet", "pspnet", "r50-d8")
    assert (info.devices, info.batch_size, info.iterations) == (4, 2, 40000)
    assert (info.dataset, info.crop) == ("cityscapes", (512, 1024))
    assert (info.miou, info.miou_multi_scale, info.memory, info.milliseconds) == (77.85, 79.18, 6.1, 245.7)
    assert info.weights is not None and info.weights.endswith(
        "pspnet_r50-d8_512x1024_40k_cityscapes_20200605_003338-2966598c.pth"
    )
    older = recipes.info("pspnet_r50-d8_512x1024_40k_cityscapes")
    assert (older.vocabulary, older.devices, older.weights) == ("0.x", 4, info.weights)


def test_info_notes_a_name_that_contradicts_its_content() -> None:
    info = recipes.info("ann_r101-d8_4xb4-40k_voc12aug-512x512")
    assert (info.iterations, info.note) == (20000, "runs 20k iterations")
    assert recipes.info("fpn_r101_4xb4-160k_ade20k-512x512").note == "is a ResNet-50"
    assert not recipes.info("fpn_r50_4xb4-160k_ade20k-512x512").note


@pytest.mark.parametrize("name", recipes.families())
def test_a_family_has_a_model_without_weights(name: str) -> None:
    parts = recipes.family(name, num_classes=5, crop=(256, 256))
    assert set(parts) == {"model", "optimizer"}
    assert "init_cfg" not in json.dumps(parts["model"]) and "pretrained" not in parts["model"]


def test_the_book_is_short() -> None:
    files = [file for file in Path(recipes.__file__).parent.rglob("*.py") if file.name != "encoders.py"]  # of no recipe
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(lines) <= 2600
    assert max(map(len, lines)) <= 120
