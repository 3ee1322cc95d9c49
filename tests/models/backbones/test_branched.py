"""Options of HRNet, DDRNet, PIDNet, STDC, ResNeXt, ResNeSt and JPU that published configs do not use; odd sizes."""

import pytest
import torch

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.registry import MODELS

torch.set_num_threads(1)


def stage(branches, block="BASIC", modules=1):
    widths = [8 * 2**branch for branch in range(branches)]
    return {
        "num_modules": modules,
        "num_branches": branches,
        "block": block,
        "num_blocks": [1] * branches,
        "num_channels": widths,
    }


HRNET = {
    "type": "HRNet",
    "extra": {"stage1": stage(1, "BOTTLENECK"), "stage2": stage(2), "stage3": stage(3), "stage4": stage(4, modules=2)},
}
DDRNET = {"type": "DDRNet", "channels": 8, "ppm_channels": 8}
PIDNET_S = {"type": "PIDNet", "channels": 8, "ppm_channels": 8}
PIDNET_L = {"type": "PIDNet", "channels": 8, "ppm_channels": 8, "num_stem_blocks": 3, "num_branch_blocks": 4}
STDC = {
    "type": "STDCNet",
    "stdc_type": "STDCNet1",
    "in_channels": 3,
    "channels": [8, 16, 32, 64, 128],
    "bottleneck_type": "cat",
    "norm_cfg": {"type": "BN"},
    "act_cfg": {"type": "ReLU"},
}
CONTEXT = {
    "type": "STDCContextPathNet",
    "backbone_cfg": STDC,
    "last_in_channels": [128, 64],
    "out_channels": 16,
    "ffm_cfg": {"in_channels": 48, "out_channels": 32},
}
RESNEXT = {"type": "ResNeXt", "depth": 50, "groups": 4, "base_width": 8, "base_channels": 16}
RESNEST = {"type": "ResNeSt", "depth": 50, "base_channels": 16, "stem_channels": 16}

# backbone -> channels and strides of its maps
OUTPUTS = {
    "HRNet": (HRNET, [8, 16, 32, 64], [4, 8, 16, 32]),
    "HRNet, finest": (HRNET | {"multiscale_output": False}, [8], [4]),
    "DDRNet": (DDRNET, [16, 32], [8, 8]),
    "PIDNet-S": (PIDNET_S, [16, 16, 32], [8, 8, 8]),
    "PIDNet-L": (PIDNET_L, [16, 16, 32], [8, 8, 8]),
    "STDC": (STDC, [32, 64, 128], [8, 16, 32]),
    "STDC, add": (STDC | {"bottleneck_type": "add"}, [32, 64, 128], [8, 16, 32]),
    "STDC, final": (STDC | {"with_final_conv": True}, [32, 64, 1024], [8, 16, 32]),
    "STDC2, 3 convs": (STDC | {"stdc_type": "STDCNet2", "num_convs": 3}, [32, 64, 128], [8, 16, 32]),
    "STDC, context": (CONTEXT, [32, 16, 16, 32], [8, 16, 8, 8]),
    "ResNeXt": (RESNEXT, [64, 128, 256, 512], [4, 8, 16, 32]),
    "ResNeSt": (RESNEST, [64, 128, 256, 512], [4, 8, 16, 32]),
    "ResNeSt, groups": (RESNEST | {"groups": 2, "base_width": 40}, [64, 128, 256, 512], [4, 8, 16, 32]),
    "ResNeSt, radix 1": (RESNEST | {"radix": 1, "avg_down_stride": False}, [64, 128, 256, 512], [4, 8, 16, 32]),
}


