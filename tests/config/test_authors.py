"""Backbones written as their authors' releases take them are the same models as in MMSegmentation's words."""

import pytest
from torch import nn

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.models.build import build_model
from terrazzo.registry import MODELS

LN = {"type": "LN", "eps": 1e-6}
CASES = {
    "SegFormer": (
        {"type": "mit_b1", "style": "pytorch"},
        {"type": "MixVisionTransformer", "embed_dims": 64, "num_layers": [2, 2, 2, 2], "num_heads": [1, 2, 5, 8],
         "sr_ratios": [8, 4, 2, 1], "patch_sizes": [7, 3, 3, 3], "out_indices": [0, 1, 2, 3], "drop_path_rate": 0.1},
        {},
    ),
    "BEiT": (
        {"type": "BEiT", "img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 4,
         "qkv_bias": True, "use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1,
         "drop_path_rate": 0.1, "out_indices": [0, 1, 1, 2]},
        {"type": "BEiT", "img_size": 64, "embed_dims": 32, "num_layers": 3, "num_heads": 2, "drop_path_rate": 0.1,
         "out_indices": [0, 1, 1, 2], "norm_cfg": LN},
        {"neck": {"type": "Feature2Pyramid", "embed_dim": 32}},
    ),
    "ConvNeXt": (
        {"type": "ConvNeXt", "in_chans": 3, "depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32], "drop_path_rate": 0.2,
         "layer_scale_init_value": 1.0, "out_indices": [0, 1, 2, 3]},
        {"type": "ConvNeXt", "arch": {"depths": [1, 1, 2, 1], "channels": [8, 16, 24, 32]}, "drop_path_rate": 0.2,
         "layer_scale_init_value": 1.0, "out_indices": [0, 1, 2, 3], "gap_before_final_norm": False},
        {},
    ),
}  # fmt: skip


def built(backbone, **further):
    width = {"mit_b1": 64, "MixVisionTransformer": 64, "BEiT": 32, "ConvNeXt": 8}.get(backbone["type"], 8)
    head = {"type": "FCNHead", "in_channels": width, "channels": 8, "num_classes": 2, "in_index": 0}
    return build_model({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head, **further})


@pytest.mark.parametrize("name", CASES)
def test_an_authors_backbone_is_the_one_in_our_words(name):
    theirs, ours, further = CASES[name]
    assert str(built(theirs)) == str(built(ours, **further))


def test_a_value_that_another_network_would_need_is_refused():
    spec = CASES["BEiT"][0] | {"use_abs_pos_emb": True}
    with pytest.raises(UserError, match=r"BEiT at model\.backbone has no argument 'use_abs_pos_emb'"):
        built(spec)


def test_a_class_of_the_users_with_such_a_name_is_the_users(monkeypatch):
    class Own(nn.Module):
        def __init__(self, style):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x):
            return (self.conv(x),)

    monkeypatch.setattr(MODELS, "types", {**MODELS.types})
    monkeypatch.setattr(MODELS, "raw", {})
    MODELS.register_raw(Own, "mit_b0", lambda cls, spec, where, **extra: cls(style=spec["style"]))
    assert isinstance(built({"type": "mit_b0", "style": "pytorch"}).backbone, Own)


RELEASED = """
_base_ = ["../_base_/models/{base}.py", "../_base_/datasets/ade20k.py", "../_base_/default_runtime.py",
          "../_base_/schedules/schedule_160k.py"]
model = dict(backbone={backbone}, decode_head=dict(in_channels={channels}), auxiliary_head=None)
optimizer = dict(_delete_=True, type="AdamW", lr=1e-4)
data = dict(samples_per_gpu=2)
"""


@pytest.mark.parametrize(
    ("name", "base", "channels"),
    [
        ("ConvNeXt", "upernet_convnext", [8, 16, 24, 32]),
        ("BEiT", "upernet_beit", [32] * 4),
        ("SegFormer", "segformer_mit-b0", [64, 128, 320, 512]),
    ],
)
def test_a_released_file_whose_base_is_missing_is_its_authors_network(tmp_path, name, base, channels):
    theirs, ours, further = CASES[name]
    text = RELEASED.format(base=base, backbone=theirs, channels=channels)
    (tmp_path / "released.py").write_text(text)
    with pytest.warns(UserWarning, match="0.x's own values stand for it"):
        config = tz.load_config(tmp_path / "released.py")
    assert config["optim_wrapper"]["optimizer"] == {"type": "AdamW", "lr": 1e-4}
    assert "init_cfg" not in config["model"]["backbone"]  # no weights of the base's larger network
    model = build_model(config)
    assert str(model.backbone) == str(built(ours, **further).backbone)
    assert ("Feature2Pyramid" in str(model)) == bool(further)


def test_an_argument_in_both_words_is_an_error():
    with pytest.raises(UserError, match="has 'depths' of its authors' code beside 'arch': leave one out"):
        built({**CASES["ConvNeXt"][0], "arch": "base"})
