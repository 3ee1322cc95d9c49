"""Deformable convolution, and the layers that a config puts into ResNet's bottlenecks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers import ConvBlock, build_conv
from terrazzo.registry import MODELS

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2, "groups": 2},
    {"kernel_size": (1, 3), "padding": (0, 1), "deform_groups": 2},
    {"kernel_size": 3, "padding": 0, "groups": 4, "deform_groups": 4, "bias": True},
]


def deformable(kind: str, **options: Any) -> nn.Module:
    """4 -> 8 channels in double precision, with offsets of a few pixels."""
    torch.manual_seed(0)
    conv = build_conv({"type": kind}, 4, 8, **({"bias": False} | options)).double()
    nn.init.normal_(conv.conv_offset.weight, std=0.5)
    nn.init.normal_(conv.conv_offset.bias)
    return conv


def bilinear(plane: Tensor, y: float, x: float) -> Tensor:
    """The value of (C, H, W) between pixels; zero outside."""
    value = plane.new_zeros(len(plane))
    top, left = int(torch.tensor(y).floor()), int(torch.tensor(x).floor())
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < plane.shape[1] and 0 <= column < plane.shape[2]:
            value += plane[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def by_definition(conv: nn.Module, x: Tensor) -> Tensor:
    """The papers' sum over taps, position by position."""
    predicted = conv.conv_offset(x)
    groups, (tall, wide) = conv.deform_groups, conv.kernel_size
    pairs = predicted[:, : 2 * groups * tall * wide].unflatten(1, (groups, tall, wide, 2))
    masks = predicted[:, 2 * groups * tall * wide :].sigmoid()
    masks = masks.unflatten(1, (groups, tall, wide)) if masks.numel() else torch.ones_like(pairs[:, :, :, :, 0])
    output = x.new_zeros(len(x), conv.out_channels, *predicted.shape[2:])
    weight = conv.weight.unflatten(0, (conv.groups, -1))  # groups, out / groups, in / groups, tall, wide
    for n, u, v in torch.cartesian_prod(*(torch.arange(k) for k in (len(x), *predicted.shape[2:]))).tolist():
        for i, j in torch.cartesian_prod(torch.arange(tall), torch.arange(wide)).tolist():
            taps = []
            for group, part in enumerate(x[n].chunk(groups)):
                dy, dx = pairs[n, group, i, j, :, u, v].tolist()
                y = u * conv.stride[0] - conv.padding[0] + i * conv.dilation[0] + dy
                z = v * conv.stride[1] - conv.padding[1] + j * conv.dilation[1] + dx
                taps.append(bilinear(part, y, z) * masks[n, group, i, j, u, v])
            values = torch.cat(taps).unflatten(0, (conv.groups, -1))
            output[n, :, u, v] += torch.einsum("goc,gc->go", weight[..., i, j], values).flatten()
    return output if conv.bias is None else output + conv.bias.view(-1, 1, 1)


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("kind", ["DCN", "DCNv2"])
@torch.no_grad()
def test_equals_its_definition(kind: str, options: dict[str, Any]) -> None:
    conv = deformable(kind, **options)
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(conv(x), by_definition(conv, x))


@pytest.mark.parametrize("kind", ["DCN", "DCNv2"])
def test_gradients(kind: str) -> None:
    conv = deformable(kind, kernel_size=3, padding=1)
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    parameters = list(conv.parameters())
    assert torch.autograd.gradcheck(lambda *_: conv(x), (x, *parameters), fast_mode=True)


@pytest.mark.parametrize(("kind", "scale"), [("DCN", 1.0), ("DCNv2", 0.5)])
@torch.no_grad()
def test_starts_as_a_plain_convolution(kind: str, scale: float) -> None:
    block = ConvBlock(6, 8, 3, stride=2, padding=1, conv_cfg={"type": kind, "deform_groups": 2}, act_cfg=None)
    plain = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    plain.weight.copy_(scale * block.conv.weight)
    plain.bias.copy_(block.conv.bias)
    x = torch.randn(2, 6, 17, 33)
    torch.testing.assert_close(block(x), plain(x), atol=1e-5, rtol=1e-4)


