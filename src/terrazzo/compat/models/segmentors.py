"""Segmentors with the methods of MMSegmentation 0.x and 1.x, which terrazzo trains and scores like its own."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.compat.data import structures
from terrazzo.compat.data.structures import PixelData, SegDataPreProcessor, add_prefix
from terrazzo.compat.files.config import ConfigDict
from terrazzo.compat.models.faces import OFFICIAL, is_older
from terrazzo.compat.models.layers import resize
from terrazzo.compat.models.module import BaseModule, is_init_cfg, overrides
from terrazzo.compat.registry import MODELS
from terrazzo.inference.modes import slide
from terrazzo.models.freezing import Freezable
from terrazzo.models.preprocess import Preprocess


def as_preprocessor(spec: Any) -> nn.Module:
    """The preprocessor of a segmentor: given, or built from its config."""
    made = MODELS.build({"type": "SegDataPreProcessor", **spec}) if isinstance(spec, Mapping) else spec
    if made is None:
        return SegDataPreProcessor()
    if isinstance(made, Preprocess) and not isinstance(made, SegDataPreProcessor):
        made.__class__ = SegDataPreProcessor
    if overrides(made, "forward") and not isinstance(made, OwnPreprocessor):
        made.__class__ = type(type(made).__name__, (OwnPreprocessor, type(made)), {"__module__": type(made).__module__})
    return made


class OwnPreprocessor:
    """A user's preprocessor, also called with a batch (N, C, H, W) in RGB order; it sees a dict of images in BGR."""

    def forward(self, images: Any, training: bool = False) -> Any:
        if not isinstance(images, Tensor):
            return super().forward(images, training)  # type: ignore[misc]
        bands = images.unflatten(1, (-1, 3)).flip(2).flatten(1, 2) if images.shape[1] % 3 == 0 else images
        if torch.compiler.is_exporting():  # to a graph, whose labels are compared: only normalisation can be in it
            x = images if getattr(self, "channel_conversion", False) else bands
            mean, std = (getattr(self, name, None) for name in ("mean", "std"))
            return x.float() if mean is None else (x.float() - mean) / std
        found = []
        for x in bands.split(1):  # one by one: some take no more in testing
            samples = structures.samples_of(x, torch.zeros_like(x[:, 0], dtype=torch.long))
            found.append(super().forward({"inputs": [x[0]], "data_samples": samples}, False)["inputs"])  # type: ignore[misc]
        return torch.cat(found)


def final_head_of(model: Any) -> Any:
    """The part of a segmentor that knows its classes. Raises AttributeError where there is none."""
    head: Any = getattr(model, "decode_head", None)
    if isinstance(head, nn.ModuleList):
        return head[-1]
    parts = [head, *[*(model if head is None else head).modules()][1:], model]
    found = next((part for part in parts if hasattr(part, "num_classes") or model.target == "depth"), None)
    if found is None:
        raise AttributeError("final_head")
    return found


