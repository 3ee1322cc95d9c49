"""Parts that models are made of, in the 1.x vocabulary: plain dicts, made anew at every call."""

from __future__ import annotations

from typing import Any

from terrazzo.recipes.plan import Plan

Part = dict[str, Any]

# A network trained from random weights learns with it; recipes with pretrained backbones have their own.
IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
# Class weights of Cityscapes, by the inverse frequency of its 19 classes
CITYSCAPES_WEIGHTS = (
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023, 0.9539, 0.9843, 1.1116, 0.9037,
    1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip


def batch_norm(**options: Any) -> Part:
    return {"type": "SyncBN", "requires_grad": True} | options


def cross_entropy(weight: float = 1.0, **options: Any) -> Part:
    return {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight} | options


def ohem(**options: Any) -> Part:
    return {"type": "OHEMPixelSampler"} | options


def init(checkpoint: str, **options: Any) -> Part:
    """Weights to start from."""
    return {"type": "Pretrained", "checkpoint": checkpoint} | options


def without_none(part: Part) -> Part:
    return {key: value for key, value in part.items() if value is not None}


def head(
    plan: Plan, kind: str, in_channels: Any, in_index: Any, channels: int, weight: Any = 1.0, **options: Any
) -> Part:
    """A decode head with the usual dropout, norm and loss; an option that is None leaves its key out."""
    usual = {
        "type": kind, "in_channels": in_channels, "in_index": in_index, "channels": channels, "dropout_ratio": 0.1,
        "num_classes": plan.num_classes, "norm_cfg": batch_norm(), "align_corners": plan.align_corners,
        "loss_decode": cross_entropy(weight),
    }  # fmt: skip
    return without_none(usual | options)


def auxiliary(plan: Plan, in_channels: int, in_index: int = 2, channels: int = 256, **options: Any) -> Part:
    """The FCN head that most models carry beside their own."""
    usual = {"num_convs": 1, "concat_input": False, "weight": 0.4}
    return head(plan, "FCNHead", in_channels, in_index, channels, **(usual | options))


def fcn_head(plan: Plan, channels: int, index: int = 3, width: int = 512, **options: Any) -> Part:
    """Long et al., CVPR 2015."""
    return head(plan, "FCNHead", channels, index, width, **({"num_convs": 2, "concat_input": True} | options))


def psp_head(plan: Plan, channels: int, index: int = 3, width: int = 512, **options: Any) -> Part:
    """Zhao et al., CVPR 2017."""
    return head(plan, "PSPHead", channels, index, width, pool_scales=[1, 2, 3, 6], **options)


def aspp_head(plan: Plan, channels: int, index: int = 3, width: int = 512, **options: Any) -> Part:
    """Chen et al., arXiv 1706.05587."""
    return head(plan, "ASPPHead", channels, index, width, **({"dilations": [1, 12, 24, 36]} | options))


def separable_aspp_head(
    plan: Plan, channels: int, low: int, low_width: int = 48, width: int = 512, **options: Any
) -> Part:
    """Chen et al., ECCV 2018; `low` channels of the first stage are reduced to `low_width`."""
    options = {"dilations": [1, 12, 24, 36], "c1_in_channels": low, "c1_channels": low_width} | options
    return head(plan, "DepthwiseSeparableASPPHead", channels, 3, width, **options)


def encoding_head(plan: Plan, channels: list[int], indices: list[int]) -> Part:
    """Zhang et al., CVPR 2018."""
    options = {"num_codes": 32, "use_se_loss": True, "add_lateral": False}
    presence = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 0.2}
    return head(plan, "EncHead", channels, indices, 512, **options, loss_se_decode=presence)


def uper_head(plan: Plan, channels: list[int], width: int = 512, **options: Any) -> Part:
    """Xiao et al., ECCV 2018."""
    return head(plan, "UPerHead", channels, [0, 1, 2, 3], width, pool_scales=[1, 2, 3, 6], **options)


def fpn(channels: list[int]) -> Part:
    """The neck of Lin et al., CVPR 2017."""
    return {"type": "FPN", "in_channels": channels, "out_channels": 256, "num_outs": 4}


def fpn_head(plan: Plan, **options: Any) -> Part:
    """Kirillov et al., CVPR 2019."""
    return head(plan, "FPNHead", [256] * 4, [0, 1, 2, 3], 128, feature_strides=[4, 8, 16, 32], **options)
