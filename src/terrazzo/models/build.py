"""Models from the `model` section of a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from terrazzo.arguments import check_arguments
from terrazzo.config.custom_imports import check_custom
from terrazzo.config.ignored import drop_ignored
from terrazzo.errors import UserError
from terrazzo.models.preprocess import Preprocess
from terrazzo.registry import MODELS, SCOPE_KEY


def build_model(config: Any, vocabulary: str | None = None) -> nn.Module:
    """Build a model with random weights from a Config or a model dict; `vocabulary="0.x"` upgrades a bare 0.x dict.

    `pretrained`, `init_cfg` and arguments without an effect are dropped. Raises UserError for an unknown type or
    argument.
    """
    spec = config.to_dict() if hasattr(config, "to_dict") else copy.deepcopy(dict(config))
    check_custom(config)
    preprocessor = spec.get("data_preprocessor") if "model" in spec else None
    spec = spec.get("model", spec)
    if vocabulary == "0.x":
        from terrazzo.config.v0.upgrade import upgrade_model

        spec = upgrade_model(spec)
    if not isinstance(spec, dict) or "type" not in spec:
        raise UserError("the config has no model: it needs a section `model` with a `type`, such as EncoderDecoder")
    spec["data_preprocessor"] = spec.get("data_preprocessor") or preprocessor or {}
    spec = drop_ignored({"model": spec})["model"]
    return MODELS.build(spec | {"data_preprocessor": build_preprocess(spec["data_preprocessor"])}, "model")


def input_channels(model: Mapping[str, Any]) -> int:
    """Channels of the images that a model reads, according to its config: 3 unless its backbone specifies them."""
    backbone = model.get("backbone")
    return backbone.get("in_channels", 3) if isinstance(backbone, Mapping) else 3


def build_preprocess(spec: dict[str, Any]) -> Preprocess:
    """The normalisation that `data_preprocessor` specifies; without one, images stay unchanged, in RGB order."""
    if not spec:
        return Preprocess()
    options = {"bgr_to_rgb": False} | {key: value for key, value in spec.items() if key not in ("type", SCOPE_KEY)}
    check_arguments(Preprocess, options, "SegDataPreProcessor", "data_preprocessor")
    return Preprocess(**options)
