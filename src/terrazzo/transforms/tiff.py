"""TIFF files: what their header declares, and their values as stored, by rasterio, tifffile or Pillow."""

from __future__ import annotations

import io
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

from terrazzo.errors import UserError
from terrazzo.system.extras import import_extra
from terrazzo.system.limits import check_pixels
from terrazzo.transforms.members import shard_of
from terrazzo.transforms.opening import (
    ORIENTATION,
    check_regular,
    damaged,
    open_pillow,
    out_of_memory,
    read_bytes,
    turn,
)
from terrazzo.transforms.planes import images_in_pages

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_SUFFIXES = (".tif", ".tiff")
# tags
KIND, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES = 254, 256, 257, 258, 259, 262, 277, 284
DESCRIPTION = 270
SLIDE = "Aperio"  # at the beginning of a description: a slide has pages of its label and of a glance
EXTRA, SAMPLE_FORMAT, NODATA = 338, 339, 42113
REDUCED, MASK = 1, 4  # bits of KIND
UNSIGNED, SIGNED, REAL = 1, 2, 3  # sample formats
WHITE_IS_ZERO, PALETTE = 0, 3  # photometric interpretations
MOST_PAGES = 10_000
INSTALL = "pip install 'terrazzo[geo]'"


class TiffHeader(NamedTuple):
    """The entries that decide how the values of a TIFF are read; `pages` are the numbers of its full-size pages."""

    height: int
    width: int
    samples: int
    bits: int
    sample_format: int
    planes: int
    photometric: int
    has_alpha: bool
    compression: int
    orientation: int
    nodata: str | None
    pages: tuple[int, ...]
    has_mask: bool
    images: tuple[tuple[int, ...], ...]  # the pages of each image in the file, one or several
    odd_pages: int  # pages of another size that are no reduced copies


def tiff_header(file: BinaryIO, name: str, *, any_size: bool = False) -> TiffHeader:
    """Read the header of an open TIFF. Raises UserError for a damaged one, and unless `any_size` for a huge one."""
    try:
        pages = list(directories(file))
        header = describe(pages)
    except Exception as error:  # whatever its reader stumbles over in a broken file
        raise damaged(name, str(error) or type(error).__name__) from error
    if header.odd_pages:
        raise UserError(
            f"{name} has {len(pages)} pages, {header.odd_pages} of them of another size than the first, "
            f"{header.width}x{header.height}: save each page as a file of its own (`tiffsplit` does)"
        )
    if not any_size:
        check_pixels(header.height, header.width, name, header.samples * len(header.pages))
    return header


def directories(file: BinaryIO) -> Any:
    """Yield the tags of each page."""
    start = file.read(16)
    tags = ImageFileDirectory_v2(start if 43 in start[2:4] else start[:8])  # BigTIFF has a longer header
    seen: set[int] = set()
    while tags.next and tags.next not in seen and len(seen) < MOST_PAGES:
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        yield dict(tags)


def check_is_whole(path: Path) -> None:
    """Raise UserError for a TIFF whose tiles or strips lie beyond its end, without reading any of them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for page in directories(file):
            for places, lengths in ((273, 279), (324, 325)):  # of strips, of tiles
                ends = [sum(one) for one in zip(as_tuple(page.get(places)), as_tuple(page.get(lengths)), strict=False)]
                missing = sum(end > size for end in ends)
                if missing:
                    reason = f"{missing} of its {len(ends)} parts lie beyond its end"
                    raise damaged(str(path), reason)


def as_tuple(value: Any) -> tuple[int, ...]:
    """A tag's value, of one number or several."""
    return () if value is None else tuple(value) if isinstance(value, (tuple, list)) else (value,)


