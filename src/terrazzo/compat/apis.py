"""`mmseg.apis`: models from configs and checkpoints, predictions, pictures."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from terrazzo.compat.config import Config
from terrazzo.compat.image import imread, imwrite
from terrazzo.compat.structures import PixelData, SegDataSample
from terrazzo.config.load import load_config
from terrazzo.inference.load import load
from terrazzo.inference.segmenter import Segmenter
from terrazzo.registry import declared_dataset
from terrazzo.system.painting import overlay
from terrazzo.system.palette import default_palette


def init_model(config: Any, checkpoint: Any = None, device: str = "cuda:0", cfg_options: Any = None) -> Any:
    """A model for inference from a config (a path, or a Config) and a checkpoint; random weights without one."""
    if not isinstance(config, (str, Path, Config)):
        raise TypeError(f"config must be a filename or Config object, but got {type(config)}")
    values = config.to_dict() if isinstance(config, Config) else config
    wanted = str(device) if torch.cuda.is_available() or not str(device).startswith("cuda") else "cpu"
    settings = load_config(values, dict(cfg_options or {}), trust=True)
    from terrazzo.models.build import build_model

    if checkpoint is None:
        model: Any = build_model(settings)
        segmenter = None
    else:
        segmenter = load(settings, checkpoint, wanted, trust=True)
        model = segmenter.model
    model.cfg = config if isinstance(config, Config) else Config(settings.to_dict())
    model.dataset_meta = {
        "classes": segmenter.classes if segmenter else [str(i) for i in range(model.final_head.num_classes)],
        "palette": segmenter.palette if segmenter else default_palette(model.final_head.num_classes),
    }
    model.CLASSES, model.PALETTE = model.dataset_meta["classes"], model.dataset_meta["palette"]
    model.segmenter = segmenter
    return model.to(wanted).eval()


init_segmentor = init_model


def segmenter_of(model: Any) -> Any:
    """The product's Segmenter of a model."""
    if getattr(model, "segmenter", None) is None:
        from terrazzo.inference.torch_runtime import TorchRuntime

        device = next(model.parameters()).device
        classes, palette = model.dataset_meta["classes"], model.dataset_meta["palette"]
        model.segmenter = Segmenter(TorchRuntime(model, classes, palette, device=device))
    return model.segmenter


def inference_model(model: Any, imgs: Any) -> Any:
    """A SegDataSample for an image (a path, or an array in BGR order), or one for each of a list."""
    if isinstance(imgs, (list, tuple)):
        return [inference_model(model, one) for one in imgs]
    image = imread(imgs)
    prediction = segmenter_of(model)(np.ascontiguousarray(image[..., ::-1]))
    labels = torch.from_numpy(np.asarray(prediction.labels).astype(np.int64))
    facts = {"img_path": str(imgs) if isinstance(imgs, (str, Path)) else "", "ori_shape": image.shape[:2]}
    sample = SegDataSample(metainfo=facts)
    sample.set_data({"pred_sem_seg": PixelData(data=labels[None])})
    logits = torch.from_numpy(np.asarray(prediction.probs)).clamp(min=1e-12).log()
    sample.set_data({"seg_logits": PixelData(data=logits)})
    return sample


def inference_segmentor(model: Any, imgs: Any) -> list[np.ndarray]:
    """0.x: the class map (H, W) of each image."""
    listed = imgs if isinstance(imgs, (list, tuple)) else [imgs]
    return [inference_model(model, one).pred_sem_seg.data[0].numpy() for one in listed]


def show_result(
    model: Any, img: Any, result: Any, palette: Any = None, out_file: Any = None, opacity: float = 0.5
) -> np.ndarray:
    """An image (BGR) with the classes of a result over it; also written to `out_file`."""
    image = imread(img)
    if isinstance(result, SegDataSample):
        labels = result.pred_sem_seg.data.squeeze().cpu().numpy()
    else:
        labels = np.asarray(result[0] if isinstance(result, (list, tuple)) else result)
    colours = palette or getattr(model, "PALETTE", None) or default_palette(int(labels.max()) + 1)
    drawn = overlay(np.ascontiguousarray(image[..., ::-1]), labels, colours, opacity)
    drawn = np.ascontiguousarray(drawn[..., ::-1])
    if out_file is not None:
        imwrite(drawn, out_file)
    return drawn


def show_result_pyplot(
    model: Any, img: Any, result: Any, palette: Any = None, opacity: float = 0.5, *_: Any,
    out_file: Any = None, **__: Any,
) -> np.ndarray:  # fmt: skip
    """`show_result`, in RGB order."""
    drawn = show_result(model, img, result, palette if isinstance(palette, list) else None, out_file, opacity)
    return np.ascontiguousarray(drawn[..., ::-1])


