"""A trained model as people hold it: images in, class maps out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from terrazzo.config.custom_imports import import_custom
from terrazzo.config.datasets import folders
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import class_names
from terrazzo.data.loaders import to_tensor
from terrazzo.data.spec import IMAGE_SUFFIXES
from terrazzo.errors import UserError
from terrazzo.inference.embedded import STREET
from terrazzo.inference.predict import raw_logits, restoring
from terrazzo.inference.saved_config import saved_config
from terrazzo.inference.scores import Scores
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import Checkpoint, legend_of, load_checkpoint, read_checkpoint
from terrazzo.sample import Sample
from terrazzo.system.devices import choose_device
from terrazzo.system.painting import as_picture, overlay
from terrazzo.system.palette import default_palette
from terrazzo.transforms import Compose
from terrazzo.transforms.loading import LoadImageFromFile
from terrazzo.transforms.reading import as_stored


class Prediction:
    """What a model says of one image; `labels` is (H, W) at the image's own size."""

    def __init__(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        scores: Scores,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        path: Path | None = None,
    ) -> None:
        self.image, self.labels, self.path = image, labels, path
        self.classes, self.palette = list(classes), [list(colour) for colour in palette]
        self._scores = scores

    @cached_property
    def probs(self) -> np.ndarray:
        """Class probabilities (K, H, W) as float32."""
        with torch.inference_mode():
            return self._scores.probabilities().cpu().numpy()

    @property
    def confidence(self) -> np.ndarray:
        """The highest probability of each pixel (H, W)."""
        return self.probs.max(0)

    def overlay(self, opacity: float = 0.5) -> np.ndarray:
        """The class colours over the image, RGB (H, W, 3) uint8."""
        return overlay(as_picture(self.image), self.labels, self.palette, opacity)

    def save(self, path: str | Path, opacity: float | None = None) -> Path:
        """Write the class map as an indexed PNG in the classes' colours, or with `opacity` the overlay as a picture."""
        path = Path(path)
        if opacity is None and path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            raise UserError(f"cannot save the class map as {path}: this format changes its values; use .png")
        if opacity is not None:
            picture = Image.fromarray(self.overlay(opacity))
        elif len(self.classes) > 256:
            picture = Image.fromarray(self.labels.astype(np.uint16))
        else:
            picture = Image.fromarray(self.labels.astype(np.uint8))
            picture.putpalette([channel for colour in self.palette for channel in colour])
        try:
            picture.save(path)
        except (OSError, ValueError) as problem:
            raise UserError(f"cannot save the prediction as {path}: {problem}") from None
        return path

    def __repr__(self) -> str:
        present = [self.classes[index] for index in np.unique(self.labels)]
        return f"Prediction({self.labels.shape[1]}x{self.labels.shape[0]}: {', '.join(present)})"


class Segmenter:
    """Call it with a path, an RGB array (H, W, 3) uint8 or a PIL image; a list or a folder gives an iterator.

    A model of other images than 8-bit RGB takes files and arrays of the bands that its pipeline names.
    """

    def __init__(
        self,
        model: Any,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        pipeline: Sequence[Any] = (),
        device: torch.device | None = None,
    ) -> None:
        self.device = device or choose_device()
        self.model = model.to(self.device).eval()
        self.classes, self.palette = list(classes), [list(colour) for colour in palette]
        whole = Compose(pipeline)
        self.reader = as_stored(whole.reader("image") or LoadImageFromFile())
        self.pipeline = whole.after_reading()

    def __call__(self, source: Any) -> Any:
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            return self.iterate(images_in(Path(source)))
        if isinstance(source, (list, tuple, Iterator)):
            return self.iterate(source)
        return self.predict(source)

    def read(self, source: Any) -> tuple[np.ndarray, Path | None]:
        """An image (H, W, C) as the model was trained on, RGB uint8 in most cases, and the path it came from."""
        if isinstance(source, (str, Path)):
            image = self.reader(Sample(image_path=Path(source)), np.random.default_rng(0)).image
            assert image is not None
            return image, Path(source)
        bands = getattr(self.reader, "bands", None)
        if bands is not None:
            return as_bands(source, None if bands == "all" else len(bands)), None
        color_type = getattr(self.reader, "color_type", "color")
        if color_type.startswith("grayscale") and isinstance(source, (np.ndarray, Image.Image)):
            return cv2.cvtColor(as_rgb(source), cv2.COLOR_RGB2GRAY)[..., None], None
        return as_rgb(source), None

    def iterate(self, sources: Any) -> Iterator[Prediction]:
        """Predictions of several sources, one at a time; after an error for one of them the iterator can go on."""
        return map(self.predict, sources)

    @torch.inference_mode()
    def predict(self, source: Any) -> Prediction:
        """The prediction for one image. Raises UserError for what is no image."""
        image, path = self.read(source)
        sample = Sample(image=image, image_path=path, original_size=image.shape[:2])
        sample = self.pipeline(sample, np.random.default_rng(0))
        pixels = to_tensor(sample.image)[None].to(self.device)
        (logits,), input_size = raw_logits(self.model, pixels)
        view = logits, restoring(logits, input_size, sample.size, sample, self.model)
        scores = Scores((view,), self.model.final_head.threshold)
        labels = scores.labels().cpu().numpy()
        return Prediction(image, labels, scores, self.classes, self.palette, path)


