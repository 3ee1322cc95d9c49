"""EoMT: its masks in training, its weights in other releases, a short run, and its export."""

from __future__ import annotations

import pytest
import torch

import terrazzo as tz
from support.exports import need
from support.tiny import fit, make_streets, tiny_config
from terrazzo.hub.encoders import Encoder
from terrazzo.models.checkpoint import Checkpoint, load_checkpoint
from terrazzo.recipes.encoders import compose
from terrazzo.registry import MODELS

SIZES = {"embed_dims": 32, "num_layers": 4, "num_heads": 4, "img_size": 64, "num_registers": 4}
ENCODER = Encoder("tiny", {}, (16,), sizes=SIZES)


def tiny(**options):
    return MODELS.build({"type": "EoMT", "num_classes": 3, **SIZES, "num_blocks": 2, "num_queries": 5, **options})


def test_masking_ends_block_by_block():
    model = tiny(num_blocks=4)
    shown = []
    for progress in (0, 1 / 6, 0.25, 1 / 3, 5 / 6, 1):
        model.anneal(progress)
        shown.append([round(value, 2) for value in model.attn_mask_probs.tolist()])
    assert shown == [[1, 1, 1, 1], [1, 1, 1, 1], [0.54, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_every_masked_block_predicts_in_training_and_none_after_it():
    model, images = tiny(), torch.randn(2, 3, 60, 70)
    assert [tuple(masks.shape) for _, masks in model.train()(images)] == [(2, 5, 16, 20)] * 3
    model.anneal(1.0)
    ((scores, _),) = model.eval()(images)
    assert scores.shape == (2, 5, 4)


def test_a_query_attends_to_the_patches_of_its_mask_alone():
    model = tiny().eval()
    masks = torch.full((1, 5, 4, 4), -1.0)
    masks[0, 0, :2] = 1.0
    allowed = model.attention_mask(masks, 5 + 5 + 16, (4, 4), 0)
    assert allowed.shape == (1, 1, 26, 26)
    assert allowed[0, 0, 0, 10:].tolist() == [True] * 8 + [False] * 8
    assert allowed[0, 0, :, :10].all() and allowed[0, 0, 5:].all() and not allowed[0, 0, 1, 10:].any()


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("masked", [0.0, 1.0])
def test_weights_of_transformers_give_the_same_logits(gated, masked):
    library = pytest.importorskip("transformers")
    config = library.EomtConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=64,
        patch_size=16, num_blocks=2, num_queries=5, num_labels=3, use_swiglu_ffn=gated)  # fmt: skip
    original = library.EomtForUniversalSegmentation(config).eval()
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    original.attn_mask_probs.fill_(masked)
    model = tiny(gated=gated)
    report = load_checkpoint(model, Checkpoint("x.safetensors", original.state_dict()))
    assert (report.missing, report.unexpected, report.source) == ([], [], "EoMT of transformers")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, (scores, masks) = original(images), model.eval()(images)[-1]
    assert torch.allclose(scores, expected.class_queries_logits, atol=1e-4)
    assert torch.allclose(masks, expected.masks_queries_logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2"])
def test_the_encoder_starts_from_weights_of_timm(name):
    timm = pytest.importorskip("timm")
    from terrazzo.recipes.encoders import encoder_of

    original = timm.create_model(name, num_classes=0).eval()
    encoder = encoder_of(f"timm/{name}")
    model = tz.build_model(compose("eomt", encoder, 3)).backbone.eval()
    report = load_checkpoint(model, Checkpoint("x.safetensors", original.state_dict()))
    assert not report.unexpected and not any(key.startswith(("layers.", "layernorm.")) for key in report.missing)
    images = torch.randn(1, 3, *encoder.sizes["img_size"])
    with torch.no_grad():
        tokens, _ = model.embeddings(images)
        for block in model.layers:
            tokens = block(tokens)
        assert torch.allclose(model.layernorm(tokens), original.forward_features(images), atol=1e-4)


@pytest.mark.slow
def test_a_short_run_ends_without_masks_and_its_export_agrees(tmp_path):
    need("onnx")
    config = tiny_config(make_streets(tmp_path / "data"), steps=3)
    preprocessor = config["model"]["data_preprocessor"]
    config["model"] = compose("eomt", ENCODER, 3) | {"data_preprocessor": preprocessor}
    config["model"]["decode_head"]["train_cfg"]["num_points"] = 64
    run = fit(config, tmp_path / "run")
    losses = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "decode.loss_mask" in losses and "decode.d3.loss_dice" in losses
    report = tz.export(run.last, tmp_path / "eomt.onnx")
    segmenter, exported = tz.load(run.last), tz.load(report.path)
    image = str(next((tmp_path / "data" / "images" / "val").iterdir()))
    assert (segmenter(image).labels == exported(image).labels).mean() > 0.99
