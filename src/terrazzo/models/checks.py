"""Contradictions within a model's config that would only show once it computes a loss or a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from terrazzo.errors import UserError
from terrazzo.models.heads.base import LogitsHead
from terrazzo.models.heads.stdc import STDCHead
from terrazzo.models.losses.base import NO_LABEL, SegmentationLoss
from terrazzo.models.preprocess import Preprocess
from terrazzo.system.arithmetic import as_pair

BY_CLASS = ("class_weight", "alpha")  # numbers of a loss, one for each channel of logits
MODES = ("whole", "slide", "slide_flip")
BLENDINGS = ("uniform", "gaussian")


def check_model(model: nn.Module) -> None:
    """Raise UserError, with the key, where the heads of a model, their losses and its padding contradict each other."""
    final = getattr(model, "final_head", None)
    preprocess = getattr(model, "preprocess", None)
    heads = (final, getattr(model, "decode_head", None))
    if not all(type(head).__module__.startswith(("terrazzo.", "torch.", "builtins")) for head in heads):
        final = None  # a user's head may divide the labels in its own way
    for name, head in model.named_modules():
        if isinstance(head, _ConvNd) and min(head.kernel_size) < 1:
            raise UserError(f"model.{name}: a convolution with a kernel of {head.kernel_size} pixels computes nothing")
        if not isinstance(head, LogitsHead):
            continue
        where = f"model.{name}"
        check_losses(head, where)
        if isinstance(preprocess, Preprocess):
            check_padding(head, preprocess, where)
        if final is not None and head.num_classes != final.num_classes and not isinstance(head, STDCHead):
            raise UserError(
                f"{where}.num_classes is {head.num_classes}, but the model has {final.num_classes} classes: all heads "
                "learn from the same labels"
            )


def check_losses(head: LogitsHead, where: str) -> None:
    """Raise UserError for a loss that cannot be computed from the channels of a head's logits."""
    for index, loss in enumerate(head.criteria):
        key = f"{where}.loss_decode" + (f".{index}" if isinstance(head.loss_decode, nn.ModuleList) else "")
        if not isinstance(loss, SegmentationLoss):
            continue
        # one class is refused with the data, which says what there is to tell it from
        if head.num_classes > 1 and (problem := loss.contradiction(head.out_channels)):
            raise UserError(f"{key}: {type(loss).__name__} {problem}")
        for name in BY_CLASS:
            values = getattr(loss, name, None)
            if isinstance(values, (list, tuple)) and len(values) != head.out_channels:
                raise UserError(
                    f"{key}.{name} has {len(values)} numbers, but the head has {head.out_channels} output channels: "
                    "give one for each"
                )


def check_padding(head: LogitsHead, preprocess: Preprocess, where: str) -> None:
    """Raise UserError where the labels of padding are neither ignored nor those of a class."""
    value = preprocess.seg_pad_val
    if value not in (NO_LABEL, head.ignore_index, *range(head.num_classes)):
        raise UserError(
            f"model.data_preprocessor.seg_pad_val is {value}, which is neither a class nor ignored: set it to "
            f"{NO_LABEL}, or to {where}.ignore_index={head.ignore_index}"
        )


def checked_test_cfg(test_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    """The mode of inference on an image: `test_cfg` with its sizes as pairs (height, width).

    Raises UserError for an unknown mode, and for windows that leave a part of the image out.
    """
    settings = dict(test_cfg or {})
    mode = settings.setdefault("mode", "whole")
    if mode not in MODES:
        raise UserError(f"model.test_cfg.mode: '{mode}' is neither 'whole' nor 'slide' nor 'slide_flip'")
    if mode == "whole":
        return settings
    for key in ("crop_size", "stride"):
        pair = as_pair(settings.get(key), f"model.test_cfg.{key} (height and width, for mode '{mode}')")
        if not all(isinstance(side, int) and side > 0 for side in pair):
            raise UserError(f"model.test_cfg.{key} must be whole numbers of pixels above 0, not {settings[key]!r}")
        settings[key] = pair
    if any(step > side for step, side in zip(settings["stride"], settings["crop_size"], strict=True)):
        raise UserError(
            f"model.test_cfg.stride={settings['stride']} is larger than crop_size={settings['crop_size']}: pixels "
            "between the windows would get no prediction"
        )
    if settings.get("blending", BLENDINGS[0]) not in BLENDINGS:
        raise UserError(f"model.test_cfg.blending: '{settings['blending']}' is neither 'uniform' nor 'gaussian'")
    return settings
