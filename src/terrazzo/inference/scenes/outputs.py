"""The files that a prediction becomes on the command line, for images of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.scenes.engine import Progress
from terrazzo.inference.scenes.polygons import Shapes, pixel_area, save_polygons, writer_of
from terrazzo.inference.scenes.prediction import ScenePrediction, predict_in_windows
from terrazzo.inference.scenes.rasters import save_geotiff, save_png
from terrazzo.inference.scenes.store import rows_of
from terrazzo.inference.segmenter import as_map, declared_size
from terrazzo.inference.volumes import Turn, no_turns, predict_volume_to_files
from terrazzo.system.painting import save_array, save_picture
from terrazzo.transforms.decode import read_size
from terrazzo.transforms.planes import is_nifti, plane_paths
from terrazzo.transforms.scenes import georeference, is_raster
from terrazzo.transforms.slides import SLIDE_SUFFIXES
from terrazzo.transforms.tiff import TIFF_SUFFIXES


@dataclass(frozen=True)
class Wanted:
    """The results to write besides the class map and its overlay."""

    opacity: float = 0.5
    overlay: bool = True
    confidence: bool = False
    probabilities: bool = False
    polygons: Path | None = None
    shapes: Shapes = field(default_factory=Shapes)
    resume: bool = False

    def layers(self) -> list[str]:
        """The layers to compute beside the labels."""
        needed = {"confidence": self.confidence or self.polygons is not None, "probabilities": self.probabilities}
        return [name for name, is_needed in needed.items() if is_needed]


def predict_to_files(
    segmenter: Any,
    source: str | Path,
    target: Path,
    wanted: Wanted,
    on_progress: Callable[[Progress], None] | None = None,
    turn: Turn = no_turns,
) -> list[Path]:
    """Write the class map of an image, `TARGET.tif` for scenes with coordinates and `TARGET.png` for others, and more.

    `TARGET_overlay.png` has a legend; `TARGET_confidence` and `TARGET_probabilities` are rasters like the class map, or
    a PNG, white for 100%, and an array (K, H, W) float32. The model runs within `turn(height, width)` alone. Returns
    the files; raises UserError, where a part of the image is damaged after the rest has been written.
    """
    path = Path(source)
    if is_nifti(path):
        return predict_volume_to_files(segmenter, path, target, wanted, turn)
    planes = plane_paths(path)
    if len(planes) > 1:
        same = (wanted, on_progress, turn)
        each = (predict_to_files(segmenter, plane, target.with_name(plane.name), *same) for plane in planes)
        return [file for files in each for file in files]
    scene = segmenter.scene(source)
    place = scene.georeference if scene is not None else georeference(path)
    if wanted.polygons is not None:
        writer_of(wanted.polygons)
        if place is None or not place.crs:
            raise UserError(
                f"{source} has no coordinate reference system (CRS), so its polygons have no area in square metres: "
                f"assign its own, such as `gdal_edit.py -a_srs EPSG:32633 {path.name}`, or leave out --polygons"
            )
        pixel_area(place, *(read_size(path) if scene is None else scene.size))  # raises where it has none
    prediction: Any
    if scene is not None:
        folder = target.with_name(f".{target.name}.unfinished")
        with turn(*scene.size):
            options = {"folder": folder, "layers": wanted.layers(), "on_progress": on_progress, "resume": wanted.resume}
            prediction = predict_in_windows(segmenter, scene, path, **options)
    else:
        if segmenter.max_pixels is not None:
            segmenter.check_size(f"{source}", *declared_size(path))
        prediction = segmenter.predict_small(source, f"{source}", wanted.layers(), turn)
    is_scene = scene is not None and (
        is_raster(str(source)) or path.suffix.lower() in (*TIFF_SUFFIXES, *SLIDE_SUFFIXES) or path.is_dir()
    )
    files = save_results(prediction, target, wanted, as_raster=place is not None or is_scene)
    if scene is not None:
        prediction.store.remove()
    if isinstance(prediction, ScenePrediction) and prediction.damaged:
        raise UserError(prediction.damage())
    return files


def save_results(prediction: Any, target: Path, wanted: Wanted, *, as_raster: bool) -> list[Path]:
    """Write what is wanted of a prediction, the class map last; where one file fails, the others are removed again."""
    classes, place = prediction.classes, prediction.georeference
    files: list[Path] = []
    new: list[Path] = []

    def path_of(name: str, suffix: str) -> Path:
        path = target.with_name(f"{target.name}{name}{suffix}")
        files.append(path)
        if not path.exists():
            new.append(path)
        return path

    try:
        if wanted.overlay:
            save_picture(path_of("_overlay", ".png"), prediction.overlay(wanted.opacity, legend=True))
        for name, is_wanted in (("confidence", wanted.confidence), ("probabilities", wanted.probabilities)):
            if not is_wanted:
                continue
            values = prediction.confidence if name == "confidence" else prediction.probs
            if as_raster:
                save_geotiff(path_of(f"_{name}", ".tif"), without_values(values, prediction), place, classes)
            elif name == "confidence":
                save_png(path_of(f"_{name}", ".png"), as_grey(values))
            else:
                save_array(path_of(f"_{name}", ".npy"), values)
        labels = as_map(prediction.labels, len(classes))
        if wanted.polygons is not None:
            save_polygons(wanted.polygons, labels, prediction.confidence, place, classes, wanted.shapes)
            files.append(wanted.polygons)
        if as_raster:
            save_geotiff(path_of("", ".tif"), labels, place, classes, prediction.palette)
        else:
            prediction.save(path_of("", ".png"))
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    return files


def without_values(values: np.ndarray, prediction: Any) -> np.ndarray:
    """Values (..., H, W) that are NaN where a prediction made in one pass has no data; others are already."""
    if isinstance(prediction, ScenePrediction) or not (prediction.labels == 255).any():
        return values
    return np.where(prediction.labels == 255, np.float32("nan"), values)


def as_grey(confidence: np.ndarray) -> np.ndarray:
    """A confidence (H, W) as a grey picture uint8, white for 100%, some rows at a time."""
    picture = np.empty(confidence.shape, np.uint8)
    for top in range(0, len(picture), 512):
        picture[top : top + 512] = np.nan_to_num(rows_of(confidence, top, top + 512) * 255).round()
    return picture
