"""Label files as class indices: the one reader of PNG, TIFF, arrays and other pictures that hold a class per pixel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from terrazzo.errors import UserError, some
from terrazzo.transforms.labels import IGNORED, fit_type
from terrazzo.transforms.opening import PNG, is_cut_png, load_numpy, open_pillow, read_bytes
from terrazzo.transforms.planes import is_nifti, plane_of, read_slice, volume_shape
from terrazzo.transforms.tiff import (
    TIFF,
    TIFF_SUFFIXES,
    header_of,
    is_nodata,
    label_values,
    stored_values,
    without_data,
)

PART = 4096  # pixels of a side of a large label that are read at once
LARGEST = np.iinfo(np.int32).max  # class
NEAR = 1e-3  # of a whole number: further away, real values are no classes
GREY, GREY_ALPHA = 0, 4  # colour types of PNG
EXIF_CHUNK = b"eXIf"
GREYMAPS = (b"P2", b"P5")  # which Pillow scales to 8 bits


class LabelFile(NamedTuple):
    """The class indices (H, W) of a file, 255 for pixels without a class, and whether it declares 0 as no data.

    Any other value that a file declares as no data is 255 already; a declared 0 is often a background.
    """

    label: np.ndarray
    zero_is_no_data: bool = False


def read_label(path: Path | str, backend: str = "pillow") -> np.ndarray:
    """Read a label file (png, tif, bmp, gif, npy...) as (H, W) class indices, uint8 where they fit, else int32.

    Values are those stored: palette images give indices, grey of 1 to 4 bits is not scaled. What the file declares as
    no data (unless it is 0), NaN and negative values are 255. Raises UserError for a file that is damaged, has several
    pages, or holds colours or fractions.
    """
    return read_label_file(Path(path), backend).label


def read_label_file(path: Path, backend: str = "pillow") -> LabelFile:
    """Read a label file with what it declares, see `read_label`."""
    plane = plane_of(path)
    if plane is not None or is_nifti(path):
        return read_label_plane(path, plane)
    if path.suffix.lower() == ".npy":
        return LabelFile(as_indices(load_numpy(path), path))
    data = read_bytes(path)
    if not data.startswith(TIFF):
        return LabelFile(as_indices(picture_values(data, str(path)), path, has_alpha=True))
    header = header_of(path)
    stored = stored_values(path, header) if backend == "tifffile" else label_values(path, data, header)
    zero = is_nodata(np.zeros(1, stored.dtype), header.nodata)
    declares_zero = zero is not None and bool(zero[0])
    label = as_indices(stored, path, None if declares_zero else header.nodata, header.has_alpha)
    excluded = without_data(path, header)
    if excluded is not None:
        label[excluded] = IGNORED
    return LabelFile(label, declares_zero)


def read_label_plane(path: Path, plane: int | None) -> LabelFile:
    """Read a slice of a NIfTI volume, or a plane of a TIFF stack."""
    file = path if plane is None else path.parent
    if is_nifti(file):
        if plane is None and volume_shape(file)[2] > 1:
            raise UserError(f"{path} is a volume of {volume_shape(file)[2]} slices; a label is one of them")
        return LabelFile(as_indices(read_slice(file, plane or 0), path))
    header = header_of(file)
    if plane is not None and plane >= len(header.images):
        raise UserError(f"{file} has {len(header.images)} planes, fewer than its image")
    stored = stored_values(file, header._replace(pages=header.images[plane or 0]))
    return LabelFile(as_indices(stored, path, header.nodata, header.has_alpha))


def label_parts(path: Path) -> Iterator[LabelFile]:
    """Yield a label file as `read_label_file` does, a large TIFF in parts (with rasterio), so that memory suffices."""
    is_tiff = path.suffix.lower() in TIFF_SUFFIXES
    header = header_of(path, any_size=True) if is_tiff else None
    if header is None or header.height * header.width <= PART**2 or not find_spec("rasterio"):
        yield read_label_file(path)
        return
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path, driver="GTiff") as file:
        declares_zero = file.nodata == 0
        for top in range(0, file.height, PART):
            for left in range(0, file.width, PART):
                window = Window(left, top, min(PART, file.width - left), min(PART, file.height - top))
                stored = np.moveaxis(file.read(window=window), 0, -1)
                nodata = None if declares_zero else header.nodata
                yield LabelFile(as_indices(stored, path, nodata, header.has_alpha), declares_zero)


def picture_values(data: bytes, name: str) -> np.ndarray:
    """The values that a picture other than TIFF stores, of one or several channels."""
    bits, colours = (data[24], data[25]) if data.startswith(PNG) and len(data) > 25 else (8, -1)
    is_plain = bits == 16 or (bits == 8 and colours == GREY) or data.startswith(GREYMAPS)
    if is_plain and EXIF_CHUNK not in data and not is_cut_png(data):
        with suppress(cv2.error):  # Pillow says what is wrong
            stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            if stored is not None:
                return stored
    stored = open_pillow(data, name, upright=True)
    return stored // (255 // ((1 << bits) - 1)) if colours == GREY and bits in (2, 4) else stored  # Pillow scales these


def as_indices(stored: np.ndarray, path: Path, nodata: str | None = None, has_alpha: bool = False) -> np.ndarray:
    """Stored values as class indices (H, W), see `read_label`."""
    stored = one_channel(stored, path, has_alpha)
    empty = is_nodata(stored, nodata)
    if stored.dtype == np.bool_ or (stored.dtype == np.uint8 and empty is None):
        return stored.astype(np.uint8, copy=False)
    empty = np.zeros(stored.shape, bool) if empty is None else empty
    if stored.dtype.kind == "f":
        empty |= np.isnan(stored) | (stored < 0)
        with np.errstate(invalid="ignore"):  # of infinities
            fractions = stored[~empty & ~(abs(stored - np.rint(stored)) <= NEAR)]
        if fractions.size:
            raise UserError(
                f"the label {path} holds fractions, such as {some(np.unique(fractions).tolist())}, which are not class "
                "indices: save class numbers from 0, as 8-bit PNG or TIFF"
            )
        stored = np.rint(np.where(empty, 0, stored))
    elif stored.dtype.kind == "i":
        empty |= stored < 0
    elif stored.dtype.itemsize >= 4:  # -1 as an unsigned number
        empty |= stored == np.iinfo(stored.dtype).max
    label = np.where(empty, 0, stored)
    if label.max(initial=0) > LARGEST:
        raise UserError(f"the label {path} holds the value {label.max()}, which is too large for a class index")
    label = fit_type(label)
    label[empty] = IGNORED
    return label


def one_channel(stored: np.ndarray, path: Path, has_alpha: bool) -> np.ndarray:
    """Values (H, W) from several equal channels, one channel for each class, or one with alpha."""
    while stored.ndim > 2 and 1 in (stored.shape[0], stored.shape[-1]):  # a single band or page, but not a row
        stored = stored[..., 0] if stored.shape[-1] == 1 else stored[0]
    if stored.ndim == 3 and has_alpha and stored.shape[2] in (2, 4):
        stored = without_alpha(stored, path)
    if stored.ndim == 3 and (stored == stored[..., :1]).all():
        return stored[..., 0]
    for axis in (2, 0) if stored.ndim == 3 else ():
        if ((stored != 0).sum(axis=axis) == 1).all() and len(np.unique(stored)) == 2 and stored.max() > 0:
            return stored.argmax(axis=axis).astype(np.int32)
    if stored.ndim != 2:
        shape = "x".join(map(str, stored.shape))
        if stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8:
            raise UserError(
                f"the label {path} is a colour image ({shape}); labels are class indices in one channel: name the "
                "classes' colours in `palette` and set `label_format: rgb`"
            )
        raise UserError(
            f"the label {path} is an array of {shape}, and not with one channel for each class, one of which is set "
            "in each pixel; labels are class indices (H, W): save those, such as `scores.argmax(axis)` of NumPy"
        )
    return stored


def without_alpha(stored: np.ndarray, path: Path) -> np.ndarray:
    """Values (H, W, C) without the last channel. Raises UserError where it says more than the others do."""
    alpha, values = stored[..., -1], stored[..., :-1]
    if alpha.min() == alpha.max():
        return values
    if (values == values[:1, :1]).all():
        raise UserError(
            f"the shapes of the label {path} are in its alpha channel: set `label_format: alpha`, which reads opaque "
            "pixels as the second of two classes"
        )
    both = np.intersect1d(values[alpha == 0], values[alpha > 0])
    if both.size and (values == values[..., :1]).all():
        raise UserError(
            f"the label {path} has the value {both[0]} in transparent and in opaque pixels: save it without an alpha "
            "channel, with a value of its own for each class"
        )
    return values
