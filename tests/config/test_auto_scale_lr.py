"""The images of a step that a learning rate is for, and another rate for another batch."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import yaml

import terrazzo as tz
from support.tiny import fit, make_streets, short_form
from terrazzo import recipes
from terrazzo.config.auto_scale_lr import base_batch, record_base_batch_size, scale_learning_rate
from terrazzo.config.experiment import OptimizerSettings
from terrazzo.config.write import as_python
from terrazzo.data.discovery.data_root import locate
from terrazzo.errors import UserError
from terrazzo.recipes import compose

RECIPE = "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"
OLDER = "pspnet_r50-d8_512x1024_40k_cityscapes"


@pytest.mark.parametrize(
    ("name", "images"),
    [
        (RECIPE, 8),
        (OLDER, 8),
        ("swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256", 4),  # has a batch of 4, whatever its name says
        ("beit-large_upernet_8xb1-amp-160k_ade20k-640x640", 16),  # sums two batches a step
        ("deeplabv3plus_r50-d8_4xb2-300k_mapillay_v1_65-1280x1280", 8),
    ],
)
def test_a_recipe_says_its_batch(name, images):
    base = base_batch(tz.load_config(name))
    assert base.images == images and re.search(rf"(= |for ){images}( images)? a step", base.about)


@pytest.mark.parametrize("name", [f"{RECIPE}.py", f"{RECIPE}.yaml", "cityscapes.yaml"])
def test_the_name_of_a_file_means_nothing(name, tmp_path):
    path = tmp_path / name
    path.write_text("model = dict()\n" if name.endswith(".py") else json.dumps(short_form(tmp_path)))
    config = tz.load_config(path)
    assert base_batch(config) is None
    config = tz.load_config(path, {"auto_scale_lr.enable": True})
    with pytest.raises(UserError, match=r"auto_scale_lr\.base_batch_size"):
        scale_learning_rate(config, OptimizerSettings({"lr": 0.01}), 4)


@pytest.mark.parametrize(
    ("name", "images"), [(RECIPE, 8), (OLDER, 8), ("beit-large_upernet_8xb1-amp-160k_ade20k-640x640", 16)]
)
def test_a_file_with_all_of_a_recipe_is_that_recipe(name, images, tmp_path):
    path, other = tmp_path / f"{name}.py", tmp_path / "mine.py"
    path.write_text(as_python(recipes.recipe(name)))
    other.write_text(path.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the 0.x vocabulary
        config = tz.load_config(path, {"model.decode_head.num_classes": 2})
        assert config.recipe.name == name and base_batch(config).images == images
        assert base_batch(tz.load_config(other)) is None
        path.write_text(path.read_text().replace("lr=", "lr=2 * "))
        assert base_batch(tz.load_config(path)) is None


@pytest.mark.parametrize("base", [f"mmseg::pspnet/{RECIPE}.py", f"{RECIPE}.py"])
def test_a_file_on_top_of_a_recipe_is_for_its_batch_unless_it_has_its_own_rate(base, tmp_path, monkeypatch):
    monkeypatch.delenv("TERRAZZO_MMSEG_CONFIGS", raising=False)
    (tmp_path / f"{RECIPE}.py").write_text(as_python(recipes.recipe(RECIPE)))
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = '{base}'\nmodel = dict(decode_head=dict(num_classes=4))\n")
    config = tz.load_config(path)
    assert config.recipe.name == RECIPE and base_batch(config).images == 8
    path.write_text(f"_base_ = '{base}'\noptim_wrapper = dict(optimizer=dict(lr=0.2))\n")
    assert base_batch(tz.load_config(path)) is None


def test_a_short_form_is_for_the_batch_of_its_recipe_unless_it_has_its_own_rate(tmp_path):
    short = {"recipe": RECIPE, "data": {"root": str(tmp_path), "classes": ["a", "b"]}}
    config = tz.load_config(short)
    assert config.recipe.name == RECIPE and base_batch(config).images == 8
    assert tz.load_config(short, {"auto_scale_lr.enable": True}).recipe == config.recipe
    for own in (
        {"lr": 0.1},
        {"optimizer": {"lr": 0.1}},
        {"optimizer": {"type": "AdamW"}},
        {"recipe": "unet"},
    ):
        config = tz.load_config(short | own)
        assert config.recipe.name == own.get("recipe", RECIPE) and base_batch(config) is None


def test_a_recorded_batch_is_read_back_from_a_copy_under_any_name(tmp_path):
    config = record_base_batch_size(tz.load_config(RECIPE))
    assert "auto_scale_lr" not in tz.load_config(RECIPE)
    path = tmp_path / "copy.yaml"
    path.write_text(config.dump())
    assert base_batch(tz.load_config(path)).images == 8
    assert base_batch(tz.load_config(config)).images == 8


def test_data_in_another_folder_change_no_batch(tmp_path):
    config = tz.load_config(RECIPE)
    assert locate(config, make_streets(tmp_path / "data")).recipe == config.recipe


def test_the_name_of_a_file_is_looked_up_without_composing_anything(tmp_path, monkeypatch):
    composed = []
    monkeypatch.setattr(compose, "plan_of", composed.append)
    (tmp_path / "street.py").write_text("model = dict()\n")
    config = tz.load_config(tmp_path / "street.py")
    assert base_batch(config) is None and not composed


@pytest.mark.parametrize(
    ("enable", "images", "rate", "said"),
    [
        (False, 8, 0.01, "4 devices x 2 images = 8 a step"),
        (False, 2, 0.01, "this run has 2; --auto-scale-lr would mean learning rate 0.01 -> 0.0025"),
        (True, 2, 0.0025, r"learning rate 0.01 -> 0.0025 \(x 2/8\)"),
        (True, 16, 0.02, r"\(x 16/8\)"),
    ],
)
def test_the_rate_follows_the_batch_if_asked_to(enable, images, rate, said):
    config = tz.load_config(RECIPE, {"auto_scale_lr.enable": enable})
    optimizer, note = scale_learning_rate(config, OptimizerSettings({"type": "SGD", "lr": 0.01}), images)
    assert optimizer["lr"] == pytest.approx(rate)
    assert re.search(said, note)


def test_a_batch_that_nobody_knows_cannot_be_scaled_from():
    config = tz.load_config({"model": {}, "auto_scale_lr": {"enable": True}})
    with pytest.raises(UserError, match=r"auto_scale_lr\.base_batch_size"):
        scale_learning_rate(config, OptimizerSettings({"lr": 0.01}), 4)


def test_a_run_scales_its_rate_and_so_does_its_own_config(tmp_path):
    config = tz.load_config(short_form(make_streets(tmp_path / "data")))
    rate = config.optim_wrapper.optimizer.lr
    overrides = {"auto_scale_lr.enable": True, "auto_scale_lr.base_batch_size": 4}
    run = fit(config, tmp_path / "run", overrides=overrides)
    log = run.log_path.read_text()
    assert f"learning rate {rate:.4g} -> {rate / 2:.4g} (x 2/4)" in log
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["auto_scale_lr"] == {"enable": True, "base_batch_size": 4}
    assert saved["optim_wrapper"]["optimizer"]["lr"] == rate
