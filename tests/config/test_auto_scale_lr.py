"""The images of a step that a learning rate is for, and another rate for another batch."""

from __future__ import annotations

import re

import pytest
import yaml

import terrazzo as tz
from support.tiny import fit, make_streets, short_form
from terrazzo.config.auto_scale_lr import intended_batch, scaled
from terrazzo.config.experiment import OptimizerSettings
from terrazzo.errors import UserError

RECIPE = "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"


@pytest.mark.parametrize(
    ("name", "images"),
    [
        (RECIPE, 8),
        ("pspnet_r50-d8_512x1024_40k_cityscapes", 8),
        ("swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256", 4),  # has a batch of 4, whatever its name says
        ("beit-large_upernet_8xb1-amp-160k_ade20k-640x640", 16),  # sums two batches a step
        ("deeplabv3plus_r50-d8_4xb2-300k_mapillay_v1_65-1280x1280", 8),
    ],
)
def test_a_recipe_says_its_batch(name, images):
    intended = intended_batch(tz.load_config(name))
    assert intended.images == images and re.search(rf"(= |for ){images}( images)? a step", intended.about)


def test_a_file_of_a_recipes_name_is_for_the_recipes_batch(tmp_path):
    path = tmp_path / f"{RECIPE}.py"
    path.write_text("model = dict()\n")
    assert intended_batch(tz.load_config(path)).images == 8
    assert intended_batch(tz.load_config({"model": {}})) is None


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
    optimizer, note = scaled(config, OptimizerSettings({"type": "SGD", "lr": 0.01}), images)
    assert optimizer["lr"] == pytest.approx(rate)
    assert re.search(said, note)


def test_a_batch_that_nobody_knows_cannot_be_scaled_from():
    config = tz.load_config({"model": {}, "auto_scale_lr": {"enable": True}})
    with pytest.raises(UserError, match=r"auto_scale_lr\.base_batch_size"):
        scaled(config, OptimizerSettings({"lr": 0.01}), 4)


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
