"""Weights under the names of other releases: every one finds its place, with the values that it means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import terrazzo as tz
from support import foreign_weights as foreign
from support.foreign_weights import filled
from terrazzo.checkpoints.inspect import architectures
from terrazzo.models.checkpoint import Checkpoint, is_constant, load_checkpoint
from terrazzo.models.naming import translate
from terrazzo.registry import MODELS

ALL = [0, 1, 2, 3]
VIT = {"type": "VisionTransformer", "img_size": 64, "embed_dims": 32, "num_layers": 2, "num_heads": 2,
    "patch_bias": True, "final_norm": True}  # fmt: skip
BEIT = {"type": "BEiT", "img_size": 64, "embed_dims": 32, "num_layers": 2, "num_heads": 2}
MAE = BEIT | {"type": "MAE", "final_norm": True, "out_indices": [1]}
SWIN = {"type": "SwinTransformer", "embed_dims": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
MIT = {"type": "MixVisionTransformer", "embed_dims": 16, "num_layers": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
TWINS = {"embed_dims": [16, 32, 64, 128], "num_heads": [1, 2, 4, 8], "depths": [2, 2, 2, 2], "qkv_bias": True}
PCPVT, SVT = TWINS | {"type": "PCPVT"}, TWINS | {"type": "SVT"}
MSCAN = {"type": "MSCAN", "embed_dims": [16, 32, 64, 128], "mlp_ratios": [4, 4, 4, 4], "depths": [1, 1, 1, 1]}
POOLFORMER = {"type": "PoolFormer", "out_indices": [0, 2, 4, 6], "arch": {"layers": [1] * 4,
    "embed_dims": [16, 32, 64, 128], "mlp_ratios": [4] * 4, "layer_scale_init_value": 1e-5}}  # fmt: skip
CONVNEXT = {"type": "ConvNeXt", "arch": {"depths": [1] * 4, "channels": [16, 32, 64, 128]}, "out_indices": ALL}
CONVNEXT2 = CONVNEXT | {"use_grn": True, "layer_scale_init_value": 0.0}
STDC = {"type": "STDCNet", "in_channels": 3, "channels": [32, 64, 256, 512, 1024], "bottleneck_type": "cat",
    "norm_cfg": {"type": "BN"}, "act_cfg": {"type": "ReLU"}, "num_convs": 4, "with_final_conv": True}  # fmt: skip
STEM = {"type": "ResNeSt", "depth": 50, "stem_channels": 128}
DDRNET = {"type": "DDRNet", "channels": 8, "ppm_channels": 16}
PIDNET = {"type": "PIDNet", "channels": 8, "ppm_channels": 12}
LARGE = PIDNET | {"num_stem_blocks": 3, "num_branch_blocks": 4}
STAGE_NORMS = ("norm0", "norm1", "norm2")  # of a backbone's other outputs, which a classifier does not have

# what -> the release's weights, our backbone, and which of ours are not in them
CASES: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "torchvision resnet": (foreign.resnet_torchvision(), {"type": "ResNet", "depth": 50}, ()),
    "torchvision resnext": (
        foreign.resnext_torchvision(), {"type": "ResNeXt", "depth": 50, "groups": 32, "base_width": 4}, ()),
    "timm resnet-d": (foreign.resnet_d_timm(), {"type": "ResNetV1d", "depth": 50}, ()),
    "mmpretrain resnet-c": (foreign.resnet_c_mmpretrain(), {"type": "ResNetV1c", "depth": 50}, ()),
    "resnest": (foreign.resnest(), STEM, ()),
    "torchvision mobilenet v2": (foreign.mobilenet_v2_torchvision(), {"type": "MobileNetV2"}, ()),
    "torchvision mobilenet v3": (
        foreign.mobilenet_v3_torchvision(), {"type": "MobileNetV3", "arch": "small", "out_indices": [0, 1, 12]}, ()),
    "timm vit": (foreign.vit_timm(), VIT, ()),
    "distilled deit": (foreign.deit_distilled(), VIT, ()),
    "torchvision vit": (foreign.vit_torchvision(), VIT, ()),
    "torchvision vit, later": (foreign.vit_torchvision_new(), VIT, ()),
    "mmpretrain vit": (foreign.vit_mmpretrain(), VIT, ()),
    "mmpretrain vit, earlier": (foreign.vit_mmpretrain("norm1"), VIT, ()),
    "mae": (foreign.mae_release(), MAE, ("gamma_", "relative_position_bias_table")),
    "mae in a vit": (foreign.mae_release(), VIT, ()),
    "beit": (foreign.beit_release(), BEIT, ()),
    "beit, pretrained": (foreign.beit_release(shared=True), BEIT | {"final_norm": True}, ()),
    "microsoft swin": (foreign.swin_microsoft(), SWIN, STAGE_NORMS),
    "timm swin": (foreign.swin_timm(), SWIN, STAGE_NORMS),
    "torchvision swin": (foreign.swin_torchvision(), SWIN, STAGE_NORMS),
    "nvidia mit": (foreign.mit_nvidia(), MIT, ()),
    "transformers mit": (foreign.mit_transformers(), MIT, ()),
    "transformers mit alone": (foreign.mit_transformers("encoder."), MIT, ()),
    "pcpvt": (foreign.twins_release(windows=False), PCPVT, ()),
    "svt": (foreign.twins_release(windows=True), SVT, ("norm_list",)),
    "mmpretrain pcpvt": (foreign.twins_mmpretrain(windows=False), PCPVT, ()),
    "mmpretrain svt": (foreign.twins_mmpretrain(windows=True), SVT, ("norm_list",)),
    "mscan": (foreign.mscan_release(), MSCAN, ()),
    "poolformer": (foreign.poolformer_release(), POOLFORMER, ("norm0", "norm2", "norm4")),
    "timm poolformer": (foreign.poolformer_timm(), POOLFORMER, ("norm0", "norm2", "norm4")),
    "convnext": (foreign.convnext_meta(), CONVNEXT, STAGE_NORMS),
    "convnext v2": (foreign.convnext_meta(2), CONVNEXT2, STAGE_NORMS),
    "timm convnext": (foreign.convnext_timm(), CONVNEXT, STAGE_NORMS),
    "timm convnext v2": (foreign.convnext_timm(2), CONVNEXT2, STAGE_NORMS),
    "timm convnext of convolutions": (foreign.convnext_timm(), CONVNEXT | {"linear_pw_conv": False}, STAGE_NORMS),
    "torchvision convnext": (foreign.convnext_torchvision(), CONVNEXT, STAGE_NORMS),
    "stdc1": (foreign.stdc_release(), STDC | {"stdc_type": "STDCNet1"}, ()),
    "stdc2": (foreign.stdc_release((4, 5, 3)), STDC | {"stdc_type": "STDCNet2"}, ()),
    "ddrnet": (foreign.ddrnet_release(), DDRNET, ()),
    "pidnet": (foreign.pidnet_release(), PIDNET, ()),
    "pidnet-l": (foreign.pidnet_release(large=True), LARGE, ()),
}  # fmt: skip


def load(model: nn.Module, weights: dict[str, torch.Tensor]) -> Any:
    return load_checkpoint(model, Checkpoint("x.pth", weights))


@pytest.mark.parametrize("what", CASES)
def test_every_weight_finds_its_place(what):
    shapes, spec, absent = CASES[what]
    model = MODELS.build(spec)
    report = load(model, filled(shapes))
    missing = [name for name in report.missing if not is_constant(name)]
    assert [name for name in missing if not any(part in name for part in absent)] == []
    assert all(any(part in name for name in missing) for part in absent)
    heads = [name for name in report.unexpected if not name.startswith("decode_head.")]
    assert (heads, report.reinitialised, report.resized) == ([], [], [])
    assert f"names: {report.source}, translated" in str(report)


@pytest.mark.parametrize("what", ["timm swin", "nvidia mit", "mscan", "ddrnet", "torchvision resnet"])
def test_a_backbones_file_is_loaded_into_a_whole_model(what):
    shapes, spec, absent = CASES[what]
    head = {"type": "FCNHead", "in_channels": 128, "channels": 8, "num_classes": 3, "in_index": -1}
    model = tz.build_model({"type": "EncoderDecoder", "backbone": spec, "decode_head": head})
    report = load(model, filled(shapes))
    assert report.source and not any(
        name.startswith("backbone.") and not is_constant(name) and not any(part in name for part in absent)
        for name in report.missing
    )


def test_what_stands_beside_a_translated_backbone_is_loaded_too():
    """SegNeXt's own release has the head's names of ours."""
    head = {"type": "FCNHead", "in_channels": 128, "channels": 8, "num_classes": 3, "in_index": -1}
    model = tz.build_model({"type": "EncoderDecoder", "backbone": MSCAN, "decode_head": head})
    weights = {f"backbone.{name}": value for name, value in filled(foreign.mscan_release()).items()}
    weights["decode_head.conv_seg.bias"] = torch.tensor([1.0, 2.0, 3.0])
    report = load(model, weights)
    assert "decode_head.conv_seg.bias" in report.loaded
    assert model.decode_head.conv_seg.bias.tolist() == [1, 2, 3]


def test_our_own_names_are_not_translated():
    model = MODELS.build(SWIN)
    report = load(model, MODELS.build(SWIN).state_dict())
    assert report.source == "" and not report.missing


@pytest.mark.slow
def test_no_familys_own_names_are_taken_for_anothers():
    for title, model in architectures():
        weights = model.state_dict()
        translated, source = translate(model, weights)
        assert (list(translated), source) == (list(weights), ""), title


# Values


@pytest.mark.parametrize("what", ["microsoft swin", "torchvision swin"])
def test_swin_merges_the_same_neighbours(what):
    """Those releases join a patch's four neighbours column by column: (0, 0), (1, 0), (0, 1), (1, 1)."""
    shapes, spec, _ = CASES[what]
    weights = filled(shapes)
    model = MODELS.build(spec)
    load(model, weights)
    place = "layers.0.downsample" if what == "microsoft swin" else "features.2"
    x = torch.randn(2, 6, 8, 16)
    corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    joined = torch.cat(corners, -1).flatten(1, 2)  # N, 3 * 4, 4 * C
    normed = F.layer_norm(joined, (64,), weights[f"{place}.norm.weight"], weights[f"{place}.norm.bias"])
    expected = F.linear(normed, weights[f"{place}.reduction.weight"])
    ours, grid = model.stages[0].downsample(x.flatten(1, 2), (6, 8))
    assert grid == (3, 4) and torch.allclose(ours, expected, atol=1e-4)


