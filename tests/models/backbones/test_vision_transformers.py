"""Plain vision transformers and their heads beyond golden: odd sizes, tiny maps, options, export, timm."""

import sys
import types

import pytest
import torch
from torch import nn

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.models.backbones.beit import relative_position_index, resize_table
from terrazzo.registry import MODELS

torch.set_num_threads(1)

SMALL = {"embed_dims": 32, "num_heads": 4, "num_layers": 4, "out_indices": (0, 1, 2, 3), "img_size": 64}
FOUR = {"in_channels": [32] * 4, "num_classes": 5, "channels": 16, "norm_cfg": {"type": "BN"}, "in_index": [0, 1, 2, 3]}
ONE = {"in_channels": 32, "num_classes": 5, "channels": 16, "norm_cfg": {"type": "BN"}}
SETR_NECK = {"type": "MLANeck", "in_channels": [32] * 4, "out_channels": 8, "norm_cfg": {"type": "BN"}}
MODEL_PARTS = {
    "setr_pup": ({"type": "VisionTransformer"}, None, ONE | {"type": "SETRUPHead", "num_convs": 4, "up_scale": 2}),
    "setr_mla": (
        {"type": "VisionTransformer", "with_cls_token": False},
        SETR_NECK,
        FOUR | {"type": "SETRMLAHead", "in_channels": [8] * 4, "mla_channels": 4},
    ),
    "segmenter": (
        {"type": "VisionTransformer", "final_norm": True},
        None,
        ONE
        | {"type": "SegmenterMaskTransformerHead", "num_layers": 2, "num_heads": 4, "embed_dims": 16}
        | {"norm_cfg": {"type": "LN"}},
    ),
    "dpt": (
        {"type": "VisionTransformer", "output_cls_token": True},
        None,
        FOUR | {"type": "DPTHead", "embed_dims": 32, "post_process_channels": [4, 8, 16, 32]},
    ),
    "vit_upernet": (
        {"type": "VisionTransformer"},
        {"type": "MultiLevelNeck", "in_channels": [32] * 4, "out_channels": 32, "scales": [4, 2, 1, 0.5]},
        FOUR | {"type": "UPerHead"},
    ),
    "beit": ({"type": "BEiT"}, {"type": "Feature2Pyramid", "embed_dim": 32}, FOUR | {"type": "UPerHead"}),
    "mae": ({"type": "MAE"}, {"type": "Feature2Pyramid", "embed_dim": 32}, FOUR | {"type": "UPerHead"}),
}


def model(name, **backbone):
    body, neck, head = MODEL_PARTS[name]
    torch.manual_seed(0)
    return tz.build_model(
        {"type": "EncoderDecoder", "backbone": SMALL | body | backbone, "neck": neck, "decode_head": head}
    ).eval()


