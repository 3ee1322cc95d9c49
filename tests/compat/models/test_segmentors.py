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


def test_official_classes_take_their_arguments_in_the_order_of_the_originals(older):
    """An order of theirs is not ours; where the vocabularies differ, a module's imports tell which is meant."""
    from mmseg.models.backbones import MobileNetV2, ResNet, VisionTransformer
    from mmseg.models.losses import OhemCrossEntropy

    assert MobileNetV2(0.5).widen_factor == 0.5
    assert ResNet(18, 3, 8, 8, 4, (1, 2, 2, 2), (1, 1, 1, 1), (3,), "pytorch", False, False, 2).frozen_stages == 2
    assert OhemCrossEntropy(255, 0.7, 10, 0.4).loss_weight == 0.4
    assert VisionTransformer(32, 8, "corner", 4, 16, 1, 2).patch_embed.projection.in_channels == 4
    assert older.OldViT(32, 8, 4, 16, 1, 2).patch_embed.projection.in_channels == 4


def test_a_user_may_write_the_forward_of_an_official_backbone():
    """With the parts and the names that it has there, or around ours."""
    from mmseg.models.backbones import SwinTransformer

    class Mine(SwinTransformer):
        def forward(self, x):
            x, hw_shape = self.patch_embed(x)
            x, outs = self.drop_after_pos(x), []
            for i, stage in enumerate(self.stages):
                x, hw_shape, out, out_hw_shape = stage(x, hw_shape)
                if i in self.out_indices:
                    out = getattr(self, f"norm{i}")(out)
                    outs.append(out.view(-1, *out_hw_shape, self.num_features[i]).permute(0, 3, 1, 2).contiguous())
            return outs

    class Around(SwinTransformer):
        def forward(self, x):
            return super().forward(x)

    sizes = {"embed_dims": 8, "depths": (2, 2), "num_heads": (2, 2), "out_indices": (0, 1), "strides": (4, 2)}
    ours, images = SwinTransformer(**sizes).eval(), torch.rand(1, 3, 64, 64)
    for kind in (Mine, Around):
        own = kind(**sizes).eval()
        own.load_state_dict(ours.state_dict())
        torch.testing.assert_close(list(own(images)), list(ours(images)))


