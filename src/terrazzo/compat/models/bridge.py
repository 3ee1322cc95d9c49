"""From a user's classes to what the product builds and calls."""

import importlib
import inspect
import warnings
from collections.abc import Mapping
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo import registry as ours
from terrazzo.arguments import placed, signature
from terrazzo.compat.data.structures import meta_of, samples_of
from terrazzo.compat.files.config import ConfigDict
from terrazzo.compat.files.files import without_weights
from terrazzo.compat.models import segmentors
from terrazzo.compat.models.layers import resize
from terrazzo.compat.models.module import call_init_weights, kind_of, overrides
from terrazzo.compat.models.segmentors import BaseSegmentor, as_preprocessor, depth_of
from terrazzo.compat.registry import BUILDS, MODELS, drop_neutral
from terrazzo.errors import UserError
from terrazzo.models.preprocess import Preprocess

NEVER_CALLED = ("train_step", "val_step", "test_step", "aug_test", "show_result")
INFERENCES = ("predict", "inference", "slide_inference", "whole_inference")


def build_user_type(cls: Any, spec: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """An object of a user's class from its section as written: nested configs stay, no argument is checked."""
    options, takes = ConfigDict({**spec, **extra}), signature(cls)
    options.pop("type")
    without_files(options)
    drop_neutral(cls, options)
    preprocessor = options.get("data_preprocessor")
    if isinstance(preprocessor, nn.Module) and "data_preprocessor" not in takes.names and not takes.takes_any:
        del options["data_preprocessor"]
    with placed(spec.get("type"), where, spec), without_weights() as missing:
        made = cls(**options)
        if isinstance(made, nn.Module):
            start_weights(made)
            for part in made.modules():
                if overrides(part, "init_weights"):
                    vars(part)["start_from"] = partial(start_from, part)
            vars(made)["lacks"] = missing
    if isinstance(made, Preprocess):
        return as_preprocessor(made)
    if isinstance(made, BaseSegmentor) or (where == "model" and isinstance(made, nn.Module)):
        if isinstance(preprocessor, nn.Module):
            made.preprocess = preprocessor
        return bridged(made)
    return made


def without_files(options: Any) -> None:
    """Take the files of `pretrained` out of a section and those inside it: training loads them, building does not."""
    for key, value in options.items():
        if key == "pretrained" and isinstance(value, str):
            options[key] = None
        elif isinstance(value, Mapping):
            without_files(value)


def start_from(module: Any, path: str) -> str:
    """Load a module's first weights in its author's way, by its own `init_weights`."""
    if "pretrained" in inspect.signature(module.init_weights).parameters:
        module.init_weights(path)
    else:
        module.init_cfg = ConfigDict({"type": "Pretrained", "checkpoint": path})
        if isinstance(getattr(module, "pretrained", None), (str, type(None))):
            module.pretrained = path
        vars(module)["_is_init"] = False
        module.init_weights()
    return f"weights of {path}, loaded by the module's own init_weights"


def has_pretrained(module: nn.Module) -> bool:
    """Report whether a module starts from a file, which training loads."""
    init = getattr(module, "init_cfg", None)
    specs = init if isinstance(init, (list, tuple)) else [init]
    return any(isinstance(spec, Mapping) and kind_of(spec) == "Pretrained" for spec in specs)


def start_weights(module: nn.Module) -> None:
    """Call `init_weights` of a module, or of the parts inside one that starts from a file."""
    if has_pretrained(module):
        return
    if any(has_pretrained(part) for part in module.modules()):
        for child in module.children():
            start_weights(child)
    elif hasattr(module, "init_weights") and not getattr(module, "is_init", False):
        call_init_weights(module)
        for part in module.modules():
            if "_is_init" in vars(part):
                vars(part)["_is_init"] = False


def logits_of(samples: Any) -> Tensor:
    """The logits (N, K, H, W) of results, whose largest are the predicted classes also where an author decides more."""
    logits = torch.stack([sample.seg_logits.data for sample in samples])
    if logits.shape[1] == 1 or any(sample.get("pred_sem_seg") is None for sample in samples):
        return logits
    labels = torch.stack([sample.pred_sem_seg.data for sample in samples]).long()
    chosen = (labels != logits.argmax(1, keepdim=True)) & (labels >= 0) & (labels < logits.shape[1])
    above = torch.zeros_like(logits).scatter_(1, labels.clamp(0, logits.shape[1] - 1), chosen.to(logits))
    return torch.where(above > 0, logits.amax(1, keepdim=True) + 1, logits)


def of_probabilities(found: Tensor) -> Tensor:
    """The logits (N, K, H, W) of maps that are between 0 and 1; others as they are. Also while a model is exported."""
    logits = found.logit(1e-6) if found.shape[1] == 1 else found.clamp(min=1e-12).log()
    return torch.where(((found >= 0) & (found <= 1)).all(), logits, found)


def takes_masks(model: nn.Module) -> bool:
    """Report whether a part is trained on a mask of each class that an image has, as heads of queries of 0.x are."""
    trained: list[Any] = [part.forward_train for part in model.modules() if hasattr(part, "forward_train")]
    return any("gt_masks" in inspect.signature(method).parameters for method in trained)


def class_masks(labels: Tensor) -> dict[str, list[Tensor]]:
    """The classes of each label map (N, H, W) and their masks (K, H, W)."""
    present = [label[label != 255].unique() for label in labels]
    masks = [(label == classes[:, None, None]).long() for label, classes in zip(labels, present, strict=True)]
    return {"gt_labels": present, "gt_masks": masks}


def kept(logits: Tensor, seen: list[Tensor]) -> Tensor:
    seen.append(logits)
    return logits


class Bridge:
    """A user's segmentor as the product calls it: `loss(images, labels)`, `decode(images)`, `model(images)`."""

    def train(self: Any, mode: bool = True) -> Any:
        super().train(mode)  # type: ignore[misc]  # whose result some authors forget to return
        return self

    def loss(self: Any, images: Tensor, labels: Any, *args: Any, **targets: Any) -> Any:
        if not isinstance(labels, Tensor):
            return super().loss(images, labels, *args, **targets)  # type: ignore[misc]
        labels = labels.masked_fill(labels == 255, getattr(self.final_head, "ignore_index", 255))
        metas = [meta_of(*images.shape[2:]) for _ in images]
        if depth_of(self, "forward_train") < depth_of(self, "loss"):
            maps = {f"gt_{name}": value.unsqueeze(1) for name, value in {"semantic_seg": labels, **targets}.items()}
            maps |= class_masks(labels) if self.needs_masks else {}
            if self.target == "depth":
                maps = {depth_argument(type(self)): targets["depth"].unsqueeze(1)}
            losses = self.forward_train(images, metas, **maps)
        elif old_style(self):
            losses = self.forward_train(images, metas, labels.unsqueeze(1))
        else:
            losses = super().loss(images, samples_of(images, labels, **targets))  # type: ignore[misc]
        if not isinstance(losses, Mapping):
            raise UserError(f"the loss of {type(self).__name__} is {losses!r:.50}, not a dict: it cannot be trained")
        return {name: torch.stack([x.mean() for x in value]).sum() if isinstance(value, list) else value.mean()
                for name, value in losses.items() if isinstance(value, (Tensor, list))}  # fmt: skip

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        inputs = args[0]
        return resize(self.decode(inputs), inputs.shape[2:], None, "bilinear", self.align_corners)

    def decode(self: Any, images: Tensor) -> Tensor:
        exporting = torch.compiler.is_exporting()  # to a graph whose batch may have any size
        metas = [meta_of(*images.shape[2:])] * (1 if exporting else len(images))
        if overrides(self.final_head, "predict_by_feat") or overrides(self.final_head, "loss_by_feat"):  # of 1.x
            metas = [{**meta, "img_shape": tuple(images.shape[2:])} for meta in metas]
        if overrides(self, "predict"):
            seen: list[Tensor] = []  # before a graph would go through the images one by one
            if exporting:
                vars(self)["postprocess_result"] = lambda logits, *_: kept(logits, seen)
            try:
                found = super().predict(images, samples_of(images[:1] if exporting else images))  # type: ignore[misc]
            finally:
                vars(self).pop("postprocess_result", None)
            found = found if isinstance(found, Tensor) else logits_of(found)
            return found if found.shape[1] > 1 or any(found is logits for logits in seen) else of_probabilities(found)
        if self.infers_itself:
            older = old_style(self, "inference")  # which gives probabilities
            found = self.inference(images, metas, *[True] * older)
            return of_probabilities(found) if older and self.target == "label" else found
        if hasattr(self, "encode_decode"):
            return self.encode_decode(images, metas)
        return super().forward(images)  # type: ignore[misc]

    needs_masks = cached_property(takes_masks)
    # True where the user's class runs windows in its own way
    infers_itself = property(lambda self: any(overrides(self, name) for name in INFERENCES))


def old_style(model: Any, method: str = "_decode_head_forward_train") -> bool:
    """Report whether a user's method has the arguments of 0.x."""
    names = inspect.signature(getattr(type(model), method)).parameters if overrides(model, method) else {}
    return "rescale" in names or "gt_semantic_seg" in names


def depth_argument(cls: Any) -> str:
    """The argument of 0.x under which a model, of depth and not of classes, is trained on it; empty for others."""
    takes = inspect.signature(cls.forward_train).parameters if hasattr(cls, "forward_train") else {}
    return next((name for name in ("depth_gt", "gt_depth") if name in takes and "gt_semantic_seg" not in takes), "")


@cache
def bridge(cls: Any) -> Any:
    """A subclass of a user's segmentor that the product can call, of the same name."""
    given: dict[str, Any] = {
        "align_corners": False,
        "test_cfg": {"mode": "whole"},
        "final_head": BaseSegmentor.final_head,
    }
    given["target"] = "depth" if depth_argument(cls) else "label"
    body = {name: value for name, value in given.items() if not hasattr(cls, name)}
    return type(cls.__name__, (Bridge, cls), {**body, "__module__": cls.__module__, "__doc__": cls.__doc__})


def bridged(model: nn.Module) -> nn.Module:
    """The same instance with the product's methods; what nothing will call is named."""
    unused = [name for name in NEVER_CALLED if overrides(model, name)]
    if unused:
        warnings.warn(f"{type(model).__name__}: terrazzo calls neither {' nor '.join(unused)}; its own loop trains")
    model.__class__ = bridge(type(model))  # type: ignore[arg-type]
    if (head := getattr(model, "final_head", None)) is not None:
        own = {"threshold": None, "align_corners": False, "ignore_index": 255}
        own |= {"num_classes": 1} if model.target == "depth" else {}
        own["out_channels"] = getattr(head, "num_classes", 1)
        for name in [name for name in own if not hasattr(head, name)]:
            setattr(head, name, own[name])
    if not hasattr(model, "preprocess"):
        model.preprocess = as_preprocessor(None)
    return model


def build_segmentor(kind: type, original: Any) -> Any:
    def build(_: Any, spec: Mapping[str, Any], where: str, **extra: Any) -> Any:
        if is_users([spec.get("decode_head"), spec.get("auxiliary_head")]):
            return build_user_type(kind, spec, where, **extra)
        return ours.MODELS.build({**spec, "type": original}, where, **extra)

    return build


def is_users(spec: Any) -> bool:
    """Report whether the section of a part, or of one inside it, has a type of a user's."""
    if isinstance(spec, Mapping):
        kind = str(spec.get("type"))
        return not {kind, kind.rpartition(".")[2]}.isdisjoint(MODELS.module_dict) or any(
            is_users(item) for item in spec.values()
        )
    return any(map(is_users, spec)) if isinstance(spec, (list, tuple)) else False


def connect() -> None:
    """Let terrazzo's registry of models build users' types, and official segmentors with users' heads."""
    for part in ("data.opening", "data.metrics", "engine.hooks", "engine.optim"):  # which fill the tables
        importlib.import_module(f"terrazzo.compat.{part}")
    BUILDS["model"] = build_user_type
    for kind in (segmentors.EncoderDecoder, segmentors.CascadeEncoderDecoder):
        original = ours.MODELS.get(kind.__name__)
        if kind.__name__ not in ours.MODELS.raw:
            ours.MODELS.register_raw(original, kind.__name__, build_segmentor(kind, original))