def describe(pages: list[dict[int, Any]]) -> TiffHeader:
    first = pages[0]

    def number(key: int, default: int) -> int:
        value = first.get(key, default)
        return int(max(value) if isinstance(value, tuple) else value)

    size = int(first[HEIGHT]), int(first[WIDTH])
    kinds = [int(page.get(KIND, 0)) if (page.get(HEIGHT), page.get(WIDTH)) == size else REDUCED for page in pages]
    odd_pages = [page for page in pages if not is_copy(page, size)]
    numbers = tuple(index for index, kind in enumerate(kinds) if not kind & (REDUCED | MASK)) or (0,)
    description = str(first.get(DESCRIPTION, ""))
    extra = first.get(EXTRA, ())
    nodata = first.get(NODATA)
    return TiffHeader(
        *size,
        samples=number(SAMPLES, 1),
        bits=number(BITS, 1),
        sample_format=number(SAMPLE_FORMAT, UNSIGNED),
        planes=number(PLANES, 1),
        photometric=number(PHOTOMETRIC, 1),
        has_alpha=any(value in (1, 2) for value in (extra if isinstance(extra, tuple) else (extra,))),
        compression=number(COMPRESSION, 1),
        orientation=number(ORIENTATION, 1),
        nodata=str(nodata).strip(" \0") if nodata is not None else None,
        pages=numbers,
        has_mask=any(kind & MASK for kind in kinds),
        images=images_in_pages(description, numbers, number(SAMPLES, 1)),
        odd_pages=0 if description.startswith(SLIDE) else len(odd_pages),
    )


def is_copy(page: dict[int, Any], size: tuple[int, int]) -> bool:
    """Return whether a page has the size of the first one, or is a reduced copy or a mask of it."""
    height, width = int(page.get(HEIGHT, 0)), int(page.get(WIDTH, 0))
    is_alike = abs(height * size[1] - width * size[0]) <= 2 * max(size)  # of the same aspect, but for rounding
    is_reduced = bool(int(page.get(KIND, 0)) & (REDUCED | MASK)) or (height < size[0] and is_alike)
    return (height, width) == size or is_reduced


