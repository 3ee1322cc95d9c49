"""Contradictions within a model's config, refused when it is built."""

from __future__ import annotations

import pytest
import torch

import terrazzo as tz
from support.tiny import model_config
from terrazzo.errors import UserError
from terrazzo.inference.modes import infer

CE = {"type": "CrossEntropyLoss"}
BINARY = {"num_classes": 2, "out_channels": 1, "threshold": 0.5}


def one_score(kind, **options):
    return BINARY | {"loss_decode": [CE | {"use_sigmoid": True}, {"type": kind, **options}]}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (BINARY | {"loss_decode": CE}, r"model.decode_head.loss_decode: CrossEntropyLoss .*use_sigmoid=True"),
        (BINARY | {"loss_decode": CE | {"use_mask": True}}, "use_sigmoid=True"),
        (one_score("TverskyLoss"), r"loss_decode.1: TverskyLoss .*use_sigmoid=True"),
        (one_score("OhemCrossEntropy"), r"loss_decode.1: OhemCrossEntropy"),
        (one_score("KLDivLoss"), r"loss_decode.1: KLDivLoss"),
        (one_score("HausdorffDistanceLoss"), r"loss_decode.1: HausdorffDistanceLoss"),
        (one_score("LovaszLoss"), "set loss_type='binary'"),
        (one_score("DiceLoss", formula="per_class"), "set formula='joint'"),
        ({"loss_decode": {"type": "LovaszLoss", "loss_type": "binary"}}, "set loss_type='multi_class'"),
        (
            {"loss_decode": CE | {"class_weight": [1, 2]}},
            r"loss_decode.class_weight has 2 numbers, .* 3 output channels",
        ),
        ({"loss_decode": {"type": "DiceLoss", "class_weight": [1, 2]}}, "class_weight has 2 numbers"),
        ({"loss_decode": {"type": "FocalLoss", "alpha": [0.1] * 4}}, r"loss_decode.alpha has 4 numbers"),
        (BINARY | {"loss_decode": CE | {"use_sigmoid": True, "class_weight": [1, 2]}}, "1 output channels"),
    ],
)
def test_losses_that_do_not_fit_the_head(head, message):
    with pytest.raises(UserError, match=message):
        tz.build_model(model_config(**head))


def test_a_kernel_without_pixels():
    with pytest.raises(UserError, match=r"model\.decode_head\..*: a convolution with a kernel of \(0, 0\) pixels"):
        tz.build_model(model_config(kernel_size=0))


@pytest.mark.parametrize("value", [255, 0])
def test_pixels_without_a_label_count_for_no_head(value):
    """Padding is 255 whatever value a head ignores; with `ignore_index=0`, class 0 has no loss either."""
    model = tz.build_model(model_config(dropout=0.0, ignore_index=value)).eval()
    images, labels = torch.randn(1, 3, 16, 16), torch.randint(1, 3, (1, 16, 16))
    padded = labels.clone()
    padded[:, 8:] = 255
    zeroed = labels.clone()
    zeroed[:, 8:] = value
    assert model.loss(images, padded)["decode.loss_ce"] == model.loss(images, zeroed)["decode.loss_ce"]
    assert model.loss(images, padded)["decode.loss_ce"] < model.loss(images, labels)["decode.loss_ce"]


@pytest.mark.parametrize("sampler", [{"thresh": 0.7}, {}])
def test_hard_pixels_of_one_foreground_score(sampler):
    head = one_score("DiceLoss") | {"sampler": {"type": "OHEMPixelSampler", "min_kept": 8, **sampler}}
    model = tz.build_model(model_config(**head))
    losses = model.loss(torch.randn(1, 3, 16, 16), torch.randint(0, 2, (1, 16, 16)))
    assert all(loss.isfinite() for loss in losses.values())


def test_padding_of_a_value_that_is_neither_a_class_nor_ignored():
    spec = model_config()
    spec["data_preprocessor"] |= {"size": [32, 32], "seg_pad_val": 254}
    with pytest.raises(UserError, match=r"model.data_preprocessor.seg_pad_val is 254"):
        tz.build_model(spec)


def test_heads_of_other_numbers_of_classes():
    spec = model_config()
    spec["auxiliary_head"] = [spec["decode_head"] | {"in_index": 0, "in_channels": 8, "num_classes": 19}]
    with pytest.raises(UserError, match=r"model.auxiliary_head.0.num_classes is 19, but the model has 3"):
        tz.build_model(spec)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "slid"}, r"model.test_cfg.mode: 'slid'"),
        ({"mode": "slide"}, r"model.test_cfg.crop_size"),
        ({"mode": "slide", "crop_size": (32, 32)}, r"model.test_cfg.stride"),
        ({"mode": "slide", "crop_size": "32", "stride": 8}, r"model.test_cfg.crop_size"),
        ({"mode": "slide", "crop_size": (32, 32, 32), "stride": 8}, r"model.test_cfg.crop_size"),
        ({"mode": "slide", "crop_size": 32, "stride": 0}, r"stride must be whole numbers"),
        ({"mode": "slide", "crop_size": 16, "stride": (16, 24)}, r"stride=\(16, 24\) is larger"),
        ({"mode": "slide", "crop_size": 16, "stride": 8, "blending": "mean"}, r"model.test_cfg.blending: 'mean'"),
    ],
)
def test_windows_that_cannot_be_used(settings, message):
    with pytest.raises(UserError, match=message):
        tz.build_model(model_config() | {"test_cfg": settings})


def test_a_window_may_be_given_by_one_side():
    square, pair = (
        tz.build_model(model_config() | {"test_cfg": {"mode": "slide", "crop_size": size, "stride": step}}).eval()
        for size, step in ((16, 8), ([16, 16], [8, 8]))
    )
    square.load_state_dict(pair.state_dict())
    images = torch.randn(1, 3, 24, 32)
    with torch.no_grad():
        assert torch.equal(infer(square, images), infer(pair, images))
