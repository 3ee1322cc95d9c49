"""A Config is read, changed and written as the official tutorial does."""

from __future__ import annotations

import copy

import pytest

import terrazzo as tz
from terrazzo.config.config import Config
from terrazzo.config.load import load_config
from terrazzo.errors import UserError


@pytest.fixture
def cfg() -> Config:
    return load_config("pspnet_r50-d8_4xb2-40k_cityscapes-512x1024")


def test_assignments_act(cfg):
    cfg.load_from = "weights.pth"
    cfg["randomness"] = {"seed": 7}
    cfg.optim_wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.00025}}
    cfg.model.backbone = {"type": "ResNet", "depth": 18}
    cfg.train_cfg.max_iters = 200
    values = cfg.to_dict()
    assert (values["load_from"], values["randomness"], values["train_cfg"]["max_iters"]) == (
        "weights.pth",
        {"seed": 7},
        200,
    )
    assert values["optim_wrapper"]["optimizer"]["lr"] == 0.00025
    assert values["model"]["backbone"] == {"type": "ResNet", "depth": 18}
    assert cfg.model.backbone.depth == 18 and cfg.origin("model.backbone.depth") == "assigned in Python"
    del cfg.load_from
    assert "load_from" not in cfg


def test_options_are_merged_and_copies_are_independent(cfg):
    other = copy.deepcopy(cfg)
    cfg.merge_from_dict({"model.decode_head.num_classes": 2, "train_cfg": {"max_iters": 3}, "tta_pipeline.0.type": "x"})
    assert (cfg.model.decode_head.num_classes, cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (2, 3, 4000)
    assert cfg.tta_pipeline[0].type == "x" and other.model.decode_head.num_classes == 19


@pytest.mark.parametrize("ending", [".py", ".yaml", ".yml", ".json"])
def test_what_is_written_reads_back(cfg, tmp_path, ending):
    cfg.work_dir = "runs/mine"
    text = cfg.dump(tmp_path / f"mine{ending}")
    assert load_config(tmp_path / f"mine{ending}").to_dict() == cfg.to_dict()
    assert (tmp_path / f"mine{ending}").read_text() == text
    assert (text == cfg.pretty_text) is (ending == ".py")


def test_only_config_files_are_written(cfg, tmp_path):
    with pytest.raises(UserError, match=r"mine.txt is not a config file: its name must end in .py"):
        cfg.dump(tmp_path / "mine.txt")
    assert not (tmp_path / "mine.txt").exists()


def test_an_assigned_checkpoint_is_looked_for(cfg, tmp_path):
    from support.tiny import make_streets, tiny_config

    own = Config(tiny_config(make_streets(tmp_path / "data")))
    own.load_from = str(tmp_path / "none.pth")
    own.work_dir = str(tmp_path / "mine")
    with pytest.raises(UserError, match=r"none\.pth"):
        tz.train(own, quiet=True, check=False)
    assert (tmp_path / "mine" / "log.txt").is_file()


def test_an_assigned_section_of_the_other_vocabulary_is_refused(cfg):
    cfg.optimizer = {"type": "SGD", "lr": 0.5}
    with pytest.raises(
        UserError, match=r"assigned in Python: 'optimizer' .*optim_wrapper=dict\(optimizer=dict\(lr=0.5"
    ):
        load_config(cfg)
