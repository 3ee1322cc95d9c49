"""Official models as MMSegmentation shows them: terrazzo's own classes, to be called and subclassed as there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from terrazzo import registry as ours
from terrazzo.arguments import constructors, signature
from terrazzo.compat import layers
from terrazzo.compat.losses import LossFace, OHEMPixelSampler, loss_map
from terrazzo.compat.module import BaseModule
from terrazzo.compat.registry import MODELS, ORIGINALS, WrongArgument, arguments_of
from terrazzo.compat.structures import labels_of
from terrazzo.config.ignored import drop_ignored
from terrazzo.models.heads.base import DecodeHead, LogitsHead
from terrazzo.models.heads.cascade import CascadeHead
from terrazzo.models.losses.base import SegmentationLoss
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder

# arguments there in their order, where they are given by position and ours have another order
POSITIONAL: dict[str, tuple[str, ...]] = {
    "CrossEntropyLoss": ("use_sigmoid", "use_mask", "reduction", "class_weight", "loss_weight", "loss_name"),
    "BaseDecodeHead": ("in_channels", "channels"),
}


class Face(BaseModule):
    """The constructor of a face: positional arguments, `init_cfg`, parts as configs."""

    _ours: type
    fp16_enabled = False

    def __init__(self, *args: Any, init_cfg: Any = None, pretrained: Any = None, **kwargs: Any) -> None:
        kind = self._ours.__name__
        names = POSITIONAL.get(kind) or signature(self._ours).names
        options = dict(zip(names, args, strict=False)) | kwargs
        kept = getattr(self._ours, "keeps_specs", ())
        for key, value in options.items():
            if not str(key).endswith("_cfg") and key not in kept:
                options[key] = built(value)
        takes = signature(self._ours)
        options = dict(drop_ignored({"model": {"type": kind, **options}})["model"])
        options.pop("type")
        self._extra = {} if takes.takes_any else {k: options.pop(k) for k in [*options] if k not in takes.names}
        extra = self._extra
        nn.Module.__init__(self)
        with arguments_of(kind):
            after_face(self).__init__(**options)  # type: ignore[misc]
        vars(self).update(_is_init=False, init_cfg=init_cfg, **extra)
        if pretrained is not None:
            self.init_cfg = {"type": "Pretrained", "checkpoint": pretrained}
        for name, value in (defaults_of(self._ours) | options).items():
            if not hasattr(self, name):
                setattr(self, name, value)
        layers.show_as_theirs(self)

    def init_weights(self, pretrained: Any = None) -> None:
        """As BaseModule's; 0.x hands over the file of the weights."""
        if isinstance(pretrained, str):
            self.init_cfg = {"type": "Pretrained", "checkpoint": pretrained}
        super().init_weights()


@cache
def defaults_of(cls: type) -> dict[str, Any]:
    """The defaults of a class's arguments, with those that it passes on to its parents."""
    names = signature(cls).names
    found: dict[str, Any] = {}
    for function in constructors(cls):
        for name, item in inspect.signature(function).parameters.items():
            if name in names and item.default is not item.empty:
                found.setdefault(name, item.default)
    return found


def after_face(instance: Face) -> Any:
    """`super` of the face in an instance's classes: the constructor of terrazzo's class."""
    return super(BaseModule, instance)


