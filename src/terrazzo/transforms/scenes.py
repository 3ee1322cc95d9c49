"""Scenes: images that are read part by part."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.system.extras import import_extra
from terrazzo.transforms.decode import KEPT
from terrazzo.transforms.georeference import Georeference, georeference_of
from terrazzo.transforms.resampling import gdal_errors, resampled
from terrazzo.transforms.tiff import TIFF_SUFFIXES

CACHE = 64  # MB of blocks that GDAL keeps
REMOTE = re.compile(r"^(https?|s3|gs|az|ftp)://|^/vsi(curl|s3|gs|az|oss|swift|webhdfs|hdfs)")
REMOTE_INSIDE = re.compile(rb"/vsi(?!mem|sub)\w+|://", re.IGNORECASE)
FETCHING = "HTTP,WMS,WMTS,WCS,DAAS,EEDA,EEDAI,PLMOSAIC,STACIT,STACTA,NGW,OGCAPI"  # drivers that use the network
DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".vrt": "VRT", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


class MissingCrsError(UserError):
    """An image or a label has no place on the ground where one is needed."""


class BandCountError(UserError):
    """An image has other bands than are to be read."""


class Scene(Protocol):
    """An image of any size, read part by part."""

    name: str
    size: tuple[int, int]  # height, width
    bands: int
    value_size: int  # bytes of a value
    georeference: Georeference | None

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A part (h, w, C) as the model takes it, and which of its pixels (h, w) hold data (None: all).

        Raises UserError where the file is damaged there.
        """

    def close(self) -> None:
        """Release the file."""


class ArrayScene:
    """An image at hand."""

    georeference: Georeference | None = None

    def __init__(self, image: np.ndarray, name: str = "this image") -> None:
        self.image, self.name = image, name
        self.size, self.bands = (image.shape[0], image.shape[1]), image.shape[2]
        self.value_size = image.itemsize

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        part = self.image[top:bottom, left:right]
        return part, with_values(part)

    def close(self) -> None:
        pass


class RasterScene:
    """A file that GDAL reads, by rasterio: the bands that a reading step names, or RGB.

    It is read by one thread at a time. Without a number of `bands` any will do, or for pictures those of their colours.
    """

    def __init__(self, path: str | Path, reader: Any, bands: int | None) -> None:
        self.name = str(path)
        self.rasterio = import_extra("rasterio", "geo", "scenes")
        self.environment = environment(self.name)
        self.lock = threading.Lock()
        self.masked: tuple[Any, np.ndarray | None] | None = None
        with self.environment():
            self.file = self.source = self.open(path)
            resolution = getattr(reader, "resolution", None)
            if resolution is not None:
                self.file = resampled(self.source, resolution, self.name)
            self.size = self.file.shape
            self.georeference = georeference_of(self.file)
            if bands is None and getattr(reader, "bands", None) is None:
                bands = 1 if getattr(reader, "color_type", "").startswith("grayscale") else 3
            self.indexes, self.convert = values_to_read(self.file, reader, bands, self.name)
            as_stored = getattr(reader, "bands", None) is not None
            self.stores_nodata = as_stored and self.file.nodata is not None  # then it is NaN, as in whole images
        self.value_size = max(np.dtype(dtype).itemsize for dtype in self.file.dtypes)
        self.bands = bands or len(self.indexes)

    def open(self, path: str | Path) -> Any:
        """The data set of a file, or of the tiles in a folder."""
        if not Path(path).is_dir():
            return open_raster(self.rasterio, self.name)
        from terrazzo.transforms.mosaic import mosaic_of, virtual_raster

        mosaic = mosaic_of(Path(path))
        assert mosaic is not None, "only folders of tiles are opened as scenes"
        self.virtual = self.rasterio.MemoryFile(virtual_raster(mosaic).encode(), ext=".vrt")
        return self.virtual.open(driver="VRT")

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        window = self.rasterio.windows.Window(left, top, right - left, bottom - top)
        with self.lock, self.environment():
            try:
                values = self.file.read(self.indexes, window=window)
                valid = self.mask(window)
            except gdal_errors() as problem:
                raise UserError(f"{self.name} cannot be read: {reason(problem)}") from None
        image = self.convert(np.moveaxis(values, 0, -1))
        if self.stores_nodata and valid is not None and not valid.all():
            image = image.astype(np.float32)
            image[~valid] = np.nan
        return image, both(valid, with_values(image))

    def valid(self, top: int, bottom: int, left: int, right: int) -> np.ndarray | None:
        """Which pixels (h, w) of a part hold data, by its values or by mask; None: all.

        Raises UserError where the file is damaged there.
        """
        window = self.rasterio.windows.Window(left, top, right - left, bottom - top)
        with self.lock, self.environment():
            try:
                valid = self.mask(window)
                if any(dtype.startswith("float") for dtype in self.file.dtypes):
                    values = self.file.read(self.indexes, window=window)
                    valid = both(valid, with_values(np.moveaxis(values, 0, -1)))
            except gdal_errors() as problem:
                raise UserError(f"{self.name} cannot be read: {reason(problem)}") from None
        return valid

    def mask(self, window: Any) -> np.ndarray | None:
        """Which pixels of a window hold data; the last answer is kept, as an image's label asks for it again."""
        if self.masked is None or self.masked[0] != window:
            self.masked = window, mask_of(self.file, window)
        return self.masked[1]

    def close(self) -> None:
        self.file.close()
        self.source.close()


