"""Real-time backbones: what the golden models do not show."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from terrazzo.errors import UserError
from terrazzo.models.heads.lraspp import WindowPool
from terrazzo.registry import MODELS

RESNET = {"type": "ResNet", "depth": 18}
RESNETV1C = {"type": "ResNetV1c", "depth": 18, "strides": [1, 2, 1, 1], "dilations": [1, 1, 2, 4]}

# spec, the strides of its maps
BACKBONES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "FastSCNN": ({}, (8, 32, 8)),
    "BiSeNetV2": ({}, (8, 4, 8, 16, 32)),
    "BiSeNetV1": ({"backbone_cfg": RESNET}, (8, 8, 16)),
    "CGNet": ({"num_blocks": [2, 3]}, (2, 4, 8)),
    "ERFNet": ({}, (2,)),
    "MobileNetV3": ({"arch": "large", "out_indices": [0, 2, 4, 16]}, (2, 4, 8, 8)),
    "ICNet": ({"backbone_cfg": RESNETV1C, "layer_channels": [128, 512]}, (8, 16, 32)),
}


def build(name: str, **options: Any) -> nn.Module:
    return MODELS.build({"type": name, **BACKBONES[name][0], **options})


@pytest.mark.parametrize("size", [(97, 131), (15, 22)])
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_any_input_size(name: str, size: tuple[int, int]) -> None:
    maps = build(name).eval()(torch.randn(1, 3, *size))
    for x, stride in zip(maps, BACKBONES[name][1], strict=True):
        for length, whole in zip(x.shape[2:], size, strict=True):
            assert whole // stride <= length <= math.ceil(whole / 32) * 32 // stride


@pytest.mark.parametrize("name", ["FastSCNN", "BiSeNetV2", "BiSeNetV1"])
def test_out_indices_choose_the_maps(name: str) -> None:
    images = torch.randn(1, 3, 64, 64)
    model = build(name).eval()
    chosen = build(name, out_indices=[1]).eval()
    chosen.load_state_dict(model.state_dict())
    with torch.no_grad():
        (only,) = chosen(images)
        torch.testing.assert_close(only, model(images)[1])


@pytest.mark.parametrize("name", ["CGNet", "MobileNetV3"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    plain = build(name)
    saving = build(name, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        sum(x.square().mean() for x in model(images)).backward()
    for (key, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=key)


@pytest.mark.parametrize("name", ["CGNet", "MobileNetV3"])
def test_norm_eval_keeps_running_statistics(name: str) -> None:
    model = build(name, norm_eval=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_mobilenet_v3_freezes_its_first_layers() -> None:
    model = build("MobileNetV3", frozen_stages=2).train()
    frozen = {key.split(".")[0] for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"layer0", "layer1", "layer2"}
    assert not any(module.training for module in model.layer2.modules())


def test_mobilenet_v3_narrows_its_last_blocks() -> None:
    model = build("MobileNetV3", arch="small", reduction_factor=2)
    assert model.layer8.linear_conv.conv.out_channels == 48
    assert model.layer9.linear_conv.conv.out_channels == 48  # of 96


def test_cgnet_takes_other_activations() -> None:
    model = build("CGNet", act_cfg={"type": "LeakyReLU"})
    assert "norm_prelu_0.1.weight" not in model.state_dict()


def test_lraspp_pools_what_is_smaller_than_its_window() -> None:
    head = MODELS.build(
        {
            "type": "LRASPPHead",
            "in_channels": [16, 16, 576],
            "in_index": [0, 1, 2],
            "input_transform": "multiple_select",
            "channels": 32,
            "num_classes": 5,
        }
    )
    maps = [torch.randn(1, channels, size, size) for channels, size in ((16, 8), (16, 4), (576, 2))]
    assert head.eval()(maps).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("size", [(8, 12), (49, 49), (65, 130)])
def test_windows_of_lraspp_average_as_torch_pools(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    windows = [min(49, length) for length in size]
    torch.testing.assert_close(WindowPool(49, (16, 20))(x), nn.functional.avg_pool2d(x, windows, (16, 20)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MobileNetV3", {"arch": "tiny"}, "'tiny' is unknown: use small or large"),
        ("FastSCNN", {"higher_in_channels": 32}, "must be equal, not 64 and 32"),
        ("ICNet", {"backbone_cfg": RESNET}, "deep stem, such as ResNetV1c"),
    ],
)
def test_misfits_are_explained(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name, **options)
