"""Predictions of scenes: results stay on disk, and whatever else is asked for is computed window by window."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError, is_out_of_memory, some
from terrazzo.inference.runtime import Memory
from terrazzo.inference.scenes.choice import choose_windows, smaller_windows
from terrazzo.inference.scenes.engine import Progress, SceneRun, no_data_of
from terrazzo.inference.scenes.rasters import save_geotiff, save_png
from terrazzo.inference.scenes.store import Layer, Store, rows_of
from terrazzo.inference.segmenter import Prediction
from terrazzo.system.memory import release_freed_memory
from terrazzo.system.painting import as_picture, overlay, save_array, save_picture
from terrazzo.transforms.scenes import Scene
from terrazzo.transforms.tiff import TIFF_SUFFIXES

PICTURE = 2048  # pixels of the longer side of a scene's overlay


class ScenePrediction(Prediction):
    """The prediction of one scene; `labels` is (H, W), read from a file as it is used, 255 where there is no data.

    `probs` and `confidence` run the model once more unless they are among the `layers` computed at first; they are NaN
    where there is no data. `damaged` lists the parts (top, bottom, left, right) that could not be read.
    """

    def __init__(
        self,
        segmenter: Any,
        scene: Scene,
        path: Path | None,
        folder: Path | None = None,
        layers: Collection[str] = (),
        on_progress: Callable[[Progress], None] | None = None,
        *,
        resume: bool = False,
        memory: Memory | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.segmenter, self.scene, self.path = segmenter, scene, path
        self.classes, self.palette = list(segmenter.classes), [list(colour) for colour in segmenter.palette]
        self.windows = choose_windows(segmenter, scene, memory or segmenter.memory)
        self.store = self.compute(layers, folder, on_progress, resume, part)
        self.labels = self.store.array("labels")
        self.damaged = self.store.damaged

    def compute(
        self,
        layers: Collection[str],
        folder: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        resume: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Store:
        """Predict the scene, or a part (index, count) of it, into a folder, or one that is deleted with this object."""
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="terrazzo-scene-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        count = len(self.classes)
        known = {"probabilities": Layer(count, "float32"), "confidence": Layer(1, "float32")}
        wanted = {name: layer for name, layer in known.items() if name in layers}
        job = {"windows": self.windows, "model": self.segmenter.runtime.fingerprint(), "scene": identity(self.scene)}
        labels = Layer(1, "uint8" if count <= 255 else "uint16")
        store = Store(folder, self.scene.size, {"labels": labels, **wanted}, job, resume=resume)
        try:
            run = SceneRun(self.segmenter, self.scene, self.windows, store, on_progress, part)
            self.rows, self.chunks = run.part, len(run.chunks)
            run.run()
        finally:
            store.close()
        return store

    @property
    def image(self) -> np.ndarray:  # type: ignore[override]
        """The whole image (H, W, C)."""
        height, width = self.scene.size
        return self.scene.read(0, height, 0, width)[0]

    @property
    def georeference(self) -> Any:
        return self.scene.georeference

    @cached_property
    def probs(self) -> np.ndarray:
        """Class probabilities (K, H, W) as float32."""
        return self.layer("probabilities")

    @cached_property
    def confidence(self) -> np.ndarray:  # type: ignore[override]
        """The highest probability of each pixel (H, W)."""
        return self.layer("confidence")

    def layer(self, name: str) -> np.ndarray:
        """A result that was computed with the labels, or is now."""
        store = self.store if name in self.store.layers else self.compute([name])
        return store.array(name)

    def overlay(self, opacity: float = 0.5, legend: bool = False) -> np.ndarray:
        """The class colours over the image, reduced to a picture of at most 2048 pixels a side."""
        step = max(1, -(-max(self.scene.size) // PICTURE))
        height = self.scene.size[0]
        labels = np.concatenate([rows_of(self.labels, top, top + 1)[:, ::step] for top in range(0, height, step)])
        labels = np.where(labels == no_data_of(str(labels.dtype)), 255, labels)
        if len(self.classes) > 255:
            labels = labels.astype(np.int32)
        painted = overlay(as_picture(self.reduced(step)), labels, self.palette, opacity)
        if legend:
            from terrazzo.viz.layout import add_legend

            painted = add_legend(painted, labels, self.classes, self.palette)
        return painted

    def reduced(self, step: int) -> np.ndarray:
        """Every `step`th pixel of the image (h, w, C), averaged with its neighbours; black where it is damaged."""
        height, width = self.scene.size
        rows = max(step, 256 // step * step)
        parts: list[np.ndarray] = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            size = -(-width // step), -(-(bottom - top) // step)
            try:
                image, _ = self.scene.read(top, bottom, 0, width)
            except UserError:
                parts.append(np.zeros((size[1], size[0], self.scene.bands), np.float32))
                continue
            if image.dtype.kind == "f":
                image = np.nan_to_num(image)
            small = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
            parts.append(small if small.ndim == 3 else small[..., None])
        return np.concatenate(parts)

    def save(self, path: str | Path, opacity: float | None = None) -> Path:
        """Write the class map as a cloud-optimised GeoTIFF (`.tif`), PNG or `.npy`, or with `opacity` the overlay.

        Raises UserError where the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if opacity is not None:
            save_picture(path, self.overlay(opacity))
        elif suffix in TIFF_SUFFIXES:
            save_geotiff(path, self.labels, self.georeference, self.classes, self.palette)
        elif suffix == ".npy":
            save_array(path, self.labels)
        elif suffix == ".png":
            save_png(path, self.labels, self.palette)
        else:
            raise UserError(f"cannot save the class map of a scene as {path}: use .tif, .png or .npy")
        return path

    def damage(self) -> str:
        """A sentence that names the parts that could not be read; empty where there are none."""
        if not self.damaged:
            return ""
        places = [f"rows {top}-{bottom}, columns {left}-{right}" for top, bottom, left, right in self.damaged]
        return (
            f"{self.scene.name} is damaged or truncated: {len(places)} part{'s' * (len(places) != 1)} of it cannot be "
            f"read and {'are' if len(places) != 1 else 'is'} left without a class ({some(places, 8)})"
        )

    def __repr__(self) -> str:
        return f"ScenePrediction({self.labels.shape[1]}x{self.labels.shape[0]}: {len(self.classes)} classes)"

    def _repr_png_(self) -> bytes:
        from terrazzo.system.painting import encoded

        return encoded(self.overlay(legend=True), ".png")


def predict_in_windows(segmenter: Any, scene: Scene, path: Path | None, **options: Any) -> ScenePrediction:
    """The prediction of a scene, in smaller windows if memory ends; `options` are those of ScenePrediction."""
    memory = segmenter.memory
    while True:
        try:
            return ScenePrediction(segmenter, scene, path, memory=memory, **options)
        except Exception as problem:
            smaller = smaller_windows(segmenter, scene, memory) if is_out_of_memory(problem) else None
            if smaller is None:
                raise
            memory = smaller
        release_freed_memory()


def identity(scene: Scene) -> list[Any]:
    """A text that distinguishes a scene from others of its name."""
    path = Path(scene.name)
    facts = path.stat() if path.is_file() else None
    return [scene.name, scene.size, scene.bands, facts and [facts.st_size, facts.st_mtime_ns]]