def built(value: Any) -> Any:
    """A part as its config names it; lists of parts too."""
    if isinstance(value, Mapping) and "type" in value:
        return MODELS.build(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        return type(value)(map(built, value))
    return value


def check_inputs(name: str, given: Mapping[str, Any], *, alone: bool) -> None:
    """Raise WrongArgument where a head's inputs do not fit each other; `alone`, its transform is known too."""
    channels: Any
    channels, index, transform = given.get("in_channels"), given.get("in_index", -1), given.get("input_transform")
    several = isinstance(channels, (list, tuple))
    if several and isinstance(index, (list, tuple)) and len(channels) != len(index):
        raise WrongArgument(f"{name}: in_channels={channels} and in_index={index} differ in number")
    if alone and (several != (transform is not None) or transform not in (None, "resize_concat", "multiple_select")):
        raise WrongArgument(f"{name}: in_channels={channels} does not fit input_transform={transform!r}")
    losses = given.get("loss_decode", {})
    for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
        if not isinstance(loss, (Mapping, nn.Module)):
            raise TypeError(f"{name}: loss_decode must be a dict or a sequence of dicts, but got {type(loss)}")


class HeadFace(Face):
    """A decode head's methods under their names there."""

    train_cfg: Any = None
    test_cfg: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(("in_channels", "channels"), args, strict=False)) | kwargs
        norm = {key: value for key, value in given.items() if value is not None}
        check_inputs(type(self).__name__, norm, alone=self._ours is DecodeHead)
        super().__init__(*args, **kwargs)
        self.concat_input = norm.get("concat_input", getattr(self, "concat_input", None))

    def _init_inputs(self, in_channels: Any, in_index: Any, input_transform: Any) -> None:
        """Nothing: the constructor has done it."""

    def _transform_inputs(self, inputs: Any) -> Any:
        return self.select(inputs)

    def cls_seg(self, feat: Tensor) -> Tensor:
        return self.classify(feat)

    def classify(self, features: Tensor) -> Tensor:
        return super().classify(features)  # type: ignore[misc]

    def _forward_feature(self, *inputs: Any) -> Tensor:
        return super().features(*inputs)  # type: ignore[misc]

    def features(self, *inputs: Any) -> Tensor:
        return self._forward_feature(*inputs)

    # training

    def loss(self, inputs: Any, batch_data_samples: Any, train_cfg: Any = None, **targets: Any) -> Any:
        if isinstance(batch_data_samples, Tensor):
            return super().loss(inputs, batch_data_samples, **targets)  # type: ignore[misc]
        return self.loss_by_feat(self.forward(inputs), batch_data_samples)

    def forward_train(self, inputs: Any, img_metas: Any, gt_semantic_seg: Tensor, train_cfg: Any = None) -> Any:
        return self.losses(self.forward(inputs), gt_semantic_seg)

    def loss_by_feat(self, seg_logits: Any, batch_data_samples: Any) -> Any:
        return self.losses(seg_logits, self._stack_batch_gt(batch_data_samples))

    def _stack_batch_gt(self, batch_data_samples: Any) -> Tensor:
        return labels_of(batch_data_samples)

    def losses(self, seg_logit: Tensor, seg_label: Tensor) -> Any:
        return super().losses(seg_logit, seg_label.squeeze(1) if seg_label.ndim == 4 else seg_label)  # type: ignore[misc]

    def named_losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Each of the losses, terrazzo's or a user's; those of the same name add up."""
        losses: dict[str, Tensor] = {}
        for criterion in self.criteria:
            value = criterion(logits, labels, weight=weight, ignore_index=self.ignore_index)
            name = getattr(criterion, "loss_name", "loss_seg")  # early 0.x has no names
            losses[name] = losses[name] + value if name in losses else value
        return losses

    def loss_map(self, logits: Tensor, labels: Tensor) -> Tensor:
        return loss_map(self.criteria, logits, labels, self.ignore_index)

    # inference

    def predict(self, inputs: Any, batch_img_metas: Any, test_cfg: Any = None) -> Tensor:
        return self.predict_by_feat(self.forward(inputs), batch_img_metas)

    def forward_test(self, inputs: Any, img_metas: Any, test_cfg: Any = None) -> Tensor:
        return self.forward(inputs)

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: Any) -> Tensor:
        if isinstance(batch_img_metas[0], Mapping):
            size = batch_img_metas[0].get("pad_shape") or batch_img_metas[0]["img_shape"]
            return layers.resize(seg_logits, tuple(size[:2]), None, "bilinear", self.align_corners)
        return seg_logits


class MaskHeadFace(Face):
    """A head of queries, or another whose `predict` takes the image's size, as segmentors of both kinds call it."""

    def loss(self, inputs: Any, batch_data_samples: Any, train_cfg: Any = None, **targets: Any) -> Any:
        labels = batch_data_samples
        if not isinstance(labels, Tensor):
            labels = labels_of(labels).squeeze(1)
        return super().loss(inputs, labels, **targets)  # type: ignore[misc]

    def predict(self, inputs: Any, batch_img_metas: Any, test_cfg: Any = None) -> Any:
        size = batch_img_metas
        if isinstance(size[0], Mapping):
            size = tuple((size[0].get("pad_shape") or size[0]["img_shape"])[:2])
        return super().predict(inputs, size)  # type: ignore[misc]