@pytest.mark.parametrize("name", MODEL_PARTS)
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (32, 128), (16, 16), (7, 30)])
def test_a_model_runs_at_any_size(name, size):
    with torch.no_grad():
        logits = model(name)(torch.rand(1, 3, *size))
    assert logits.shape == (1, 5, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", MODEL_PARTS)
def test_recomputed_activations_give_the_same_gradients(name):
    images, labels = torch.rand(2, 3, 48, 64), torch.randint(0, 5, (2, 48, 64))
    gradients = []
    for with_cp in (False, True):
        network = model(name, with_cp=with_cp)
        network.loss(images, labels)["decode.loss_ce"].backward()
        gradients.append(network.backbone.patch_embed.projection.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["segmenter", "dpt", "beit", "mae"])
def test_the_graph_can_be_exported(name):
    network, images = model(name), torch.rand(1, 3, 80, 64)
    with torch.no_grad():
        exported = torch.export.export(network, (images,)).module()
        torch.testing.assert_close(exported(images), network(images), atol=1e-5, rtol=1e-4)


def test_positions_follow_the_grid_even_where_it_has_as_many_patches():
    backbone = MODELS.build(SMALL | {"type": "VisionTransformer"}).eval()
    with torch.no_grad():
        tokens, grid = backbone.embed(torch.zeros(1, 3, 32, 128))
    assert grid == (2, 8)
    assert not torch.allclose(tokens[0, 1:], backbone.pos_embed[0, 1:])


def test_out_indices_count_from_the_end():
    last = MODELS.build(SMALL | {"type": "VisionTransformer", "out_indices": -1})
    assert len(last(torch.rand(1, 3, 64, 64))) == 1
    with_origin = MODELS.build(SMALL | {"type": "VisionTransformer", "out_indices": [0, -1], "out_origin": True})
    assert len(with_origin(torch.rand(1, 3, 64, 64))) == 3


def test_only_what_is_excluded_from_freezing_is_trained():
    backbone = MODELS.build(SMALL | {"type": "VisionTransformer", "frozen_exclude": ["pos_embed"]})
    assert [name for name, parameter in backbone.named_parameters() if parameter.requires_grad] == ["pos_embed"]


def test_a_class_token_cannot_be_put_out_where_there_is_none():
    with pytest.raises(UserError, match="with_cls_token=True"):
        MODELS.build(SMALL | {"type": "VisionTransformer", "with_cls_token": False, "output_cls_token": True})


def test_relative_positions_count_equal_offsets_once():
    index = relative_position_index((2, 3))
    assert index.shape == (7, 7)
    assert index[1, 2] == index[2, 3] == index[4, 5]  # one patch to the right
    assert index[1, 2] != index[2, 1]
    assert index[0, 1:].unique().tolist() == [15]  # 3 * 5 offsets, then the class token's rows
    assert index[1:, 0].unique().tolist() == [16]
    assert index[0, 0] == 17


def test_a_stretched_table_keeps_its_centre_and_the_class_token():
    table = torch.randn(7 * 7 + 3, 2)
    stretched = resize_table(table, (4, 4), (6, 3))
    assert stretched.shape == (11 * 5 + 3, 2)
    torch.testing.assert_close(stretched[-3:], table[-3:])
    torch.testing.assert_close(stretched[11 * 5 // 2], table[7 * 7 // 2])


@pytest.mark.parametrize("readout", ["ignore", "add", "project"])
def test_dpt_reads_the_class_token_out(readout):
    torch.manual_seed(0)
    head = MODELS.build(MODEL_PARTS["dpt"][2] | {"readout_type": readout, "expand_channels": True}).eval()
    inputs = [(torch.rand(1, 32, 4, 4), torch.rand(1, 32)) for _ in range(4)]
    shifted = [(features, token + 1) for features, token in inputs]
    with torch.no_grad():
        assert torch.equal(head(inputs), head(shifted)) == (readout == "ignore")


def test_unknown_options_are_errors():
    with pytest.raises(UserError, match="ignore, add, project"):
        MODELS.build(MODEL_PARTS["dpt"][2] | {"readout_type": "mean"})
    with pytest.raises(UserError, match="may contain only 4, 2, 1"):
        MODELS.build({"type": "Feature2Pyramid", "embed_dim": 4, "rescales": [8]})


class TinyFeatures(nn.Module):
    """What `timm.create_model(..., features_only=True)` gives: a list of maps."""

    def __init__(self, in_chans, norm_layer):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 4, 3, 2, 1)
        self.bn1 = norm_layer(4)

    def forward_features(self, x):
        return self.bn1(self.conv1(x))

    def forward(self, x):
        return [x, self.forward_features(x)]


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for the timm library that knows one model and records how it was asked for."""
    module = types.ModuleType("timm")
    module.calls = []
    module.is_model = lambda name: name == "tiny"

    def create_model(name, *, pretrained, features_only=False, in_chans=3, norm_layer=nn.BatchNorm2d, **_):
        module.calls.append({"pretrained": pretrained, "features_only": features_only})
        return TinyFeatures(in_chans, norm_layer)

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_a_timm_backbone_gives_its_maps_and_downloads_nothing(timm):
    backbone = MODELS.build({"type": "TIMMBackbone", "model_name": "tiny", "in_channels": 5, "pretrained": True})
    assert [tuple(x.shape) for x in backbone(torch.rand(1, 5, 8, 8))] == [(1, 5, 8, 8), (1, 4, 4, 4)]
    assert "timm_model.conv1.weight" in backbone.state_dict()
    assert timm.calls == [{"pretrained": False, "features_only": True}]


def test_a_timm_backbone_may_give_its_last_map_only(timm):
    backbone = MODELS.build({"type": "TIMMBackbone", "model_name": "tiny", "features_only": False, "norm_layer": "IN"})
    (last,) = backbone(torch.rand(1, 3, 8, 8))
    assert last.shape == (1, 4, 4, 4)
    assert isinstance(backbone.timm_model.bn1, nn.InstanceNorm2d)


def test_mistakes_with_timm_are_told(timm, monkeypatch):
    with pytest.raises(UserError, match="no model 'tinny'"):
        MODELS.build({"type": "TIMMBackbone", "model_name": "tinny"})
    with pytest.raises(UserError, match="no norm_layer is called 'BM'"):
        MODELS.build({"type": "TIMMBackbone", "model_name": "tiny", "norm_layer": "BM"})
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r'pip install "terrazzo\[timm\]"'):
        MODELS.build({"type": "TIMMBackbone", "model_name": "tiny"})
