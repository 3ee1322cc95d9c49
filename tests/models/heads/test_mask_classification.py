"""Models whose queries answer with classes and masks: MaskFormer, Mask2Former, K-Net and SAN beyond golden."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.models.backbones.clip_text import class_names
from terrazzo.models.layers.clip_tokens import IMAGENET, VILD, tokenize
from terrazzo.models.layers.deformable_attention import MultiScaleDeformableAttention, pixel_centres
from terrazzo.models.losses.set_criterion import SetCriterion
from terrazzo.registry import MODELS

torch.set_num_threads(1)

CLASSES = 5
LOSSES = {
    "loss_cls": {"type": "mmdet.CrossEntropyLoss", "class_weight": [1.0] * CLASSES + [0.1]},
    "loss_mask": {"type": "mmdet.CrossEntropyLoss", "use_sigmoid": True},
    "loss_dice": {"type": "mmdet.DiceLoss", "naive_dice": True, "eps": 1.0},
}
COSTS = [
    {"type": "mmdet.ClassificationCost", "weight": 2.0},
    {"type": "mmdet.CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True},
    {"type": "mmdet.DiceCost", "weight": 5.0, "pred_act": True, "eps": 1.0},
]
ASSIGNER = {"type": "mmdet.HungarianAssigner", "match_costs": COSTS}
ATTENTION = {"embed_dims": 32, "num_heads": 4}
DECODER = {
    "num_layers": 3,
    "layer_cfg": {
        "self_attn_cfg": ATTENTION,
        "cross_attn_cfg": ATTENTION,
        "ffn_cfg": {"embed_dims": 32, "feedforward_channels": 64},
    },
}
ENCODER = {
    "num_layers": 2,
    "layer_cfg": {
        "self_attn_cfg": ATTENTION | {"num_levels": 3, "num_points": 2},
        "ffn_cfg": {"embed_dims": 32, "feedforward_channels": 64},
    },
}
POSITIONS = {"num_feats": 16, "normalize": True}
BACKBONE = {"type": "ResNet", "depth": 18, "base_channels": 16, "stem_channels": 16}
HEAD = {
    "in_channels": [16, 32, 64, 128],
    "feat_channels": 32,
    "out_channels": 32,
    "num_classes": CLASSES,
    "num_queries": 10,
    "positional_encoding": POSITIONS,
    "transformer_decoder": DECODER,
    "train_cfg": {"assigner": ASSIGNER, "sampler": {"type": "mmdet.MaskPseudoSampler"}},
} | LOSSES
GN = {"norm_cfg": {"type": "GN", "num_groups": 4}}
HEADS = {
    "maskformer": {"type": "MaskFormerHead", "pixel_decoder": {"type": "mmdet.PixelDecoder"} | GN},
    "mask2former": {
        "type": "Mask2FormerHead",
        "pixel_decoder": {
            "type": "mmdet.MSDeformAttnPixelDecoder",
            "encoder": ENCODER,
            "positional_encoding": POSITIONS,
        }
        | GN,
        "train_cfg": HEAD["train_cfg"] | {"num_points": 128},
    },
}
KNET_STAGE = {"type": "KernelUpdateHead", "num_classes": CLASSES, "num_heads": 4, "in_channels": 16, "out_channels": 16}
KNET_STAGE |= {"feedforward_channels": 32, "num_mask_fcs": 1, "feat_transform_cfg": {"act_cfg": None}}
KNET_STAGE |= {"kernel_updator_cfg": {"type": "KernelUpdator", "in_channels": 16, "feat_channels": 16}}


def knet(**options):
    first = {"type": "FCNHead", "in_channels": 128, "in_index": 3, "channels": 16, "num_classes": CLASSES}
    stages = [KNET_STAGE | options] * 2
    return {
        "type": "IterativeDecodeHead",
        "num_stages": 2,
        "kernel_generate_head": first,
        "kernel_update_head": stages,
    }


CLIP = {"embed_dims": 32, "num_heads": 4}
SAN = {
    "type": "MultimodalEncoderDecoder",
    "encoder_resolution": 0.5,
    "image_encoder": CLIP
    | {"type": "VisionTransformer", "img_size": 64, "patch_size": 8, "patch_pad": 0, "num_layers": 3}
    | {"out_origin": True, "out_indices": (0, 1, 2), "output_cls_token": True, "pre_norm": True},
    "text_encoder": CLIP
    | {"type": "CLIPTextEncoder", "vocabulary": ["cat", "dog", "sky", "road", "tree"], "num_layers": 2}
    | {"output_dims": 24},
    "decode_head": {
        "type": "SideAdapterCLIPHead",
        "num_classes": CLASSES,
        "deep_supervision_idxs": [1],
        "san_cfg": {
            "clip_channels": 32,
            "embed_dims": 24,
            "num_queries": 10,
            "cfg_encoder": {"num_encode_layer": 2, "num_heads": 4, "mlp_ratio": 2},
            "fusion_index": [0, 1, 2],
            "cfg_decoder": {"num_heads": 4, "embed_channels": 16, "mlp_channels": 16},
        },
        "maskgen_cfg": CLIP | {"num_layers": 1, "out_dims": 24, "sos_token_num": 10},
        "train_cfg": {"num_points": 128, "assigner": ASSIGNER},
        "loss_decode": [
            {"type": "CrossEntropyLoss", "loss_name": "loss_cls_ce", "class_weight": [1.0] * CLASSES + [0.1]},
            {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_name": "loss_mask_ce"},
            {"type": "DiceLoss", "ignore_index": None, "naive_dice": True, "eps": 1, "loss_name": "loss_mask_dice"},
        ],
    },
}


def encoder_decoder(head):
    return {"type": "EncoderDecoder", "backbone": BACKBONE, "decode_head": head}


MODEL_SPECS = {name: encoder_decoder(HEAD | head) for name, head in HEADS.items()}
MODEL_SPECS |= {"knet": encoder_decoder(knet()), "san": SAN}


@pytest.fixture(params=MODEL_SPECS)
def model(request):
    torch.manual_seed(0)
    return tz.build_model(MODEL_SPECS[request.param])


@pytest.mark.parametrize("size", [(97, 131), (32, 32), (33, 64)])
def test_any_size_gives_logits_of_that_size(model, size):
    with torch.no_grad():
        logits = model.eval()(torch.randn(1, 3, *size))
    assert logits.shape == (1, CLASSES, *size)
    assert logits.isfinite().all()


def test_the_inference_graph_can_be_exported(model):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval()(images)
        exported = torch.export.export(model, (images,), strict=False).module()
        torch.testing.assert_close(exported(images), expected)


def test_labels_that_are_all_ignored_give_finite_losses_and_gradients(model):
    losses = model.train().loss(torch.randn(2, 3, 64, 64), torch.full((2, 64, 64), 255))
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_models_learn_one_picture(model):
    images = torch.randn(1, 3, 64, 64)
    labels = (torch.arange(64)[None, :, None] // 16).expand(1, 64, 64).contiguous()
    images[:, 0] += labels * 2.0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-3)
    model.train()
    totals = []
    for _ in range(25):
        losses = model.loss(images, labels)
        total = sum(value for name, value in losses.items() if "loss" in name)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert sum(totals[-3:]) / 3 < 0.8 * totals[0]


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "DiceLoss", "FocalLoss"])
def test_a_scope_chooses_between_losses_of_the_same_name(name):
    scoped, plain = MODELS.get(f"mmdet.{name}"), MODELS.get(name)
    assert scoped is not plain
    assert MODELS.get(f"mmseg.{name}") is plain


def test_the_assigner_finds_the_cheapest_matching():
    torch.manual_seed(0)
    assigner = MODELS.build(ASSIGNER)
    scores, masks = torch.randn(5, CLASSES + 1), torch.randn(5, 30)
    labels, targets = torch.tensor([3, 0, 4]), (torch.rand(3, 30) > 0.5).float()
    cost = sum(part(scores, masks, labels, targets) for part in assigner.match_costs)
    queries, segments = assigner.assign(scores, masks, labels, targets)
    best = min(sum(cost[q, t] for t, q in enumerate(order)) for order in itertools.permutations(range(5), 3))
    torch.testing.assert_close(cost[queries, segments].sum(), best)
    assert queries.tolist() == sorted(queries.tolist())


def test_focal_cost_follows_its_definition():
    cost = MODELS.build({"type": "FocalLossCost", "binary_input": True, "weight": 20.0})
    masks, targets = torch.randn(4, 9), (torch.rand(2, 9) > 0.5).float()
    p, expected = masks.sigmoid(), torch.zeros(4, 2)
    for query, segment in itertools.product(range(4), range(2)):
        right = torch.where(targets[segment] == 1, p[query], 1 - p[query])
        alpha = torch.where(targets[segment] == 1, 0.25, 0.75)
        expected[query, segment] = 20 * (-alpha * (1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(cost(None, masks, None, targets), expected)


def test_a_perfect_answer_costs_nothing():
    labels = torch.tensor([[[0, 0, 2, 2], [255, 0, 2, 2]]])
    losses = {name: MODELS.build(spec) for name, spec in LOSSES.items()}
    sampler = MODELS.build({"type": "MaskPseudoSampler"})
    criterion = SetCriterion(num_classes=CLASSES, assigner=MODELS.build(ASSIGNER), sampler=sampler, **losses)
    masks = torch.stack([labels[0] == 2, labels[0] == 0, labels[0] == 9]).float() * 200 - 100
    scores = F.one_hot(torch.tensor([2, 0, CLASSES]), CLASSES + 1) * 100.0
    (result,) = criterion([(scores[None], masks[None])], labels)
    assert set(result) == {"loss_cls", "loss_mask", "loss_dice"}
    assert all(float(value) < 1e-6 for value in result.values())


def test_class_weights_of_another_number_are_an_error():
    weights = {"loss_cls": LOSSES["loss_cls"] | {"class_weight": [1.0] * 151}}
    model = tz.build_model(encoder_decoder(HEAD | HEADS["maskformer"] | weights))
    with pytest.raises(UserError, match="151"):
        model.loss(torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long))


def test_deformable_attention_reads_the_value_where_it_points():
    sizes = [(3, 4), (6, 8)]
    attention = MultiScaleDeformableAttention(embed_dims=8, num_heads=2, num_levels=2, num_points=3, dropout=0.0)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)  # every point is the query's own place
    value = torch.randn(1, 12 + 48, 8)
    places = pixel_centres(sizes[0], value)
    projected = attention.value_proj(value)
    coarse = projected[:, :12]
    fine = projected[:, 12:].transpose(1, 2).unflatten(2, sizes[1])
    halved = F.avg_pool2d(fine, 2).flatten(2).transpose(1, 2)  # the centre of four pixels
    expected = attention.output_proj((coarse + halved) / 2)
    torch.testing.assert_close(attention(torch.randn(1, 12, 8), value, places, sizes), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"feat_gather_stride": 2, "mask_transform_stride": 2},
        {"mask_transform_stride": 2},
        {"with_ffn": False},
        {"kernel_updator_cfg": KNET_STAGE["kernel_updator_cfg"] | {"gate_norm_act": True, "activate_out": True}},
        {"kernel_updator_cfg": KNET_STAGE["kernel_updator_cfg"] | {"gate_sigmoid": False}},
    ],
)
def test_knet_stages_take_their_options(options):
    model = tz.build_model(encoder_decoder(knet(**options)))
    losses = model.loss(torch.randn(2, 3, 128, 128), torch.zeros(2, 128, 128, dtype=torch.long))
    assert {f"decode.loss_ce.s{stage}" for stage in range(3)} <= set(losses)


def test_knet_needs_a_head_for_each_stage():
    with pytest.raises(UserError, match="num_stages=3"):
        tz.build_model(encoder_decoder(knet() | {"num_stages": 3}))


def test_clip_tokens_are_the_published_ones():
    tokens = tokenize(["a diagram", "Hello   world", "potted plant's &amp; 12"], 12)
    assert tokens[0].tolist() == [49406, 320, 22697, 49407, *[0] * 4]
    assert tokens[1].tolist() == [49406, 3306, 1002, 49407, *[0] * 4]
    assert tokens[2].tolist() == [49406, 48581, 3912, 568, 261, 272, 273, 49407]
    with pytest.raises(UserError, match="at most 12"):
        tokenize(["word " * 20], 12)


def test_prompts_and_classes_of_the_text_encoder():
    assert (len(set(VILD)), len(set(IMAGENET))) == (14, 80)
    assert class_names("voc") == class_names("PascalVOCDataset") == class_names("pascal_voc")
    assert len(class_names("coco-stuff164k")) == 171  # as official configs name it
    assert len(class_names("voc")) == 20  # without the background
    with pytest.raises(UserError, match="CityscapesDataset"):
        class_names("cityscape")
    with pytest.raises(UserError, match="vild"):
        tz.build_model(SAN | {"text_encoder": SAN["text_encoder"] | {"templates": "wild"}})


def test_text_is_encoded_once_for_given_weights(monkeypatch):
    encoder = MODELS.build(SAN["text_encoder"])
    calls = []
    encode = encoder.encode_classes
    monkeypatch.setattr(encoder, "encode_classes", lambda: calls.append(1) or encode())
    first = encoder()
    assert first.shape == (CLASSES + 1, 24) and torch.equal(encoder(), first) and len(calls) == 1
    with torch.no_grad():
        encoder.text_projection.mul_(-1)
    torch.testing.assert_close(encoder()[:-1], -first[:-1])
    assert len(calls) == 2
    encoder.load_state_dict(encoder.state_dict())
    assert encoder.cached is None


def test_san_names_its_losses_and_trains_only_the_side_network():
    model = tz.build_model(SAN)
    losses = model.loss(torch.randn(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64)))
    names = {"loss_cls_ce", "loss_mask_ce", "loss_mask_dice"}
    assert set(losses) == {f"decode.{prefix}{name}" for name in names for prefix in ("", "d1.")}
    trained = {name.split(".side")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained - {name for name in trained if name.startswith("image_encoder")} == {
        "decode_head",
        "text_encoder.bg_embed",
    }


def test_san_needs_as_many_texts_as_classes():
    model = tz.build_model(SAN | {"text_encoder": SAN["text_encoder"] | {"vocabulary": ["cat", "dog"]}})
    with pytest.raises(UserError, match="vocabulary"):
        model(torch.randn(1, 3, 64, 64))