def test_a_residual_backbone_may_make_its_stages_itself():
    """Its own table of blocks, its own method of a stage, and a block whose name others have too."""
    from mmseg.models.backbones import ResNeSt, ResNetV1d
    from mmseg.models.backbones.resnest import Bottleneck
    from mmseg.models.backbones.resnet import Bottleneck as Plain
    from mmseg.models.utils import ResLayer

    class Mine(ResNetV1d):
        arch_settings = {50: (Bottleneck, (3, 4, 6, 3))}  # noqa: RUF012

        def __init__(self, radix=2, **kwargs):
            self.radix = radix
            super().__init__(**kwargs)

        def make_res_layer(self, **kwargs):
            return ResLayer(base_channels=self.base_channels, radix=self.radix, **kwargs)

    class Wide(ResNetV1d):
        def make_res_layer(self, **kwargs):
            return super().make_res_layer(**{**kwargs, "num_blocks": 1})

    assert [len(getattr(Wide(depth=50), f"layer{n}")) for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
    official = ResNeSt(depth=50, dilations=(1, 1, 2, 2), strides=(1, 2, 1, 1), contract_dilation=True).eval()
    mine = Mine(depth=50, dilations=(1, 1, 2, 2), strides=(1, 2, 1, 1), contract_dilation=True).eval()
    mine.load_state_dict(official.state_dict())
    assert issubclass(Plain, nn.Module) and not issubclass(Plain, Bottleneck)
    for one, other in zip(mine(batch()[0]), official(batch()[0]), strict=True):
        assert torch.equal(one, other)


def test_a_name_that_several_classes_have_is_each_modules_own():
    from mmseg.models.backbones.fast_scnn import FeatureFusionModule as Levels
    from mmseg.models.backbones.stdc import FeatureFusionModule as Paths
    from mmseg.models.utils import BasicBlock

    x, act = torch.zeros(2, 8, 4, 4), {"type": "ReLU"}
    assert Levels(8, 16, 16)(x, torch.zeros(2, 16, 2, 2)).shape == Paths(16, 16)(x, x).shape == (2, 16, 4, 4)
    block = BasicBlock(8, 8, norm_cfg={"type": "BN"}, act_cfg=act, act_cfg_out=None)
    assert isinstance(block.conv2.conv, nn.Conv2d) and isinstance(block.activate, nn.Identity)
    with pytest.raises(ImportError, match="SelfAttentionBlock"):
        from mmseg.models.decode_heads.isa_head import SelfAttentionBlock  # noqa: F401


@pytest.mark.parametrize(
    ("statement", "nearest"),
    [
        ("from mmcv.cnn import ConvModul", "ConvModule"),
        ("from mmseg.models import BaseSegmenter", "BaseSegmentor"),
        ("import mmseg.models.backbones.resnett", "resnet"),
        ("from mmcv.ops.roi_pol import RoIPool", "roi_pool"),
    ],
)
def test_a_name_that_does_not_exist_is_one_message(tmp_path, statement, nearest):
    (tmp_path / "wrong.py").write_text(f"import torch\n{statement}\n")
    (tmp_path / "config.py").write_text("custom_imports = dict(imports='wrong')\n")
    with pytest.raises(UserError, match=rf"wrong.py:2: terrazzo's answer to .*did you mean '{nearest}'"):
        tz.load_config(tmp_path / "config.py", trust=True)


def test_a_type_may_be_the_class_itself(newer):
    model = tz.build_model({**NEWER, "decode_head": {**NEWER["decode_head"], "type": newer.NewHead}})
    assert type(model.decode_head) is newer.NewHead


ATTENTION = {"embed_dims": 16, "num_heads": 4}
FFN = {"ffn_cfg": {"embed_dims": 16, "feedforward_channels": 32}}
LEVELS = {"self_attn_cfg": {**ATTENTION, "num_levels": 3, "num_points": 2}, **FFN}
QUERIES = {
    "in_channels": [8, 8, 8, 8],
    "feat_channels": 16,
    "out_channels": 16,
    "num_classes": 3,
    "num_queries": 5,
    "positional_encoding": {"num_feats": 8, "normalize": True},
    "pixel_decoder": {
        "type": "mmdet.MSDeformAttnPixelDecoder",
        "encoder": {"num_layers": 1, "layer_cfg": LEVELS},
        "positional_encoding": {"num_feats": 8, "normalize": True},
        "norm_cfg": {"type": "GN", "num_groups": 4},
    },
    "transformer_decoder": {
        "num_layers": 4,
        "layer_cfg": {"self_attn_cfg": ATTENTION, "cross_attn_cfg": ATTENTION, **FFN},
    },
    "loss_cls": {"type": "mmdet.CrossEntropyLoss", "class_weight": [1.0, 1.0, 1.0, 0.1]},
    "loss_mask": {"type": "mmdet.CrossEntropyLoss", "use_sigmoid": True},
    "loss_dice": {"type": "mmdet.DiceLoss", "naive_dice": True, "eps": 1.0},
    "train_cfg": {
        "assigner": {"type": "mmdet.HungarianAssigner", "match_costs": [{"type": "mmdet.ClassificationCost"}]},
        "sampler": {"type": "mmdet.MaskPseudoSampler"},
        "num_points": 64,
    },
}


def test_a_head_of_queries_may_write_its_decoding_itself():
    from mmseg.models.decode_heads import Mask2FormerHead

    class OwnDecoding(Mask2FormerHead):
        def forward(self, x, batch_data_samples):
            features, memories = self.pixel_decoder(x)
            query = self.query_feat.weight.unsqueeze(0).repeat(len(batch_data_samples), 1, 1)
            found = [self._forward_head(query, features, memories[0].shape[-2:])]
            for index in range(self.num_transformer_decoder_layers):
                level = index % self.num_transformer_feat_level
                memory, hidden = memories[level], found[-1][2]
                hidden[torch.where(hidden.sum(-1) == hidden.shape[-1])] = False
                mask = memory.new_zeros(len(query), *memory.shape[-2:], dtype=torch.bool)
                tokens = (
                    self.decoder_input_projs[level](memory).flatten(2).permute(0, 2, 1) + self.level_embed.weight[level]
                )
                query = self.transformer_decoder.layers[index](
                    query=query,
                    key=tokens,
                    value=tokens,
                    query_pos=self.query_embed.weight.unsqueeze(0).repeat(len(query), 1, 1),
                    key_pos=self.decoder_positional_encoding(mask).flatten(2).permute(0, 2, 1),
                    cross_attn_mask=hidden,
                    query_key_padding_mask=None,
                    key_padding_mask=None,
                )
                size = memories[(index + 1) % self.num_transformer_feat_level].shape[-2:]
                found.append(self._forward_head(query, features, size))
            return [scores for scores, _, _ in found], [masks for _, masks, _ in found]

    torch.manual_seed(0)
    ours, own = Mask2FormerHead(**QUERIES).eval(), OwnDecoding(**QUERIES).eval()
    own.load_state_dict(ours.state_dict())
    features = [torch.randn(2, 8, side, side) for side in (32, 16, 8, 4)]
    metas = [{"img_shape": (128, 128)}] * 2
    torch.testing.assert_close(own.predict(features, metas), ours.predict(features, metas))
    torch.testing.assert_close(own(features, metas), ours(features, metas))
    labels = torch.randint(0, 3, (2, 128, 128))
    losses = []
    for head in (ours, own):
        torch.manual_seed(1)
        losses.append(head.loss(features, labels))
    assert losses[0].keys() == losses[1].keys()
    torch.testing.assert_close(losses[1], losses[0])


def test_a_segmentor_without_training_decides_in_its_results():
    """What it predicts where it is unsure is its own decision, not the class of the largest logit."""
    from mmengine.structures import PixelData
    from mmseg.models.segmentors import BaseSegmentor
    from mmseg.registry import MODELS

    @MODELS.register_module()
    class Cautious(BaseSegmentor):
        num_classes = 3

        def predict(self, inputs, data_samples):
            for image, sample in zip(inputs, data_samples, strict=True):
                logits = image.softmax(0)
                unsure = logits.amax(0) < 0.5
                found = PixelData(data=logits.argmax(0).masked_fill(unsure, 0))
                sample.set_data({"seg_logits": PixelData(data=logits), "pred_sem_seg": found})
            return data_samples

        def loss(self, inputs, data_samples):
            """Nothing is trained."""

        extract_feat = encode_decode = _forward = loss

    model, images = tz.build_model({"type": "Cautious"}), torch.randn(2, 3, 8, 8)
    sure = images.softmax(1).amax(1) >= 0.5
    assert torch.equal(model(images).argmax(1), images.argmax(1) * sure)
    with pytest.raises(UserError, match="the loss of Cautious is None, not a dict"):
        model.loss(images, torch.zeros(2, 8, 8, dtype=torch.long))


def test_a_head_of_0x_may_learn_from_a_mask_of_each_class(older):
    from mmseg.models.builder import HEADS, SEGMENTORS

    @HEADS.register_module()
    class MaskHead(older.OldHead):
        def forward_train(self, inputs, img_metas, gt_semantic_seg, gt_labels, gt_masks):
            assert [mask.shape[0] for mask in gt_masks] == [len(classes) for classes in gt_labels]
            assert torch.equal(gt_masks[0].argmax(0), gt_semantic_seg[0, 0]) and gt_labels[0].tolist() == [0, 1, 2]
            return {"loss_mask": self(inputs).mean()}

    @SEGMENTORS.register_module()
    class MaskSegmentor(older.EncoderDecoder):
        def forward_train(self, img, img_metas, gt_semantic_seg, **kwargs):
            x = self.extract_feat(img)
            return older.add_prefix(self.decode_head.forward_train(x, img_metas, gt_semantic_seg, **kwargs), "decode")

    head = {**OLDER["decode_head"], "type": "MaskHead"}
    model = tz.build_model({**OLDER, "type": "MaskSegmentor", "decode_head": head})
    assert set(model.loss(*batch())) == {"decode.loss_mask"}


def test_a_segmentor_whose_train_returns_nothing_is_built(older):
    from mmseg.models.builder import SEGMENTORS

    @SEGMENTORS.register_module()
    class Silent(older.OldSegmentor):
        def train(self, mode=True):
            super().train(mode)

    model = tz.build_model({**OLDER, "type": "Silent"})
    assert model.eval() is model and not model.training


def test_init_weights_that_needs_a_file_is_a_warning(older):
    from mmseg.models.builder import BACKBONES

    @BACKBONES.register_module()
    class OnlyFromFiles(older.OldBackbone):
        def init_weights(self):
            raise AttributeError("no absolute_pos_embed")

    with pytest.warns(UserWarning, match="init_weights of OnlyFromFiles fails without a file of weights: no absolute"):
        tz.build_model({**OLDER, "backbone": {**OLDER["backbone"], "type": "OnlyFromFiles"}})


def test_a_method_that_nothing_calls_is_named(older):
    from mmseg.models.builder import SEGMENTORS

    @SEGMENTORS.register_module()
    class Alternating(older.OldSegmentor):
        def train_step(self, data_batch, optimizer, **kwargs):
            raise NotImplementedError

    with pytest.warns(UserWarning, match="Alternating: terrazzo calls neither train_step"):
        tz.build_model({**OLDER, "type": "Alternating"})


def test_an_inner_method_of_an_official_class_that_nothing_calls_is_named():
    from mmseg.models.decode_heads import DAHead

    class Mine(DAHead):
        def cam_cls_seg(self, feat):
            return feat

    with pytest.warns(UserWarning, match="Mine: terrazzo's DAHead does not call cam_cls_seg"):
        Mine(in_channels=8, channels=8, num_classes=3, pam_channels=4)


def test_heads_may_call_the_parts_of_official_ones_and_go_around_their_constructors():
    """As K-Net does: kernels from the features of other heads, which a head around them refines."""
    from mmseg.models.decode_heads import ASPPHead, UPerHead
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    class Around(BaseDecodeHead):
        def __init__(self, inner, **kwargs):
            super(BaseDecodeHead, self).__init__(**kwargs)
            self.inner, self.num_classes, self.align_corners = inner, inner.num_classes, inner.align_corners

    class Pyramid(ASPPHead):
        def forward(self, inputs):
            x = self._transform_inputs(inputs)
            pooled = resize(self.image_pool(x), x.shape[2:], mode="bilinear")
            return self.cls_seg(self.bottleneck(torch.cat([pooled, *self.aspp_modules(x)], dim=1)))

    class Pooled(UPerHead):
        def psp_forward(self, inputs):
            return super().psp_forward(inputs) * 0

    from mmseg.models.utils import resize

    shape = {"channels": 8, "num_classes": 3}
    maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8)]
    mine = Pyramid(in_channels=16, **shape).eval()
    torch.testing.assert_close(mine(maps), ASPPHead.forward(mine, maps))
    levels = Pooled(in_channels=[8, 16], in_index=[0, 1], **shape).eval()
    changed = [maps[0], maps[1] + 1]
    assert torch.equal(levels(maps), levels(changed)) and len(levels.psp_modules(maps[1])) == 4
    around = Around(mine, init_cfg={"type": "Constant", "val": 0.0, "layer": "Conv2d"})
    around.init_weights()
    assert [name for name, _ in around.named_children()] == ["inner"] and not mine.conv_seg.weight.any()


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


