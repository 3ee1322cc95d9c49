"""Channels of a model's parts that are read from its backbone."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import terrazzo as tz
from support.tiny import fit, make_streets, model_config, short_form, tiny_config
from terrazzo.errors import UserError
from terrazzo.models.freezing import frozen_names

DATA = {"classes": ["sky", "road", "car"]}
IMAGES = torch.randn(1, 3, 96, 96)


class TimmNet(nn.Module):
    """A network as timm makes it with `features_only`: four maps of 8, 24, 40 and 56 channels."""

    widths = (8, 8, 24, 40, 56)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem_0 = nn.Conv2d(channels, 8, 4, 4)
        for index, (source, width) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            self.add_module(f"stages_{index}", nn.Sequential(nn.Conv2d(source, width, 3, 2 if index else 1, 1)))

    def forward(self, x):
        x = self.stem_0(x)
        maps = []
        for index in range(4):
            x = getattr(self, f"stages_{index}")(x)
            maps.append(x)
        return maps


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for the library timm with one model, `small`."""
    module = types.ModuleType("timm")
    module.is_model = lambda name: name == "small"
    module.create_model = lambda name, *, in_chans, **_: TimmNet(in_chans)
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.parametrize("recipe", ["fcn", "segformer", "upernet", "fastscnn", "deeplabv3plus", "knet"])
def test_any_backbone_of_timm_by_its_name(recipe, timm):
    config = tz.load_config({"recipe": recipe, "data": DATA, "model": {"backbone": "timm/small"}})
    model = tz.build_model(config).eval()
    assert type(model.backbone).__name__ == "TIMMBackbone"
    with torch.no_grad():
        assert model(IMAGES).shape == (1, 3, 96, 96)


def test_bands_and_frozen_stages_of_a_backbone_of_timm(timm):
    spec = {"type": "TIMMBackbone", "model_name": "small", "frozen_stages": 2}
    data = DATA | {"bands": [1, 2, 3, 4]}
    config = tz.load_config({"recipe": "fcn", "data": data, "mean": "none", "std": "none", "model": {"backbone": spec}})
    model = tz.build_model(config)
    assert model.backbone.timm_model.stem_0.in_channels == 4
    assert [*frozen_names(model.backbone.timm_model)] == ["stem_0", "stages_0", "stages_1"]


def test_an_unknown_model_of_timm_is_named(timm):
    with pytest.raises(UserError, match="timm has no model 'large'"):
        tz.build_model(tz.load_config({"recipe": "fcn", "data": DATA, "model": {"backbone": "timm/large"}}))


@pytest.mark.parametrize(
    ("recipe", "backbone"),
    [
        ("pspnet", {"depth": 18}),
        ("sem_fpn", {"depth": 18}),
        ("pointrend", {"depth": 18}),
        ("mask2former", {"depth": 18}),
        ("segformer", "MSCAN"),
        ("segformer", {"embed_dims": 64}),
    ],
)
def test_a_changed_backbone_sets_the_channels_of_what_reads_it(recipe, backbone):
    model = tz.build_model(tz.load_config({"recipe": recipe, "data": DATA, "model": {"backbone": backbone}})).eval()
    with torch.no_grad():
        assert model(IMAGES).shape[1] == 3


def test_channels_given_beside_a_backbone_are_kept():
    changes = {"backbone": {"depth": 18}, "decode_head": {"in_channels": 2048}}
    config = tz.load_config({"recipe": "fcn", "data": DATA, "model": changes})
    assert config["model"]["decode_head"]["in_channels"] == 2048
    assert config["model"]["auxiliary_head"]["in_channels"] == "auto"


def test_whole_configs_may_leave_channels_out():
    spec = model_config()
    del spec["decode_head"]["in_channels"]
    assert tz.build_model(spec).decode_head.in_channels == 4
    spec["decode_head"] |= {"in_channels": "auto", "in_index": [0, 1], "input_transform": "resize_concat"}
    assert tz.build_model(spec).decode_head.in_channels == 8 + 4


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"in_channels": 16}, r"decode_head\.convs.* takes 16 channels and gets 4; set model.decode_head.in_channels"),
        ({"in_index": 5}, r"at model.decode_head.*in_index=5, but the head is given 2 input maps"),
        ({"in_index": 5, "in_channels": "auto"}, r"model.decode_head.in_index=5: UNet gives 2 maps"),
    ],
)
def test_parts_that_do_not_fit_are_named_before_training(head, message, tmp_path):
    with pytest.raises(UserError, match=message):
        fit(tiny_config(make_streets(tmp_path / "data"), model=model_config(**head)), tmp_path / "run")


def test_a_trained_model_with_channels_from_its_backbone_is_loaded(tmp_path):
    streets = make_streets(tmp_path / "data")
    config = short_form(
        streets, recipe="fcn", model={"backbone": {"depth": 18, "base_channels": 4, "stem_channels": 4}}
    )
    run = fit(config, tmp_path / "run")
    assert tz.load(run.last)(str(streets / "images/val/00.png")).labels.shape == (32, 40)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("unet", "UNet"),
        ("fastscnn", "FastSCNN"),
        ("segformer_mit-b0_8xb1-160k_cityscapes-1024x1024", "MixVisionTransformer"),
    ],
)
def test_models_by_the_name_of_a_family_or_a_recipe(name, backbone):
    assert type(tz.build_model(name).backbone).__name__ == backbone


def test_a_name_that_is_none_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'fastscnn'"):
        tz.build_model("fastscn")
