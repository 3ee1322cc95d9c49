"""Parts of models that training leaves as they are."""

from __future__ import annotations

import pytest
import torch

import terrazzo as tz
from support.tiny import fit as train
from support.tiny import make_streets, model_config, tiny_config, weights
from terrazzo.checkpoints.inspect import skeleton
from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.freezing import freeze, frozen_summary
from terrazzo.recipes import families, family
from terrazzo.registry import MODELS


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.mark.parametrize("name", families())
def test_frozen_stages_of_every_backbone_grow(name):
    """Each further stage that `frozen_stages` counts leaves less of the backbone to train."""
    trained = []
    for stages in (None, 0, 1, 2):
        spec = family(name)["model"]
        part = next(spec[key] for key in ("backbone", "image_encoder") if key in spec)
        part.pop("frozen_exclude", None)  # SAN's freezes nearly all of its encoder
        part |= {} if stages is None else {"frozen_stages": stages}
        model = skeleton(spec)
        if model is None and stages is None:
            pytest.skip("its backbone needs an extra")
        backbone = next(module for module in model.modules() if isinstance(module, Backbone))
        trained.append(sum(parameter.requires_grad for parameter in backbone.parameters()))
    assert trained[0] >= trained[1] > trained[2] > trained[3]


def test_a_frozen_stage_keeps_weights_and_statistics():
    backbone = MODELS.build({"type": "FastSCNN", "frozen_stages": 2}).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(out.square().mean() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    still = ("learning_to_downsample.", *(f"global_feature_extractor.bottleneck{number}." for number in (1, 2)))
    assert moved and not any(name.startswith(still) for name in moved)
    assert any(name.startswith("global_feature_extractor.bottleneck3.") for name in moved)


def test_too_many_frozen_stages_are_refused():
    config = {"type": "UNet", "num_stages": 5, "frozen_stages": 6}
    with pytest.raises(UserError, match=r"frozen_stages=6: UNet has 5 stages"):
        MODELS.build(config).train()


@pytest.mark.parametrize(
    ("names", "trained"),
    [
        (["backbone"], {"decode_head"}),
        (["decode_head"], {"backbone"}),
        (["backbone.encoder"], {"backbone", "decode_head"}),
        (["*.bn"], {"backbone", "decode_head"}),
    ],
)
def test_freezing_by_name(names, trained):
    model = tz.build_model(model_config())
    freeze(model, names)
    model.eval().train()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == trained
    still = {name for name, module in model.named_modules() if not module.training}
    assert still == {name for name, _ in model.named_modules() if any(matches(name, part) for part in names)}


def matches(name, part):
    return name.endswith(".bn") if part == "*.bn" else f"{name}.".startswith(f"{part}.")


def test_a_summary_names_the_outermost_frozen_parts():
    model = tz.build_model(model_config())
    assert frozen_summary(model) == ""
    freeze(model, ["backbone.encoder", "backbone.decoder.0.upsample"])
    assert frozen_summary(model).startswith("frozen: backbone.encoder, backbone.decoder.0.upsample; ")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["backbon"], "no part 'backbon'; did you mean 'backbone'"),
        (["backbone.layer1"], "no part 'backbone.layer1'"),
        (["backbone", "decode_head"], "nothing to train"),
        ([3], "list of names"),
    ],
)
def test_a_name_that_freezes_nothing_or_everything_is_refused(names, message, streets, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tiny_config(streets, freeze=names), tmp_path / "run")


@pytest.mark.parametrize("option", ["freeze", "lr_mult"])
def test_a_frozen_backbone_does_not_move_under_a_schedule_with_a_floor(option, streets, tmp_path):
    changes = {"param_scheduler": [{"type": "PolyLR", "eta_min": 0.05, "begin": 0, "end": 4, "by_epoch": False}]}
    if option == "freeze":
        changes["freeze"] = ["backbone"]
    else:
        optimizer = {"type": "AdamW", "lr": 0.01}
        custom = {"custom_keys": {"backbone": {"lr_mult": 0.0}}}
        changes["optim_wrapper"] = {"type": "OptimWrapper", "optimizer": optimizer, "paramwise_cfg": custom}
    short = train(tiny_config(streets, steps=1, **changes), tmp_path / "short")
    run = train(tiny_config(streets, steps=4, **changes), tmp_path / "run")
    one, other = weights(short.last), weights(run.last)
    moved = {name for name in one if name.endswith(("weight", "bias")) and not torch.equal(one[name], other[name])}
    assert moved and all(name.startswith("decode_head.") for name in moved)
    kept = all(torch.equal(one[name], other[name]) for name in one if name.startswith("backbone."))
    assert kept == (option == "freeze")  # statistics, too
    log = run.log_path.read_text()
    assert "frozen: backbone; " in log
    assert ("lr_mult=0: " in log) == (option == "lr_mult")