SMALL = {"type": "ResNetV1c", "depth": 18, "base_channels": 4, "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
NARROW = {"channels": 8, "num_classes": 3, "dropout_ratio": 0, "norm_cfg": {"type": "BN"}}
DETAIL = {"type": "STDCHead", "in_channels": 8, "in_index": 1, "num_convs": 1, "out_channels": 1, "concat_input": False}
SEVERAL_LOSSES = {
    "DAHead": {"decode_head": {"type": "DAHead", "in_channels": 32, "pam_channels": 4, **NARROW}},
    "EncHead": {
        "decode_head": {"type": "EncHead", "in_channels": (8, 16, 32), "in_index": (1, 2, 3), "num_codes": 4, **NARROW}
    },
    "STDCHead": {
        "decode_head": {"type": "FCNHead", "in_channels": 32, "num_convs": 1, **NARROW},
        "auxiliary_head": {**NARROW, **DETAIL, "num_classes": 2, "loss_decode": {"type": "DiceLoss"}},
    },
}


@pytest.mark.parametrize("kind", SEVERAL_LOSSES)
def test_official_heads_have_all_their_losses_in_a_users_segmentor(kind):
    from mmseg.models import EncoderDecoder
    from mmseg.registry import MODELS

    @MODELS.register_module()
    class OwnSegmentor(EncoderDecoder):
        pass

    spec = {"backbone": {**SMALL, "norm_cfg": {"type": "BN"}}, **SEVERAL_LOSSES[kind]}
    official, own = (tz.build_model({"type": name, **spec}).eval() for name in ("EncoderDecoder", "OwnSegmentor"))
    own.load_state_dict(official.state_dict())
    images, labels = batch()
    expected, found = official.loss(images, labels), own.loss(images, labels)
    assert len(expected) > 2 and set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_head_may_weigh_its_pixels_by_logits_and_labels_alone():
    from mmseg.models.decode_heads import FCNHead
    from mmseg.structures import OHEMPixelSampler, build_pixel_sampler

    sampler = {"type": "OHEMPixelSampler", "min_kept": 5}
    head = FCNHead(in_channels=4, channels=4, num_classes=3, sampler=sampler)
    logits, labels = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 1, 6, 6))
    weights = head.sampler.sample(logits, labels)
    assert weights.shape == (2, 6, 6) and weights.sum() == 10  # five an image, the hardest
    assert torch.equal(build_pixel_sampler(sampler, context=head).sample(logits, labels), weights)
    likely = OHEMPixelSampler(head, 0.0, 7).sample(logits, labels)
    assert likely.sum() == 14


