"""A trained model as users hold it: images in, class maps out. This module imports no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from terrazzo.data.pairs import ending_of
from terrazzo.data.spec import IMAGE_SUFFIXES
from terrazzo.errors import UserError, is_out_of_memory, some
from terrazzo.inference.likeness import Fingerprint
from terrazzo.inference.runtime import ImageScores, Memory, Placement, Runtime
from terrazzo.sample import Sample
from terrazzo.system.failures import explained
from terrazzo.system.painting import as_picture, encoded, overlay, save_array, save_class_map, save_picture
from terrazzo.system.printable import as_html
from terrazzo.transforms import Compose
from terrazzo.transforms.loading import LoadImageFromFile
from terrazzo.transforms.planes import NIFTI_SUFFIXES, is_nifti, plane_paths
from terrazzo.transforms.reading import as_stored
from terrazzo.transforms.slides import SLIDE_SUFFIXES
from terrazzo.transforms.tiff import TIFF_SUFFIXES

WITHOUT_LIMIT = threading.Lock()  # Pillow has one for all threads
LOWER = "cut it into tiles, predict in windows (model.test_cfg.mode=slide), or use a smaller model"


class Prediction:
    """The result for one image; `labels` is (H, W) at the image's own size."""

    def __init__(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        scores: ImageScores,
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
        return self._scores.probabilities()

    @cached_property
    def logits(self) -> np.ndarray:
        """The logits of the classes (K, H, W) as float32, at the image's own size."""
        return self._scores.logits

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest probability of each pixel (H, W)."""
        find = getattr(self._scores, "confidence", None)  # without the memory of all probabilities, where it can
        return self.probs.max(0) if find is None else find()

    def mean_confidence(self) -> float:
        """The mean over the image of the highest probability, at the size at which the model computes."""
        find = getattr(self._scores, "mean_confidence", None)
        return float(self.confidence.mean()) if find is None else find()

    def overlay(self, opacity: float = 0.5, legend: bool = False) -> np.ndarray:
        """The class colours over the image, RGB (H, W, 3) uint8; a `legend` of the classes in it widens the picture."""
        painted = overlay(as_picture(self.image), self.labels, self.palette, opacity)
        if legend:
            from terrazzo.viz.layout import add_legend

            painted = add_legend(painted, self.labels, self.classes, self.palette)
        return painted

    @cached_property
    def georeference(self) -> Any:
        """The coordinate reference system and transform of a GeoTIFF; None for other images."""
        from terrazzo.transforms.scenes import georeference

        return georeference(self.path)

    def save(self, path: str | Path, opacity: float | None = None) -> Path:
        """Write the class map as an indexed PNG in the classes' colours, or with `opacity` the overlay as a picture.

        A name that ends in `.npy` gives the class map as an array, and `.tif` for a georeferenced image a GeoTIFF.
        Raises UserError where the file cannot be written.
        """
        path = Path(path)
        if opacity is None and path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            raise UserError(f"cannot save the class map as {path}: this format changes its values; use .png")
        if opacity is not None:
            save_picture(path, self.overlay(opacity))
        elif path.suffix.lower() == ".npy":
            save_array(path, self.labels)
        elif path.suffix.lower() in TIFF_SUFFIXES and self.georeference is not None:
            from terrazzo.inference.scenes.rasters import save_geotiff

            save_geotiff(path, as_map(self.labels, len(self.classes)), self.georeference, self.classes, self.palette)
        else:
            save_class_map(path, self.labels, self.palette)
        return path

    def __repr__(self) -> str:
        present = [self.classes[index] for index in np.unique(self.labels) if index < len(self.classes)]
        return f"Prediction({self.labels.shape[1]}x{self.labels.shape[0]}: {', '.join(present)})"

    def _repr_png_(self) -> bytes:
        """The overlay with its legend, as notebooks show it."""
        return encoded(self.overlay(legend=True), ".png")


class Predictions:
    """The predictions of several sources, one at a time: an iterator with a length, which goes on after an error."""

    def __init__(self, segmenter: Segmenter, sources: Iterable[Any]) -> None:
        self.segmenter, self.sources = segmenter, sources
        self.remaining = iter(sources)

    def __iter__(self) -> Predictions:
        return self

    def __next__(self) -> Prediction:
        return self.segmenter.predict(next(self.remaining))

    def __len__(self) -> int:
        """The number of sources. Raises TypeError for an iterator, whose end is not known."""
        return len(self.sources)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        count = f"{len(self)} images" if isinstance(self.sources, Sized) else "images of an iterator"
        return f"Predictions({count})"


class Segmenter:
    """Call it with a path, an RGB array (H, W, 3) uint8 or a PIL image; a list or a folder gives an iterator.

    A model of other images than 8-bit RGB takes files and arrays of the bands that its pipeline specifies. In a folder
    it takes files of the usual suffixes, and of those of its data set. Images of more than `max_pixels` are refused.
    """

    def __init__(
        self,
        runtime: Runtime,
        pipeline: Sequence[Any] = (),
        suffixes: Sequence[str] = (),
        max_pixels: int | None = None,
        source: str = "",
    ) -> None:
        self.runtime, self.max_pixels = runtime, max_pixels
        self.memory = Memory()  # that one image may take
        self.steps, self.source = list(pipeline), source  # as configured; the name of the file it comes from
        self.fingerprint: Fingerprint | None = None  # of its training images, where its file has one
        own = [suffix for suffix in suffixes if suffix.endswith(NIFTI_SUFFIXES)]  # such as the first channel's
        self.suffixes = tuple(dict.fromkeys((*IMAGE_SUFFIXES, *(own or NIFTI_SUFFIXES), *SLIDE_SUFFIXES, *suffixes)))
        whole = Compose(pipeline)
        self.reader = as_stored(whole.reader("image") or LoadImageFromFile())
        self.pipeline = whole.after_reading()

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their labels."""
        return self.runtime.classes

    @property
    def palette(self) -> list[list[int]]:
        """The RGB colour of each class."""
        return self.runtime.palette

    @property
    def device(self) -> Any:
        """The device that the model runs on."""
        return self.runtime.device

    @property
    def model(self) -> Any:
        """The torch module of a runtime that has one."""
        return self.runtime.model  # type: ignore[attr-defined]

    def __call__(self, source: Any) -> Any:
        from terrazzo.transforms.mosaic import is_mosaic

        if isinstance(source, (str, Path)) and Path(source).is_dir():
            if is_mosaic(Path(source)):
                return self.iterate([source])
            return self.iterate(images_in(Path(source), self.suffixes))
        if isinstance(source, (list, tuple, Iterator)):
            return self.iterate(source)
        if isinstance(source, (str, Path)) and not is_nifti(Path(source)) and len(plane_paths(Path(source))) > 1:
            return self.iterate(plane_paths(Path(source)))
        return self.predict(source)

    def read_slides_at(self, microns: float) -> None:
        """Read whole-slide images at so many microns a pixel. Raises UserError for a model of other images."""
        if not isinstance(self.reader, LoadImageFromFile):
            raise UserError(f"--microns is about slides, which {type(self.reader).__name__} does not read")
        self.reader = replace(self.reader, microns=microns)

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

    def iterate(self, sources: Iterable[Any]) -> Predictions:
        """Predictions of several sources, one at a time; the iterator continues after an error for one of them."""
        return Predictions(self, sources)

    def predict(self, source: Any) -> Prediction:
        """The prediction for one image, in windows where it does not fit `memory`.

        Raises UserError for anything else, and where memory does not suffice.
        """
        if isinstance(source, (str, Path)) and is_nifti(Path(source)):
            from terrazzo.inference.volumes import VolumePrediction

            return VolumePrediction(self, Path(source))  # type: ignore[return-value]
        name = f"{source}" if isinstance(source, (str, Path)) else "this image"
        with explained(f"to segment {name}", LOWER):
            if self.max_pixels is not None and isinstance(source, (str, Path)):
                self.check_size(name, *declared_size(Path(source)))
            scene = self.scene(source)
            if scene is not None:
                from terrazzo.inference.scenes.prediction import predict_in_windows

                return predict_in_windows(self, scene, path_of(source))
            return self.predict_small(source, name)

    def predict_small(
        self,
        source: Any,
        name: str = "this image",
        layers: Collection[str] = (),
        turn: Callable[[int, int], AbstractContextManager[None]] = lambda height, width: nullcontext(),
    ) -> Prediction:
        """The prediction for an image that should fit memory: in one pass, or in windows if memory ends all the same.

        The model runs within `turn(height, width)`; `layers` ("probabilities", "confidence") are computed at once.
        """
        image: np.ndarray | None = None
        try:
            image, path = self.read(source)
            with turn(*image.shape[:2]):
                prediction = self.predict_whole(image, path, name)
                _ = prediction.probs if layers else None
                return prediction
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            shortage = problem.with_traceback(None)  # which would keep the memory
        from terrazzo.inference.scenes.opening import scene_in_parts
        from terrazzo.inference.scenes.prediction import predict_in_windows

        scene = scene_in_parts(self, source, image)
        if scene is None:
            raise shortage
        with turn(*scene.size):
            return predict_in_windows(self, scene, path_of(source), layers=layers)

    def scene(self, source: Any) -> Any:
        """The open scene of an image that is to be predicted in windows; None for one that fits memory as a whole.

        Raises UserError for one that cannot be opened.
        """
        from terrazzo.inference.scenes.opening import open_scene

        return open_scene(self, source)

    def predict_whole(self, image: np.ndarray, path: Path | None, name: str = "this image") -> Prediction:
        """The prediction for an image (H, W, C) in one pass."""
        self.check_size(name, *image.shape[1::-1])
        try:
            (prediction,) = self.predict_together([(image, path)])
        except UserError as problem:
            raise problem if path is None else UserError(f"{path}: {problem}") from None
        return prediction

    def predict_together(
        self, images: Sequence[tuple[np.ndarray, Path | None]], *, confident: bool = False
    ) -> list[Prediction]:
        """The predictions for images (H, W, C) of one size in one pass, each with the path it was read from.

        Where the confidence will be asked for too, `confident` lets an exported model compute it with the labels.
        """
        samples = [
            self.pipeline(Sample(image=image, image_path=path, original_size=image.shape[:2]), np.random.default_rng(0))
            for image, path in images
        ]
        placements = [Placement.of(sample, sample.size) for sample in samples]
        found = []
        together = self.runtime.infer(np.stack([sample.image for sample in samples]), placements)
        for (image, path), scores in zip(images, together, strict=True):
            prediction = Prediction(image, np.empty(0), scores, self.classes, self.palette, path)
            _ = prediction.confidence if confident else None
            prediction.labels = with_no_data(scores.labels(), image, path)
            found.append(prediction)
        return found

    def check_size(self, name: str, width: int, height: int) -> None:
        """Raise UserError for an image with too many pixels."""
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise UserError(
                f"{name} has {width}x{height} pixels, more than the limit of {self.max_pixels}: cut it into tiles, or "
                "raise the limit (max_pixels)"
            )

    def __repr__(self) -> str:
        bands = "RGB" if self.runtime.bands == 3 else f"{self.runtime.bands} bands"
        return f"Segmenter({len(self.classes)} classes: {some(self.classes, 12)}; {bands}; on {self.device})"

    def _repr_html_(self) -> str:
        """The classes in their colours, as notebooks show them."""
        from terrazzo.viz.page import colour_list

        return f"<p>{as_html(repr(self))}</p>{colour_list(zip(self.classes, self.palette, strict=True))}"


def with_no_data(labels: np.ndarray, image: np.ndarray, path: Path | None) -> np.ndarray:
    """The class map of an image, 255 where the TIFF that it was read from has no data."""
    if path is None or path.suffix.lower() not in TIFF_SUFFIXES:
        return labels
    from terrazzo.transforms.scenes import valid_pixels

    valid = valid_pixels(path, image)
    return labels if valid is None else np.where(valid, labels, labels.dtype.type(255))


def path_of(source: Any) -> Path | None:
    """The path of a source that is one."""
    return Path(source) if isinstance(source, (str, Path)) else None


def as_map(labels: np.ndarray, count: int) -> np.ndarray:
    """A class map in the type in which files hold it: uint8, or uint16 for more than 255 classes."""
    return labels.astype(np.uint8 if count <= 255 else np.uint16, copy=False)


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
    """An array or a PIL image as (H, W, C) of `count` bands (any number if None), in the training images' scale."""
    image = np.asarray(source)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or count not in (None, image.shape[2]) or image.dtype.kind not in "biuf" or not image.size:
        raise UserError(
            f"this model takes arrays (H, W, {count or 'bands'}) in the scale of its training images, not "
            f"{np.shape(source)} {image.dtype}"
        )
    return image if image.dtype in (np.uint8, np.uint16, np.float32) else image.astype(np.float32)


def declared_size(path: Path) -> tuple[int, int]:
    """Width and height by a picture's header, whatever Pillow's own limit; zeros for one without such a header."""
    with WITHOUT_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP", "WEBP")) as image:
                return image.size
        except (OSError, SyntaxError, ValueError):
            return 0, 0
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def images_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The image files of a folder in the order of their names. Raises UserError if there are none."""
    found = sorted(path for path in folder.iterdir() if ending_of(path.name, suffixes) is not None)
    if not found:
        raise UserError(f"the folder {folder} contains no image ({', '.join(suffixes)})")
    return found
