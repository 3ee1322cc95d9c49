"""A recipe under composition: the words of its name, then the choices of its family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from terrazzo.recipes.backbones import Backbone
from terrazzo.recipes.datasets import Data
from terrazzo.recipes.parts import Spec, batch_norm, clip, cross_entropy, mixed, part, sgd, wrapper
from terrazzo.recipes.words import Words


@dataclass
class Plan:
    """Everything about a recipe that a family may set, with the usual values as a start."""

    words: Words
    data: Data
    model: Spec = field(default_factory=dict)
    preprocessor: Spec = field(default_factory=dict)
    optimizer: Spec = field(default_factory=dict)  # the whole wrapper
    schedule: list[Spec] = field(default_factory=list)
    train_pipeline: list[Spec] = field(default_factory=list)
    test_pipeline: list[Spec] = field(default_factory=list)
    repeat: int = 0  # times that the training data are repeated
    batch: int = 4
    workers: int = 4
    iterations: int = 80000
    interval: int | None = None  # between validations and between checkpoints; by default a tenth of the run
    loop: Spec = field(default_factory=dict)  # more of `train_cfg`
    checkpoint: Spec = field(default_factory=dict)  # more of the checkpoint hook
    settings: Spec = field(default_factory=dict)  # more top-level sections; None omits a section

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    @property
    def crop(self) -> list[int]:
        return list(self.words.crop)

    def use_few_workers(self) -> None:
        """Two workers a device where it trains on two images."""
        self.workers = 2 if self.batch == 2 else 4

    @property
    def odd(self) -> bool:
        """A crop of 769 = 8 x 96 + 1: its corners stay aligned through strides of 8."""
        return self.crop[0] % 2 == 1

    def slide(self, crop: list[int] | None = None, stride: list[int] | None = None) -> Spec:
        """Testing window by window: of the crop's size, moved by two thirds of it."""
        crop = crop or self.crop
        return {"mode": "slide", "crop_size": crop, "stride": stride or [s * 2 // 3 + s % 2 for s in crop]}

    @property
    def test_cfg(self) -> Spec:
        return self.slide() if self.odd or self.data.slide else {"mode": "whole"}

    def usual_optimizer(self) -> Spec:
        """SGD, in mixed precision for the option `amp`; AdamW for the option `adamw`."""
        if "adamw" in self.words.options:
            return wrapper({"type": "AdamW", "lr": 0.0005, "weight_decay": 0.05}, **clip(1))
        optimizer = sgd(0.004, 0.0001) if self.data.gentle else sgd()
        return self.plain(optimizer)

    def plain(self, optimizer: Spec) -> Spec:
        """An optimizer as it is, or in mixed precision for the option `amp`."""
        if "amp" in self.words.options:
            return mixed(optimizer, loss_scale=512.0)
        return wrapper(optimizer, clip_grad=None)

    def poly(self, eta_min: float = 1e-4, power: float = 0.9, warmup: int = 0, start: float = 0.1) -> list[Spec]:
        """A polynomial down to `eta_min`, after a linear warm-up from `start` times the rate."""
        step = {"by_epoch": False}
        first = [{"type": "LinearLR", "start_factor": start, "begin": 0, "end": warmup, **step}] if warmup else []
        decay = {"type": "PolyLR", "eta_min": eta_min, "power": power, "begin": warmup, "end": self.iterations, **step}
        return [*first, decay]

    def transformer_schedule(self, warmup: int = 1500) -> list[Spec]:
        """Linear up from nearly nothing, then linear down to nothing."""
        return self.poly(0.0, 1.0, warmup, 1e-6)

    def steps(self) -> list[Spec]:
        """Ten times slower after three quarters and nine tenths of the run."""
        milestones = [self.iterations * part // 20 for part in (15, 18)]
        return [
            {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": 1000, "by_epoch": False},
            {"type": "MultiStepLR", "begin": 1000, "end": self.iterations, "milestones": milestones, "by_epoch": False},
        ]

    def segmentor(self, body: Backbone, decode: Any, aside: Any = None, neck: Spec | None = None, **more: Any) -> None:
        """Build the plan's model from its parts."""
        parts = {"backbone": body.spec, "neck": neck, "decode_head": decode, "auxiliary_head": aside}
        present = {name: part for name, part in parts.items() if part is not None}
        ends = {"train_cfg": {}, "test_cfg": self.test_cfg}
        self.model = {"type": "EncoderDecoder", **body.model, **present, **ends} | more

    def head(self, kind: str, in_channels: Any, in_index: Any, channels: int, weight: Any = 1.0, **more: Any) -> Spec:
        """A decode head with the usual dropout, norm and loss; an option of None omits its key."""
        usual = part(kind, in_channels=in_channels, in_index=in_index, channels=channels, dropout_ratio=0.1,
            num_classes=self.num_classes, norm_cfg=batch_norm(), align_corners=self.odd,
            loss_decode=cross_entropy(weight))  # fmt: skip
        return {key: value for key, value in (usual | more).items() if value is not None}

    def auxiliary(self, in_channels: int, in_index: int = 2, channels: int = 256, **options: Any) -> Spec:
        """The FCN head that most models carry beside their own."""
        usual = {"num_convs": 1, "concat_input": False, "weight": 0.4}
        return self.head("FCNHead", in_channels, in_index, channels, **(usual | options))

    def fcn_head(self, channels: int, index: int = 3, width: int = 512, **options: Any) -> Spec:
        """Long et al., CVPR 2015."""
        return self.head("FCNHead", channels, index, width, **({"num_convs": 2, "concat_input": True} | options))

    def psp_head(self, channels: int, index: int = 3, width: int = 512, **options: Any) -> Spec:
        """Zhao et al., CVPR 2017."""
        return self.head("PSPHead", channels, index, width, pool_scales=[1, 2, 3, 6], **options)

    def aspp_head(self, channels: int, index: int = 3, width: int = 512, **options: Any) -> Spec:
        """Chen et al., arXiv 1706.05587."""
        return self.head("ASPPHead", channels, index, width, **({"dilations": [1, 12, 24, 36]} | options))

    def encoding_head(self, channels: list[int], indices: list[int]) -> Spec:
        """Zhang et al., CVPR 2018."""
        options = {"num_codes": 32, "use_se_loss": True, "add_lateral": False}
        presence = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 0.2}
        return self.head("EncHead", channels, indices, 512, **options, loss_se_decode=presence)

    def uper_head(self, channels: list[int], width: int = 512, **options: Any) -> Spec:
        """Xiao et al., ECCV 2018."""
        return self.head("UPerHead", channels, [0, 1, 2, 3], width, pool_scales=[1, 2, 3, 6], **options)

    def fpn_head(self, **options: Any) -> Spec:
        """Kirillov et al., CVPR 2019."""
        return self.head("FPNHead", [256] * 4, [0, 1, 2, 3], 128, feature_strides=[4, 8, 16, 32], **options)