@pytest.mark.parametrize("size", [(64, 96), (97, 131), (20, 33)], ids=str)
@pytest.mark.parametrize("name", OUTPUTS)
def test_maps_have_their_width_and_stride_at_any_size(name, size):
    spec, channels, strides = OUTPUTS[name]
    with torch.no_grad():
        maps = MODELS.build(spec).eval()(torch.randn(1, 3, *size))
    expected = [
        (1, width, *(-(-length // stride) for length in size)) for width, stride in zip(channels, strides, strict=True)
    ]
    assert [tuple(x.shape) for x in maps] == expected
    assert all(torch.isfinite(x).all() for x in maps)


@pytest.mark.parametrize("spec", [HRNET, RESNEXT, RESNEST], ids=lambda spec: spec["type"])
def test_recomputed_activations_give_the_same_gradients(spec):
    torch.manual_seed(0)
    plain = MODELS.build(spec)
    thrifty = MODELS.build(spec | {"with_cp": True})
    thrifty.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for model in (plain.eval(), thrifty.eval()):
        sum(x.square().mean() for x in model(images)).backward()
        gradients.append(model.layer1[0].conv1.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("stages", "frozen"),
    [
        (-1, set()),
        (0, {"conv1", "bn1", "conv2", "bn2"}),
        (2, {"conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "stage2", "transition2"}),
    ],
)
def test_hrnet_freezes_its_first_stages(stages, frozen):
    model = MODELS.build(HRNET | {"frozen_stages": stages}).train()
    still = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    in_eval = {name.split(".")[0] for name, m in model.named_modules() if name and not m.training}
    assert still == frozen
    assert in_eval == frozen


def test_hrnet_keeps_statistics_with_norm_eval():
    model = MODELS.build(HRNET | {"norm_eval": True}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hrnet_says_what_does_not_fit():
    with pytest.raises(UserError, match="stage3"):
        MODELS.build(HRNET | {"extra": {key: HRNET["extra"][key] for key in ("stage1", "stage2")}})
    with pytest.raises(UserError, match=r"stage2\.block.*'BASIC'"):
        MODELS.build(HRNET | {"extra": HRNET["extra"] | {"stage2": stage(2, "BASICS")}})
    with pytest.raises(UserError, match=r"stage2\.num_blocks has 1 entries for num_branches=2"):
        MODELS.build(HRNET | {"extra": HRNET["extra"] | {"stage2": stage(2) | {"num_blocks": [4]}}})


# parameters of the published ImageNet models, less the classifier's 2049000
@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ({"type": "ResNeXt", "depth": 50, "groups": 32, "base_width": 4}, 25028904),
        ({"type": "ResNeXt", "depth": 101, "groups": 32, "base_width": 8}, 88791336),
        ({"type": "ResNeSt", "depth": 50}, 27483240),
        ({"type": "ResNeSt", "depth": 101, "stem_channels": 128}, 48275016),
    ],
    ids=str,
)
def test_grouped_resnets_have_the_published_number_of_parameters(spec, count):
    with torch.device("meta"):
        model = MODELS.build(spec)
    assert sum(p.numel() for p in model.parameters()) + 2049000 == count


def pidnet(**head):
    losses = [{"type": kind} for kind in ("CrossEntropyLoss", "OhemCrossEntropy", "BoundaryLoss", "OhemCrossEntropy")]
    head = {"type": "PIDHead", "in_channels": 32, "channels": 16, "num_classes": 4, "loss_decode": losses} | head
    return {"type": "EncoderDecoder", "backbone": PIDNET_S, "decode_head": head}


def test_pidnet_learns_from_labels_and_edges():
    model = tz.build_model(pidnet())
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 4, (2, 64, 64))
    labels[:, :8] = 255
    losses = model.loss(images, labels, edge=(labels == 1).long())
    assert set(losses) == {
        f"decode.{name}" for name in ("loss_sem_p", "loss_sem_i", "loss_bd", "loss_sem_bd", "acc_seg")
    }
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with pytest.raises(UserError, match="edge="):
        model.loss(images, labels)


@pytest.mark.parametrize(("kind", "count"), [("PIDHead", 4), ("DDRHead", 2)])
def test_heads_of_branches_need_a_loss_for_each(kind, count):
    with pytest.raises(UserError, match=f"list of {'four' if count == 4 else 'two'} losses"):
        tz.build_model(pidnet(type=kind, loss_decode={"type": "CrossEntropyLoss"}))


def test_detail_labels_are_where_classes_change():
    head = MODELS.build(
        {"type": "STDCHead", "in_channels": 8, "channels": 8, "num_classes": 2, "num_convs": 1, "concat_input": False}
    )
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, :, 8:] = 3
    detail = head.detail(labels)
    assert detail.shape == labels.shape
    assert detail[:, :, 8].all()  # the first column of class 3
    assert not detail[:, 4:12, :4].any()
    assert not detail[:, 4:12, 12:15].any()


def test_jpu_brings_all_maps_to_the_finest():
    neck = MODELS.build({"type": "JPU", "in_channels": [8, 16, 32], "mid_channels": 4, "dilations": [1, 2]})
    maps = [torch.randn(2, 8, 13, 17), torch.randn(2, 16, 7, 9), torch.randn(2, 32, 4, 5)]
    outputs = neck(maps)
    assert outputs[0] is maps[0]
    assert outputs[1] is maps[1]
    assert outputs[2].shape == (2, 8, 13, 17)
