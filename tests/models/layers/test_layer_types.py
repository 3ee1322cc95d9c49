"""Layers by the type in their config."""

from __future__ import annotations

import pytest
from torch import nn

from terrazzo.errors import UserError
from terrazzo.models.layers import build_activation, build_conv, build_norm


@pytest.mark.parametrize(
    ("build", "kind", "sizes"),
    [(build_norm, nn.BatchNorm2d, (4,)), (build_activation, nn.GELU, ()), (build_conv, nn.Conv2d, (4, 8, 3))],
)
def test_a_type_may_be_a_name_a_scoped_name_or_the_class_itself(build, kind, sizes):
    for name in (kind.__name__, f"mmcv.{kind.__name__}", kind):
        config = {"type": name}
        made = build(config, *sizes)
        assert isinstance(made, kind) and config == {"type": name}


@pytest.mark.parametrize(("build", "sizes"), [(build_norm, (4,)), (build_activation, ()), (build_conv, (4, 8, 3))])
def test_an_unknown_type_is_named(build, sizes):
    with pytest.raises(UserError, match="is called 'Nothing'"):
        build({"type": "mmcv.Nothing"}, *sizes)