def header_of(path: Path, *, any_size: bool = False) -> TiffHeader:
    """Read the header of a TIFF file. Raises UserError."""
    check_regular(path)
    if shard_of(path) is not None:
        return tiff_header(io.BytesIO(read_bytes(path)), str(path), any_size=any_size)
    try:
        with path.open("rb") as file:
            header = tiff_header(file, str(path), any_size=any_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    beside = path.with_name(path.name + ".aux.xml")  # where GDAL declares what it does not write into the file
    if header.nodata is None and beside.is_file():
        found = re.search(rb"<NoDataValue[^>]*>([^<]+)<", beside.read_bytes())
        return header._replace(nodata=found[1].decode(errors="replace").strip()) if found else header
    return header


def is_nodata(stored: np.ndarray, nodata: str | None) -> np.ndarray | None:
    """Mark the values (of any shape) that a file declares to be no data; None where it declares none it can hold."""
    try:
        value: float = int(nodata or "")
    except ValueError:
        try:
            value = float(nodata or "")
        except ValueError:
            return None
    if stored.dtype.kind == "f":
        return np.isnan(stored) if np.isnan(value) else stored == stored.dtype.type(value)
    if not np.isfinite(value) or value != int(value):
        return None
    limits = np.iinfo(stored.dtype)
    return stored == int(value) if limits.min <= value <= limits.max else None


def read_tiff(path: Path, plane: int | None = None) -> np.ndarray:
    """Read a TIFF as (H, W, C) by what is installed: rasterio, tifffile, or Pillow for 8-bit grey, RGB and RGBA.

    Pages are bands, those of one `plane` where the file holds several images; a pixel without data in any band is NaN.
    Raises UserError.
    """
    header = header_of(path)
    if plane is None and len(header.images) > 1:
        raise UserError(several_images(str(path), header))
    if plane is not None:
        header = header._replace(pages=header.images[plane], images=(header.images[plane],))
    image = stored_values(path, header)
    nodata = is_nodata(image, header.nodata)
    if nodata is not None and nodata.all(axis=2).any():
        image = image if image.dtype.kind == "f" else image.astype(np.float32)
        image[nodata.all(axis=2)] = np.nan
    return image


def several_images(name: str, header: TiffHeader) -> str:
    """The message on a TIFF that holds several images where one is to be read."""
    bands = len(header.images[0]) * header.samples
    return (
        f"{name} holds {len(header.images)} images of {bands} band{'s' * (bands != 1)} in {len(header.pages)} pages, "
        "by its OME or ImageJ description: `terrazzo predict`, and data sets whose labels have as many pages, take "
        "each as an image of its own"
    )


def stored_values(path: Path, header: TiffHeader) -> np.ndarray:
    """The values (H, W, C) of a TIFF as they are in the file, turned upright."""
    try:
        if find_spec("rasterio"):
            pages = [rasterio_page(path, number) for number in header.pages]
        elif find_spec("tifffile"):
            pages = [tifffile_page(path, number) for number in header.pages]
        else:
            return pillow_page(path, header)
    except MemoryError as error:
        raise out_of_memory(str(path)) from error
    image = pages[0] if len(pages) == 1 else np.concatenate(pages, axis=2)
    return np.ascontiguousarray(turn(image, header.orientation))


def rasterio_page(path: Path, number: int) -> np.ndarray:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    whole = str(path.absolute())
    source = f"GTIFF_DIR:{number + 1}:{whole}" if number else whole
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # by this driver alone: a VRT of this name could have the data fetched from elsewhere
            with rasterio.open(source, driver="GTiff") as file:
                return np.moveaxis(file.read(), 0, -1)
    except MemoryError:
        raise
    except Exception as error:  # GDAL raises many kinds
        raise damaged(str(path), str(error).replace(whole, path.name)) from error


def tifffile_page(path: Path, number: int) -> np.ndarray:
    tifffile = import_tifffile(path)
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[number]
            array = np.asarray(page.asarray())
    except MemoryError:
        raise
    except Exception as error:  # a broken file, or a compression that needs imagecodecs
        raise cannot_decode(path, str(error)) from error
    if array.ndim == 3 and page.axes.startswith("S"):
        array = np.moveaxis(array, 0, -1)
    return array[..., None] if array.ndim == 2 else array


def without_data(path: Path, header: TiffHeader) -> np.ndarray | None:
    """Mark the pixels (H, W) that the mask inside a TIFF excludes; None for one without a mask."""
    if not header.has_mask:
        return None
    rasterio = import_extra("rasterio", "geo", f"masks of pixels without data, such as that in {path},")
    with rasterio.open(path.absolute(), driver="GTiff") as file:
        return file.dataset_mask() == 0


def import_tifffile(path: Path | str) -> Any:
    """Import the tifffile package. Raises UserError with the command that installs it."""
    return import_extra("tifffile", "geo", f"images such as {path}")


def pillow_page(path: Path, header: TiffHeader) -> np.ndarray:
    """The values of a TIFF that Pillow gives unchanged. Raises UserError for any other."""
    if len(header.pages) > 1 or header.planes == 2 or (header.bits != 8 and header.samples > 1):
        raise cannot_decode(path)
    try:
        array = open_pillow(read_bytes(path), str(path))
    except UserError as error:
        raise cannot_decode(path) from error
    image = array[..., None] if array.ndim == 2 else array
    if image.shape[2] != header.samples:  # it drops bands beyond RGB
        raise cannot_decode(path)
    return image


def cannot_decode(path: Path, reason: str = "") -> UserError:
    """The error for a TIFF that no installed library reads."""
    missing = [name for name in ("rasterio", "tifffile") if not find_spec(name)]
    detail = f" ({reason})" if reason else ""
    return UserError(
        f"cannot decode {path}{detail} without {' or '.join(missing) or 'other libraries'}, which read TIFF of many "
        f"bands, of 16 bits and colours, of 64 bits and of any compression: {INSTALL} (if they cannot either, the "
        "file is damaged)"
    )


def label_values(path: Path, data: bytes, header: TiffHeader) -> np.ndarray:
    """The values (H, W, C) that a label in TIFF stores, whatever its bits and whether or not white is zero."""
    if len(header.pages) > 1:
        raise UserError(
            f"{path} has {len(header.pages)} pages of {header.width}x{header.height}; a label is one page: save each "
            "page as a file beside the page of its image (`tiffsplit` does)"
        )
    simple = header.samples == 1 and header.bits <= 32 and header.compression in COMPRESSION_INFO
    if not simple and not (header.samples in (2, 3, 4) and header.bits == 8 and header.planes == 1):
        return stored_values(path, header)
    try:
        stored = open_pillow(data, str(path))
    except UserError:
        return stored_values(path, header)
    stored = stored.astype(np.uint8) if stored.dtype == np.bool_ else stored
    if stored.ndim == 2 and header.bits <= 8 and header.photometric != PALETTE:
        highest = (1 << header.bits) - 1
        stored = stored // (255 // highest) if header.bits in (2, 4) else stored  # Pillow scales these to 8 bits
        stored = highest - stored if header.photometric == WHITE_IS_ZERO else stored  # and shows zero as white
    if stored.dtype.itemsize * 8 == header.bits and header.sample_format in (UNSIGNED, SIGNED):
        stored = stored.view(f"{'u' if header.sample_format == UNSIGNED else 'i'}{header.bits // 8}")
    if stored.ndim == 3 and stored.shape[2] != header.samples:
        return stored_values(path, header)
    return stored
