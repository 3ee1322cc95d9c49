"""Official models as MMSegmentation shows them: terrazzo's own classes, to be called and subclassed as there."""

import inspect
import re
import sys
import warnings
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from terrazzo import registry as ours
from terrazzo.arguments import constructors, signature
from terrazzo.compat.data.structures import SegDataSample, labels_of, samples_of, targets_of
from terrazzo.compat.finder import FORKS, fork_file
from terrazzo.compat.models import blocks, layers
from terrazzo.compat.models.internals import INTERNALS, call_as_there
from terrazzo.compat.models.losses import _loss_map, weight_reduce_loss
from terrazzo.compat.models.module import BaseModule, Start, calls, overrides
from terrazzo.compat.registry import MODELS, ORIGINALS, WrongArgument, arguments_of
from terrazzo.config.ignored import drop_ignored
from terrazzo.models.heads.base import DecodeHead, LogitsHead
from terrazzo.models.heads.cascade import CascadeHead
from terrazzo.models.heads.mask_classification import QueryHead
from terrazzo.models.losses import ohem
from terrazzo.models.losses.base import SegmentationLoss
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss
from terrazzo.models.losses.set_criterion import semantic_logits
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder

# arguments there in their order, where ours have another one; "0.x <class>" where the vocabularies differ
ORDERS = [line.split(": ") for line in Path(__file__).with_name("positional.txt").read_text("utf-8").splitlines()]
POSITIONAL = {kind: names.split() for kind, names in ORDERS}


class Face(BaseModule, Start):
    """A class of terrazzo's as it is constructed there: positional arguments, `init_cfg`, parts as configs.

    Each face has a constructor of its own, so that a subclass can go around it to that of a base, or to BaseModule's.
    """

    _ours: type
    fp16_enabled = False
    passes_on = True  # arguments, to terrazzo's class
    # of a head that goes around a head's constructor
    _given: Mapping[str, Any] = {"criteria": (), "threshold": None, "ignore_index": 255}

    def _construct(self, ours: Any, *args: Any, init_cfg: Any = None, pretrained: Any = None, **kwargs: Any) -> None:
        kind, takes = ours.__name__, signature(ours)
        older = POSITIONAL.get(f"0.x {kind}") if args and is_older(type(self).__module__) else None
        options = dict(zip(older or POSITIONAL.get(kind) or takes.names, args, strict=False)) | kwargs
        init_cfg, pretrained = options.pop("init_cfg", init_cfg), options.pop("pretrained", pretrained)
        kept = getattr(ours, "keeps_specs", ())
        options = {k: v if k.endswith("_cfg") or k in kept else _built(v) for k, v in options.items()}
        options = dict(drop_ignored({"model": {"type": kind, **options}})["model"])
        options.pop("type")
        further = [key for key in options if key not in takes.names and FORKS and not takes.takes_any]
        extra = {key: options.pop(key) for key in further}  # which a fork has added to its copy of the class
        if further:
            warnings.warn(f"{kind}: terrazzo's own is built, in which {', '.join(further)} do nothing", stacklevel=2)
        BaseModule.__init__(self, init_cfg)
        vars(self).update(_given=_defaults_of(ours) | options, **extra)
        with arguments_of(kind):
            ours.__init__(self, **options)
        if pretrained is not None:
            self.init_cfg = {"type": "Pretrained", "checkpoint": pretrained}
        layers.show_as_theirs(self)
        call_as_there(self)
        for name, part in self.named_children():
            if name in BRANCHES and isinstance(part, nn.ModuleList):
                part.__class__, part.align_corners = BRANCHES[name], self.align_corners
        if unused := [name for name in INNER.split() if overrides(self, name) and not calls(type(self), name)]:
            warnings.warn(f"{type(self).__name__}: terrazzo's {kind} does not call {', '.join(unused)}", stacklevel=2)

    def __getattr__(self, name: str) -> Any:
        """The arguments are attributes there, in the constructor too."""
        return self._given[name] if name in self._given and name not in self._modules else super().__getattr__(name)

    def init_weights(self, pretrained: Any = None) -> None:
        """As BaseModule's; 0.x hands over the file of the weights."""
        if isinstance(pretrained, str):
            self.init_cfg, self._is_init = {"type": "Pretrained", "checkpoint": pretrained}, False
        super().init_weights()


