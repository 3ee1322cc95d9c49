"""Inner blocks and internals of official models, as users' modules reach for them."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

import terrazzo as tz
from terrazzo.compat.finder import add_fork


@pytest.fixture
def inner():
    return importlib.import_module("inner")


def model(backbone, width, loss="CrossEntropyLoss", **more):
    head = {"type": "FCNHead", "in_channels": width, "channels": 4, "num_classes": 3, "num_convs": 1}
    head |= {"norm_cfg": {"type": "BN"}, "loss_decode": {"type": loss}, **more}
    return tz.build_model({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head})


def test_a_backbone_may_read_parts_of_an_official_one(inner):
    made = model({"type": "InterleavedResNet", "depth": 18, "norm_cfg": {"type": "BN"}}, 512)
    assert made(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("sampler", [None, {"type": "OHEMPixelSampler", "min_kept": 10}])
def test_a_loss_without_a_name_stands_in_an_official_head(inner, sampler):
    made = model({"type": "ERFNet", "norm_cfg": {"type": "BN"}}, 16, "NamelessLoss", sampler=sampler)
    losses = made.loss(torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32)))
    assert set(losses) == {"decode.loss_seg", "decode.acc_seg"}


def test_blocks_of_an_official_head_are_conv_modules(inner):
    head = inner.Inspected(in_channels=8, channels=4, num_classes=3, num_convs=2, concat_input=False)
    assert head.widths() == [(8, 4, False, True), (4, 4, False, True)]
    assert head.convs[0].padding == 1
    assert head(inner.features()).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("options", [{"in_channels": [8, 4]}, {"in_channels": 8, "input_transform": "concat"}])
def test_inputs_of_a_head_that_do_not_fit_are_an_assertion_error(options):
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    with pytest.raises(AssertionError, match="does not fit input_transform"):
        BaseDecodeHead(channels=4, num_classes=3, **options)


def test_a_registry_of_another_name_is_the_one_it_is_a_child_of():
    from mmcv.utils import Registry
    from mmseg.models.builder import MODELS
    from torch import nn

    UDA = Registry("adaptation", parent=MODELS)

    @UDA.register_module()
    class Teacher(nn.Module):
        pass

    assert UDA.build({"type": "Teacher"}).__class__ is MODELS.get("Teacher")


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [("DownsamplerBlock", (8, 16), (16, 4, 4)), ("SELayer", (8, 4), (8, 8, 8)),
     ("NonBottleneck1d", (8,), (8, 8, 8)), ("Encoding", (8, 3), (3, 8))],
)  # fmt: skip
def test_inner_blocks_take_the_arguments_that_they_have_there(name, arguments, size):
    block = getattr(importlib.import_module("mmseg.models.utils"), name)(*arguments).eval()
    assert block(torch.zeros(2, 8, 8, 8)).shape == (2, *size)


def test_heads_take_their_arguments_by_name_too():
    from mmseg.models.decode_heads import FCNHead

    head = FCNHead(in_channels=8, channels=4, num_classes=3, num_convs=1).eval()
    features, metas = [torch.zeros(2, 8, 8, 8)], [{"img_shape": (16, 16)}] * 2
    labels = torch.zeros(2, 1, 16, 16, dtype=torch.long)
    assert head.predict(features, batch_img_metas=metas, test_cfg={}).shape == (2, 3, 16, 16)
    assert set(head.forward_train(features, img_metas=metas, gt_semantic_seg=labels)) == {"loss_ce", "acc_seg"}


def test_a_non_local_block_is_read_by_subclasses():
    from mmcv.cnn import NonLocal2d

    class Mine(NonLocal2d):
        def forward(self, x):
            theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))
            assert g.shape[1] == self.inter_channels
            weights = getattr(self, self.mode)(theta.transpose(1, 2), phi)
            return x + self.conv_out((weights @ g.transpose(1, 2)).transpose(1, 2).reshape(g.shape[:2] + x.shape[2:]))

    x = torch.randn(1, 8, 5, 6)
    for mode in ("embedded_gaussian", "dot_product"):
        mine, ours = Mine(8, reduction=2, mode=mode), NonLocal2d(8, reduction=2, mode=mode)
        nn.init.normal_(ours.conv_out.conv.weight)
        mine.load_state_dict(ours.state_dict())
        torch.testing.assert_close(mine(x), ours(x))


def test_cross_entropy_is_a_function_too():
    from mmseg.models.losses import binary_cross_entropy, cross_entropy

    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, 0] = 255
    want = nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels, ignore_index=255, reduction="none"), want)
    torch.testing.assert_close(cross_entropy(logits, labels, ignore_index=255, avg_factor=7.0), want.sum() / 7)
    assert binary_cross_entropy(logits, labels, ignore_index=255).ndim == 0


def test_layers_of_a_vision_transformer_add_to_an_identity():
    from mmseg.models.backbones.vit import TransformerEncoderLayer

    class Mine(TransformerEncoderLayer):
        def forward(self, x):
            x = self.attn(self.norm1(x), identity=x)
            return self.ffn(self.norm2(x), identity=x)

    sizes = {"embed_dims": 8, "num_heads": 2, "feedforward_channels": 16}
    ours, mine = TransformerEncoderLayer(**sizes), Mine(**sizes, batch_first=True)
    mine.load_state_dict(ours.state_dict())
    torch.testing.assert_close(mine(x := torch.randn(1, 6, 8)), ours(x))


def test_windows_of_a_map_are_put_together_again():
    from mmpretrain.models.backbones.vit_sam import window_partition, window_unpartition

    x = torch.arange(2 * 5 * 7 * 1.0).reshape(2, 5, 7, 1)
    windows, padded = window_partition(x, 4)
    assert windows.shape == (2 * 2 * 2, 4, 4, 1) and padded == (8, 8)
    assert torch.equal(windows[1, :, :3], x[0, :4, 4:]) and not windows[1, :, 3].any()
    assert torch.equal(window_unpartition(windows, 4, padded, (5, 7)), x)


def test_attention_of_a_map_knows_how_far_places_are_apart():
    from mmpretrain.models.backbones.vit_sam import Attention

    attention = Attention(2, num_heads=1, use_rel_pos=True, input_size=(3, 4))
    with torch.no_grad():
        attention.qkv.weight.zero_()[4:] = torch.eye(2)
        attention.qkv.bias.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0]))
        attention.proj.weight.copy_(torch.eye(2))
        attention.proj.bias.zero_()
        attention.rel_pos_h[1, 0] = 100.0  # to the next row: -1
        attention.rel_pos_w[3, 0] = 100.0  # to the same column
    x = torch.randn(1, 3, 4, 2)
    assert torch.allclose(attention(x)[0, :2], x[0, 1:], atol=1e-5)
    assert attention(torch.randn(1, 5, 6, 2)).shape == (1, 5, 6, 2)  # tables are resized


def test_pixels_of_a_head_may_be_weighted_and_a_forks_losses_have_one_name(tmp_path):
    from mmseg.models.decode_heads.fcn_head import FCNHead

    head = FCNHead(in_channels=4, channels=4, num_classes=3).eval()
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 1, 8, 8))
    weight = torch.zeros(2, 8, 8)
    weight[:, :4] = 1
    losses = head.losses(logits, labels, weight)
    upper = labels.clone()
    upper[:, :, 4:] = 255
    assert torch.allclose(losses["loss_ce"], head.losses(logits, upper)["loss_ce"])  # a mean over all pixels

    folder = tmp_path / "mmseg" / "models" / "decode_heads"
    folder.mkdir(parents=True)
    (folder / "decode_head.py").write_text("loss['loss_seg'] = self.loss_decode(seg_logit, seg_label)\n")
    add_fork(tmp_path)
    assert head.losses(logits, labels).keys() == {"loss_seg", "acc_seg"}


def test_a_plugin_of_a_users_goes_into_an_official_backbone():
    from mmcv.cnn import build_plugin_layer
    from mmseg.models.backbones import ResNet
    from mmseg.registry import MODELS

    @MODELS.register_module(force=True)
    class SEGate(nn.Module):
        def __init__(self, in_channels, scale=1.0):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(in_channels, 1, 1), scale

        def forward(self, x):
            return x * self.conv(x).sigmoid() * self.scale

    gate = {"cfg": {"type": "SEGate", "scale": 2.0}, "position": "after_conv2", "stages": (False, True, False, False)}
    model = ResNet(depth=50, plugins=[gate])
    assert model.layer2[0].se_gate.conv.in_channels == 128 and not hasattr(model.layer1[0], "se_gate")
    assert model(torch.zeros(2, 3, 64, 64))[-1].shape == (2, 2048, 2, 2)
    assert build_plugin_layer(gate["cfg"], 1, in_channels=4)[0] == "se_gate1"


def test_operators_that_projects_compile_themselves_are_answered():
    import DCNv3
    import MultiScaleDeformableAttention as MSDA

    # without offsets and with masks of one, the sum of the neighbours
    x, offset = torch.randn(1, 5, 6, 4), torch.zeros(1, 5, 6, 2 * 9 * 2)
    out = DCNv3.dcnv3_forward(x, offset, torch.ones(1, 5, 6, 18), 3, 3, 1, 1, 1, 1, 1, 1, 2, 2, 1.0, 256)
    want = 9 * nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1)
    torch.testing.assert_close(out, want.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    given = (x, offset, torch.ones(1, 5, 6, 18), 3, 3, 1, 1, 1, 1, 1, 1, 2, 2, 1.0)
    gradients = DCNv3.dcnv3_backward(*given, torch.ones_like(out), 256)
    assert [gradient.shape for gradient in gradients] == [x.shape, offset.shape, (1, 5, 6, 18)]

    # at the centres of the cells, their values
    value, sizes = torch.randn(1, 6, 1, 2), torch.tensor([[2, 3]])
    places = torch.tensor([[(i % 3 + 0.5) / 3, (i // 3 + 0.5) / 2] for i in range(6)]).view(1, 6, 1, 1, 1, 2)
    weights, starts = torch.ones(1, 6, 1, 1, 1), torch.tensor([0])
    found = MSDA.ms_deform_attn_forward(value, sizes, starts, places, weights, 64)
    torch.testing.assert_close(found, value.flatten(2))
    gradients = MSDA.ms_deform_attn_backward(value, sizes, starts, places, weights, torch.ones_like(found), 64)
    torch.testing.assert_close(gradients[0], torch.ones_like(value))


def test_a_graph_contains_deformable_attention_to_sizes_in_a_tensor():
    from mmcv.ops import MultiScaleDeformableAttention

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = MultiScaleDeformableAttention(8, 2, 2, 3, batch_first=True)

        def forward(self, fine, coarse):
            value = torch.cat([fine.flatten(2), coarse.flatten(2)], 2).transpose(1, 2)
            sizes = torch.as_tensor([fine.shape[2:], coarse.shape[2:]])
            centre = torch.full((1, value.shape[1], 2, 2), 0.5)
            return self.attention(value, value, value, reference_points=centre, spatial_shapes=sizes)

    model, maps = Pyramid().eval(), (torch.rand(2, 8, 4, 6), torch.rand(2, 8, 2, 3))
    shapes = ({0: torch.export.Dim.DYNAMIC},) * 2
    with torch.no_grad():
        program = torch.export.export(model, maps, dynamic_shapes=shapes, strict=False).module()
        more = [torch.cat([x, x + 1]) for x in maps]
        torch.testing.assert_close(program(*more), model(*more))


def test_arguments_of_losses_and_layers_have_their_effect():
    from mmcv.cnn.bricks.transformer import FFN
    from mmengine.model import initialize
    from mmseg.models.backbones.cgnet import ContextGuidedBlock
    from mmseg.models.backbones.swin import PatchMerging
    from mmseg.models.losses import CrossEntropyLoss, DiceLoss

    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    total = CrossEntropyLoss()(logits, labels, reduction_override="none").sum()
    torch.testing.assert_close(CrossEntropyLoss()(logits, labels, avg_factor=10), total / 10)
    assert torch.isclose(DiceLoss()(logits, labels, avg_factor=0.5), 2 * DiceLoss(reduction="sum")(logits, labels))
    scaled = FFN(8, 16, layer_scale_init_value=0.1)
    assert torch.all(scaled.gamma2.weight == 0.1)
    merged, grid = PatchMerging(8, 16, kernel_size=3)(torch.rand(1, 35, 8), (5, 7))
    assert merged.shape == (1, 6, 16) and tuple(grid) == (2, 3)
    with pytest.raises(ValueError, match="ContextGuidedBlock: skip_connect is always True in terrazzo's own"):
        ContextGuidedBlock(8, 8, skip_connect=False)
    norm = nn.BatchNorm2d(3)
    initialize(norm, {"type": "Normal", "std": 0.5})  # without a layer it names nothing
    assert torch.all(norm.weight == 1)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"type": "GELU"}, nn.GELU), ({"type": "mmseg.ReLU", "inplace": True}, nn.ReLU),
        ({"type": "BN", "num_features": 3}, nn.BatchNorm2d),
        ({"type": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}, nn.Conv2d),
        ({"type": "Dropout", "drop_prob": 0.1}, nn.Dropout), ({"type": "nearest", "scale_factor": 2}, nn.Upsample),
    ],
)  # fmt: skip
def test_the_registry_of_models_has_layers(spec, kind):
    from mmseg.registry import MODELS

    assert isinstance(MODELS.build(spec), kind)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("mmseg.models.decode_heads", "BaseDecodeHead FCNHead UPerHead"),
        ("mmseg.models.backbones", "ResNet SwinTransformer"),
        ("mmseg.datasets", "CityscapesDataset BaseSegDataset RandomCrop"),
        ("mmcv.transforms", "Resize BaseTransform"),
    ],
)
def test_a_star_brings_what_the_module_has(module, names):
    space = {"get": "the author's", "Config": "too"}
    exec(f"from {module} import *", space)
    assert set(names.split()) <= set(space)
    assert not module.startswith("mmseg") or (space["get"], space["Config"]) == ("the author's", "too")


def test_subclasses_go_around_the_constructors_of_official_parts():
    from mmcv.cnn import ConvModule
    from mmengine.model import BaseModule
    from mmseg.models import backbones, decode_heads, necks
    from mmseg.models.backbones.resnet import Bottleneck

    parts = [ConvModule, Bottleneck, decode_heads.FCNHead, decode_heads.OCRHead, decode_heads.SETRUPHead]
    parts += [necks.FPN, necks.MultiLevelNeck, necks.ICNeck, necks.JPU, necks.MLANeck, necks.Feature2Pyramid]
    names = "ResNet HRNet MSCAN SwinTransformer MixVisionTransformer VisionTransformer UNet PCPVT SVT BiSeNetV1 STDCNet"
    parts += [getattr(backbones, name) for name in names.split()]
    for part in parts:

        class Mine(part):
            def __init__(self, init_cfg=None):
                (BaseModule if issubclass(part, BaseModule) else nn.Module).__init__(self)  # noqa: B023
                self.own = nn.Conv2d(3, 4, 1)

            def forward(self, x):
                return [self.own(x)]

        mine = Mine().train()
        assert mine(torch.zeros(1, 3, 8, 8))[0].shape == (1, 4, 8, 8)
        assert set(mine.state_dict()) == {"own.weight", "own.bias"}

    class Skips(backbones.MSCAN):
        def __init__(self, init_cfg=None):
            super(backbones.MSCAN, self).__init__(init_cfg=init_cfg)
            self.own = nn.Conv2d(3, 4, 1)

    made = Skips({"type": "Constant", "val": 2.0, "layer": "Conv2d"})
    made.train().init_weights()
    assert torch.all(made.own.weight == 2)


def test_parts_of_transformers_are_built_with_the_rest_of_their_config_by_position():
    from mmcv.cnn.bricks.drop import build_dropout
    from mmcv.cnn.bricks.transformer import build_attention, build_feedforward_network, build_transformer_layer

    ffn = build_feedforward_network({"embed_dims": 8}, {"type": "FFN", "embed_dims": 4, "feedforward_channels": 16})
    assert ffn.layers[0][0].weight.shape == (16, 8)
    attention = {"type": "MultiheadAttention", "embed_dims": 8, "num_heads": 2}
    assert build_attention({"num_heads": 4}, attention).num_heads == 4
    assert build_dropout({"drop_prob": 0.5}, {"type": "Dropout"}).p == 0.5
    order = ("self_attn", "norm", "ffn", "norm")
    options = {"attn_cfgs": attention, "ffn_cfgs": {"embed_dims": 8}, "operation_order": order}
    assert build_transformer_layer(options, {"type": "BaseTransformerLayer"})(torch.zeros(3, 1, 8)).shape == (3, 1, 8)