def test_a_segmentor_of_0x_gives_probabilities_at_the_size_of_the_file(older):
    model = tz.build_model(OLDER).eval()
    images, labels = batch()
    metas = [{"ori_shape": (16, 24, 3), "img_shape": (32, 48, 3), "flip": True, "flip_direction": "vertical"}] * 2
    logits = model.whole_inference(images, metas, False)
    assert logits.shape == (2, 3, 32, 48)
    found = model.inference(images, metas, True)
    assert found.shape == (2, 3, 16, 24) and torch.allclose(found.sum(1), torch.ones(2, 16, 24))
    small = nn.functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=model.align_corners)
    torch.testing.assert_close(found, small.softmax(1).flip(2))
    classes = model(return_loss=False, img=[images, images], img_metas=[metas, metas])
    assert (classes[1] == found.argmax(1)[1].numpy()).all()
    step = model.train_step({"img": images, "img_metas": metas, "gt_semantic_seg": labels.unsqueeze(1)}, None)
    assert step["num_samples"] == 2 and step["loss"] > 0


def test_a_binary_segmentor_decides_in_its_results_by_probabilities():
    from mmseg.models import EncoderDecoder
    from mmseg.registry import MODELS

    @MODELS.register_module()
    class Around(EncoderDecoder):
        def predict(self, inputs, data_samples=None):
            return super().predict(inputs, data_samples)

    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    head = {"type": "FCNHead", "in_channels": 32, "num_convs": 1, **NARROW, "num_classes": 2, "out_channels": 1}
    spec = {"backbone": {**SMALL, "norm_cfg": {"type": "BN"}}, "decode_head": {**head, "loss_decode": loss}}
    official, own = (tz.build_model({"type": name, **spec}).eval() for name in ("EncoderDecoder", "Around"))
    own.load_state_dict(official.state_dict())
    images = batch()[0]
    torch.testing.assert_close(own(images), official(images))
    assert own.predict(images)[0].seg_logits.data.min() > 0


