"""`mmseg.apis`: models from configs and checkpoints, predictions, pictures."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.compat.data.structures import PixelData, SegDataSample
from terrazzo.compat.engine.hooks import Visualizer
from terrazzo.compat.engine.runner import Runner
from terrazzo.compat.files.config import Config
from terrazzo.compat.files.image import imread, imwrite
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.inference.checkpoints import segmenter_for
from terrazzo.inference.load import load
from terrazzo.models.build import build_model
from terrazzo.recipes import names
from terrazzo.registry import declared_dataset
from terrazzo.sample import Sample
from terrazzo.system.painting import overlay


def init_model(config: Any, checkpoint: Any = None, device: str = "cuda:0", cfg_options: Any = None) -> Any:
    if not isinstance(config, (str, Path, Config)):
        raise TypeError(f"config must be a filename or Config object, but got {type(config)}")
    values = config.to_dict() if isinstance(config, Config) else config
    wanted = str(device) if torch.cuda.is_available() or not str(device).startswith("cuda") else "cpu"
    settings = load_config(values, dict(cfg_options or {}), trust=True)
    if checkpoint is None:
        experiment = make_experiment(settings)
        segmenter: Any = segmenter_for(build_model(experiment.model), experiment, torch.device(wanted))
    else:
        segmenter = load(settings, checkpoint, wanted, trust=True)
    cfg = config if isinstance(config, Config) else Config(settings.to_dict())
    return _with_segmenter(segmenter.model.to(wanted), segmenter, cfg).eval()


def _with_segmenter(model: Any, segmenter: Any, cfg: Any) -> Any:
    """A model with what predicts by it, and what it is asked for."""
    model.cfg, model.segmenter, model.show_result = cfg, segmenter, partial(show_result_pyplot, model)
    model.CLASSES, model.PALETTE = segmenter.classes, segmenter.palette
    model.dataset_meta = {"classes": segmenter.classes, "palette": segmenter.palette}
    return model


def segmenter_of(model: Any) -> Any:
    """The Segmenter of a model, or of the one inside a wrapper, with the weights that it has now."""
    inner = getattr(model, "module", model)
    if not hasattr(inner, "segmenter"):
        raise UserError(
            f"{type(inner).__name__} has no config, by which images are prepared: make the model by "
            "init_segmentor(config, checkpoint), or train it by train_segmentor"
        )
    if inner.segmenter.model is not inner:
        inner.segmenter.model.load_state_dict(inner.state_dict())
    return inner.segmenter


def train_segmentor(model: Any, dataset: Any, cfg: Any, *_: Any, **__: Any) -> None:
    """0.x: a run by a config, whose data those given are, from the model's weights; it has the trained ones then."""
    runner = Runner(cfg)
    runner.model.load_state_dict(model.state_dict())
    runner.pretrained = "none"
    model.load_state_dict(runner.train().state_dict())
    _with_segmenter(model, load(runner.files.last, device=cfg.get("device"), trust=True), cfg)


def single_gpu_test(model: Any, data_loader: Any, *_: Any, pre_eval: bool = False, **__: Any) -> list[Any]:
    """0.x: the class map of each image of a loader's data set, or what scores are computed from."""
    data = data_loader.dataset
    labels = inference_segmentor(model, [info["img_path"] for info in data.data_list])
    return data.pre_eval(labels, range(len(data))) if pre_eval else labels


def inference_model(model: Any, imgs: Any) -> Any:
    if isinstance(imgs, (list, tuple)):
        return [inference_model(model, one) for one in imgs]
    image, segmenter = imread(imgs), segmenter_of(model)
    rgb, (height, width) = np.ascontiguousarray(image[..., ::-1]), image.shape[:2]
    prediction = segmenter(rgb)
    labels = torch.from_numpy(np.asarray(prediction.labels).astype(np.int64))
    logits = torch.from_numpy(np.asarray(prediction.logits))
    size = segmenter.pipeline(Sample(image=rgb, original_size=(height, width)), np.random.default_rng(0)).size
    facts = {"img_path": str(imgs) if isinstance(imgs, (str, Path)) else None, "ori_shape": (height, width)}
    facts |= {"img_shape": size, "scale_factor": (size[1] / width, size[0] / height)}
    return SegDataSample(metainfo=facts, pred_sem_seg=PixelData(data=labels[None]), seg_logits=PixelData(data=logits))


