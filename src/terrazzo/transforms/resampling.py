"""Georeferenced rasters at another pixel size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.system.extras import import_extra

DEGREE = 111_320.0  # metres, along a meridian


def resampled(file: Any, resolution: float, name: str, *, nearest: bool = False) -> Any:
    """An open rasterio data set at `resolution` metres a pixel, on a grid that does not depend on its extent.

    Raises UserError for one without a coordinate reference system.
    """
    if not file.crs:
        raise UserError(
            f"{name} has no coordinate reference system (CRS), so it cannot be resampled to {resolution} metres a pixel"
        )
    size = resolution / (DEGREE if file.crs.is_geographic else file.crs.linear_units_factor[1])
    own = file.transform
    if np.allclose([abs(own.a), abs(own.e)], size, rtol=1e-3) and not own.b:
        return file
    from rasterio import Affine
    from rasterio.enums import ColorInterp, Resampling
    from rasterio.vrt import WarpedVRT

    bounds = file.bounds
    left, top = np.floor(bounds.left / size + 1e-6) * size, np.ceil(bounds.top / size - 1e-6) * size
    width, height = (int(np.ceil(length / size - 1e-6)) for length in (bounds.right - left, top - bounds.bottom))
    smooth = Resampling.bilinear if size < abs(own.a) else Resampling.average
    return WarpedVRT(
        file,
        crs=file.crs,
        transform=Affine(size, 0, left, 0, -size, top),
        width=width,
        height=height,
        resampling=Resampling.nearest if nearest else smooth,
        add_alpha=file.nodata is None and ColorInterp.alpha not in file.colorinterp,
    )


def gdal_errors() -> tuple[type[Exception], ...]:
    """The errors of rasterio, those of GDAL that it lets through, and those of the system."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError, OSError


def read_resampled(path: Path | str, resolution: float, *, nearest: bool = False) -> np.ndarray:
    """The bands of a GeoTIFF (H, W, C) at `resolution`, NaN without data; or with `nearest` its values as stored.

    Raises UserError for a file that cannot be read so.
    """
    rasterio = import_extra("rasterio", "geo", "images at another resolution")
    try:
        with rasterio.open(path, driver="GTiff") as source:
            file = resampled(source, resolution, str(path), nearest=nearest)
            values = np.moveaxis(file.read(list(range(1, source.count + 1))), 0, -1)
            missing = file.dataset_mask() == 0
    except gdal_errors() as problem:
        raise UserError(f"cannot read {path}: {str(problem).splitlines()[0]}") from None
    if nearest:
        values[missing] = 255
    elif missing.any():
        values = values.astype(np.float32)
        values[missing] = np.nan
    return values