# lists of branches that are called there
BRANCHES = {"aspp_modules": blocks.ASPPModule, "psp_modules": blocks.PPM}
# methods of official classes there that ours have no place for
INNER = (
    "_freeze_stages make_stage_plugins _make_layer _make_stage _make_transition_layer _make_single_layer make_layer "
    "_build_layers _build_patch_embedding _pos_embeding resize_pos_embed resize_rel_pos_embed resize_abs_pos_embed "
    "fix_init_weight cam_cls_seg pam_cls_seg _make_base_head _convert_to_onehot_labels "
    "_get_coarse_point_feats _get_fine_grained_point_feats get_points_train get_points_test _seg_data_to_instance_data"
)


@cache
def is_older(module: str) -> bool:
    """Report whether a user's module is written for 0.x, by what it imports."""
    file = getattr(sys.modules.get(module), "__file__", None)
    text = Path(file).read_text(encoding="utf-8", errors="replace") if file else ""
    return re.search(r"mmseg\.models\.builder|\.\.builder|mmcv\.runner", text) is not None and "mmengine" not in text


@cache
def _defaults_of(cls: type) -> dict[str, Any]:
    """The defaults of a class's arguments, with those that it passes on to its parents."""
    names, found = signature(cls).names, dict[str, Any]()
    for function in constructors(cls):
        for name, item in inspect.signature(function).parameters.items():
            if name in names and item.default is not item.empty:
                found.setdefault(name, item.default)
    return found


