"""What golden models do not show of the attention heads: odd sizes, rarer options, the arithmetic spelled out."""

import math

import pytest
import torch
import torch.nn.functional as F

from terrazzo.errors import UserError
from terrazzo.models.heads.cc import CrissCrossAttention
from terrazzo.models.heads.ema import ExpectationMaximisation
from terrazzo.models.heads.enc import Encoding
from terrazzo.models.heads.psa import absolute_masks
from terrazzo.models.layers.context_block import NonLocal
from terrazzo.models.layers.points import draw_points, sample_points, uncertainty
from terrazzo.models.layers.self_attention import attend
from terrazzo.registry import MODELS

torch.set_num_threads(1)

BN = {"type": "SyncBN", "requires_grad": True}
COMMON = {"channels": 16, "num_classes": 5, "norm_cfg": BN}
ONE = {**COMMON, "in_channels": 24, "in_index": -1}
HEADS = [
    {"type": "ANNHead", **COMMON, "in_channels": [12, 24], "in_index": [0, 1], "project_channels": 8},
    {
        "type": "ANNHead",
        **COMMON,
        "in_channels": [12, 24],
        "in_index": [0, 1],
        "project_channels": 8,
        "query_scales": [1, 2],
    },
    {"type": "APCHead", **ONE},
    {"type": "APCHead", **ONE, "fusion": False},
    {"type": "CCHead", **ONE},
    {"type": "DAHead", **ONE, "pam_channels": 4},
    {"type": "DMHead", **ONE, "filter_sizes": [1, 2, 3, 4], "fusion": True},
    {"type": "DNLHead", **ONE},
    {"type": "DNLHead", **ONE, "mode": "dot_product"},
    {"type": "EMAHead", **ONE, "ema_channels": 16, "num_bases": 4, "num_stages": 3, "concat_input": False},
    {"type": "EncHead", **COMMON, "in_channels": [12, 24], "in_index": [0, 1]},
    {
        "type": "EncHead",
        **COMMON,
        "in_channels": [12, 24],
        "in_index": [0, 1],
        "add_lateral": True,
        "use_se_loss": False,
    },
    {"type": "GCHead", **ONE, "pooling_type": "avg", "fusion_types": ["channel_mul", "channel_add"]},
    {"type": "ISAHead", **ONE, "isa_channels": 8},
    {
        "type": "LightHamHead",
        **COMMON,
        "in_channels": [12, 24],
        "in_index": [0, 1],
        "ham_channels": 16,
        "ham_kwargs": {"MD_R": 4},
    },
    {"type": "NLHead", **ONE, "reduction": 4, "use_scale": False, "concat_input": False},
    {"type": "PSAHead", **ONE, "mask_size": (15, 15)},
    {"type": "PSAHead", **ONE, "mask_size": (7, 9), "psa_type": "collect", "normalization_factor": None},
    {"type": "PSAHead", **ONE, "mask_size": (15, 15), "psa_type": "distribute", "psa_softmax": False},
    {"type": "PSAHead", **ONE, "mask_size": (15, 15), "shrink_factor": 1},
    {"type": "UPerHead", **COMMON, "in_channels": [12, 24], "in_index": [0, 1]},
]


def maps(height, width):
    return [torch.randn(2, 12, 2 * height, 2 * width), torch.randn(2, 24, height, width)]


@pytest.mark.parametrize("size", [(13, 17), (6, 9), (1, 1)])
@pytest.mark.parametrize("spec", HEADS, ids=lambda spec: spec["type"])
def test_heads_take_any_size_and_all_their_options(spec, size):
    head = MODELS.build(spec)
    inputs = maps(*size)
    logits = head.eval()(inputs)
    assert logits.shape[:2] == (2, 5)
    assert logits.isfinite().all()
    losses = head.train().loss(maps(6, 9), torch.randint(0, 5, (2, 30, 40)))
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(value.isfinite() for value in losses.values())
    counted = head.eval().to("meta")([x.to("meta") for x in inputs])  # as trainings count the cost of theirs
    assert counted.shape == logits.shape


