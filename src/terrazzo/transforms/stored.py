"""Images as they are stored: any number of bands, of 8 or 16 bits or real numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from terrazzo.errors import UserError
from terrazzo.transforms.decode import (
    channels_last,
    damaged,
    decode_image,
    decode_tiff,
    load_numpy,
    open_pillow,
    read_bytes,
)

TIFF_SUFFIXES = (".tif", ".tiff")
KEPT = ("uint8", "uint16", "int16", "float32")  # types that are resampled as they are; all others become float32


def read_stored(path: Path | str, bands: Sequence[int] | None = None) -> np.ndarray:
    """Read an image as (H, W, C) in the file's own scale: the `bands`, numbered from 1 as in GDAL, or all of them.

    GeoTIFF is read by rasterio or tifffile where installed; a pixel without data in any band becomes NaN. An array of
    a .npy file is (H, W), (H, W, C), or (C, H, W) if that makes the channels the shortest axis. Raises UserError for a
    file that cannot be read and for a band that it does not have.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        image = array_image(load_numpy(read_bytes(path), str(path)), path)
    elif suffix in TIFF_SUFFIXES:
        image = read_tiff(path)
    elif suffix in (".jpg", ".jpeg"):
        image = open_pillow(read_bytes(path), str(path), upright=True)
    else:
        image = decode_image(read_bytes(path), "unchanged", name=str(path))
    image = channels_last(image)
    if str(image.dtype) not in KEPT:
        image = image.astype(np.uint8 if image.dtype == np.bool_ else np.float32)
    return image if bands is None else select(image, bands, path)


def select(image: np.ndarray, bands: Sequence[int], path: Path) -> np.ndarray:
    """Return some bands of an image, numbered from 1. Raises UserError for a number that it does not have."""
    count = image.shape[2]
    for band in bands:
        if not 1 <= band <= count:
            held = "one band" if count == 1 else f"{count} bands"
            raise UserError(f"{path} has {held}, numbered from 1; `bands: {list(bands)}` asks for band {band}")
    chosen = [band - 1 for band in bands]
    return image if chosen == list(range(count)) else np.ascontiguousarray(image[..., chosen])


def array_image(array: np.ndarray, path: Path) -> np.ndarray:
    """Return an array as (H, W, C). Raises UserError for one of other dimensions, or of no numbers."""
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise UserError(
            f"{path} holds an array {array.shape} of {array.dtype}; an image is (H, W) or (H, W, C) numbers"
        )
    if array.ndim == 3 and array.shape[0] < min(array.shape[1:]):
        return np.ascontiguousarray(np.moveaxis(array, 0, -1))
    return array


def read_tiff(path: Path) -> np.ndarray:
    """Read all bands of a TIFF by what is installed: rasterio, tifffile, or Pillow for one to four bands of 8 bits."""
    if find_spec("rasterio") and path.is_file():
        return read_raster(path)
    data = read_bytes(path)
    if find_spec("tifffile"):
        return array_image(decode_tiff(data, str(path)), path)
    try:
        return open_pillow(data, str(path))
    except UserError as error:
        raise UserError(
            f"cannot decode {path} without rasterio or tifffile, which read TIFF of many bands, or of 16 bits and "
            "colours: pip install 'terrazzo[geo]' (if they cannot either, the file is damaged)"
        ) from error


def read_raster(path: Path) -> np.ndarray:
    """Read a raster file as (H, W, C), NaN where it marks pixels without data."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                image, nodata = np.moveaxis(file.read(), 0, -1), file.nodata
    except (RasterioError, ValueError) as error:
        raise damaged(str(path), str(error)) from error
    if nodata is not None and not np.isnan(nodata):
        empty = (image == nodata).all(axis=2)
        if empty.any():
            image = image.astype(np.float32)
            image[empty] = np.nan
    return np.ascontiguousarray(image)


def read_size(path: Path | str) -> tuple[int, int]:
    """Return height and width of an image as it is loaded, from its header where possible. Raises UserError."""
    path = Path(path)
    if path.suffix.lower() not in (".npy", *TIFF_SUFFIXES):
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                return (image.width, image.height) if turned else (image.height, image.width)
        except (OSError, SyntaxError, ValueError):
            pass
    return read_stored(path).shape[:2]  # type: ignore[return-value]
