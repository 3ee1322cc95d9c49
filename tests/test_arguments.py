"""Arguments from configs against signatures: what fits, and what a message about the rest says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from terrazzo.arguments import check_arguments, construct, fits
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.models.build import build_model


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, int, True), (3.0, int, False), (True, int, False), ("3", int, False),
        (3, float, True), (float("nan"), float, False), (0, bool, True), ("no", bool, False),
        ([1, 2], Sequence[int], True), ((1, 2), list[int], True), ("ab", Sequence[str], False),
        ([1, "x"], Sequence[int], False),
        ([1, 2], tuple[int, int], True), ([1], tuple[int, int], False), ([1], tuple[int, ...], True),
        (None, int | None, True), ({"a": 1}, dict[str, int], True), ({"a": "x"}, dict[str, int], False),
        ("mean", Literal["mean", "sum"], True), ("max", Literal["mean", "sum"], False), (object(), Any, True),
    ],
)  # fmt: skip
def test_what_fits_an_annotation(value, kind, expected):
    assert fits(value, kind) is expected


class Parent:
    def __init__(self, *, num_classes: int, ratio: float = 0.1) -> None:
        if num_classes < 0:
            raise FileNotFoundError("no file")
        self.values = 1 / num_classes, ratio


class Child(Parent):
    def __init__(self, width: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": "x"}, "here.num_classes must be a whole number, not 'x'"),
        ({"num_classes": 2, "widht": 3}, "Child at here has no argument 'widht'; did you mean 'width'?"),
        ({}, "Child at here needs the argument num_classes"),
        ({"num_classes": -1}, "Child at here cannot be built with these values (FileNotFoundError: no file)"),
        ({"num_classes": 0}, "Child at here cannot be built with these values (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_mistake_is_named_with_its_type_and_place(arguments, message):
    with pytest.raises(UserError) as error:
        construct(Child, arguments, "Child", "here")
    assert str(error.value).startswith(message)
    check_arguments(Child, {"num_classes": 2, "ratio": 1}, "Child", "here")


BASE = """
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=18, norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=512, channels=8, num_classes=3, norm_cfg=norm_cfg))
"""


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        ("backbone=dict(type='MobileNetV2')", "base.py:3", "has no argument 'depth'; 'depth' comes from"),
        ("decode_head=dict(type='APCHead', num_convs=2)", "own.py:2", "has no argument 'num_convs'"),
        ("decode_head=dict(in_channels='x')", "own.py:2", "model.decode_head.in_channels must be a whole number"),
    ],
)
def test_a_message_has_the_line_of_the_key_and_says_what_replaces_leftovers(tmp_path, changes, line, message):
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "own.py").write_text(f"_base_ = 'base.py'\nmodel = dict({changes})\n")
    with pytest.raises(UserError) as error:
        build_model(load_config(tmp_path / "own.py"))
    assert str(error.value).startswith(str(tmp_path / line)) and message in str(error.value)
    assert ("_delete_=True" in str(error.value)) is ("type" in changes and "'depth'" in message)


@pytest.mark.parametrize(("key", "reason"), [("in_channels", "weights"), ("depths", "layers")])
def test_a_model_that_cannot_be_held_ends_before_its_memory_is_used(key, reason):
    value = {"in_channels": 10**9, "depths": [3, 10**9, 2]}[key]
    backbone = {"type": "MixVisionTransformer", "num_layers": [1, 1, 1, 1]}
    if key == "depths":
        backbone["num_layers"] = [1, value[1], 1, 1]
    else:
        backbone["in_channels"] = value
    head = {"type": "SegformerHead", "in_channels": [64, 128, 320, 512], "channels": 8, "num_classes": 2}
    import torch

    with pytest.raises(UserError, match=f"model.backbone.*more than .* {reason}|cannot be built"), torch.device("meta"):
        build_model({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head})