def test_attention_is_a_softmax_over_all_positions():
    query, key, value = torch.randn(2, 8, 3, 5), torch.randn(2, 8, 7, 1), torch.randn(2, 6, 7, 1)
    weights = (torch.einsum("nchw,nck->nhwk", query, key.flatten(2)) / math.sqrt(8)).softmax(3)
    expected = torch.einsum("nhwk,nck->nchw", weights, value.flatten(2))
    torch.testing.assert_close(attend(query, key, value), expected)


def test_dot_product_mode_averages_over_positions():
    block = NonLocal(8, mode="dot_product")
    query, key, value = torch.randn(3, 2, 4, 3, 5).unbind()
    similarities = query.flatten(2).transpose(1, 2) @ key.flatten(2) / 15
    expected = (similarities @ value.flatten(2).transpose(1, 2)).transpose(1, 2).view_as(value)
    torch.testing.assert_close(block.read(query, key, value), expected)
    with pytest.raises(UserError, match="dot_product"):
        NonLocal(8, mode="cosine")


def test_criss_cross_attention_reads_exactly_a_row_and_a_column():
    block = CrissCrossAttention(16)
    torch.nn.init.ones_(block.gamma.scale)
    x = torch.randn(1, 16, 4, 6, requires_grad=True)
    block(x)[0, :, 1, 2].sum().backward()
    touched = x.grad[0].abs().sum(0) > 0
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[1, :] = expected[:, 2] = True
    assert torch.equal(touched, expected)


@pytest.mark.parametrize("mask_size", [(7, 9), (6, 5), (3, 3)])
def test_relative_masks_find_their_places(mask_size):
    height, width = 4, 5
    masks = torch.randn(1, mask_size[0] * mask_size[1], height, width)
    found = absolute_masks(masks, mask_size).view(height, width, height, width)
    grid = masks.view(*mask_size, height, width)
    for y, x in [(0, 0), (2, 1), (3, 4)]:
        for other_y in range(height):
            for other_x in range(width):
                row, column = other_y - y + (mask_size[0] - 1) // 2, other_x - x + (mask_size[1] - 1) // 2
                inside = 0 <= row < mask_size[0] and 0 <= column < mask_size[1]
                expected = grid[row, column, y, x] if inside else torch.tensor(0.0)
                assert found[other_y, other_x, y, x] == expected


def test_encoding_sums_residuals_to_codewords():
    layer = Encoding(6, 3)
    x = torch.randn(2, 6, 4, 5)
    residuals = x.flatten(2).transpose(1, 2).unsqueeze(2) - layer.codewords  # N, P, K, C
    shares = (layer.scale * residuals.square().sum(3)).softmax(2)
    expected = (shares.unsqueeze(3) * residuals).sum(1)
    torch.testing.assert_close(layer(x).squeeze(3), expected, rtol=1e-4, atol=1e-4)


def test_bases_follow_the_images_only_in_training():
    layer = ExpectationMaximisation(8, num_bases=4, num_stages=3, momentum=0.1)
    before = layer.bases.clone()
    layer.eval()(torch.randn(2, 8, 5, 5))
    assert torch.equal(layer.bases, before)
    layer.train()(torch.randn(2, 8, 5, 5))
    torch.testing.assert_close((layer.bases - 0.9 * before).norm(dim=1), torch.full((1, 4), 0.1))


def test_presence_loss_counts_the_classes_of_each_image():
    head = MODELS.build({"type": "EncHead", **COMMON, "in_channels": [12, 24], "in_index": [0, 1]})
    labels = torch.full((2, 12, 18), 255)
    labels[0, :4], labels[1, :4] = 3, 1
    inputs = maps(6, 9)
    loss = head.eval().loss(inputs, labels)["loss_se"]
    present = torch.zeros(2, 5)
    present[0, 3] = present[1, 1] = 1
    scores = head.se_layer(head.encode(inputs)[0])
    torch.testing.assert_close(loss, 0.2 * F.binary_cross_entropy_with_logits(scores, present))


