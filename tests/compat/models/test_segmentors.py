"""Backbones, heads, losses and segmentors of users, in both styles, as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import terrazzo as tz
from terrazzo.errors import UserError

OLDER = {
    "type": "OldSegmentor",
    "backbone": {"type": "OldBackbone", "widths": [8, 16], "norm_cfg": {"type": "BN"}},
    "neck": {"type": "OldNeck", "in_channels": [8, 16], "out_channels": 8},
    "decode_head": {
        "type": "OldHead", "options": {"scale": 2.0}, "in_channels": [8, 8], "in_index": [0, 1], "channels": 8,
        "num_classes": 3, "norm_cfg": {"type": "BN"}, "loss_decode": {"type": "OldLoss", "loss_weight": 0.5},
    },
}  # fmt: skip
NEWER = {
    "type": "NewSegmentor",
    "backbone": {"type": "NewBackbone", "width": 8},
    "decode_head": {
        "type": "NewHead", "in_channels": 8, "channels": 8, "num_classes": 3, "extra": {"unknown": [1, {"a": 2}]},
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 0.5},
    },
}  # fmt: skip


def batch():
    torch.manual_seed(0)
    return torch.randn(2, 3, 32, 48), torch.randint(0, 3, (2, 32, 48))


def test_older_modules_build_run_and_learn(older):
    model = tz.build_model(OLDER)
    images, labels = batch()
    assert older.CALLS == ["init_weights"]
    assert torch.all(model.backbone.bn1.weight == 2)
    assert model.decode_head.scale == 2.0
    losses = model.loss(images, labels)
    assert set(losses) == {"decode.loss_old", "decode.loss_size", "decode.acc_seg", "own.loss_extra"}
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert model.backbone.first.conv.weight.grad is not None
    model.eval()
    logits = model(images)
    assert logits.shape == (2, 3, 32, 48)
    features = model.extract_feat(images)
    own = nn.functional.interpolate(model.decode_head(features), (32, 48), mode="bilinear") + 1
    torch.testing.assert_close(logits, own)  # encode_decode is the user's


def test_newer_modules_build_run_and_learn(newer):
    model = tz.build_model(NEWER)
    images, labels = batch()
    assert 0.015 < model.backbone.stem.weight.std() < 0.025  # by init_cfg
    losses = model.loss(images, labels)
    assert set(losses) == {"decode.loss_new", "decode.acc_seg", "own.loss_count"}
    assert losses["own.loss_count"] == 2
    assert model.eval()(images).shape == (2, 3, 32, 48)
    assert ("predict", (32, 48)) in [(name, tuple(size[:2])) for name, size in newer.CALLS]


def test_a_users_class_comes_before_ours_of_the_same_name(newer):
    head = {"type": "FCNHead", "in_channels": 16, "channels": 8, "num_classes": 3, "num_convs": 1}
    model = tz.build_model({"type": "EncoderDecoder", "backbone": {"type": "ERFNet"}, "decode_head": head})
    plain = {name: value for name, value in model.state_dict().items() if name.startswith("decode_head")}
    model.eval()(batch()[0])
    assert newer.CALLS == ["_forward_feature"]
    assert {"decode_head.convs.0.conv.weight", "decode_head.conv_seg.bias"} <= set(plain)


@pytest.mark.parametrize("kind", ["PSPHead", "ASPPHead", "FCNHead"])
def test_official_heads_give_the_same_logits_as_bases(kind):
    from mmseg.models import decode_heads

    options = {"in_channels": 8, "channels": 4, "num_classes": 3}
    torch.manual_seed(0)
    theirs = getattr(decode_heads, kind)(**options).eval()
    ours = type(theirs).__mro__[-1]
    from terrazzo.registry import MODELS

    ours = MODELS.build({"type": kind, **options}).eval()
    ours.load_state_dict(theirs.state_dict())
    features = [torch.randn(2, 8, 16, 16)]
    torch.testing.assert_close(theirs(features), ours(features))
    torch.testing.assert_close(theirs.cls_seg(theirs._forward_feature(features)), ours(features))


def test_official_backbones_take_positional_arguments_and_init_cfg():
    from mmseg.models.backbones import ResNet

    class Deeper(ResNet):
        def __init__(self, **kwargs):
            super().__init__(18, init_cfg={"type": "Constant", "val": 0.5, "layer": "Conv2d"}, **kwargs)

    model = Deeper(num_stages=4, norm_cfg={"type": "BN"})
    assert model.depth == 18
    model.init_weights()
    assert torch.all(model.conv1.weight == 0.5)
    assert len(model.eval()(torch.zeros(1, 3, 32, 32))) == 4


@pytest.mark.parametrize(
    ("statement", "nearest"),
    [("from mmcv.cnn import ConvModul", "ConvModule"), ("from mmseg.models import BaseSegmenter", "BaseSegmentor")],
)
def test_a_name_that_does_not_exist_is_one_message(tmp_path, statement, nearest):
    (tmp_path / "wrong.py").write_text(f"import torch\n{statement}\n")
    (tmp_path / "config.py").write_text("custom_imports = dict(imports='wrong')\n")
    with pytest.raises(UserError, match=rf"wrong.py:2: terrazzo's answer to .*did you mean '{nearest}'"):
        tz.load_config(tmp_path / "config.py", trust=True)


def test_a_type_may_be_the_class_itself(newer):
    model = tz.build_model({**NEWER, "decode_head": {**NEWER["decode_head"], "type": newer.NewHead}})
    assert type(model.decode_head) is newer.NewHead


def test_a_method_that_nothing_calls_is_named(older):
    from mmseg.models.builder import SEGMENTORS

    @SEGMENTORS.register_module()
    class Alternating(older.OldSegmentor):
        def train_step(self, data_batch, optimizer, **kwargs):
            raise NotImplementedError

    with pytest.warns(UserWarning, match="Alternating: terrazzo calls neither train_step"):
        tz.build_model({**OLDER, "type": "Alternating"})


def test_a_segmentor_without_the_argument_is_normalised_too(older):
    from mmseg.models.builder import SEGMENTORS

    @SEGMENTORS.register_module()
    class OnlyItsParts(older.OldSegmentor):
        def __init__(self, backbone, neck, decode_head):
            super().__init__(backbone, decode_head, neck)

    preprocessor = {"type": "SegDataPreProcessor", "mean": [1, 2, 3], "std": [4, 5, 6], "bgr_to_rgb": True}
    model = tz.build_model({**OLDER, "type": "OnlyItsParts", "data_preprocessor": preprocessor})
    assert model.preprocess.mean.flatten().tolist() == [1, 2, 3]
    assert model.preprocess(torch.ones(1, 3, 2, 2)).mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, -1 / 5, -2 / 6])