def test_query_key_and_value_are_joined_in_this_order():
    weights = filled(foreign.mit_nvidia())
    model = MODELS.build(MIT)
    load(model, weights)
    place = "block2.1.attn"
    joined = torch.cat([weights[f"{place}.q.weight"], weights[f"{place}.kv.weight"]])
    assert torch.equal(model.layers[1][1][1].attn.attn.in_proj_weight, joined)
    parts = filled(foreign.mit_transformers())
    load(model, parts)
    inner = "segformer.encoder.block.1.1.attention.self"
    joined = torch.cat([parts[f"{inner}.{part}.bias"] for part in ("query", "key", "value")])
    assert torch.equal(model.layers[1][1][1].attn.attn.in_proj_bias, joined)


def test_the_distillation_tokens_position_goes():
    weights = filled(foreign.deit_distilled())
    model = MODELS.build(VIT)
    load(model, weights)
    assert torch.equal(model.pos_embed[:, 0], weights["pos_embed"][:, 0])
    assert torch.equal(model.pos_embed[:, 1:], weights["pos_embed"][:, 2:])


def test_a_table_that_layers_share_goes_to_each():
    weights = filled(foreign.beit_release(shared=True))
    model = MODELS.build(BEIT)
    load(model, weights)
    for layer in model.layers:
        assert torch.equal(
            layer.attn.relative_position_bias_table, weights["rel_pos_bias.relative_position_bias_table"]
        )


