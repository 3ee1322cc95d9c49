"""Results as files: cloud-optimised GeoTIFF, and indexed PNG written row by row."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.scenes.store import rows_of
from terrazzo.system.extras import import_extra
from terrazzo.system.files import write_atomically, write_whole
from terrazzo.transforms.georeference import Georeference
from terrazzo.transforms.resampling import gdal_errors
from terrazzo.transforms.scenes import CACHE, reason

ROWS = 512  # that are written together, and the side of a tile


def save_geotiff(
    path: Path,
    values: np.ndarray,
    georeference: Georeference | None,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]] = (),
) -> None:
    """Write values (H, W) or (K, H, W) as a cloud-optimised GeoTIFF with overviews, rows at a time.

    Integers are a class map, whose largest value is no data; a `palette` becomes its colour table. Real numbers have
    NaN for no data. Raises UserError where the file cannot be written.
    """
    rasterio = import_extra("rasterio", "geo", "GeoTIFF files")
    bands = values if values.ndim == 3 else values[None]
    is_map = values.dtype.kind != "f"
    no_data = int(np.iinfo(values.dtype).max) if is_map else float("nan")
    place = {"crs": georeference.crs, "transform": georeference.transform} if georeference else {}
    compression = {"COMPRESS": "DEFLATE", "PREDICTOR": "NO" if is_map else "FLOATING_POINT", "NUM_THREADS": "2"}

    def write(temporary: Path) -> None:
        rough = temporary.with_name(f"{temporary.name}.rough")
        try:
            with rasterio.open(
                rough, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
                dtype=values.dtype, nodata=no_data, tiled=True, blockxsize=ROWS, blockysize=ROWS, compress="deflate",
                zlevel=1, bigtiff="if_safer", interleave="band", **place,
            ) as file:  # fmt: skip
                for top in range(0, bands.shape[1], ROWS):
                    part = rows_of(bands, top, top + ROWS)
                    file.write(part, window=rasterio.windows.Window(0, top, part.shape[2], part.shape[1]))
                describe(file, classes, palette if is_map and values.dtype == np.uint8 else ())
            import_extra("rasterio.shutil", "geo", "GeoTIFF files").copy(
                rough, temporary, driver="COG", BLOCKSIZE=ROWS, BIGTIFF="IF_SAFER", STATISTICS="NO",
                OVERVIEW_RESAMPLING="MODE" if is_map else "AVERAGE", **compression,
            )  # fmt: skip
            with rasterio.open(rough) as first, rasterio.open(temporary, driver="GTiff") as second:
                if any(first.checksum(band) != second.checksum(band) for band in {1, len(bands)}):
                    raise OSError(None, "the disk is full or failing")  # of which GDAL says nothing
        except gdal_errors() as problem:
            raise OSError(getattr(problem, "errno", None), reason(problem)) from problem
        finally:
            for leftover in temporary.parent.glob(f"{rough.name}*"):
                leftover.unlink()

    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        write_atomically(path, write)
    if is_map:
        write_whole(path.with_name(f"{path.name}.aux.xml"), category_names(classes))


def describe(file: Any, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
    """Name the classes in an open raster: as tags of a class map, or as the names of its bands; colour the map."""
    if file.count == len(classes) and file.dtypes[0] == "float32":
        file.descriptions = tuple(classes)
    elif file.dtypes[0] != "float32":
        file.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(classes)})
        file.set_band_description(1, "class")
    if palette:
        file.write_colormap(
            1, {index: (*map(int, colour), 255) for index, colour in enumerate(palette)} | {255: (0,) * 4}
        )


def category_names(classes: Sequence[str]) -> str:
    """The names of the classes as GDAL and QGIS read them beside a raster."""
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes)
    return f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n'


def save_png(path: Path, labels: np.ndarray, palette: Sequence[Sequence[int]] = ()) -> None:
    """Write a map (H, W) uint8 as a PNG, in the colours of a `palette` or in grey, with the memory of a few rows.

    Raises UserError where the file cannot be written.
    """
    if max(labels.shape) >= 2**31 or labels.dtype != np.uint8:
        raise UserError(f"cannot save {path}: a PNG holds maps of 8 bits; use .tif")

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.writelines(png_chunks(labels, palette))

    write_atomically(path, write)


def png_chunks(labels: np.ndarray, palette: Sequence[Sequence[int]] = ()) -> Iterator[bytes]:
    """Yield the chunks of a PNG of a map (H, W) uint8, in the colours of a `palette` or in grey."""
    height, width = labels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    yield b"\x89PNG\r\n\x1a\n"
    yield chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3 if len(palette) else 0, 0, 0, 0))
    if len(palette):
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(palette)] = palette
        yield chunk(b"PLTE", colours.tobytes())
    compressor = zlib.compressobj(6)
    for top in range(0, height, ROWS):
        rows = np.pad(rows_of(labels, top, top + ROWS), ((0, 0), (1, 0)))  # each begins with its filter, none
        if data := compressor.compress(rows.tobytes()):
            yield chunk(b"IDAT", data)
    yield chunk(b"IDAT", compressor.flush())
    yield chunk(b"IEND", b"")
