"""GeoJSON of polygons: one file for each image, in degrees or in its pixels."""

from __future__ import annotations

import copy
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.raster import Patch, coordinates, polygon, trimmed
from terrazzo.transforms.formats.shapes import NAMELESS, ShapeLabels
from terrazzo.transforms.georeference import reproject
from terrazzo.transforms.tiff import TIFF_SUFFIXES

NAME_KEYS = ("class", "label", "name", "category")


@LABEL_FORMATS.register(name="geojson")
class GeoJsonLabels(ShapeLabels):
    """Polygons with holes (RFC 7946) over a GeoTIFF in degrees, and over other images in pixels, as QuPath has them.

    The class is the name of a feature's `classification`, or its property `class`, `label`, `name` or `category`.
    """

    suffixes = (".geojson",)
    names_classes = True
    unlabelled = "background"
    noun = "feature"
    raster: tuple[Any, Any] | None = None  # CRS and transform of the image with coordinates that is read

    @classmethod
    def recognises(cls, content: Any) -> bool:
        return isinstance(content, dict) and content.get("type") == "FeatureCollection"

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        own = copy.copy(self)  # others may read at the same time
        own.raster = raster_of(image)
        return super(GeoJsonLabels, own).read(path, image, size)

    def objects(self, content: Any) -> Any:
        return content["features"]

    def name_of(self, item: Any) -> str:
        properties = item.get("properties") or {}
        classified = (properties.get("classification") or {}).get("name")
        return str(classified or next((properties[key] for key in NAME_KEYS if properties.get(key)), NAMELESS))

    def covers(self, item: Any) -> bool:
        return (item.get("geometry") or {}).get("type") in ("Polygon", "MultiPolygon")

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        geometry = item["geometry"]
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        mask = np.zeros(size, bool)
        for ring in (ring for rings in parts for ring in rings):
            top, left, inside = polygon(self.in_pixels([point[:2] for point in ring]), size)
            mask[top : top + inside.shape[0], left : left + inside.shape[1]] ^= inside
        return trimmed(mask)

    def in_pixels(self, points: Any) -> np.ndarray:
        """Points (x, y) of the file in the image's pixels."""
        found = coordinates(points)
        if self.raster is None:
            return found
        crs, transform = self.raster
        x, y = (np.array(values) for values in reproject("EPSG:4326", crs, found[:, 0], found[:, 1]))
        a, b, c, d, e, f = tuple(~transform)[:6]
        return np.stack([a * x + b * y + c, d * x + e * y + f], 1)


def raster_of(image: Path | None) -> tuple[Any, Any] | None:
    """The CRS and the transform of a GeoTIFF; None for other images, and where rasterio is not installed."""
    if image is None or image.suffix.lower() not in TIFF_SUFFIXES or not find_spec("rasterio"):
        return None
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(image) as file:
                return (file.crs, file.transform) if file.crs else None
        except rasterio.errors.RasterioIOError:  # whoever reads its pixels reports it
            return None