def test_segmentors_of_early_releases_hand_the_file_of_their_weights_on(tmp_path):
    from mmseg.models.segmentors import EncoderDecoder
    from mmseg.models.segmentors.base import BaseSegmentor

    backbone = {"type": "ERFNet", "norm_cfg": {"type": "BN"}}
    head = {"type": "FCNHead", "in_channels": 16, "channels": 8, "num_classes": 3, "num_convs": 1}

    class FromBase(BaseSegmentor):
        def __init__(self, pretrained=None):
            super().__init__()
            self.backbone = EncoderDecoder(backbone, head).backbone
            self.init_weights(pretrained=pretrained)

        def init_weights(self, pretrained=None):
            super().init_weights(pretrained)
            self.backbone.init_weights(pretrained=pretrained)

    class FromEncoderDecoder(EncoderDecoder):
        def init_weights(self, pretrained=None):
            super().init_weights(pretrained)

    file, source = tmp_path / "backbone.pth", EncoderDecoder(backbone, head).backbone
    torch.save(source.state_dict(), file)
    second = FromEncoderDecoder(backbone, head)
    second.init_weights()  # at first without a file
    second.init_weights(str(file))
    for model in (FromBase(str(file)), second):
        torch.testing.assert_close(model.backbone.state_dict(), source.state_dict())
    FromBase()


