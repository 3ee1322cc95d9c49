"""Segmentors with the methods of MMSegmentation 0.x and 1.x, which terrazzo trains and scores like its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.compat.config import ConfigDict
from terrazzo.compat.faces import OFFICIAL
from terrazzo.compat.layers import resize
from terrazzo.compat.module import BaseModule
from terrazzo.compat.registry import MODELS
from terrazzo.compat.structures import PixelData, SegDataPreProcessor, SegDataSample, add_prefix, meta_of, samples_of
from terrazzo.inference.modes import slide
from terrazzo.models.freezing import Freezable
from terrazzo.models.preprocess import Preprocess


def as_preprocessor(spec: Any) -> nn.Module:
    """The preprocessor of a segmentor: given, or built from its config."""
    if isinstance(spec, Preprocess):
        spec.__class__ = spec.__class__ if isinstance(spec, SegDataPreProcessor) else SegDataPreProcessor
        return spec
    if isinstance(spec, Mapping):
        return MODELS.build({"type": "SegDataPreProcessor", **spec})
    return spec if spec is not None else SegDataPreProcessor()


class BaseModel(BaseModule):
    """A model with a data preprocessor; `forward(inputs, data_samples, mode)`."""

    def __init__(self, data_preprocessor: Any = None, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.data_preprocessor = as_preprocessor(data_preprocessor)

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        return self._parse_losses(losses)

    @staticmethod
    def _parse_losses(losses: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The sum of what "loss" is in the name of, and the means of all."""
        means = {name: sum(item.mean() for item in (value if isinstance(value, list) else [value]))
                 for name, value in losses.items()}  # fmt: skip
        total: Any = sum(value for name, value in means.items() if "loss" in name)
        return total, {"loss": total, **means}

    def train_step(self, data: Any, optim_wrapper: Any = None, **kwargs: Any) -> Any:
        if "img_metas" in data:  # 0.x
            losses = self(**data)
            total, logged = self._parse_losses(losses)
            return {"loss": total, "log_vars": logged, "num_samples": len(data["img_metas"])}
        data = self.data_preprocessor(data, True)
        total, logged = self.parse_losses(self(data["inputs"], data["data_samples"], mode="loss"))
        optim_wrapper.update_params(total)
        return logged

    def val_step(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        if "img_metas" in data:
            return self(**data)
        data = self.data_preprocessor(data, False)
        return self(data["inputs"], data["data_samples"], mode="predict")

    test_step = val_step


class BaseSegmentor(BaseModel, Freezable):
    """The base of segmentors of both vocabularies."""

    target = "label"

    def __init__(self, data_preprocessor: Any = None, init_cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.fp16_enabled = False

    with_neck = property(lambda self: getattr(self, "neck", None) is not None)
    with_auxiliary_head = property(lambda self: getattr(self, "auxiliary_head", None) is not None)
    with_decode_head = property(lambda self: getattr(self, "decode_head", None) is not None)

    preprocess = property(lambda self: self.data_preprocessor)

    def __setattr__(self, name: str, value: Any) -> None:
        """torch keeps a module under its name without asking a property, so this one goes to where it is read."""
        if name == "preprocess":
            name, value = "data_preprocessor", as_preprocessor(value)
        super().__setattr__(name, value)

    @property
    def final_head(self) -> Any:
        """The head whose logits are the model's: the last decode head, or the first part that has classes."""
        head: Any = getattr(self, "decode_head", None)
        if isinstance(head, nn.ModuleList):
            return head[-1]
        if hasattr(head, "num_classes"):
            return head
        parts = [*(self if head is None else head).modules()][1:]
        found = next((part for part in parts if hasattr(part, "num_classes")), None)
        if found is None:
            raise AttributeError("final_head")
        return found

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: Any = "tensor", **kwargs: Any) -> Any:
        if "return_loss" in kwargs or "img_metas" in kwargs or isinstance(mode, bool):
            return self.forward_in_0x(inputs, kwargs.pop("img_metas", data_samples), **kwargs)
        if mode == "loss":
            return self.loss(inputs, data_samples)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        if mode == "tensor":
            return self._forward(inputs, data_samples)
        raise RuntimeError(f'Invalid mode "{mode}". Only supports loss, predict and tensor mode')

    def forward_in_0x(self, img: Any, img_metas: Any, return_loss: bool = True, **kwargs: Any) -> Any:
        if return_loss:
            return self.forward_train(img, img_metas, **kwargs)
        return self.forward_test(img, img_metas, **kwargs)

    def forward_test(self, imgs: Any, img_metas: Any, **kwargs: Any) -> Any:
        several = isinstance(imgs, (list, tuple))
        images, metas = (imgs, img_metas) if several else ([imgs], [img_metas])
        return (
            self.simple_test(images[0], metas[0], **kwargs)
            if len(images) == 1
            else self.aug_test(images, metas, **kwargs)
        )

    def loss(self, inputs: Tensor, data_samples: Any) -> Any:
        raise NotImplementedError

    def predict(self, inputs: Tensor, data_samples: Any = None) -> Any:
        raise NotImplementedError

    def postprocess_result(self, seg_logits: Tensor, data_samples: Any = None) -> Any:
        """Logits at the size of the images as SegDataSamples: the padding is cut off, the image as it was stored."""
        made = data_samples if data_samples is not None else [SegDataSample() for _ in seg_logits]
        for sample, logits in zip(made, seg_logits, strict=True):
            logits = logits[None]
            facts = sample.metainfo
            if "img_shape" in facts or "ori_shape" in facts:
                left, right, above, below = facts.get("img_padding_size", facts.get("padding_size", [0] * 4))
                logits = logits[:, :, above : logits.shape[2] - below, left : logits.shape[3] - right]
                if facts.get("flip"):
                    logits = logits.flip(3 if facts.get("flip_direction", "horizontal") == "horizontal" else 2)
                logits = resize(logits, tuple(facts["ori_shape"][:2]), None, "bilinear", self.align_corners)
            logits = logits[0]
            binary = len(logits) == 1
            labels = (logits.sigmoid() > self.final_head.threshold).to(logits) if binary else logits.argmax(0, True)
            sample.set_data({"seg_logits": PixelData(data=logits), "pred_sem_seg": PixelData(data=labels)})
        return made

    # what the product calls on a segmentor without a user's methods

    def encode(self, images: Tensor) -> Any:
        return self.extract_feat(images)

    def show_result(
        self, img: Any, result: Any, palette: Any = None, out_file: Any = None, opacity: float = 0.5, **_: Any
    ) -> Any:
        from terrazzo.compat.apis import show_result

        return show_result(self, img, result, palette, out_file, opacity)


class EncoderDecoder(BaseSegmentor):
    """Backbone, neck, decode head and auxiliary heads, built from their configs."""

    def __init__(
        self, backbone: Any, decode_head: Any, neck: Any = None, auxiliary_head: Any = None, train_cfg: Any = None,
        test_cfg: Any = None, data_preprocessor: Any = None, pretrained: Any = None, init_cfg: Any = None, **_: Any,
    ) -> None:  # fmt: skip
        super().__init__(data_preprocessor, init_cfg)
        if pretrained is not None:
            assert backbone.get("pretrained") is None, "both backbone and segmentor set pretrained weight"
            backbone = {**backbone, "pretrained": pretrained}
        self.backbone = MODELS.build(backbone) if isinstance(backbone, Mapping) else backbone
        if neck is not None:
            self.neck = MODELS.build(neck)
        self.train_cfg = ConfigDict(train_cfg) if isinstance(train_cfg, Mapping) else train_cfg
        self.test_cfg = ConfigDict({"mode": "whole", **(test_cfg or {})})
        self._init_decode_head(decode_head)
        self._init_auxiliary_head(auxiliary_head)
        assert self.with_decode_head

    def _init_decode_head(self, decode_head: Any) -> None:
        self.decode_head = MODELS.build(decode_head)
        self.align_corners = self.decode_head.align_corners
        self.num_classes = self.decode_head.num_classes
        self.out_channels = self.decode_head.out_channels

    def _init_auxiliary_head(self, auxiliary_head: Any) -> None:
        if isinstance(auxiliary_head, (list, tuple)):
            self.auxiliary_head = nn.ModuleList([MODELS.build(spec) for spec in auxiliary_head])
        elif auxiliary_head is not None:
            self.auxiliary_head = MODELS.build(auxiliary_head)

    def extract_feat(self, inputs: Tensor) -> Any:
        x = self.backbone(inputs)
        return self.neck(x) if self.with_neck else x

    def encode_decode(self, inputs: Tensor, batch_img_metas: Any) -> Tensor:
        """Logits at the size of the images."""
        x = self.extract_feat(inputs)
        logits = self._decode_head_forward_test(x, batch_img_metas)
        return resize(logits, inputs.shape[2:], None, "bilinear", self.align_corners)

    def _decode_head_forward_test(self, x: Any, metas: Any) -> Tensor:
        head = self.decode_head
        if overrides(head, "forward_test") and not overrides(head, "predict"):
            return head.forward_test(x, metas, self.test_cfg)
        return head.predict(x, metas, self.test_cfg)

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Any:
        return self.decode_head.forward(self.extract_feat(inputs))

    def forward_dummy(self, img: Tensor) -> Tensor:
        return resize(self._forward(img), img.shape[2:], None, "bilinear", self.align_corners)

    # losses

    def _decode_head_forward_train(self, x: Any, samples: Any, gt_semantic_seg: Any = None, *args: Any) -> Any:
        return add_prefix(head_loss(self.decode_head, x, samples, gt_semantic_seg, self.train_cfg), "decode")

    def _auxiliary_head_forward_train(self, x: Any, samples: Any, gt_semantic_seg: Any = None, *args: Any) -> Any:
        several = isinstance(self.auxiliary_head, nn.ModuleList)
        heads = self.auxiliary_head if several else [self.auxiliary_head]
        losses: dict[str, Any] = {}
        for index, head in enumerate(heads):
            own = head_loss(head, x, samples, gt_semantic_seg, self.train_cfg)
            losses |= add_prefix(own, f"aux_{index}" if several else "aux")
        return losses

    def loss(self, inputs: Tensor, data_samples: Any) -> Any:
        x = self.extract_feat(inputs)
        losses = dict(self._decode_head_forward_train(x, data_samples))
        return losses | (self._auxiliary_head_forward_train(x, data_samples) if self.with_auxiliary_head else {})

    def forward_train(self, img: Tensor, img_metas: Any, gt_semantic_seg: Tensor, **kwargs: Any) -> Any:
        x = self.extract_feat(img)
        losses = dict(self._decode_head_forward_train(x, img_metas, gt_semantic_seg))
        if self.with_auxiliary_head:
            losses |= self._auxiliary_head_forward_train(x, img_metas, gt_semantic_seg)
        return losses

    # inference

    def predict(self, inputs: Tensor, data_samples: Any = None) -> Any:
        height, width = inputs.shape[2:]
        metas = [meta_of(height, width)] * len(inputs) if data_samples is None else [s.metainfo for s in data_samples]
        return self.postprocess_result(self.inference(inputs, metas), data_samples)

    def slide_inference(self, inputs: Tensor, batch_img_metas: Any, rescale: bool = True) -> Tensor:
        one = [batch_img_metas[0]]

        def on_window(windows: Tensor) -> Tensor:
            metas = [{**one[0], "img_shape": tuple(windows.shape[2:])}] * len(windows)
            return self.encode_decode(windows, metas)

        return slide(on_window, inputs, self.test_cfg.crop_size, self.test_cfg.stride, windows_at_once=1)

    def whole_inference(self, inputs: Tensor, batch_img_metas: Any, rescale: bool = True) -> Tensor:
        return self.encode_decode(inputs, batch_img_metas)

    def inference(self, inputs: Tensor, batch_img_metas: Any, rescale: bool = True) -> Tensor:
        mode = self.test_cfg.get("mode", "whole")
        assert mode in ("slide", "whole"), f"Only 'slide' or 'whole' test mode are supported, but got {mode}"
        infer = self.slide_inference if mode == "slide" else self.whole_inference
        return (
            infer(inputs, batch_img_metas, rescale)
            if overrides(self, infer.__name__) and arity(infer) > 2
            else infer(inputs, batch_img_metas)
        )

    def simple_test(self, img: Tensor, img_meta: Any, rescale: bool = True) -> list[Any]:
        return [*self.inference(img, img_meta, rescale).argmax(1).cpu().numpy()]

    def aug_test(self, imgs: Any, img_metas: Any, rescale: bool = True) -> list[Any]:
        total = sum(self.inference(img, meta, rescale).softmax(1) for img, meta in zip(imgs, img_metas, strict=True))
        return [*total.argmax(1).cpu().numpy()]  # type: ignore[union-attr]


class CascadeEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with `num_stages` decode heads, each of which reads the output of the one before it."""

    def __init__(self, num_stages: int, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "num_stages", num_stages)
        super().__init__(*args, **kwargs)
        self.num_stages = num_stages

    def _init_decode_head(self, decode_head: Any) -> None:
        assert isinstance(decode_head, (list, tuple)) and len(decode_head) == self.num_stages
        self.decode_head = nn.ModuleList([MODELS.build(spec) for spec in decode_head])  # type: ignore[assignment]
        last = self.final_head
        self.align_corners, self.num_classes = last.align_corners, last.num_classes
        self.out_channels = last.out_channels
        for head in self.decode_head[1:]:
            if hasattr(head, "configure"):
                head.configure(self.train_cfg or {}, self.test_cfg or {})

    def _decode_head_forward_test(self, x: Any, metas: Any) -> Tensor:
        out = self.decode_head[0].forward(x)
        for head in self.decode_head[1:-1]:
            out = head.forward(x, out)
        last = self.decode_head[-1]
        if overrides(last, "forward_test") and not overrides(last, "predict"):
            return last.forward_test(x, out, metas, self.test_cfg)
        return last.predict(x, out, metas, self.test_cfg)

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Any:
        x = self.extract_feat(inputs)
        out = self.decode_head[0].forward(x)
        for head in self.decode_head[1:]:
            out = head.forward(x, out)
        return out

    def _decode_head_forward_train(self, x: Any, samples: Any, gt_semantic_seg: Any = None, *args: Any) -> Any:
        losses = add_prefix(head_loss(self.decode_head[0], x, samples, gt_semantic_seg, self.train_cfg), "decode_0")
        out = self.decode_head[0].forward(x)
        for index, head in enumerate(self.decode_head[1:], 1):
            own = head_loss(head, x, samples, gt_semantic_seg, self.train_cfg, out)
            losses |= add_prefix(own, f"decode_{index}")
            out = head.forward(x, out) if index + 1 < len(self.decode_head) else None
        return losses


class BaseTTAModel(nn.Module):
    """A model around another whose predictions of several views of an image are merged; `--tta` needs none."""

    def __init__(self, module: Any, data_preprocessor: Any = None, **_: Any) -> None:
        super().__init__()
        self.module = MODELS.build(module) if isinstance(module, Mapping) else module

    def merge_preds(self, data_samples_list: Any) -> Any:
        raise NotImplementedError

    def test_step(self, data: Any) -> Any:
        views = [self.module.test_step({"inputs": x, "data_samples": s}) for x, s in
                 zip(data["inputs"], data["data_samples"], strict=True)]  # fmt: skip
        return self.merge_preds([*map(list, zip(*views, strict=True))])


class SegTTAModel(BaseTTAModel):
    """The mean of the probabilities of all views."""

    def merge_preds(self, data_samples_list: Any) -> Any:
        made = []
        for samples in data_samples_list:
            logits = [sample.seg_logits.data for sample in samples]
            one = logits[0].shape[0] == 1
            mean = sum(x.sigmoid() if one else x.softmax(0) for x in logits) / len(logits)
            labels = (mean > self.module.decode_head.threshold).to(mean).squeeze(1) if one else mean.argmax(0)
            samples[0].set_data({"pred_sem_seg": PixelData(data=labels)})
            made.append(samples[0])
        return made


def arity(method: Any) -> int:
    """The number of positional arguments that a method takes."""
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(method).parameters.values())


def overrides(instance: Any, name: str) -> bool:
    """Report whether a user's class has its own method of this name."""
    owner = next((cls for cls in type(instance).__mro__ if name in vars(cls)), None)
    return owner is not None and not owner.__module__.startswith(("terrazzo.", "torch."))


def depth_of(instance: Any, name: str) -> int:
    """The distance of the user's method of this name from the instance's own class; large for none."""
    mro = type(instance).__mro__
    return (
        next((n for n, cls in enumerate(mro) if name in vars(cls)), len(mro)) if overrides(instance, name) else len(mro)
    )


def head_loss(head: Any, x: Any, samples: Any, labels: Any, train_cfg: Any, *previous: Any) -> Any:
    """The losses of a head by the method that its author wrote, from either vocabulary's arguments."""
    if labels is None:
        stacked = None
    else:
        stacked = labels if labels.ndim == 4 else labels.unsqueeze(1)
    old = depth_of(head, "forward_train") < depth_of(head, "loss")
    if old or (stacked is not None and hasattr(head, "forward_train") and not overrides(head, "loss")
               and not overrides(head, "loss_by_feat")):  # fmt: skip
        if stacked is None:
            stacked = torch.stack([sample.gt_sem_seg.data for sample in samples])
            samples = [sample.metainfo for sample in samples]
        return head.forward_train(x, *previous, samples, stacked, train_cfg)
    if stacked is not None:
        images = stacked.new_zeros(len(stacked), 1, *stacked.shape[-2:])
        samples = samples_of(images, stacked.squeeze(1))
    return head.loss(x, *previous, samples, train_cfg)


OFFICIAL |= {
    "EncoderDecoder": EncoderDecoder, "CascadeEncoderDecoder": CascadeEncoderDecoder, "SegTTAModel": SegTTAModel,
    "SegDataPreProcessor": SegDataPreProcessor, "BaseSegmentor": BaseSegmentor,
}  # fmt: skip
