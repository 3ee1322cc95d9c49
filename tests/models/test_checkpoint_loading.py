"""Loading into a model that is not quite the one that was saved: averages, other sizes, other classes."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import terrazzo as tz
from support.tiny import fit, make_streets, model_config, tiny_config
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from terrazzo.registry import MODELS

VIT = {"type": "VisionTransformer", "embed_dims": 8, "num_layers": 1, "num_heads": 2}
SWIN = {"type": "SwinTransformer", "embed_dims": 8, "depths": [1, 1], "num_heads": [1, 2], "strides": [4, 2],
    "out_indices": [0, 1]}  # fmt: skip
BEIT = {"type": "BEiT", "embed_dims": 8, "num_layers": 1, "num_heads": 2}


def head(kind: str, classes: int, **options: Any) -> nn.Module:
    """An encoder and decoder with this head."""
    config = model_config(num_classes=classes)
    config["decode_head"] = {"type": kind, "in_channels": 4, "in_index": 1, "channels": 8, "num_classes": classes,
        "loss_decode": {"type": "CrossEntropyLoss"}} | options  # fmt: skip
    return tz.build_model(config)


def saved(model: nn.Module, classes: list[str] | None = None, **meta: Any) -> Checkpoint:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return Checkpoint("x.pth", weights, ({"classes": classes} if classes else {}) | meta)


# Averages


def weights_of(value: float) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((2, 2), value), "a.num": torch.tensor([value])}


def averaged(form: str) -> dict[str, Any]:
    """A file with trained weights of 1 and an average of 2."""
    trained, average = weights_of(1.0), weights_of(2.0)
    if form == "mmengine":  # which exchanges the two when it saves
        moving = {"steps": torch.tensor(7)} | {f"module.{name}": value for name, value in trained.items()}
        return {"meta": {}, "state_dict": collections.OrderedDict(average), "ema_state_dict": moving}
    if form == "mmcv":  # buffers beside the parameters
        return {"state_dict": trained | {f"ema_{name.replace('.', '_')}": value for name, value in average.items()}}
    if form == "ours":
        return {"model": trained, "ema": average, "optimizer": {}}
    return {"state_dict": trained, "state_dict_ema": average}


@pytest.mark.parametrize(
    ("form", "usual"), [("mmengine", "ema"), ("mmcv", "model"), ("ours", "ema"), ("timm", "model")]
)
def test_both_sets_of_weights_can_be_had(tmp_path, form, usual):
    torch.save(averaged(form), tmp_path / "x.pth")
    for kind, value in (("model", 1.0), ("ema", 2.0)):
        checkpoint = read_checkpoint(tmp_path / "x.pth", kind)
        assert checkpoint.kind == kind and checkpoint.other == ("ema" if kind == "model" else "model")
        assert list(checkpoint.weights) == ["a.weight", "a.num"]
        assert all(bool((part == value).all()) for part in checkpoint.weights.values())
    assert read_checkpoint(tmp_path / "x.pth").kind == usual


def test_the_report_names_the_average(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(1, 1)}, "ema_state_dict": {"weight": torch.ones(1, 1)}},
        tmp_path / "x.pth")  # fmt: skip
    model = nn.Linear(1, 1, bias=False)
    assert "(averaged weights)\n  the file also contains the weights before averaging" in str(
        load_checkpoint(model, tmp_path / "x.pth")
    )
    assert "the file also contains averaged weights" in str(load_checkpoint(model, tmp_path / "x.pth", weights="model"))


def test_weights_that_are_not_there(tmp_path):
    torch.save(weights_of(1.0), tmp_path / "x.pth")
    save_file(weights_of(1.0), str(tmp_path / "x.safetensors"))
    for name in ("x.pth", "x.safetensors"):
        with pytest.raises(UserError, match=rf"{name} contains .*weights='ema'"):
            read_checkpoint(tmp_path / name, "ema")
        with pytest.raises(UserError, match="'best' is neither 'model'"):
            read_checkpoint(tmp_path / name, "best")


# Other sizes


@pytest.mark.parametrize(
    ("spec", "small", "large", "name"),
    [
        (VIT, {"img_size": 64}, {"img_size": (96, 128)}, "pos_embed"),
        (VIT, {"img_size": 512, "interpolate_mode": "bilinear"}, {"img_size": 768}, "pos_embed"),
        (BEIT | {"type": "MAE"}, {"img_size": 64}, {"img_size": 128}, "pos_embed"),
        (BEIT, {"img_size": 64}, {"img_size": (96, 128)}, "layers.0.attn.relative_position_bias_table"),
        (SWIN, {"window_size": 7}, {"window_size": 12}, "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"),
        (SWIN | {"use_abs_pos_embed": True}, {"pretrain_img_size": 224}, {"pretrain_img_size": 384},
            "absolute_pos_embed"),
    ],
)  # fmt: skip
def test_positions_of_another_image_size_are_resized(spec, small, large, name):
    source, model = MODELS.build(spec | small), MODELS.build(spec | large)
    with torch.no_grad():  # a plane stays a plane, away from the borders
        dict(source.named_parameters())[name].fill_(0.25)
    report = load_checkpoint(model, saved(source))
    assert name in report.resized and not report.reinitialised
    assert torch.allclose(dict(model.named_parameters())[name], torch.tensor(0.25))
    assert f"{len(report.resized)} resized: {name}" in str(report)
    assert "relative_position_index" not in str(report)


def test_the_class_tokens_position_stays():
    source, model = MODELS.build(VIT | {"img_size": 64}), MODELS.build(VIT | {"img_size": 128})
    load_checkpoint(model, saved(source))
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    assert torch.allclose(model.embed(torch.zeros(1, 3, 64, 64))[0], source.embed(torch.zeros(1, 3, 64, 64))[0], atol=1)


def test_the_class_tokens_rows_of_the_table_stay():
    source, model = MODELS.build(BEIT | {"img_size": 64}), MODELS.build(BEIT | {"img_size": 96})
    nn.init.normal_(source.layers[0].attn.relative_position_bias_table)
    load_checkpoint(model, saved(source))
    tables = [part.layers[0].attn.relative_position_bias_table for part in (source, model)]
    assert torch.equal(tables[0][-3:], tables[1][-3:])
    middle = [len(table[:-3]) // 2 for table in tables]  # the place of an offset of nothing
    assert torch.allclose(tables[0][middle[0]], tables[1][middle[1]], atol=0.5)


def test_what_is_no_square_cannot_be_resized():
    source, model = MODELS.build(VIT | {"img_size": (64, 96)}), MODELS.build(VIT | {"img_size": 128})
    assert load_checkpoint(model, saved(source)).reinitialised == ["pos_embed"]


def test_counters_are_not_worth_a_line():
    model = head("FCNHead", 3)
    checkpoint = saved(model)
    checkpoint.weights = {name: value for name, value in checkpoint.weights.items() if "num_batches" not in name}
    text = str(load_checkpoint(model, checkpoint))
    assert "missing" not in text and f"loaded {len(checkpoint.weights)} of {len(checkpoint.weights)}" in text


# Other classes


def test_rows_of_shared_classes_are_found_by_name():
    source, model = head("FCNHead", 4), head("FCNHead", 3)
    before = model.decode_head.conv_seg.weight.detach().clone()
    report = load_checkpoint(model, saved(source, ["sky", "road", "car", "tree"]), classes=["Tree", "bicycle", "sky"])
    rows, old = model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight
    assert torch.equal(rows[0], old[3]) and torch.equal(rows[2], old[0]) and torch.equal(rows[1], before[1])
    assert model.decode_head.conv_seg.bias[0] == source.decode_head.conv_seg.bias[3]
    assert (report.classes, report.new_classes, report.reinitialised) == (["tree", "sky"], ["bicycle"], [])
    assert "2 of 3 classes found by name; new: bicycle" in str(report)


def test_the_same_classes_in_another_order_are_sorted():
    source, model = head("FCNHead", 3), head("FCNHead", 3)
    load_checkpoint(model, saved(source, ["a", "b", "c"]), classes=["c", "a", "b"])
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight[[2, 0, 1]])


@pytest.mark.parametrize("known", [None, ["a", "b", "c"]])
def test_rows_stay_where_the_classes_are_the_same_or_not_known(known):
    source, model = head("FCNHead", 3), head("FCNHead", 3)
    report = load_checkpoint(model, saved(source, known), classes=["A", "b", "c"])
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight)
    assert report.classes == report.new_classes == []


def test_a_checkpoint_of_either_version_tells_its_classes():
    for meta in ({"CLASSES": ("a", "b")}, {"dataset_meta": {"classes": ("a", "b")}}):
        source, model = head("FCNHead", 2), head("FCNHead", 3)
        report = load_checkpoint(model, Checkpoint("x.pth", source.state_dict(), meta), classes=["b", "c", "a"])
        assert report.classes == ["b", "a"]


@pytest.mark.parametrize(
    ("kind", "options", "rows"),
    [
        ("SegmenterMaskTransformerHead", {"num_layers": 1, "num_heads": 2, "embed_dims": 8, "in_channels": 4},
            {"cls_emb": 1, "mask_norm.weight": 0}),
        ("DAHead", {"pam_channels": 4}, {"pam_conv_seg.weight": 0, "cam_conv_seg.bias": 0, "conv_seg.weight": 0}),
        ("EncHead", {"num_codes": 4, "norm_cfg": {"type": "BN"}, "in_channels": [4, 4], "in_index": [0, 1],
            "loss_se_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True}}, {"se_layer.weight": 0}),
    ],
)  # fmt: skip
def test_the_rows_of_other_heads(kind, options, rows):
    source, model = head(kind, 3, **options), head(kind, 3, **options)
    nn.init.normal_(getattr(source.decode_head, "cls_emb", torch.empty(0)))
    load_checkpoint(model, saved(source, ["a", "b", "c"]), classes=["c", "x", "a"])
    own, old = model.decode_head.state_dict(), source.decode_head.state_dict()
    for name, axis in rows.items():
        assert torch.equal(own[name].select(axis, 0), old[name].select(axis, 2)), name
        assert torch.equal(own[name].select(axis, 2), old[name].select(axis, 0)), name


def test_the_row_of_no_object_goes_along():
    names = ("decode_head.cls_embed.weight", "decode_head.cls_embed.bias")
    recipe = tz.recipes.recipe("mask2former_r50_8xb2-90k_cityscapes-512x1024")["model"]
    config = recipe | {"backbone": recipe["backbone"] | {"depth": 50}}
    with torch.device("meta"):
        model = tz.build_model(config)
    model.decode_head.cls_embed = nn.Linear(256, 20)
    source = {names[0]: torch.randn(4, 256), names[1]: torch.randn(4)}
    classes = [f"c{index}" for index in range(19)]
    from terrazzo.models.checkpoint import ClassRows

    rows = ClassRows.of(["c3", "other", "c1"], classes)
    for name in names:
        target = model.state_dict()[name]
        picked = rows.select(name, source[name], target)
        assert torch.equal(picked[3], source[name][0]) and torch.equal(picked[1], source[name][2])
        assert torch.equal(picked[19], source[name][3]) and torch.equal(picked[0], target[0])


# Other inputs


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_adapted_when_asked_for(channels):
    spec = {"type": "MobileNetV2"}
    source, model = MODELS.build(spec), MODELS.build(spec)
    model.conv1.conv = nn.Conv2d(channels, 32, 3, bias=False)
    assert load_checkpoint(model, saved(source)).reinitialised == ["conv1.conv.weight"]
    report = load_checkpoint(model, saved(source), adapt_input=True)
    assert report.adapted == ["conv1.conv.weight"] and not report.reinitialised
    grey = torch.rand(1, 1, 8, 8)  # the same grey in every channel gives the same answer
    ours = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), model.conv1.conv.weight)
    assert torch.allclose(ours, nn.functional.conv2d(grey.expand(-1, 3, -1, -1), source.conv1.conv.weight), atol=1e-5)
    assert "1 adapted to the number of input channels" in str(report)


def test_training_goes_on_from_other_classes(tmp_path):
    streets = make_streets(tmp_path / "data")
    first = fit(tiny_config(streets, steps=1), tmp_path / "a")
    config = tiny_config(streets, steps=1, load_from=str(first.last))
    for loader in ("train_dataloader", "val_dataloader"):
        config[loader]["dataset"]["metainfo"]["classes"] = ["car", "sky", "path"]
    second = fit(config, tmp_path / "b")
    assert "2 of 3 classes found by name; new: path" in second.log_path.read_text()