def as_rgb(source: Any) -> np.ndarray:
    """A PIL image or an array as RGB uint8 (H, W, 3)."""
    if isinstance(source, Image.Image):
        return np.array(source.convert("RGB"))
    if not isinstance(source, np.ndarray):
        raise UserError(f"cannot segment a {type(source).__name__}: give a path, an RGB array or a PIL image")
    grey = source.ndim == 2 or (source.ndim == 3 and source.shape[2] == 1)
    if source.dtype != np.uint8 or not (grey or (source.ndim == 3 and source.shape[2] == 3)) or not source.size:
        raise UserError(f"an image array must be (H, W, 3) uint8 in RGB order, not {source.shape} {source.dtype}")
    return cv2.cvtColor(source, cv2.COLOR_GRAY2RGB) if grey else source


def as_bands(source: Any, count: int | None) -> np.ndarray:
    """An array or a PIL image as (H, W, C) of so many bands (any number if None), in the training images' scale."""
    image = np.asarray(source)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or count not in (None, image.shape[2]) or image.dtype.kind not in "biuf" or not image.size:
        raise UserError(
            f"this model takes arrays (H, W, {count or 'bands'}) in the scale of its training images, not "
            f"{np.shape(source)} {image.dtype}"
        )
    return image if image.dtype in (np.uint8, np.uint16, np.float32) else image.astype(np.float32)


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder in the order of their names. Raises UserError if there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"the folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def load(
    source: Any = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    trust: bool = False,
    weights: str | None = None,
) -> Segmenter:
    """A Segmenter from one self-contained file, ours or MMSegmentation's with its config, or a config and weights.

    Without either it is the embedded model, for street scenes; what it may be used for is told in `terrazzo/weights`.

    `trust` imports the modules that it names in `custom_imports`; `weights` is "model" or "ema" (the average) where a
    checkpoint has both. Raises UserError where the file does not say what model it is for.
    """
    chosen = choose_device(device)
    if source is None:
        if checkpoint is not None:
            raise UserError(f"give {checkpoint} alone, tz.load('{checkpoint}'), or after the config that it is for")
        source = STREET
    if isinstance(source, (str, Path)) and Path(source).suffix in (".safetensors", ".pth", ".pt"):
        saved = read_checkpoint(source, weights)
        own = saved_config(saved)
        if trust and own is not None:
            import_custom(own)
        return from_checkpoint(saved, chosen, own)
    config = load_config(source, trust=trust)
    if checkpoint is None:
        name = source if isinstance(source, (str, Path)) else "this"
        raise UserError(f"{name} is a config: give its weights too, tz.load(config, checkpoint='best.safetensors')")
    return from_checkpoint(read_checkpoint(checkpoint, weights), chosen, config)


def from_checkpoint(checkpoint: Checkpoint, device: torch.device, config: Mapping[str, Any] | None) -> Segmenter:
    """A Segmenter from a checkpoint and a config, its own or another."""
    if config is None:
        raise UserError(
            f"{checkpoint.path} holds weights without a config: use tz.load(config, checkpoint='{checkpoint.path}'), "
            "on the command line --config CONFIG"
        )
    experiment = make_experiment(config)
    model: Any = build_model(experiment.model)
    load_checkpoint(model, checkpoint, strict=True)
    count = model.final_head.num_classes
    classes, palette = class_names(experiment, count)
    saved_classes, saved_palette = legend_of(checkpoint)
    if len(saved_classes) == count:
        classes = saved_classes
        palette = saved_palette if len(saved_palette) == count else [list(colour) for colour in default_palette(count)]
    loader = experiment.test or experiment.val
    pipeline = next(folders(loader.dataset)).pipeline if loader else ()
    return Segmenter(model, classes, palette, pipeline, device)


def describe(values: Mapping[str, Any], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> dict[str, str]:
    """The texts that make a `.safetensors` file self-contained."""
    kept = ("model", "custom_imports", "data_preprocessor", "test_dataloader", "val_dataloader")
    config = {key: values[key] for key in kept if key in values}
    return {
        "format": "terrazzo",
        "config": json.dumps(config),
        "classes": json.dumps(list(classes)),
        "palette": json.dumps([list(map(int, colour)) for colour in palette]),
    }