class CascadeHeadFace(HeadFace):
    """A later head of a cascade, which also reads the output of the one before it."""

    def loss(  # type: ignore[override]
        self, inputs: Any, prev_output: Any, batch_data_samples: Any = None, train_cfg: Any = None, **t: Any
    ) -> Any:
        if batch_data_samples is None or (
            isinstance(prev_output, Tensor) is False and not isinstance(prev_output, list)
        ):
            return super().loss(inputs, prev_output, **t)
        return self.loss_by_feat(self.forward(inputs, prev_output), batch_data_samples)

    def forward_train(  # type: ignore[override]
        self, inputs: Any, prev_output: Any, img_metas: Any, gt_semantic_seg: Tensor, train_cfg: Any = None
    ) -> Any:
        return self.losses(self.forward(inputs, prev_output), gt_semantic_seg)

    def predict(  # type: ignore[override]
        self, inputs: Any, prev_output: Any, batch_img_metas: Any, test_cfg: Any = None
    ) -> Tensor:
        return self.predict_by_feat(self.forward(inputs, prev_output), batch_img_metas)

    def forward_test(self, inputs: Any, prev_output: Any, img_metas: Any, test_cfg: Any = None) -> Tensor:  # type: ignore[override]
        return self.forward(inputs, prev_output)


@cache
def face(cls: Any) -> Any:
    """The face of one of terrazzo's model classes: a subclass of it, and of the faces of its parents."""
    if not issubclass(cls, nn.Module):
        return cls
    kinds = ((CascadeHead, CascadeHeadFace), (LogitsHead, HeadFace))
    other = MaskHeadFace if hasattr(cls, "predict") else Face
    mixin = next((item for base, item in kinds if issubclass(cls, base)), other)
    parents = [
        face(parent) for parent in cls.__bases__ if parent in registered() or parent in (DecodeHead, CascadeHead)
    ]
    bases: list[Any] = [*parents, cls] if parents else [mixin, cls]
    if issubclass(cls, SegmentationLoss) and not parents:
        bases.insert(1, LossFace)
    if cls is DecodeHead:
        return BaseDecodeHead
    if cls is CascadeHead:
        return BaseCascadeDecodeHead
    body = {"_ours": cls, "__doc__": cls.__doc__, "__module__": cls.__module__}
    return type(cls.__name__, tuple(bases), body | INTERNALS.get(cls.__name__, {}))


# class -> attributes that its subclasses read there
INTERNALS: dict[str, dict[str, Any]] = {
    "ResNet": {
        "res_layers": property(lambda self: self.stages),
        "norm1": property(lambda self: getattr(self, self.norm1_name)),
    },
}


@cache
def registered() -> frozenset[Any]:
    """terrazzo's own model classes."""
    ours.MODELS.load()
    return frozenset(item for item in ours.MODELS.types.values() if inspect.isclass(item) and is_ours(item))


def is_ours(item: Any) -> bool:
    return str(getattr(item, "__module__", "")).startswith("terrazzo.")


ABSTRACT: dict[str, Any] = {"__abstractmethods__": frozenset()}  # which tests of such classes patch
BaseDecodeHead = type("BaseDecodeHead", (HeadFace, DecodeHead), ABSTRACT | {"_ours": DecodeHead})
BaseCascadeDecodeHead = type("BaseCascadeDecodeHead", (CascadeHeadFace, CascadeHead), ABSTRACT | {"_ours": CascadeHead})

OFFICIAL: dict[str, Any] = {"OHEMPixelSampler": OHEMPixelSampler}  # names whose class here is written out, not made


def official(name: str) -> Any:
    """The class that an official name of a model's part stands for there, or None."""
    bare = name.rpartition(".")[2]
    if bare in OFFICIAL:
        return OFFICIAL[bare]
    found = next((item for key in (name, bare) if (item := own_types().get(key)) is not None), None)
    if found is None:
        return layers.OTHER.get(bare)
    return found if not inspect.isclass(found) or issubclass(found, EncoderDecoder) else face(found)  # type: ignore[arg-type]


@cache
def own_types() -> dict[str, Any]:
    """terrazzo's own model types by name, also those that a user's hides."""
    ours.MODELS.load()
    found = {name: item for name, item in ours.MODELS.types.items() if name not in ours.MODELS.raw}
    return found | {item.__name__: item for item in hidden_types()}


def hidden_types() -> list[Any]:
    """terrazzo's types in place of which users' are registered."""
    return [item for name in ours.MODELS.raw if (item := ours.MODELS.hidden.get(name)) is not None]


ORIGINALS["model"] = official
