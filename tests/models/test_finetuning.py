"""What training changes of an encoder: all, nothing, or a low-rank part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import terrazzo as tz
from support.tiny import fit, make_streets, tiny_config, weights
from terrazzo.errors import UserError
from terrazzo.models.finetuning import set_finetuning
from terrazzo.models.layers.lora import add_low_rank, merged_weights

VIT = {"type": "VisionTransformer", "img_size": 32, "embed_dims": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return make_streets(tmp_path_factory.mktemp("streets"))


def vit_config(streets, **keys):
    config = tiny_config(streets, steps=2)
    config["model"]["backbone"] = dict(VIT)
    config["model"]["decode_head"] |= {"in_channels": 16, "in_index": 0}
    return config | keys


def test_low_rank_changes_start_as_none_and_merge_into_plain_weights():
    layers = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Flatten(), nn.Linear(12, 12))
    images, names = torch.randn(2, 3, 3, 3), set(layers.state_dict())
    before = layers(images)
    assert add_low_rank(layers, rank=2) == 2
    assert torch.equal(layers(images), before)
    trained = [name for name, parameter in layers.named_parameters() if parameter.requires_grad]
    assert all(name.endswith((".up", ".down")) for name in trained) and len(trained) == 4

    torch.optim.SGD(layers.parameters(), lr=1.0).zero_grad()
    layers(images).sum().backward()
    for parameter in layers.parameters():
        parameter.data -= 0.1 * parameter.grad if parameter.grad is not None else 0
    plain = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Flatten(), nn.Linear(12, 12))
    plain.load_state_dict(merged_weights(layers))
    assert set(plain.state_dict()) == names
    assert torch.allclose(plain(images), layers(images)) and not torch.allclose(plain(images), before)


def test_a_run_with_lora_resumes_and_saves_weights_that_load_anywhere(streets, tmp_path):
    config = vit_config(streets, finetune="lora")
    run = fit(config, tmp_path / "run", max_steps=1)
    run = fit(config, tmp_path / "run", resume=True)
    log = run.log_path.read_text()
    assert "low-rank changes (LoRA, rank 8)" in log and "resumed at step 1" in log
    model = tz.build_model(config)
    report = tz.load_checkpoint(model, run.last)
    assert (report.missing, report.unexpected) == ([], [])


def test_a_frozen_encoder_stays_as_it_is(streets, tmp_path):
    first = fit(vit_config(streets), tmp_path / "first").last
    config = vit_config(streets, finetune="frozen", load_from=str(first))
    before, after = weights(first), weights(fit(config, tmp_path / "run").last)
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert {name for name in before if name.startswith("backbone.")} <= same
    assert "decode_head.conv_seg.weight" not in same


def test_eomt_trains_its_queries_though_its_encoder_is_frozen():
    spec = {"type": "EoMT", "num_classes": 3, "embed_dims": 16, "num_layers": 2, "num_heads": 2, "img_size": 32}
    for way, encoder in (("frozen", False), ("lora", True)):
        model = tz.build_model(
            {"type": "EncoderDecoder", "backbone": dict(spec), "decode_head": {"type": "LinearHead", "in_channels": 16,
             "num_classes": 3}}
        )  # fmt: skip
        set_finetuning(model, way)
        trained = {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}
        assert {"query.weight", "class_predictor.weight", "mask_head.0.weight"} <= trained
        assert any(name.startswith("layers.") for name in trained) is encoder


def test_a_wrong_word_is_named(streets, tmp_path):
    with pytest.raises(UserError, match=r"finetune must be one of full, frozen, lora, not 'half'"):
        fit(vit_config(streets, finetune="half"), tmp_path)
    with pytest.raises(UserError, match="finetune: lora needs a model with a backbone, which Linear does not have"):
        set_finetuning(nn.Linear(2, 2), "lora")