@pytest.mark.parametrize("spec", [BEIT, MAE], ids=["BEiT", "MAE"])
def test_a_bias_of_query_and_value_is_the_same_as_one_with_a_keys(spec):
    """A bias of the keys adds the same to all scores of a query."""
    weights = filled(foreign.vit_timm())
    weights["blocks.0.attn.qkv.bias"][32:64] *= 100
    model = MODELS.build(spec | {"init_values": None})
    load(model, weights)
    x = torch.randn(2, 17, 32)
    attention = model.layers[0].attn
    ours = attention(x, (4, 4), attention.relative_position_index)
    qkv = F.linear(x, weights["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.bias"])
    query, key, value = qkv.unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    mixed = ((query @ key.transpose(-1, -2)) / 4).softmax(-1) @ value
    proj = "blocks.0.attn.proj"
    expected = F.linear(mixed.transpose(1, 2).flatten(2), weights[f"{proj}.weight"], weights[f"{proj}.bias"])
    assert torch.allclose(ours, expected, rtol=1e-3)


@pytest.mark.parametrize(("shapes", "spec"), [(foreign.ddrnet_release(), DDRNET), (foreign.pidnet_release(), PIDNET)])
def test_a_bias_before_a_norm_is_absorbed(shapes, spec):
    weights = filled(shapes)
    model = MODELS.build(spec).eval()
    load(model, weights)
    lead = "model." if spec is DDRNET else ""
    x = torch.randn(1, 3, 16, 16)
    part = {name.removeprefix(f"{lead}conv1."): value for name, value in weights.items()}
    expected = F.conv2d(x, part["0.weight"], part["0.bias"], stride=2, padding=1)
    expected = F.batch_norm(
        expected, part["1.running_mean"], part["1.running_var"], part["1.weight"], part["1.bias"]
    ).relu()
    assert torch.allclose(model.stem[0](x), expected, atol=1e-4)


