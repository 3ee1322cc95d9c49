"""Swin, Twins, MiT, ConvNeXt, PoolFormer, MSCAN and their heads, where the golden facts are silent."""

import copy

import pytest
import torch
from torch import nn

from terrazzo.errors import UserError
from terrazzo.models.heads.ham import fixed_draw
from terrazzo.models.layers import ConvBlock, resize
from terrazzo.models.layers.fuse import fuse_levels, saves_work
from terrazzo.models.layers.window import WindowPlan, separate
from terrazzo.registry import MODELS

torch.set_num_threads(1)

SMALL = {
    "mit": {"type": "MixVisionTransformer", "embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]},
    "swin": {
        "type": "SwinTransformer",
        "drop_path_rate": 0.0,
        "embed_dims": 12,
        "depths": [2, 2, 2, 2],
        "num_heads": [1, 2, 2, 4],
    },
    "pcpvt": {"type": "PCPVT", "embed_dims": [8, 16, 16, 32], "depths": [2, 1, 1, 1], "qkv_bias": True},
    "svt": {"type": "SVT", "embed_dims": [8, 16, 16, 32], "num_heads": [1, 2, 2, 4], "depths": [2, 2, 2, 2]},
    "convnext": {
        "type": "mmpretrain.ConvNeXt",
        "arch": {"depths": [1, 1, 2, 1], "channels": [8, 16, 16, 32]},
        "out_indices": [0, 1, 2, 3],
        "gap_before_final_norm": False,
    },
    "poolformer": {
        "type": "mmcls.PoolFormer",
        "arch": {"layers": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 32]},
        "out_indices": [0, 2, 4, 6],
    },
    "mscan": {"type": "MSCAN", "embed_dims": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "norm_cfg": {"type": "BN"}},
}
HAM = {
    "type": "LightHamHead",
    "in_channels": [16, 16, 32],
    "in_index": [1, 2, 3],
    "channels": 16,
    "ham_channels": 16,
    "num_classes": 5,
    "norm_cfg": {"type": "GN", "num_groups": 4},
    "ham_kwargs": {"MD_R": 4},
}


def build(name, **changes):
    torch.manual_seed(0)
    return MODELS.build(SMALL[name] | changes)


def images(height, width, count=1, channels=3):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("height", "width"), [(97, 131), (32, 32), (64, 33)])
def test_any_size_goes_in_and_every_weight_learns(name, height, width):
    model = build(name).train()
    outputs = model(images(height, width, count=2))
    assert len(outputs) == 4
    assert all(abs(outputs[0].shape[-1] / 2**i - out.shape[-1]) < 2 for i, out in enumerate(outputs))
    sum((out * torch.randn_like(out)).sum() for out in outputs).backward()
    # a single key leaves a softmax nothing to learn, so the gradient may be zero, but it is there
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", SMALL)
def test_builds_without_memory(name):
    with torch.device("meta"):
        model = MODELS.build(SMALL[name])
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", SMALL)
def test_exported_graph_equals_the_model(name):
    model, x = build(name).eval(), images(70, 97)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        for ours, theirs in zip(model(x), program.module()(x), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["mit", "swin", "convnext"])
def test_checkpointing_changes_no_gradient(name):
    plain, saving = build(name), build(name, with_cp=True)
    for model in (plain, saving):
        sum(out.square().sum() for out in model(images(64, 64))).backward()
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", ["swin", "convnext", "poolformer"])
def test_frozen_stages_do_not_learn(name):
    model = build(name, frozen_stages=2).train()
    sum(out.square().sum() for out in model(images(64, 64))).backward()
    frozen = {n for n, p in model.named_parameters() if p.grad is None}
    first, later = {
        "swin": (("patch_embed.", "stages.0.", "stages.1.", "norm0.", "norm1."), "stages.2."),
        "convnext": (("stages.0.", "stages.1.", "downsample_layers.0."), "stages.2."),
        "poolformer": (("patch_embed.", "network.0.", "network.1.", "norm0."), "network.2."),
    }[name]
    assert all(any(n.startswith(prefix) for n in frozen) for prefix in first)
    assert not any(n.startswith(later) for n in frozen)


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("grid", [(14, 21), (9, 5)])
def test_windows_go_there_and_back(grid, shift):
    tokens = torch.arange(2 * grid[0] * grid[1] * 3.0).reshape(2, -1, 3)
    windows = WindowPlan(7, shift)(grid, tokens)
    split = windows.split(windows.extend(tokens))
    assert split.shape[1:] == (49, 3)
    assert split.sum() == tokens.sum()  # what reaches out of the map is zero
    assert torch.equal(windows.join(split), tokens)


def test_regions_of_a_window_are_kept_apart():
    mask = separate(torch.tensor([[0, 0, 1, 1], [0, 2, 1, 1]]), 2, -100.0, torch.float32)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].tolist()[3] == [-100.0, -100.0, -100.0, 0.0]
    assert not mask[1].any()


