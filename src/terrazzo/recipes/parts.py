"""Parts of models and of their training, in the 1.x vocabulary: plain dicts, new at every call."""

from __future__ import annotations

from functools import partial
from typing import Any

Spec = dict[str, Any]

# Mean and standard deviation of ImageNet's colours
IMAGENET: Spec = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
# Class weights of Cityscapes, by the inverse frequency of its 19 classes
CITYSCAPES_WEIGHTS = (0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023, 0.9539, 0.9843,
    1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507)  # fmt: skip


def part(kind: str, **options: Any) -> Spec:
    return {"type": kind, **options}


batch_norm = partial(part, "SyncBN", requires_grad=True)
ohem = partial(part, "OHEMPixelSampler")


def preprocessor(crop: list[int]) -> Spec:
    return part("SegDataPreProcessor", **IMAGENET, pad_val=0, seg_pad_val=255, size=crop)


def cross_entropy(weight: float = 1.0, **options: Any) -> Spec:
    return {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight} | options


def init(checkpoint: str, **options: Any) -> Spec:
    """Weights to start from."""
    return part("Pretrained", checkpoint=checkpoint, **options)


def fpn(channels: list[int]) -> Spec:
    """The neck of Lin et al., CVPR 2017."""
    return part("FPN", in_channels=channels, out_channels=256, num_outs=4)


def wrapper(optimizer: Spec, kind: str = "OptimWrapper", **options: Any) -> Spec:
    return part(kind, optimizer=optimizer, **options)


mixed = partial(wrapper, kind="AmpOptimWrapper")  # mixed precision


def sgd(rate: float = 0.01, decay: float = 0.0005) -> Spec:
    return part("SGD", lr=rate, momentum=0.9, weight_decay=decay)


def adamw(rate: float, decay: float) -> Spec:
    return part("AdamW", lr=rate, betas=[0.9, 0.999], weight_decay=decay)


def clip(norm: float) -> Spec:
    return {"clip_grad": {"max_norm": norm, "norm_type": 2}}


def keys(**settings: Spec) -> Spec:
    """Learning rates and decays of parameters by parts of their names."""
    return {"paramwise_cfg": {"custom_keys": settings}}


def no_decay(*names: str) -> Spec:
    return keys(**{name: {"decay_mult": 0.0} for name in names})