def test_pidnets_branches_are_not_exchanged():
    """`f_x` reads the detail, `f_y` the context."""
    weights = filled(foreign.pidnet_release())
    model = MODELS.build(PIDNET)
    load(model, weights)
    assert torch.equal(model.pag_1.f_p.conv.weight, weights["pag3.f_x.0.weight"])
    assert torch.equal(model.pag_2.f_i.conv.weight, weights["pag4.f_y.0.weight"])


# CLIP


def side_adapter() -> nn.Module:
    """SAN's model in small: the image encoder keeps two of CLIP's three layers, its head has the third."""
    recipe = tz.recipes.recipe("san-vit-b16_coco-stuff164k-640x640")["model"]
    image = recipe["image_encoder"] | {"img_size": [64, 64], "embed_dims": 16, "num_layers": 2, "num_heads": 2,
        "out_indices": [0, 1]}  # fmt: skip
    text = recipe["text_encoder"] | {"embed_dims": 8, "output_dims": 8, "num_layers": 2, "num_heads": 2}
    head = recipe["decode_head"]
    san = head["san_cfg"] | {"clip_channels": 16, "embed_dims": 8, "num_queries": 4, "fusion_index": [0, 1, 2],
        "cfg_encoder": {"num_encode_layer": 2, "num_heads": 2, "mlp_ratio": 4},
        "cfg_decoder": {"num_heads": 2, "num_layers": 1, "embed_channels": 8, "mlp_channels": 8, "num_mlp": 3,
            "rescale": True}}  # fmt: skip
    mask = head["maskgen_cfg"] | {"sos_token_num": 4, "embed_dims": 16, "num_heads": 2, "num_layers": 1, "out_dims": 8}
    parts = {"image_encoder": image, "text_encoder": text}
    return tz.build_model(recipe | parts | {"decode_head": head | {"san_cfg": san, "maskgen_cfg": mask}})


@pytest.mark.parametrize("release", ["openai", "transformers"])
def test_clip_goes_to_both_encoders_and_the_head(release):
    weights = filled(foreign.clip_openai() if release == "openai" else foreign.clip_transformers())
    model = side_adapter()
    report = load(model, weights)
    missing = [name for name in report.missing if "side_adapter_network" not in name]
    assert (missing, report.unexpected, report.reinitialised) == (["text_encoder.bg_embed"], [], [])
    head = model.decode_head.rec_with_attnbias
    if release == "openai":
        assert torch.equal(head.proj.weight, weights["visual.proj"].T)
        assert torch.equal(model.text_encoder.text_projection, weights["text_projection"])
        last = weights["visual.transformer.resblocks.2.attn.in_proj_weight"]
    else:
        assert torch.equal(head.proj.weight, weights["visual_projection.weight"])
        assert torch.equal(model.text_encoder.text_projection, weights["text_projection.weight"].T)
        place = "vision_model.encoder.layers.2.self_attn"
        last = torch.cat([weights[f"{place}.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(head.layers[0].attentions[0].attn.in_proj_weight, last)


def test_clips_image_encoder_alone():
    spec = VIT | {"embed_dims": 16, "num_layers": 3, "patch_bias": False, "pre_norm": True}
    report = load(MODELS.build(spec), filled(foreign.clip_openai()))
    assert (report.missing, report.unexpected, report.source) == ([], [], "OpenAI's CLIP")
