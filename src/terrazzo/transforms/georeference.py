"""The position of a raster on the ground."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import UserError, first_line
from terrazzo.transforms.resampling import DEGREE

EQUAL_AREA = "EPSG:6933"  # cylindrical, of the whole world
DISTORTION = 0.01  # of areas, below which those of the scene's own CRS are taken


@dataclass(frozen=True)
class Georeference:
    """A coordinate reference system of rasterio, and the affine transform from (column, row) to its coordinates."""

    crs: Any
    transform: Any

    def anchor(self) -> tuple[int, int]:
        """The (row, column) of the origin of coordinates, in pixels of this raster.

        Scenes that are parts of one raster have anchors that differ by whole pixels, as their corners do.
        """
        column, row = apply(~self.transform, 0.0, 0.0)
        return math.floor(row + 0.501), math.floor(column + 0.501)

    def metres(self) -> float:
        """The length of a unit of coordinates in metres; along a meridian for degrees."""
        return DEGREE if self.crs.is_geographic else float(self.crs.linear_units_factor[1])

    def keeps_areas(self, height: int, width: int) -> bool:
        """Return whether areas in coordinates are areas on the ground, up to DISTORTION, in the middle of a raster."""
        if self.crs.is_geographic:
            return False
        corners = [(-8, -8), (8, -8), (8, 8), (-8, 8)]
        points = [apply(self.transform, width / 2 + x, height / 2 + y) for x, y in corners]
        own = polygon_area(points) * self.metres() ** 2
        ground = polygon_area(list(zip(*reproject(self.crs, EQUAL_AREA, *zip(*points, strict=True)), strict=True)))
        return abs(own / ground - 1) < DISTORTION


def apply(transform: Any, column: float, row: float) -> tuple[float, float]:
    """A point of pixels in coordinates; `affine` has changed its operator for it."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * column + b * row + c, d * column + e * row + f


def reproject(source: Any, target: Any, xs: Any, ys: Any) -> tuple[list[float], list[float]]:
    """The coordinates of points in another CRS. Raises UserError where it does not reach them."""
    from rasterio.warp import transform

    try:
        return transform(source, target, xs, ys)
    except Exception as problem:  # of PROJ, whose classes are not public
        raise UserError(
            f"points such as ({xs[0]:g}, {ys[0]:g}) of {source} have no place in {target} ({first_line(problem)}): the "
            "file has another coordinate reference system, or a wrong transform (`gdalinfo` shows both)"
        ) from None


def polygon_area(points: list[tuple[float, float]]) -> float:
    """The area of a simple polygon."""
    following = [*points[1:], points[0]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2


def georeference_of(dataset: Any) -> Georeference | None:
    """The georeference of an open rasterio data set; None for one without coordinates, or whose pixels share some."""
    if not dataset.crs and dataset.transform.is_identity:
        return None
    numbers = tuple(dataset.transform)[:6]
    a, b, _, d, e, _ = numbers
    if not all(map(math.isfinite, numbers)) or abs(a * e - b * d) < sys.float_info.min:
        return None
    return Georeference(dataset.crs, dataset.transform)
