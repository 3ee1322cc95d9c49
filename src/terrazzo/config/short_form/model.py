"""The recipe's model under the changes of a short form: another backbone, class weights, norms for short runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terrazzo.config.reading.merge import merge
from terrazzo.config.reading.section import DELETE_KEY, Section, convert

CHANNELS = {"in_channels", "c1_in_channels"}
# keys of a backbone that do not change the shapes of its maps
SAME_MAPS = {"frozen_stages", "norm_eval", "with_cp", "drop_path_rate", "norm_cfg", "act_cfg", "in_channels"}
# Batch norms average their statistics over about 1 / momentum steps. The official ones of Fast-SCNN, 0.01, are for
# 160,000 steps; after few, the averages still contain what they were initialised with, and every pixel is one class.
# `terrazzo train` of fastscnn on CamVid, resize 90x120, crop 64x96, batch 4, 200 iterations, seed 0: mIoU 2.9 with 0.01
# (one class), 16.6 with 0.1.
FOLLOWED = 20  # the averages of a run last at most this part of it
USUAL_MOMENTUM = 0.1


def suit_momentum(spec: Any, length: int) -> None:
    """Raise the momentum of batch norms in place, up to the usual 0.1, where it is too slow for so many steps."""
    if isinstance(spec, dict) and "momentum" in spec and str(spec.get("type", "")).endswith("BN"):
        spec["momentum"] = max(spec["momentum"], min(USUAL_MOMENTUM, FOLLOWED / length))
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, (list, tuple)) else ():
        suit_momentum(part, length)


def with_changes(model: Mapping[str, Any], changes: dict[str, Any]) -> Section:
    """Return the recipe's model with the user's keys over it; a part of another type replaces the recipe's."""
    marked = convert(changes, Section)
    if isinstance(marked.get("backbone"), str):
        marked.put("backbone", named_backbone(marked["backbone"]), marked.origin_of("backbone"))
    if isinstance(backbone := marked.get("backbone"), dict) and not backbone.keys() <= SAME_MAPS:
        model = with_open_channels(model)
    for key, value in marked.items():
        part = model.get(key)
        if isinstance(part, dict) and isinstance(value, dict) and value.get("type") not in (None, part.get("type")):
            value[DELETE_KEY] = True
    return merge(model, marked, "model")


def named_backbone(name: str) -> Section:
    """Return a backbone by the name of its type, or of a model of timm: `timm/convnext_tiny`."""
    library, _, rest = name.partition("/")
    spec = {"type": "TIMMBackbone", "model_name": rest, "features_only": True} if library == "timm" else {"type": name}
    return convert(spec, Section)


def with_open_channels(model: Mapping[str, Any]) -> Section:
    """Return a model whose neck, or else whose heads, take whatever channels its backbone has."""
    opened: Section = convert(model, Section)
    waiting: list[Any] = [
        opened.get(key) for key in (("neck",) if "neck" in model else ("decode_head", "auxiliary_head"))
    ]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, Section):
            waiting.append(part.get("kernel_generate_head"))
            for name in CHANNELS & part.keys():
                part.put(name, "auto", None)
    return opened


def set_class_weight(spec: Any, weights: str | list[float]) -> None:
    """Give every cross-entropy of a model the class weights; `auto` is computed when training starts."""
    if isinstance(spec, Section) and spec.get("type") == "STDCHead":
        return  # it learns edges, not the classes
    if isinstance(spec, Section) and spec.get("type") == "CrossEntropyLoss":
        spec.put("class_weight", weights if isinstance(weights, str) else list(weights), None)
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, (list, tuple)) else ():
        set_class_weight(part, weights)