def test_points_lie_at_pixel_centres():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.tensor([[[0.5 / 4, 0.5 / 3], [3.5 / 4, 2.5 / 3], [0.25, 0.5 / 3]]])
    torch.testing.assert_close(sample_points(x, points), torch.tensor([[[0.0, 11.0, 0.5]]]))


def test_uncertainty_is_highest_between_two_classes():
    logits = torch.tensor([[5.0, 0.0, 0.0], [5.0, 4.9, -9.0]]).T.unsqueeze(0)  # 1, K, P
    assert uncertainty(logits).argmax() == 1
    assert uncertainty(torch.tensor([[[3.0, -0.1, -4.0]]])).argmax() == 1


POINT = {
    "type": "CascadeEncoderDecoder",
    "num_stages": 2,
    "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8, "stem_channels": 8, "out_indices": [0, 1, 2, 3]},
    "decode_head": [
        {"type": "FCNHead", "in_channels": 64, "channels": 8, "num_classes": 5, "num_convs": 1, "norm_cfg": BN},
        {"type": "PointHead", "in_channels": [8], "in_index": [0], "channels": 8, "num_classes": 5},
    ],
    "train_cfg": {"num_points": 20, "oversample_ratio": 3, "importance_sample_ratio": 0.75},
    "test_cfg": {"mode": "whole", "subdivision_steps": 2, "subdivision_num_points": 10, "scale_factor": 2},
}


def test_pointrend_refines_only_the_least_sure_points():
    model = MODELS.build(POINT).eval()
    images = torch.randn(1, 3, 97, 131)
    coarse = model.decode_head[0](model.encode(images))
    refined = model.decode(images)
    assert refined.shape[2:] == tuple(4 * length for length in coarse.shape[2:])
    doubled = coarse
    for _ in range(2):
        doubled = F.interpolate(doubled, scale_factor=2.0, mode="bilinear")
    changed = (refined - doubled).abs().amax(1) > 1e-6
    assert 0 < changed.sum() < changed.numel() / 2
    assert model(images).shape == (1, 5, 97, 131)


def test_pointrend_takes_its_numbers_from_the_config():
    head = MODELS.build(POINT).decode_head[1]
    assert (head.num_points, head.subdivision_num_points) == (20, 10)


def test_most_points_are_drawn_where_two_classes_are_close():
    logits = torch.stack([torch.linspace(-1, 1, 64), torch.linspace(1, -1, 64)])[None, :, None].expand(2, 2, 8, 64)
    points = draw_points(logits, 400, 3, 0.75)
    assert points.shape == (2, 400, 2)
    assert points.min() >= 0 and points.max() <= 1
    centre = (points[..., 0] - 0.5).abs() < 0.15
    assert centre.float().mean() > 0.7  # 0.3 of the width holds three quarters of the points and a few from anywhere


def test_a_cascade_says_when_its_heads_are_not_as_many_as_its_stages():
    with pytest.raises(UserError, match="num_stages=3"):
        MODELS.build({**POINT, "num_stages": 3})


def test_a_cascade_needs_two_heads():
    with pytest.raises(UserError, match="two heads or more"):
        MODELS.build({**POINT, "num_stages": 1, "decode_head": POINT["decode_head"][:1]})


@pytest.mark.parametrize("change", [{"in_index": [0, 1]}, {"input_transform": "multiple_select"}])
def test_a_list_of_maps_needs_a_transform_and_one_map_none(change):
    with pytest.raises(UserError, match=r"FCNHead: in_index=.* does not fit input_transform"):
        MODELS.build({"type": "FCNHead", "in_channels": 8, "channels": 8, "num_classes": 3, **change})