class MMSegInferencer:
    """Predictions of images and folders by the name of a recipe, or a config, and a checkpoint."""

    def __init__(
        self, model: Any, weights: Any = None, classes: Any = None, palette: Any = None, dataset_name: Any = None,
        device: Any = None, scope: str = "mmseg",
    ) -> None:  # fmt: skip
        chosen = Config(model) if isinstance(model, Mapping) else str(model)
        self.model = init_model(chosen, weights, device or "cuda:0")
        self.cfg = self.model.cfg

    def __call__(
        self, inputs: Any, return_datasamples: bool = False, batch_size: int = 1, show: bool = False, out_dir: str = "",
        img_out_dir: str = "vis", pred_out_dir: str = "pred", opacity: float = 0.8, **kwargs: Any,
    ) -> Any:  # fmt: skip
        folder = Path(inputs) if isinstance(inputs, (str, Path)) and Path(inputs).is_dir() else None
        listed = sorted(folder.iterdir()) if folder else inputs if isinstance(inputs, (list, tuple)) else [inputs]
        samples = [inference_model(self.model, one) for one in listed]
        predicted = [sample.pred_sem_seg.data[0].numpy() for sample in samples]
        pictures = []
        for index, (one, sample) in enumerate(zip(listed, samples, strict=True)):
            name = Path(one).stem if isinstance(one, (str, Path)) else f"{index:08}"
            target = Path(out_dir, img_out_dir, f"{name}.jpg") if out_dir and img_out_dir else None
            if target or show:
                pictures.append(show_result(self.model, one, sample, None, target, opacity))
            if out_dir and pred_out_dir:
                imwrite(predicted[index].astype(np.uint8), Path(out_dir, pred_out_dir, f"{name}_pred.png"))
        if return_datasamples:
            return samples[0] if len(samples) == 1 else samples
        one = len(samples) == 1
        return {"predictions": predicted[0] if one else predicted, "visualization": pictures}


def get_classes(dataset: str) -> list[str]:
    """The classes of a published data set by its short name."""
    return [*declared_dataset(dataset).classes]


def get_palette(dataset: str) -> list[list[int]]:
    return [[*colour] for colour in declared_dataset(dataset).palette]


SHORT = (
    "ade", "bdd100k", "cityscapes", "cocostuff", "isaid", "loveda", "potsdam", "stare", "synapse", "vaihingen", "voc",
)  # fmt: skip
for _name in SHORT:
    globals()[f"{_name}_classes"] = functools.partial(get_classes, _name)
    globals()[f"{_name}_palette"] = functools.partial(get_palette, _name)
dataset_aliases = {name: [name] for name in SHORT}


def convert_overlay_heatmap(feat_map: Any, img: Any = None, alpha: float = 0.5) -> np.ndarray:
    """A map (H, W) in colours, over an image where one is given."""
    values = feat_map.detach().cpu().numpy() if isinstance(feat_map, torch.Tensor) else np.asarray(feat_map)
    values = (values - values.min()) / max(values.max() - values.min(), 1e-12)
    colours = cv2.cvtColor(cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return colours if img is None else cv2.addWeighted(img, 1 - alpha, colours, alpha, 0)


def img_from_canvas(canvas: Any) -> np.ndarray:
    """The pixels of a canvas of matplotlib, RGB."""
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class BaseInferencer:
    """Inputs -> preprocess -> forward -> visualize -> postprocess; a subclass writes them."""

    preprocess_kwargs: ClassVar[set[str]] = set()
    forward_kwargs: ClassVar[set[str]] = set()
    visualize_kwargs: ClassVar[set[str]] = set()
    postprocess_kwargs: ClassVar[set[str]] = set()

    def __init__(self, model: Any = None, weights: Any = None, device: Any = None, *_: Any, **__: Any) -> None:
        self.model = init_model(model, weights, device or "cuda:0")
        self.cfg = self.model.cfg

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        def own(stage: str) -> dict[str, Any]:
            return {key: value for key, value in kwargs.items() if key in getattr(self, f"{stage}_kwargs")}

        listed = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        predictions = [self.forward(item, **own("forward")) for item in self.preprocess(listed, **own("preprocess"))]
        pictures = self.visualize(listed, predictions, **own("visualize"))
        return self.postprocess(predictions, pictures, **own("postprocess"))

    def preprocess(self, inputs: Any, **kwargs: Any) -> Any:
        return inputs

    def forward(self, inputs: Any, **kwargs: Any) -> Any:
        return inference_model(self.model, inputs)

    def visualize(self, inputs: Any, preds: Any, **kwargs: Any) -> Any:
        return []

    def postprocess(self, preds: Any, visualization: Any, **kwargs: Any) -> Any:
        return {"predictions": preds, "visualization": visualization}


def get_model_complexity_info(model: Any, input_shape: Any, *_: Any, as_strings: bool = True, **__: Any) -> Any:
    """Multiply-adds and parameters of a model for images of (C, H, W)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *input_shape, device=next(model.parameters()).device))
    flops, params = counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())
    return (flops_to_string(flops), params_to_string(params)) if as_strings else (flops, params)


def flops_to_string(flops: float, units: str | None = "GFLOPs", precision: int = 2) -> str:
    return f"{round(flops / {'G': 1e9, 'M': 1e6, 'K': 1e3}.get((units or 'G')[0], 1), precision)} {units or 'GFLOPs'}"


def params_to_string(num_params: float, units: str | None = None, precision: int = 2) -> str:
    return f"{round(num_params / {'M': 1e6, 'K': 1e3}.get((units or 'M')[0], 1), precision)} {units or 'M'}"


def find_latest_checkpoint(path: Any, suffix: str = "pth") -> str | None:
    """The newest checkpoint of a run's folder, or None."""
    found = [*Path(path).glob("*.safetensors"), *Path(path).glob(f"*.{suffix}")]
    return str(max(found, key=lambda file: file.stat().st_mtime)) if found else None