def test_twins_windows_do_not_see_their_padding():
    """A map that fills one side of its windows only is as good as padded on both."""
    attention = build("svt").layers[0][0].attn.eval()
    x = images(1, 7 * 5, channels=8).squeeze(2).transpose(1, 2)  # a grid of 7 x 5 in windows of 7 x 7
    with torch.no_grad():
        padded = attention(x, (7, 5))
        query, key, value = attention.qkv(x).unflatten(-1, (3, 1, 8)).permute(2, 0, 3, 1, 4)
        exact = nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]
        torch.testing.assert_close(padded, attention.proj(exact))


def test_swin_resizes_its_position_embedding():
    model = build("swin", use_abs_pos_embed=True, pretrain_img_size=64).eval()
    assert model.absolute_pos_embed.shape == (1, 16 * 16, 12)
    assert next(iter(model.state_dict())) == "absolute_pos_embed"
    with torch.no_grad():
        assert model(images(97, 131))[0].shape == (1, 12, 25, 33)


def test_swin_keeps_masks_made_for_inference_usable_in_training():
    model = build("swin").eval()
    with torch.inference_mode():
        model(images(64, 64))
    names = set(model.state_dict())
    sum(out.sum() for out in copy.deepcopy(model).train()(images(64, 64))).backward()
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(1, 0, 1), (3, 1, 1), (3, 2, 2), (5, 2, 1)])
@pytest.mark.parametrize("norm", [None, {"type": "BN"}])
def test_fusing_levels_equals_fusing_their_concatenation(align_corners, kernel, padding, dilation, norm):
    torch.manual_seed(0)
    sizes = [(17, 20), (9, 10), (5, 7), (16, 20), (1, 1), (20, 13)]
    block = ConvBlock(32 * len(sizes), 6, kernel, padding=padding, dilation=dilation, norm_cfg=norm).eval()
    levels = [torch.randn(2, 32, *size, requires_grad=True) for size in sizes]
    worth = [saves_work(block.conv, level, (17, 20)) for level in levels]
    assert worth == [False, True, True, False, True, False]
    resized = [resize(level, (17, 20), align_corners=align_corners) for level in levels]
    results = block(torch.cat(resized, dim=1)), fuse_levels(block, levels, align_corners=align_corners)
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    expected, actual = (torch.autograd.grad(result.square().sum(), levels) for result in results)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("options", [{"groups": 2}, {"conv_cfg": {"type": "DCN"}}, {"padding": 0}])
def test_convolutions_that_cannot_be_split_are_fused_as_they_are(options):
    torch.manual_seed(0)
    block = ConvBlock(128, 6, 3, **({"padding": 1} | options))
    levels = [torch.randn(1, 64, size, size) for size in (8, 4)]
    whole = torch.cat([levels[0], resize(levels[1], like=levels[0])], dim=1)
    torch.testing.assert_close(fuse_levels(block, levels), block(whole))


def ham_inputs(count=1):
    return [images(16 // 2**i, 16 // 2**i, count, channels) for i, channels in enumerate((8, 16, 16, 32))]


def test_ham_is_random_in_training_only():
    head = MODELS.build(HAM | {"dropout_ratio": 0})
    inputs = ham_inputs()
    assert not torch.equal(head.train()(inputs), head(inputs))
    torch.manual_seed(1)
    first = head.eval()(inputs)
    torch.manual_seed(2)
    assert torch.equal(first, head(inputs))
    assert torch.equal(first, copy.deepcopy(head)(inputs))


def test_traced_ham_holds_its_bases():
    head, inputs = MODELS.build(HAM).eval(), ham_inputs()
    with torch.no_grad():
        exported = torch.export.export(head, (inputs,)).module()
        compiled = torch.compile(head, backend="eager", fullgraph=True)
        for model in (exported, exported, compiled):  # the second call is like the first
            torch.testing.assert_close(model(inputs), head(inputs))


def test_fixed_bases_are_those_of_seed_zero():
    drawn = torch.rand((2, 24, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(fixed_draw((2, 24, 16)), drawn)


def test_ham_can_store_its_bases():
    head = MODELS.build(HAM | {"ham_kwargs": {"MD_R": 4, "MD_S": 2, "rand_init": False}})
    assert head.state_dict()["hamburger.ham.bases"].shape == (2, 8, 4)
    assert head(ham_inputs(2)).shape == (2, 5, 8, 8)


def test_wrong_options_say_what_to_write():
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        build("convnext", arch="tinny")
    with pytest.raises(UserError, match="did you mean 's24'"):
        build("poolformer", arch="s240")
    with pytest.raises(UserError, match="did you mean 'eval_steps'"):
        MODELS.build(HAM | {"ham_kwargs": {"eval_step": 3}})


def test_convnext_v2_blocks_and_pooled_outputs():
    model = build("convnext", use_grn=True, layer_scale_init_value=0.0, gap_before_final_norm=True, out_indices=-1)
    assert [name for name in model.stages[0][0].state_dict() if "grn" in name] == ["grn.gamma", "grn.beta"]
    assert model(images(64, 64))[0].shape == (1, 32)
    convolutional = build("convnext", use_grn=True, linear_pw_conv=False)
    assert convolutional.stages[0][0].pointwise_conv1.weight.shape == (32, 8, 1, 1)
    assert convolutional(images(64, 64))[3].shape == (1, 32, 2, 2)