def inference_segmentor(model: Any, imgs: Any) -> list[np.ndarray]:
    """0.x: the class map (H, W) of each image."""
    listed = imgs if isinstance(imgs, (list, tuple)) else [imgs]
    return [inference_model(model, one).pred_sem_seg.data[0].numpy() for one in listed]


def show_result_pyplot(
    model: Any, img: Any, result: Any, palette: Any = None, opacity: float = 0.5, *_: Any, out_file: Any = None,
    **__: Any,
) -> np.ndarray:  # fmt: skip
    image = np.ascontiguousarray(imread(img)[..., ::-1])
    if isinstance(result, SegDataSample):
        labels = result.pred_sem_seg.data.squeeze().cpu().numpy()
    else:
        labels = np.asarray(result[0] if isinstance(result, (list, tuple)) else result)
    drawn = overlay(image, labels, model.PALETTE if np.ndim(palette) < 2 else palette, opacity)
    if out_file is not None:
        imwrite(np.ascontiguousarray(drawn[..., ::-1]), out_file)
    return drawn


class MMSegInferencer:
    """Predictions of images and folders by the name of a recipe, or a config, and a checkpoint."""

    list_models = staticmethod(lambda scope=None, patterns=".*": [*filter(re.compile(patterns).match, names())])

    def __init__(
        self, model: Any, weights: Any = None, classes: Any = None, palette: Any = None, dataset_name: Any = None,
        device: Any = None, scope: Any = None,
    ) -> None:  # fmt: skip
        config = Config(model) if isinstance(model, Mapping) else str(model)
        self.model = init_model(config, weights, device or "cuda:0")
        legend = self.model.dataset_meta
        if dataset_name is not None:
            legend = {key: TABLE[f"get_{key}"](dataset_name) for key in legend}
        chosen = {key: value for key, value in (("classes", classes), ("palette", palette)) if value is not None}
        self.cfg, self.visualizer = self.model.cfg, Visualizer(dataset_meta=legend | chosen)

    def __call__(
        self, inputs: Any, return_datasamples: bool = False, *_: Any, return_vis: bool = False, out_dir: str = "",
        img_out_dir: str = "vis", pred_out_dir: str = "pred", opacity: float = 0.8, **kwargs: Any,
    ) -> Any:  # fmt: skip
        folder = isinstance(inputs, (str, Path)) and Path(inputs).is_dir()
        listed = sorted(Path(inputs).iterdir()) if folder else inputs if isinstance(inputs, (list, tuple)) else [inputs]
        samples = inference_model(self.model, listed)
        labels = [sample.pred_sem_seg.data[0].numpy() for sample in samples]
        pictures, palette = [], self.visualizer.dataset_meta["palette"]
        for index, (image, sample) in enumerate(zip(listed, samples, strict=True) if out_dir or return_vis else ()):
            name = Path(image).stem if isinstance(image, (str, Path)) else f"{index:08}"
            target = Path(out_dir, img_out_dir, f"{name}.jpg") if out_dir else None
            pictures.append(show_result_pyplot(self.model, image, sample, palette, opacity, out_file=target))
            if out_dir:
                imwrite(labels[index].astype(np.uint8), Path(out_dir, pred_out_dir, f"{name}_pred.png"))
        both = (samples if return_datasamples else labels, pictures if return_vis else [])
        found, seen = (item[0] if len(item) == 1 else item for item in both)
        return found if return_datasamples else {"predictions": found, "visualization": seen}


def find_latest_checkpoint(path: Any, suffix: str = "pth") -> str | None:
    found = [*Path(path).glob("*.safetensors"), *Path(path).glob(f"*.{suffix}")]
    return str(max(found, key=lambda file: file.stat().st_mtime)) if found else None


init_segmentor, multi_gpu_test = init_model, single_gpu_test
SHORT = "ade bdd100k cityscapes cocostuff isaid loveda potsdam stare synapse vaihingen voc"
TABLE: dict[str, Any] = {
    "get_classes": lambda dataset: [*declared_dataset(dataset).classes],
    "get_palette": lambda dataset: [[*colour] for colour in declared_dataset(dataset).palette],
    **{f"{name}_classes": lambda name=name: TABLE["get_classes"](name) for name in SHORT.split()},
    **{f"{name}_palette": lambda name=name: TABLE["get_palette"](name) for name in SHORT.split()},
    "dataset_aliases": {name: [name] for name in SHORT.split()},
}
