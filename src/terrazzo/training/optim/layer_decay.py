"""Learning rates that decrease from the head to the first layers (layer-wise decay; Clark et al., ELECTRA, 2020)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from terrazzo.errors import UserError, nearest

KEYS = ("num_layers", "decay_rate", "layer_decay_rate", "decay_type")
TYPES = ("layer_wise", "stage_wise")


def decayed_groups(model: nn.Module, options: dict[str, Any], paramwise: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One group per depth, with and without weight decay; one-dimensional weights have none.

    `paramwise` has `num_layers`, `decay_rate` and `decay_type` ("layer_wise", "stage_wise"). Raises UserError.
    """
    for key in paramwise:
        if key not in KEYS:
            raise UserError(f"paramwise_cfg has no key '{key}' with this constructor{nearest(key, KEYS)}")
    rate = paramwise.get("decay_rate", paramwise.get("layer_decay_rate"))
    kind = paramwise.get("decay_type", "layer_wise")
    if rate is None or "num_layers" not in paramwise:
        raise UserError("paramwise_cfg needs num_layers and decay_rate with this constructor")
    if kind not in TYPES:
        raise UserError(f"paramwise_cfg.decay_type: none is called '{kind}'{nearest(str(kind), TYPES)}")
    last = int(paramwise["num_layers"]) + 1
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(".bias")
            members.setdefault((depth(name, last, kind == "stage_wise"), decays), []).append(parameter)
    for (layer, decays), parameters in members.items():
        group: dict[str, Any] = {"params": parameters, "lr": options["lr"] * rate ** (last - layer)}
        if not decays:
            group["weight_decay"] = 0.0
        yield group


def depth(name: str, last: int, by_stage: bool) -> int:
    """A weight's distance from the input: 0 for what reads the image, `last` for the head."""
    if not name.startswith("backbone."):
        return last
    inner = name.removeprefix("backbone.")
    if inner.startswith(("cls_token", "mask_token", "pos_embed", "patch_embed", "rel_pos_bias")):
        return 0
    if found := re.match(r"layers\.(\d+)\.", inner):
        return int(found[1]) + 1
    if found := re.match(r"downsample_layers\.(\d+)\.", inner):
        stage = int(found[1])
        return 0 if by_stage or stage == 0 else last - 1 if stage == 3 else stage + 1
    if found := re.match(r"stages\.(\d+)\.(\d+)\.", inner):
        stage, block = int(found[1]), int(found[2])
        if by_stage or stage < 2:
            return stage + 1
        return 3 + block // 3 if stage == 2 else last - 1
    return last
