"""Arguments that change nothing here are dropped from a config before anything is built."""

from __future__ import annotations

import warnings

import pytest

import terrazzo as tz
from support.tiny import make_streets, tiny_config
from terrazzo.config.experiment import make_experiment
from terrazzo.config.ignored import IGNORED, drop_ignored
from terrazzo.errors import UserError
from terrazzo.registry import MODELS, TRANSFORMS

RECIPES = {
    "beit-base_upernet_8xb2-160k_ade20k-640x640": ("backbone", "norm_eval"),
    "bisenetv1_r18-d32_4xb4-160k_coco-stuff164k-512x512": ("backbone", "align_corners"),
    "mask2former_r50_8xb2-160k_ade20k-512x512": ("decode_head", "strides"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_official_recipes_lose_them_without_a_warning(name):
    config = tz.load_config(name)
    before = config.to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment = make_experiment(config)
    assert config.to_dict() == before
    part, argument = RECIPES[name]
    assert argument in config.model[part] and argument not in experiment.model[part]
    assert "backend_args" in config.tta_pipeline[0] and "backend_args" not in experiment.tta_pipeline[0]


def test_a_cascade_keeps_the_settings_of_its_training():
    config = tz.load_config("pointrend_r50_4xb2-80k_cityscapes-512x1024")
    assert make_experiment(config).model["train_cfg"] == config.model.train_cfg != {}


def test_what_asks_for_something_else_is_noted_once(tmp_path):
    config = tiny_config(make_streets(tmp_path))
    steps = [{"type": "mmseg.Resize", "scale": (8, 8), "backend": "pillow"}, {"type": "Resize", "scale_factor": 1.0}]
    for split in ("train", "val"):
        config[f"{split}_dataloader"]["dataset"]["pipeline"][1:1] = steps
    with pytest.warns(UserWarning, match=r"have no effect here: Resize.backend='pillow'$") as caught:
        make_experiment(config)
    assert len(caught) == 1
    with pytest.warns(UserWarning):
        kept = drop_ignored(config)["train_dataloader"]["dataset"]["pipeline"][1]
    assert kept == {"type": "mmseg.Resize", "scale": (8, 8)}


def test_files_elsewhere_are_refused_and_a_type_of_another_name_keeps_its_arguments():
    spec = {"type": "LoadImageFromFile", "backend_args": {"backend": "local"}}
    mine = {"type": "LoadMine", "backend_args": {"backend": "petrel"}}
    assert drop_ignored({"tta_pipeline": [spec, mine]}) == {"tta_pipeline": [{"type": "LoadImageFromFile"}, mine]}
    with pytest.raises(UserError, match=r"LoadImageFromFile.backend_args asks for 'petrel'"):
        drop_ignored({"tta_pipeline": [spec | {"backend_args": mine["backend_args"]}]})
    with pytest.raises(UserError, match=r"LoadImageFromFile.backend_args is a mapping .*, not 99"):
        drop_ignored({"tta_pipeline": [spec | {"backend_args": 99}]})


def test_the_table_names_types_that_are_registered():
    known = {*MODELS, *TRANSFORMS, "SegDataPreProcessor"}
    assert set(IGNORED) <= known