class BaseSegmentor(BaseModule, Freezable):
    """The base of segmentors of both vocabularies; `forward(inputs, data_samples, mode)`, or with `img_metas`."""

    target = "label"
    fp16_enabled = False
    align_corners: bool

    def __init__(self, data_preprocessor: Any = None, init_cfg: Any = None, **kwargs: Any) -> None:
        if is_init_cfg(data_preprocessor):  # by position, as the first argument of 0.x
            data_preprocessor, init_cfg = None, data_preprocessor
        super().__init__(init_cfg)
        self.data_preprocessor = as_preprocessor(data_preprocessor)

    def init_weights(self, pretrained: Any = None) -> None:
        """As BaseModule's; early 0.x hands over the file of the backbone's weights, which subclasses load."""
        super().init_weights()

    debug, automatic_debug, local_iter = False, False, 0  # which projects have added to their copies of the base
    update_debug_state = staticmethod(lambda: None)
    with_neck = property(lambda self: getattr(self, "neck", None) is not None)
    with_auxiliary_head = property(lambda self: getattr(self, "auxiliary_head", None) is not None)
    with_decode_head = property(lambda self: getattr(self, "decode_head", None) is not None)
    preprocess = property(lambda self: self.data_preprocessor)

    def __setattr__(self, name: str, value: Any) -> None:
        found = ("data_preprocessor", as_preprocessor(value)) if name == "preprocess" else (name, value)
        super().__setattr__(*found)

    final_head = property(lambda self: final_head_of(self))

    @staticmethod
    def _parse_losses(losses: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        means = {name: sum(item.mean() for item in (value if isinstance(value, list) else [value]))
                 for name, value in losses.items()}  # fmt: skip
        total: Any = sum(value for name, value in means.items() if "loss" in name)
        return total, {"loss": total, **means}

    parse_losses = _parse_losses

    def train_step(self, data: Any, optim_wrapper: Any = None, **kwargs: Any) -> Any:
        if "img_metas" in data:  # 0.x
            total, logged = self._parse_losses(self(**data))
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

    def forward(self, inputs: Any = None, data_samples: Any = None, mode: Any = "tensor", **kwargs: Any) -> Any:
        if "return_loss" in kwargs or "img_metas" in kwargs or isinstance(mode, bool):
            inputs = kwargs.pop("img", inputs)
            metas, train = kwargs.pop("img_metas", data_samples), kwargs.pop("return_loss", mode is not False)
            return (self.forward_train if train else self.forward_test)(inputs, metas, **kwargs)
        if mode not in ("loss", "predict", "tensor"):
            raise RuntimeError(f'Invalid mode "{mode}". Only supports loss, predict and tensor mode')
        return getattr(self, "_forward" if mode == "tensor" else mode)(inputs, data_samples)

    def forward_test(self, imgs: Any, img_metas: Any, **kwargs: Any) -> Any:
        several = isinstance(imgs, (list, tuple))
        if several and len(imgs) > 1:
            return self.aug_test(imgs, img_metas, **kwargs)
        return self.simple_test(*((imgs[0], img_metas[0]) if several else (imgs, img_metas)), **kwargs)

    def encode(self, images: Tensor) -> Any:
        return self.extract_feat(images)

    def postprocess_result(self, seg_logits: Tensor, data_samples: Any = None) -> Any:
        made = data_samples if data_samples is not None else [structures.SegDataSample() for _ in seg_logits]
        for sample, logits in zip(made, seg_logits, strict=True):
            facts = sample.metainfo
            if "img_shape" in facts or "ori_shape" in facts:
                left, right, above, below = facts.get("img_padding_size", facts.get("padding_size", [0] * 4))
                logits = logits[None, :, above : logits.shape[1] - below, left : logits.shape[2] - right]
                if facts.get("flip"):
                    logits = logits.flip(3 if facts.get("flip_direction", "horizontal") == "horizontal" else 2)
                logits = resize(logits, tuple(facts["ori_shape"][:2]), None, "bilinear", self.align_corners)[0]
            if len(logits) == 1:
                logits = logits.sigmoid()
                labels = (logits > self.final_head.threshold).to(logits)
            else:
                labels = logits.argmax(0, True)
            sample.set_data({"seg_logits": PixelData(data=logits), "pred_sem_seg": PixelData(data=labels)})
        return made


class EncoderDecoder(BaseSegmentor):
    """Backbone, neck, decode head and auxiliary heads, built from their configs."""

    decode_head: Any

    def __init__(
        self, backbone: Any, decode_head: Any, neck: Any = None, auxiliary_head: Any = None, train_cfg: Any = None,
        test_cfg: Any = None, data_preprocessor: Any = None, pretrained: Any = None, init_cfg: Any = None, **_: Any,
    ) -> None:  # fmt: skip
        if isinstance(data_preprocessor, str) or isinstance(pretrained, Mapping):  # by position, in 0.x's order
            data_preprocessor, pretrained, init_cfg = None, data_preprocessor, pretrained
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

    def init_weights(self, pretrained: Any = None) -> None:
        super().init_weights()
        if isinstance(pretrained, str):
            self.backbone.init_weights(pretrained)

    def _init_decode_head(self, decode_head: Any) -> None:
        self.decode_head = heads_of(decode_head)  # several of a cascade
        head = self.final_head
        self.align_corners, self.num_classes = head.align_corners, head.num_classes
        self.out_channels = getattr(head, "out_channels", head.num_classes)  # which early 0.x does not have

    def _init_auxiliary_head(self, auxiliary_head: Any) -> None:
        if auxiliary_head is not None:
            self.auxiliary_head = heads_of(auxiliary_head)

    def extract_feat(self, inputs: Tensor) -> Any:
        x = self.backbone(inputs)
        return self.neck(x) if self.with_neck else x

    def encode_decode(self, inputs: Tensor, batch_img_metas: Any) -> Tensor:
        logits = self._decode_head_forward_test(self.extract_feat(inputs), batch_img_metas)
        return resize(logits, inputs.shape[2:], None, "bilinear", self.align_corners)

    @property
    def _stages(self) -> list[Any]:
        """The decode heads, each of which reads the output of the one before it."""
        return [*self.decode_head] if isinstance(self.decode_head, nn.ModuleList) else [self.decode_head]

    def _through(self, x: Any, heads: list[Any]) -> tuple[Any, ...]:
        """The output of the last of some heads; none for no heads."""
        previous: tuple[Any, ...] = ()
        for head in heads:
            previous = (head.forward(x, *previous),)
        return previous

    def _decode_head_forward_test(self, x: Any, metas: Any) -> Tensor:
        *before, head = self._stages
        older = overrides(head, "forward_test") or is_older(type(head).__module__)
        older = older and hasattr(head, "forward_test") and not overrides(head, "predict")
        return (head.forward_test if older else head.predict)(x, *self._through(x, before), metas, self.test_cfg)

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Any:
        return self._through(self.extract_feat(inputs), self._stages)[0]

    def _decode_head_forward_train(self, x: Any, samples: Any, gt_semantic_seg: Any = None, *args: Any) -> Any:
        losses, previous, last = dict[str, Any](), tuple[Any, ...](), self._stages[-1]
        for index, head in enumerate(self._stages):
            own = head_loss(head, x, samples, gt_semantic_seg, self.train_cfg, *previous)
            losses |= add_prefix(own, "decode" if head is self.decode_head else f"decode_{index}")
            previous = () if head is last else (head.forward(x, *previous),)
        return losses

    def _auxiliary_head_forward_train(self, x: Any, samples: Any, gt_semantic_seg: Any = None, *args: Any) -> Any:
        if not isinstance(self.auxiliary_head, nn.ModuleList):
            return add_prefix(head_loss(self.auxiliary_head, x, samples, gt_semantic_seg, self.train_cfg), "aux")
        losses = [head_loss(head, x, samples, gt_semantic_seg, self.train_cfg) for head in self.auxiliary_head]
        return {name: v for n, own in enumerate(losses) for name, v in add_prefix(own, f"aux_{n}").items()}

    def loss(self, inputs: Tensor, data_samples: Any, *labels: Any, **kwargs: Any) -> Any:
        given = (self.extract_feat(inputs), data_samples, *labels)
        losses = dict(self._decode_head_forward_train(*given))
        return losses | (self._auxiliary_head_forward_train(*given) if self.with_auxiliary_head else {})

    def forward_train(self, img: Tensor, img_metas: Any, gt_semantic_seg: Tensor, **kwargs: Any) -> Any:
        return EncoderDecoder.loss(self, img, img_metas, gt_semantic_seg)

    def predict(self, inputs: Tensor, data_samples: Any = None) -> Any:
        known = structures.samples_of(inputs) if data_samples is None else data_samples
        return self.postprocess_result(self.inference(inputs, [sample.metainfo for sample in known]), data_samples)

    def slide_inference(self, inputs: Tensor, batch_img_metas: Any, rescale: bool | None = None) -> Tensor:
        def on_window(windows: Tensor) -> Tensor:
            metas = [{**batch_img_metas[0], "img_shape": tuple(windows.shape[2:])}] * len(windows)
            return self.encode_decode(windows, metas)

        logits = slide(on_window, inputs, self.test_cfg.crop_size, self.test_cfg.stride, windows_at_once=1)
        return self._at_own_size(logits, batch_img_metas, rescale)

    def whole_inference(self, inputs: Tensor, batch_img_metas: Any, rescale: bool | None = None) -> Tensor:
        return self._at_own_size(self.encode_decode(inputs, batch_img_metas), batch_img_metas, rescale)

    def _at_own_size(self, logits: Tensor, metas: Any, rescale: bool | None) -> Tensor:
        """0.x: logits at the size that the image has in its file."""
        size = tuple(metas[0]["ori_shape"][:2]) if rescale else logits.shape[2:]
        return resize(logits, size, None, "bilinear", self.align_corners)

    def inference(self, inputs: Tensor, batch_img_metas: Any, rescale: bool | None = None) -> Tensor:
        """Logits; with `rescale`, which 0.x gives, probabilities."""
        mode = self.test_cfg.get("mode", "whole")
        assert mode in ("slide", "whole"), f"Only 'slide' or 'whole' test mode are supported, but got {mode}"
        infer = getattr(self, f"{mode}_inference")
        takes_it = len(inspect.signature(infer).parameters) > 2
        logits = infer(inputs, batch_img_metas, *[rescale] * takes_it)
        if rescale is None:
            return logits
        found = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
        if batch_img_metas[0].get("flip"):
            found = found.flip(2 if batch_img_metas[0]["flip_direction"] == "vertical" else 3)
        return found

    def simple_test(self, img: Tensor, img_meta: Any, rescale: bool = True) -> list[Any]:
        return self.aug_test([img], [img_meta], rescale)

    def aug_test(self, imgs: Any, img_metas: Any, rescale: bool = True) -> list[Any]:
        found = torch.stack([self.inference(*view, rescale) for view in zip(imgs, img_metas, strict=True)]).mean(0)
        labels = found[:, 0] > self.final_head.threshold if found.shape[1] == 1 else found.argmax(1)
        return [*labels.cpu().numpy()]

    def forward_dummy(self, img: Tensor) -> Tensor:
        return resize(self._forward(img), img.shape[2:], None, "bilinear", self.align_corners)


def heads_of(spec: Any) -> Any:
    """A head, or a list of heads, from its config."""
    return nn.ModuleList(map(MODELS.build, spec)) if isinstance(spec, (list, tuple)) else MODELS.build(spec)


class CascadeEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with `num_stages` decode heads, each of which reads the output of the one before it."""

    def __init__(self, num_stages: int, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "num_stages", num_stages)
        super().__init__(*args, **kwargs)
        assert len(self.decode_head) == num_stages
        for head in [head for head in self.decode_head[1:] if hasattr(head, "configure")]:
            head.configure(self.train_cfg or {}, self.test_cfg or {})


class BaseTTAModel(BaseModule):
    """A model around another whose predictions of several views of an image are merged; `--tta` needs none."""

    def __init__(self, module: Any, data_preprocessor: Any = None, **_: Any) -> None:
        super().__init__()
        self.module = MODELS.build(module) if isinstance(module, Mapping) else module

    def test_step(self, data: Any) -> Any:
        pairs = zip(data["inputs"], data["data_samples"], strict=True)
        views = [self.module.test_step({"inputs": x, "data_samples": samples}) for x, samples in pairs]
        return self.merge_preds([*map(list, zip(*views, strict=True))])


class SegTTAModel(BaseTTAModel):
    """A model around another, of whose probabilities for several views it takes the mean."""

    def merge_preds(self, data_samples_list: Any) -> Any:
        for views in data_samples_list:
            logits = [view.seg_logits.data for view in views]
            single = len(logits[0]) == 1
            mean = sum(x.sigmoid() if single else x.softmax(0) for x in logits) / len(logits)
            labels = (mean > self.module.final_head.threshold).to(mean) if single else mean.argmax(0, keepdim=True)
            views[0].set_data({"pred_sem_seg": PixelData(data=labels)})
        return [views[0] for views in data_samples_list]


def depth_of(instance: Any, name: str) -> int:
    """The distance of the user's method of this name from the instance's own class; large for none."""
    mro = type(instance).__mro__
    return next((n for n, cls in enumerate(mro) if overrides(instance, name) and name in vars(cls)), len(mro))


def head_loss(head: Any, x: Any, samples: Any, labels: Any, train_cfg: Any, *previous: Any) -> Any:
    """The losses of a head by the method that its author wrote, from either vocabulary's arguments."""
    stacked = labels if labels is None or labels.ndim == 4 else labels.unsqueeze(1)
    newer = overrides(head, "loss") or overrides(head, "loss_by_feat")
    old = depth_of(head, "forward_train") < depth_of(head, "loss")
    if old or (stacked is not None and hasattr(head, "forward_train") and not newer):
        if stacked is None:
            stacked, samples = structures.labels_of(samples), [sample.metainfo for sample in samples]
        return head.forward_train(x, *previous, samples, stacked, train_cfg)
    if stacked is not None:
        samples = structures.samples_of(stacked.new_zeros(len(stacked), 1, *stacked.shape[-2:]), stacked.squeeze(1))
    return head.loss(x, *previous, samples, train_cfg)


OWN = (EncoderDecoder, CascadeEncoderDecoder, SegDataPreProcessor, BaseSegmentor, BaseTTAModel, SegTTAModel)
OFFICIAL |= {"BaseModel": BaseSegmentor, **{kind.__name__: kind for kind in OWN}}