def test_exports_and_runs_in_half_precision() -> None:
    conv = build_conv({"type": "DCNv2"}, 4, 8, 3, padding=1).eval()
    x = torch.randn(1, 4, 12, 16)
    exported = torch.export.export(conv, (x,)).module()
    torch.testing.assert_close(exported(x), conv(x))
    assert conv.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def resnet(**options: Any) -> nn.Module:
    return MODELS.build({"type": "ResNet", "depth": 50, "base_channels": 8, "stem_channels": 8, **options})


@torch.no_grad()
def test_resnet_with_deformable_stages() -> None:
    model = resnet(
        dcn={"type": "DCNv2", "deform_groups": 1, "fallback_on_stride": False},
        stage_with_dcn=[False, False, True, True],
    )
    names = {name.rpartition(".conv_offset")[0] for name in model.state_dict() if "conv_offset" in name}
    assert names == {f"layer3.{index}.conv2" for index in range(6)} | {f"layer4.{index}.conv2" for index in range(3)}
    assert [x.shape[1] for x in model.eval()(torch.randn(1, 3, 33, 47))] == [32, 64, 128, 256]


def test_strided_convolutions_may_stay_plain() -> None:
    model = resnet(dcn={"type": "DCN", "fallback_on_stride": True}, stage_with_dcn=(False, True, True, True))
    assert not hasattr(model.layer2[0].conv2, "conv_offset")
    assert hasattr(model.layer2[1].conv2, "conv_offset")


@torch.no_grad()
def test_resnet_with_plugins() -> None:
    context = {"type": "ContextBlock", "ratio": 1 / 4}
    plugins = [
        {"cfg": context, "stages": [False, True, True, True], "position": "after_conv3"},
        {"cfg": context | {"postfix": "_2"}, "position": "after_conv1"},
        {"cfg": {"type": "NonLocal2d"}, "stages": (False, False, False, True), "position": "after_conv2"},
    ]
    model = resnet(plugins=plugins).eval()
    assert model.layer1[0].context_block_2.conv_mask.in_channels == 8
    assert model.layer2[0].context_block.conv_mask.in_channels == 64
    assert not hasattr(model.layer1[0], "context_block")
    assert [hasattr(getattr(model, f"layer{n}")[0], "nonlocal_block") for n in (1, 2, 3, 4)] == [False] * 3 + [True]
    plain = resnet().eval()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "_block" not in key})
    x = torch.randn(1, 3, 33, 47)
    torch.testing.assert_close(model(x)[-1], plain(x)[-1])  # these blocks start as the identity
    nn.init.ones_(model.layer2[0].context_block.channel_add_conv[3].bias)
    assert not torch.allclose(model(x)[-1], plain(x)[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18, "dcn": {"type": "DCN"}, "stage_with_dcn": (True,) * 4}, "not into BasicBlock"),
        ({"dcn": {"type": "DCNv5"}, "stage_with_dcn": (True,) * 4}, "did you mean 'DCNv2'"),
        ({"dcn": {"type": "DCN", "deform_groups": 3}, "stage_with_dcn": (True,) * 4}, "does not divide the 8"),
        ({"plugins": [{"cfg": {"type": "ContextBlock", "ratio": 1}, "position": "after_conv4"}]}, "not 'after_conv4'"),
        ({"plugins": [{"cfg": {"type": "Context"}, "position": "after_conv1"}]}, "did you mean 'ContextBlock'"),
        ({"plugins": [{"cfg": {"type": "ContextBlock"}, "position": "after_conv1"}]}, "needs the argument ratio"),
        (
            {"plugins": [{"cfg": {"type": "NonLocal2d"}, "position": "after_conv1", "stages": [True]}]},
            "each of the 4 stages",
        ),
    ],
)
def test_misfits_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resnet(**options)


@pytest.mark.parametrize("kind", ["DCN", "DCNv2"])
def test_an_exported_graph_takes_any_number_of_maps_of_any_size(kind: str) -> None:
    conv, open_axis = deformable(kind, kernel_size=3, padding=1), torch.export.Dim.DYNAMIC
    with torch.no_grad():
        shapes = ({0: open_axis, 2: open_axis, 3: open_axis},)
        program = torch.export.export(conv, (torch.rand(2, 4, 7, 9).double(),), dynamic_shapes=shapes).module()
    x = torch.rand(3, 4, 5, 6).double()
    torch.testing.assert_close(program(x), conv(x))
