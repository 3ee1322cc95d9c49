"""The networks that a plan chooses from, the better ones first, each in several widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Section = dict[str, Any]


def pyramid(width: int) -> Section:
    """ResNet-18 with a feature pyramid (He et al., CVPR 2016; Kirillov et al., CVPR 2019)."""
    inner = 2 * width
    return {
        "backbone": {"depth": 18, "stem_channels": width, "base_channels": width},
        "neck": {"in_channels": [width, 2 * width, 4 * width, 8 * width], "out_channels": inner},
        "decode_head": {"in_channels": [inner] * 4, "channels": inner},
    }


def unet(width: int) -> Section:
    """UNet (Ronneberger et al., MICCAI 2015) whose first stage keeps the image's resolution."""
    return {
        "backbone": {"base_channels": width},
        "decode_head": {"in_channels": width, "channels": width},
        "auxiliary_head": {"in_channels": 2 * width, "channels": width},
    }


@dataclass(frozen=True)
class Network:
    """A kind of network: its recipe, the changes of its model for a width, and the widths, the widest first."""

    name: str
    recipe: str
    stride: int  # of its finest map
    model: Callable[[int], Section]
    widths: tuple[int, ...]
    pretrained: str = ""  # published weights for the widest one


PYRAMID = Network("ResNet-18 with a feature pyramid", "sem_fpn", 4, pyramid, (64, 32, 16), "resnet18_v1c")
UNET = Network("UNet", "unet", 1, unet, (32, 16, 8))