@pytest.mark.parametrize("by_position", [True, False])
def test_a_base_segmentor_takes_its_init_cfg_first_as_in_older_releases(by_position, tmp_path):
    from mmseg.models.segmentors.base import BaseSegmentor

    class Mine(BaseSegmentor):
        def __init__(self, init_cfg=None):
            super().__init__(init_cfg) if by_position else super().__init__(init_cfg=init_cfg)
            self.conv = nn.Conv2d(3, 3, 1)

    ones = Mine({"type": "Constant", "val": 1.0, "layer": "Conv2d"})
    ones.init_weights()
    torch.save(ones.state_dict(), tmp_path / "ones.pth")
    for init_cfg in ({"type": "Pretrained", "checkpoint": str(tmp_path / "ones.pth")}, [ones.init_cfg]):
        model = Mine(init_cfg)
        model.init_weights()
        assert torch.all(model.conv.weight == 1) and model.init_cfg == init_cfg
    assert BaseSegmentor({"type": "SegDataPreProcessor", "mean": [1.0] * 3, "std": [2.0] * 3}).init_cfg is None


def test_a_projects_own_base_of_models_of_depth():
    from mmcv.runner import BaseModule
    from mmseg.models.builder import SEGMENTORS, build_backbone

    class BaseDepther(BaseModule):
        def forward(self, img, img_metas, return_loss=True, **kwargs):
            raise NotImplementedError

    @SEGMENTORS.register_module()
    class Depther(BaseDepther):
        def __init__(self, backbone, max_depth):
            super().__init__()
            self.backbone, self.max_depth = build_backbone(backbone), max_depth
            self.decode_head = nn.Conv2d(16, 1, 1)

        def encode_decode(self, img, img_metas, rescale=True):
            return self.decode_head(self.backbone(img)[-1]).sigmoid() * self.max_depth

        def inference(self, img, img_meta, rescale):
            return self.encode_decode(img, img_meta)

        def forward_train(self, img, img_metas, depth_gt, **kwargs):
            found = nn.functional.interpolate(self.encode_decode(img, img_metas), depth_gt.shape[2:])
            return {"decode.loss_depth": (found - depth_gt).abs().mean()}

    model = tz.build_model(
        {"type": "Depther", "backbone": {"type": "ERFNet", "norm_cfg": {"type": "BN"}}, "max_depth": 1}
    )
    images, depth = torch.randn(2, 3, 32, 32), torch.full((2, 32, 32), 3.0)
    assert model.target == "depth" and model.final_head.num_classes == 1
    assert 2 < model.loss(images, torch.zeros(2, 32, 32).long(), depth=depth)["decode.loss_depth"] < 3
    found = model.eval()(images)
    assert found.shape == (2, 1, 32, 32) and 0 < found.min() <= found.max() < 1
