"""Labels on the grid of a scene: rasters, warped where they have another CRS or pixel size, and polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from terrazzo.errors import UserError
from terrazzo.transforms.formats.vector import VectorLabels
from terrazzo.transforms.georeference import Georeference, apply
from terrazzo.transforms.label_files import as_indices
from terrazzo.transforms.labels import IGNORED
from terrazzo.transforms.parts import Window
from terrazzo.transforms.resampling import gdal_errors
from terrazzo.transforms.scenes import MissingCrsError, environment, mask_of, open_raster, reason

SAME_PLACE = 0.01  # of a pixel, by which two grids may differ


class Grid(Protocol):
    """The size and place of an open scene."""

    name: str
    size: tuple[int, int]
    georeference: Georeference | None


class SceneLabels(Protocol):
    """The label of a scene, window by window; `form` says how it lies: on the `same` grid, or `assumed` to for want
    of coordinates, `warped` to it, or as `polygons`."""

    form: str

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Stored values (h, w) of a window, and which of them the label covers."""

    def share(self) -> float:
        """The share of the scene's extent that the label's covers."""


class RasterLabels:
    """A raster of class numbers, warped to the scene's grid by nearest neighbour. Raises UserError where it cannot."""

    def __init__(self, path: Path, scene: Grid) -> None:
        import rasterio
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        self.path, self.rasterio, self.environment = path, rasterio, environment(str(path))
        with self.environment():
            self.source = self.file = open_raster(rasterio, str(path))
            check_is_class_map(self.source, path)
            place = scene.georeference
            is_placed = place is None or not place.crs or self.source.crs
            self.form = "same" if is_placed else "assumed"
            if not lies_on(self.source, scene):
                if place is None or not place.crs or not self.source.crs:
                    missing = scene.name if place is None or not place.crs else path
                    other = path if missing == scene.name else scene.name
                    raise MissingCrsError(
                        f"{missing} has no coordinate reference system (CRS), and {other} is of another size "
                        f"({shape_text(self.source.shape)} and {shape_text(scene.size)}), so that they cannot be laid "
                        "over each other: give it one (`gdal_edit.py -a_srs EPSG:...`)"
                    )
                self.form = "warped"
                self.file = WarpedVRT(
                    self.source,
                    crs=place.crs,
                    transform=place.transform,
                    height=scene.size[0],
                    width=scene.size[1],
                    resampling=Resampling.nearest,
                    src_nodata=None,  # a declared 0 is often a background: the alpha band says what is outside
                    add_alpha=True,
                )
        self.size, self.place = scene.size, place
        declared = self.source.nodata
        self.nodata = None if not declared else f"{declared:.17g}"

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        part = self.rasterio.windows.Window(window.left, window.top, window.width, window.height)
        with self.environment():
            try:
                values, *alpha = self.file.read([1, 2] if self.form == "warped" else [1], window=part)
                mask = None if self.form == "warped" else mask_of(self.file, part)
            except gdal_errors() as problem:
                raise UserError(f"{self.path} cannot be read: {reason(problem)}") from None
        covered = alpha[0] != 0 if alpha else np.ones(values.shape, bool)
        if mask is not None and self.source.nodata is None:  # of a mask band: an alpha or no-data value has its own way
            covered &= mask
        stored = as_indices(values, self.path, self.nodata)
        if self.nodata is not None:
            covered &= stored != IGNORED
        return stored, covered

    def share(self) -> float:
        from rasterio.warp import transform_bounds

        if self.form != "warped" or self.place is None:
            return 1.0
        left, bottom, right, top = transform_bounds(self.source.crs, self.place.crs, *self.source.bounds)
        return overlap(bounds_of(self.place.transform, self.size), (left, bottom, right, top))


class PolygonLabels:
    """Polygons with classes, burnt into the windows of a scene."""

    form = "polygons"

    def __init__(self, path: Path, scene: Grid, reader: VectorLabels) -> None:
        self.path, self.reader, self.scene = path, reader, scene
        self.place = scene.georeference or Georeference(None, None)
        self.layer = reader.placed(path, self.place, scene.name)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        place = Georeference(self.place.crs, shifted(self.place.transform, window.top, window.left))
        label = self.reader.burn(self.path, place, (window.height, window.width), self.scene.name)
        return label, label != IGNORED

    def share(self) -> float:
        import shapely

        return overlap(
            bounds_of(self.place.transform, self.scene.size), tuple(shapely.total_bounds(self.layer.polygons))
        )


def check_is_class_map(file: Any, path: Path) -> None:
    """Raise UserError for a raster whose bands are colours or measurements."""
    numbers = [colour.name for colour in file.colorinterp if colour.name != "alpha"]
    if len(numbers) != 1:
        raise UserError(
            f"the label {path} has {len(numbers)} bands, and labels of scenes hold class numbers in one: convert it "
            "(`gdal_translate -b 1`, or one number for each colour)"
        )


def lies_on(label: Any, scene: Grid) -> bool:
    """Return whether a label's pixels are those of the scene; one of its size without coordinates is."""
    if label.shape != scene.size:
        return False
    place = scene.georeference
    has_place = label.crs or not label.transform.is_identity
    if place is None or not has_place or (not place.crs and not label.crs and place.transform.is_identity):
        return True
    height, width = scene.size
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    gaps = [
        np.subtract(apply(~place.transform, *apply(label.transform, *corner)), corner).tolist() for corner in corners
    ]
    is_near = bool(np.abs(gaps).max() <= SAME_PLACE)
    return is_near and (label.crs == place.crs or not label.crs or not place.crs)


def bounds_of(transform: Any, size: Sequence[int]) -> tuple[float, float, float, float]:
    """The extent of a raster of a size (height, width): left, bottom, right, top."""
    points = [apply(transform, column, row) for row in (0, size[0]) for column in (0, size[1])]
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def overlap(own: Sequence[float], other: Sequence[float]) -> float:
    """The share of an extent that another one covers."""
    width = min(own[2], other[2]) - max(own[0], other[0])
    height = min(own[3], other[3]) - max(own[1], other[1])
    area = (own[2] - own[0]) * (own[3] - own[1])
    return max(0.0, width) * max(0.0, height) / area if width > 0 and height > 0 else 0.0


def shifted(transform: Any, top: int, left: int) -> Any:
    """The transform of the part of a raster that begins at a row and a column."""
    a, b, _, d, e, _ = tuple(transform)[:6]
    x, y = apply(transform, left, top)
    return type(transform)(a, b, x, d, e, y)


def shape_text(size: Sequence[int]) -> str:
    """`1024x768`, width first."""
    return f"{size[1]}x{size[0]}"
