"""TIFF files read in parts by tifffile, where rasterio is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.transforms.georeference import Georeference
from terrazzo.transforms.scenes import both, values_to_read, with_values
from terrazzo.transforms.tiff import header_of, import_tifffile, is_nodata


class TiffScene:
    """One page of a TIFF, of which the strips or tiles under a part are decoded."""

    georeference: Georeference | None = None

    def __init__(self, path: Path, reader: Any, bands: int) -> None:
        self.name, self.bands = str(path), bands
        tifffile = import_tifffile(path)
        try:
            self.file = tifffile.TiffFile(path)
            self.page = self.file.pages[0].aspage()
        except Exception as problem:  # of a broken file, of several classes
            raise UserError(f"cannot open {path}: {problem}") from None
        header = header_of(path, any_size=True)
        self.size, self.nodata = (header.height, header.width), header.nodata
        alpha = [False] * (header.samples - header.has_alpha) + [True] * header.has_alpha
        self.indexes, self.convert = values_to_read(Bands(self.page.dtype, alpha), reader, bands, self.name)
        self.has_alpha = header.has_alpha
        self.stores_nodata = getattr(reader, "bands", None) is not None
        self.value_size = self.page.dtype.itemsize

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        values = self.values(top, bottom, left, right)
        missing = is_nodata(values, self.nodata)
        valid: np.ndarray | None = None if missing is None else ~np.all(missing, axis=2)
        if self.has_alpha:
            valid = both(valid, values[..., -1] != 0)
        image = self.convert(values[..., [index - 1 for index in self.indexes]])
        if self.stores_nodata and valid is not None and not valid.all():
            image = image.astype(np.float32)
            image[~valid] = np.nan
        filled = with_values(image)
        return image, both(valid, filled)

    def values(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """The values (h, w, bands) of a part as stored. Raises UserError where they cannot be decoded."""
        page = self.page
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        values = np.zeros((bottom - top, right - left, page.samplesperpixel), page.dtype)
        height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        down, across = -(-self.size[0] // height), -(-self.size[1] // width)
        numbers = [
            (plane * down + row) * across + column
            for plane in range(planes)
            for row in range(top // height, -(-bottom // height))
            for column in range(left // width, -(-right // width))
        ]
        offsets, counts = ([table[number] for number in numbers] for table in (page.dataoffsets, page.databytecounts))
        try:
            segments = page.parent.filehandle.read_segments(offsets, counts, indices=numbers)
            for data, number in segments:
                segment, (plane, _, row, column, _), (_, rows, columns, _) = page.decode(data, number)
                if segment is None:
                    continue
                part = segment[0, :rows, :columns]
                above, before = max(top, row), max(left, column)
                below, after = min(bottom, row + rows), min(right, column + columns)
                bands = slice(plane, plane + 1) if planes > 1 else slice(None)
                values[above - top : below - top, before - left : after - left, bands] = part[
                    above - row : below - row, before - column : after - column
                ]
        except Exception as problem:  # of a broken file, or a compression that needs imagecodecs
            raise UserError(f"{self.name} cannot be read: {str(problem)[:300]}") from None
        return values

    def close(self) -> None:
        self.file.close()


class Bands:
    """The bands of a page, as rasterio describes them."""

    def __init__(self, dtype: Any, alpha: list[bool]) -> None:
        self.count, self.dtypes = len(alpha), [str(dtype)] * len(alpha)
        self.colorinterp = [Meaning("alpha" if one else "undefined") for one in alpha]


class Meaning:
    def __init__(self, name: str) -> None:
        self.name = name