def _built(value: Any) -> Any:
    """A part as its config names it; lists of parts too."""
    if isinstance(value, Mapping) and "type" in value:
        return MODELS.build(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        return type(value)(map(_built, value))
    return value


def _check_inputs(name: str, given: Mapping[str, Any], *, alone: bool) -> None:
    """Raise WrongArgument where a head's inputs do not fit each other; `alone`, its transform is known too."""
    channels: Any = given.get("in_channels")
    index, transform, losses = given.get("in_index", -1), given.get("input_transform"), given.get("loss_decode", {})
    several = isinstance(channels, (list, tuple))
    if several and isinstance(index, (list, tuple)) and len(channels) != len(index):
        raise WrongArgument(f"{name}: in_channels={channels} and in_index={index} differ in number")
    if alone and (several != (transform is not None) or transform not in (None, "resize_concat", "multiple_select")):
        raise WrongArgument(f"{name}: in_channels={channels} does not fit input_transform={transform!r}")
    for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
        if not isinstance(loss, (Mapping, nn.Module)):
            raise TypeError(f"{name}: loss_decode must be a dict or a sequence of dicts, but got {type(loss)}")


def _size_of(metas: Any) -> Any:
    """The size of the images (height, width) that facts of theirs, or a size, give."""
    return tuple((metas[0].get("pad_shape") or metas[0]["img_shape"])[:2]) if isinstance(metas[0], Mapping) else metas


NAMED = (
    "prev_output",
    "img_metas",
    "batch_img_metas",
    "gt_semantic_seg",
    "batch_data_samples",
    "train_cfg",
    "test_cfg",
)


def _in_order(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a head by position; those that are none of them stay in `named`."""
    return (*given, *(named.pop(key) for key in NAMED if key in named))


@cache
def _has_one_name(file: Path | None) -> bool:
    """Report whether a fork's copy of the base calls every loss `loss_seg`, as those before 0.20 do."""
    return file is not None and "['loss_seg']" in file.read_text(encoding="utf-8", errors="replace")


class HeadFace(Face):
    """A decode head's methods under their names there; later heads of a cascade read `previous`, too."""

    train_cfg: Any = None
    test_cfg: Any = None
    # which projects have added to their copies of the base
    debug, debug_output, downsample_label_ratio = False, dict[str, Any](), 0
    _init_inputs = staticmethod(lambda *_: None)  # the constructor has done it

    def _construct(self, ours: Any, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(("in_channels", "channels"), args, strict=False)) | kwargs
        given = {key: value for key, value in given.items() if value is not None}
        _check_inputs(type(self).__name__, given, alone=ours is DecodeHead)
        super()._construct(ours, *args, **kwargs)
        if isinstance(self.sampler, OHEMPixelSampler):
            self.sampler.context = self
        self.concat_input = given.get("concat_input", getattr(self, "concat_input", None))

    def _transform_inputs(self, inputs: Any) -> Any:
        return self.select(inputs)

    def cls_seg(self, feat: Tensor) -> Tensor:
        return self.classify(feat)

    def _forward_feature(self, *inputs: Any) -> Tensor:
        return super().features(*inputs)  # type: ignore[misc]

    def features(self, *inputs: Any) -> Tensor:
        return self._forward_feature(*inputs)

    def loss(self, inputs: Any, *given: Any, **targets: Any) -> Any:
        """Losses of (previous output,) and labels, or SegDataSamples, and `train_cfg`."""
        given = _in_order(given, targets)
        if isinstance(given[0], Tensor) and (len(given) == 1 or "previous" in targets):
            return super().loss(inputs, given[0], **targets)  # type: ignore[misc]
        count = int(isinstance(self, CascadeHead))
        if self.learns_as_written:
            labels = self._stack_batch_gt(given[count]).squeeze(1)
            return self._own_loss(inputs, *given[:count], labels=labels, **targets_of(given[count]))
        return self.loss_by_feat(self.forward(inputs, *given[:count]), given[count])

    def _own_loss(self, inputs: Any, *previous: Tensor, **targets: Any) -> Any:
        return super().loss(inputs, **targets, **({"previous": previous[0]} if previous else {}))  # type: ignore[misc]

    # True where no user has written a part of the way from maps to losses: terrazzo's knows the head's further outputs
    learns_as_written = cached_property(
        lambda self: not any(overrides(self, name) for name in ("forward", "losses", "loss_by_feat"))
    )

    def forward_train(self, inputs: Any, *given: Any, **named: Any) -> Any:
        """Losses of (previous output,) facts of the images, labels and `train_cfg`."""
        given, count = _in_order(given, named), int(isinstance(self, CascadeHead))
        if self.learns_as_written:
            return self._own_loss(inputs, *given[:count], labels=given[count + 1].squeeze(1))
        return self.losses(self.forward(inputs, *given[:count]), given[count + 1])

    def loss_by_feat(self, seg_logits: Any, batch_data_samples: Any) -> Any:
        return self.losses(seg_logits, self._stack_batch_gt(batch_data_samples))

    _stack_batch_gt = staticmethod(labels_of)

    def losses(self, seg_logit: Tensor, seg_label: Tensor, seg_weight: Any = None) -> Any:
        """Losses of logits and labels, with weights of pixels (DAFormer's and others' addition)."""
        labels = seg_label.squeeze(1) if seg_label.ndim == 4 else seg_label
        if seg_weight is None:
            found = super().losses(seg_logit, labels)  # type: ignore[misc]
        else:
            logits = layers.resize(seg_logit, labels.shape[1:], None, "bilinear", self.align_corners)
            found = self.named_losses(logits, labels, seg_weight)
        if _has_one_name(fork_file("mmseg.models.decode_heads.decode_head")):
            found = {"loss_seg" if key == "loss_ce" else key: value for key, value in found.items()}
        return found

    def loss_map(self, logits: Tensor, labels: Tensor) -> Tensor:
        return _loss_map(self.criteria, logits, labels, self.ignore_index)

    def predict(self, inputs: Any, *given: Any, **named: Any) -> Tensor:
        """Logits of (previous output,) and facts of the images, and `test_cfg`."""
        given, count = _in_order(given, named), int(isinstance(self, CascadeHead))
        return self.predict_by_feat(self.forward(inputs, *given[:count]), given[count])

    def forward_test(self, inputs: Any, *given: Any, **named: Any) -> Tensor:
        return self.forward(inputs, *_in_order(given, named)[: int(isinstance(self, CascadeHead))])

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: Any) -> Tensor:
        if isinstance(batch_img_metas[0], Mapping):
            return layers.resize(seg_logits, _size_of(batch_img_metas), None, "bilinear", self.align_corners)
        return seg_logits


class OHEMPixelSampler(ohem.OHEMPixelSampler):
    """Weights of hard pixels by logits and labels alone, with the losses of the head that is its `context`."""

    def __init__(self, context: Any = None, thresh: float | None = None, min_kept: int = 100000) -> None:
        super().__init__(thresh=thresh, min_kept=min_kept)
        self.context = context

    def sample(self, seg_logit: Tensor, seg_label: Tensor, *given: Any) -> Tensor:
        labels, head = seg_label.squeeze(1) if seg_label.ndim == 4 else seg_label, self.context
        if not given:
            given = lambda: _loss_map(head.criteria, seg_logit, labels, head.ignore_index), head.ignore_index
        return super().sample(seg_logit, labels, *given)


class MaskHeadFace(Face):
    """A head of queries, or another whose `predict` takes the image's size, as segmentors of both kinds call it."""

    def loss(self, inputs: Any, batch_data_samples: Any, train_cfg: Any = None, **targets: Any) -> Any:
        given = isinstance(batch_data_samples, Tensor)
        labels = batch_data_samples if given else labels_of(batch_data_samples).squeeze(1)
        return super().loss(inputs, labels, **targets)  # type: ignore[misc]

    def predict(self, inputs: Any, batch_img_metas: Any, test_cfg: Any = None) -> Any:
        return super().predict(inputs, _size_of(batch_img_metas))  # type: ignore[misc]


class QueryFace(MaskHeadFace):
    """A head of queries: `forward` of maps and samples gives the predictions of all layers, in two lists."""

    seen: Any = None  # the samples that the head is called for

    def forward(self, inputs: Any, batch_data_samples: Any = None) -> Any:
        if batch_data_samples is None:
            return super().forward(inputs)
        return [*map(list, zip(*super().layers(inputs), strict=True))]  # type: ignore[misc]

    def layers(self, inputs: Any) -> Any:
        """The predictions of all layers, by `forward` where a user has written it."""
        if not overrides(self, "forward"):
            return super().layers(inputs)  # type: ignore[misc]
        return [*zip(*self(inputs, self.seen), strict=True)]

    def loss(self, inputs: Any, batch_data_samples: Any, train_cfg: Any = None, **targets: Any) -> Any:
        labels: Any = batch_data_samples
        self.seen = samples_of(labels.unsqueeze(1), labels) if isinstance(labels, Tensor) else labels
        return super().loss(inputs, batch_data_samples, train_cfg, **targets)

    def predict(self, inputs: Any, batch_img_metas: Any, test_cfg: Any = None) -> Any:
        if not overrides(self, "forward"):
            return super().predict(inputs, batch_img_metas)
        classes, masks = self(inputs, [SegDataSample(metainfo=meta) for meta in batch_img_metas])
        return semantic_logits((classes[-1], masks[-1]), _size_of(batch_img_metas), self.align_corners)

    num_transformer_decoder_layers = property(lambda self: len(self.transformer_decoder.layers))

    def _forward_head(self, decoder_out: Tensor, mask_feature: Tensor, attn_mask_target_size: Any) -> tuple[Any, ...]:
        """Scores and masks of queries, and where each may not look (N * heads, Q, L)."""
        queries = self.transformer_decoder.post_norm(decoder_out)
        masks, heads = self.masks(queries, mask_feature), self.transformer_decoder.layers[0].cross_attn.attn.num_heads
        outside = layers.resize(masks.detach(), attn_mask_target_size, None, "bilinear", False).flatten(2) < 0
        return self.cls_embed(queries), masks, outside.repeat_interleave(heads, 0)


class LossFace(nn.Module):
    """The face of a loss there: positional arguments, `reduction_override`, `loss_name` as an attribute."""

    loss_name = property(
        lambda self: vars(self).get("_loss_name"), lambda self, value: vars(self).update(_loss_name=value)
    )

    def forward(
        self, pred: Any, target: Any, weight: Any = None, avg_factor: Any = None, reduction_override: Any = None,
        ignore_index: int = 255, **kwargs: Any,
    ) -> Any:  # fmt: skip
        assert reduction_override in (None, "none", "mean", "sum")
        options: dict[str, Any] = {"weight": weight, "ignore_index": ignore_index}
        before: Any = getattr(self, "reduction", "mean")
        reduction = reduction_override or before
        self.reduction = reduction if avg_factor is None else "none"
        try:
            if isinstance(self, CrossEntropyLoss):
                options["reduction"] = self.reduction
            values = super().forward(pred, target, **options)
        finally:
            self.reduction = before
        return values if avg_factor is None else weight_reduce_loss(values, None, reduction, avg_factor)


@cache
def face(cls: Any) -> Any:
    """The face of one of terrazzo's model classes: a subclass of it, and of the faces of its parents."""
    if not issubclass(cls, nn.Module):
        return cls
    if cls in BASES:
        return BASES[cls]
    parents = [face(parent) for parent in cls.__bases__ if parent in _registered() or parent in BASES]
    kinds = {LogitsHead: HeadFace, QueryHead: QueryFace}
    mixin = next(
        (kinds[kind] for kind in kinds if issubclass(cls, kind)), MaskHeadFace if hasattr(cls, "predict") else Face
    )
    bases: list[Any] = [*parents, cls] if parents else [mixin, cls]
    if issubclass(cls, SegmentationLoss) and not parents:
        bases.insert(1, LossFace)
    body = {"_ours": cls, "__doc__": cls.__doc__, "__module__": cls.__module__, "__init__": _constructor(cls)}
    return type(cls.__name__, tuple(bases), body | INTERNALS.get(cls.__name__, {}))


def _constructor(ours: type) -> Any:
    def init(self: Any, *args: Any, init_cfg: Any = None, pretrained: Any = None, **kwargs: Any) -> None:
        self._construct(ours, *args, init_cfg=init_cfg, pretrained=pretrained, **kwargs)

    return init


@cache
def _registered() -> frozenset[Any]:
    """terrazzo's own model classes."""
    ours.MODELS.load()
    types = ours.MODELS.types.values()
    return frozenset(item for item in types if inspect.isclass(item) and item.__module__.startswith("terrazzo."))


def _base(name: str, cls: type) -> Any:
    body = {"_ours": cls, "__module__": __name__, "__init__": _constructor(cls)}
    return type(name, (HeadFace, cls), {**body, "__abstractmethods__": frozenset()})  # which tests of theirs patch


BaseDecodeHead, BaseCascadeDecodeHead = _base("BaseDecodeHead", DecodeHead), _base("BaseCascadeDecodeHead", CascadeHead)
BASES: dict[type, Any] = {DecodeHead: BaseDecodeHead, CascadeHead: BaseCascadeDecodeHead}
# names whose class here is written out, not made
OFFICIAL: dict[str, Any] = {kind.__name__: kind for kind in (BaseDecodeHead, BaseCascadeDecodeHead, OHEMPixelSampler)}


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
    hidden = [item for name in ours.MODELS.raw if (item := ours.MODELS.hidden.get(name)) is not None]
    return found | {item.__name__: item for item in hidden}


ORIGINALS["model"] = official