def open_raster(rasterio: Any, name: str) -> Any:
    """An open rasterio data set. Raises UserError for a file that it cannot open, or may not."""
    driver = None if is_remote(name) else DRIVERS.get(Path(name).suffix.lower())
    if not is_remote(name) and Path(name).suffix.lower() == ".vrt":
        check_is_local(Path(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(name, driver=driver)
    except rasterio.errors.CRSError as problem:
        raise UserError(f"{name}: its coordinate reference system is unknown to PROJ: {reason(problem)}") from None
    except gdal_errors() as problem:
        raise UserError(f"cannot open {name}: {reason(problem)}") from None


def check_is_local(path: Path) -> None:
    """Raise UserError for a VRT that would have data fetched from elsewhere."""
    try:
        found = REMOTE_INSIDE.search(re.sub(rb"<SRS.*?</SRS>", b"", path.read_bytes(), flags=re.DOTALL))
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from None
    if found:
        raise UserError(
            f"{path} refers to data elsewhere ({found[0].decode()}...), and nothing is fetched that no path names: "
            "give the address itself, or a VRT of local files"
        )


def environment(name: str) -> Callable[[], Any]:
    """GDAL's settings for a path: no network unless the path itself is an address."""
    import rasterio

    settings: dict[str, Any] = {"GDAL_CACHEMAX": CACHE}
    if is_remote(name):
        settings |= {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_MAX_RETRY": 2, "GDAL_HTTP_TIMEOUT": 60}
        settings["GDAL_HTTP_RETRY_DELAY"] = 1  # seconds
    else:
        settings["CPL_VSIL_CURL_ALLOWED_EXTENSIONS"] = f".{token_hex(16)}"  # that no file names
    if Path(name).suffix.lower() == ".vrt" and not is_remote(name):
        settings["GDAL_SKIP"] = FETCHING  # from here on, for the whole process
    return lambda: rasterio.Env(**settings)


def values_to_read(
    file: Any, reader: Any, bands: int | None, name: str
) -> tuple[list[int], Callable[[np.ndarray], np.ndarray]]:
    """The band numbers that a model takes, and how their values (h, w, C) become its images.

    Raises UserError for a file that does not have these bands.
    """
    interpretation = [colour.name for colour in file.colorinterp]
    numbers = [number for number, meaning in enumerate(interpretation, 1) if meaning != "alpha"]
    wanted = getattr(reader, "bands", None)
    if wanted is not None:
        chosen = numbers if isinstance(wanted, str) else list(wanted)
        if max(chosen) > file.count or bands not in (None, len(chosen)):
            held = f"{name} has {len(numbers)} band{'s' * (len(numbers) != 1)}"
            listed = "" if isinstance(wanted, str) else f", numbers {', '.join(map(str, wanted))}"
            if bands is None:
                raise BandCountError(
                    f"{held}, and `bands` names {len(chosen)}{listed}: name those that all scenes have"
                )
            raise BandCountError(
                f"{held}, and this model takes {bands}{listed}: give a scene of the same bands as its training images"
            )
        return chosen, as_stored_values
    if file.dtypes[0] not in ("uint8", "uint16") or len(numbers) not in (1, 3, 4):
        kind = f"{len(numbers)} band{'s' * (len(numbers) != 1)} of {file.dtypes[0]}"
        raise BandCountError(
            f"{name} has {kind}, and this model takes 8-bit {'RGB' if bands == 3 else 'grey'} images: train it with "
            "`bands:`, or give a scene that is a picture"
        )
    colours = None
    if interpretation[0] == "palette":
        colours = np.zeros((256, 3), np.uint8)
        for index, colour in file.colormap(1).items():
            colours[index] = colour[:3]
    return numbers[:3], lambda values: as_picture(values, bands or 3, colours)


def as_stored_values(values: np.ndarray) -> np.ndarray:
    """Values in one of the types that images have."""
    return values if str(values.dtype) in KEPT else values.astype(np.float32)


def as_picture(values: np.ndarray, bands: int, colours: np.ndarray | None) -> np.ndarray:
    """Values (h, w, 1 or 3) as an 8-bit picture of 3 `bands`, or of 1."""
    if values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    if colours is not None:
        values = colours[values[..., 0]]
    values = np.ascontiguousarray(values)
    if bands == 1:
        return values if values.shape[2] == 1 else cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)[..., None]
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def with_values(image: np.ndarray) -> np.ndarray | None:
    """Which pixels (h, w) of an image (h, w, C) are not NaN in all bands; None: all."""
    if image.dtype.kind != "f":
        return None
    missing = np.isnan(image).all(axis=2)
    return ~missing if missing.any() else None


def mask_of(file: Any, window: Any = None) -> np.ndarray | None:
    """Which pixels of an open raster hold data, by its no-data value, mask or alpha band; None: all."""
    from rasterio.enums import ColorInterp, MaskFlags

    mask = None
    if all(flags == [MaskFlags.nodata] for flags in file.mask_flag_enums):  # many times as fast as GDAL's own mask
        parts = zip(file.read(window=window), file.nodatavals, strict=True)
        mask = np.logical_or.reduce([~np.isnan(values) if np.isnan(no) else values != no for values, no in parts])
    elif not all(MaskFlags.all_valid in flags for flags in file.mask_flag_enums):
        mask = file.dataset_mask(window=window) != 0
    if ColorInterp.alpha in file.colorinterp and file.count not in (2, 4):  # with which GDAL's own mask knows it
        mask = both(mask, file.read(file.colorinterp.index(ColorInterp.alpha) + 1, window=window) != 0)
    return mask


def both(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """The pixels (h, w) that are in two masks, of which None has all."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def is_remote(name: str) -> bool:
    """Return whether a path is an address that GDAL fetches."""
    return REMOTE.match(name) is not None


def is_raster(name: str) -> bool:
    """Return whether a path names what only GDAL reads: an address, a virtual raster, or a folder of tiles."""
    return is_remote(name) or Path(name).suffix.lower() == ".vrt" or Path(name).is_dir()


def reason(problem: BaseException) -> str:
    """The first line of one of GDAL's errors, or of its cause, which says more."""
    text = str(problem.__cause__ or getattr(problem, "strerror", None) or problem).strip()
    return text.splitlines()[0][:300] if text else type(problem).__name__


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An open rasterio data set of a TIFF; None where it is none, or rasterio is not installed."""
    if path.suffix.lower() not in TIFF_SUFFIXES or not find_spec("rasterio"):
        yield None
        return
    import rasterio

    with environment(str(path))(), open_raster(rasterio, str(path)) as file:
        try:
            yield file
        except gdal_errors() as problem:
            raise UserError(f"{path} cannot be read: {reason(problem)}") from None


def valid_pixels(path: Path, image: np.ndarray) -> np.ndarray | None:
    """Which pixels (H, W) of a TIFF's image hold data, by its no-data value, mask or alpha; None: all."""
    valid = with_values(image)
    with opened(path) as file:
        mask = None if file is None or file.shape != image.shape[:2] else mask_of(file)
    return both(valid, mask)


def georeference(path: Path | None) -> Georeference | None:
    """The georeference of an image file; None for one without."""
    if path is None:
        return None
    with opened(path) as file:
        return None if file is None else georeference_of(file)
