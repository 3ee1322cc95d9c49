"""Image and label files to arrays: RGB images, class-index labels, and an error that names a file that is broken."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from terrazzo.errors import UserError, nearest
from terrazzo.transforms.labels import fit_type

PNG = b"\x89PNG\r\n\x1a\n"
NUMPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS, SAMPLES, PLANES, SAMPLE_FORMAT = 258, 277, 284, 339  # tags of TIFF
JPEG = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
COLOR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)  # OpenCV 4.11 and later
CV2_FLAGS = {
    "color": cv2.IMREAD_COLOR,
    "grayscale": cv2.IMREAD_GRAYSCALE,
    "unchanged": cv2.IMREAD_UNCHANGED,
    "color_ignore_orientation": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    "grayscale_ignore_orientation": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
BACKENDS = ("cv2", "pillow", "tifffile", "turbojpeg")


def read_image(path: Path | str, color_type: str = "color", backend: str = "cv2") -> np.ndarray:
    """Read an image file as (H, W, C): RGB uint8 for `color`, one channel for `grayscale`, as stored for `unchanged`.

    EXIF orientation is honoured except by `unchanged` and `*_ignore_orientation`. Raises UserError for a file that is
    missing, damaged or truncated, and for one that is neither grey nor RGB.
    """
    data = read_bytes(path)
    if color_type != "unchanged" and Path(path).suffix.lower() in (".tif", ".tiff", ".npy"):
        check_is_picture(data, str(path))
    return decode_image(data, color_type, backend, str(path))


def check_is_picture(data: bytes, name: str) -> None:
    """Raise UserError for a TIFF or array that a reader of pictures would decode wrongly, or not at all."""
    if data.startswith(NUMPY):
        raise UserError(f"{name} is an array, not a picture: name the bands to read, such as `bands: [1, 2, 3]`")
    if not data.startswith(TIFF):
        return
    tags = ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])  # BigTIFF has a longer header
    file = io.BytesIO(data)
    file.seek(tags.next)
    try:
        tags.load(file)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise damaged(name, str(error)) from error
    samples, bits = tags.get(SAMPLES, 1), max(tags.get(BITS, (1,)))
    is_real = 3 in tags.get(SAMPLE_FORMAT, (1,))
    if samples == 2 or samples > 4 or is_real or (bits > 8 and samples > 1 and tags.get(PLANES, 1) == 2):
        kind = f"{samples} bands of {bits} bits" if samples > 1 else "one band of real numbers"
        listed = list(range(1, min(samples, 3) + 1))
        raise UserError(
            f"{name} has {kind}, which is not an 8-bit picture: name the bands to read, such as `bands: {listed}`"
        )


def read_bytes(path: Path | str) -> bytes:
    """Return the content of a file. Raises UserError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def decode_image(data: bytes, color_type: str = "color", backend: str = "cv2", name: str = "image") -> np.ndarray:
    """Decode the bytes of an image file as (H, W, C), see `read_image`; `name` is for the error message."""
    if color_type not in CV2_FLAGS:
        raise UserError(
            f"color_type '{color_type}' is not one of {', '.join(CV2_FLAGS)}{nearest(color_type, CV2_FLAGS)}"
        )
    if backend not in BACKENDS:
        raise UserError(f"imdecode_backend '{backend}' is not one of {', '.join(BACKENDS)}{nearest(backend, BACKENDS)}")
    if backend == "tifffile":
        return channels_last(decode_tiff(data, name))
    image = _decode_cv2(data, color_type) if backend != "pillow" else None
    if image is None:
        return _decode_pillow(data, color_type, name)
    if data.startswith(JPEG) and not data.rstrip(b"\0").endswith(JPEG_END):
        _decode_pillow(data, color_type, name)  # older OpenCV paints the missing part grey; Pillow raises
    return image


def read_label(path: Path | str, backend: str = "pillow") -> np.ndarray:
    """Read a label file (png, tif, bmp, gif, npy...) as (H, W) class indices, uint8 where they fit, else int32.

    A palette image is read as its indices. Raises UserError for a damaged file and for one that holds colours.
    """
    path = Path(path)
    data = read_bytes(path)
    if path.suffix.lower() == ".npy":
        label = load_numpy(data, str(path))
    elif backend == "tifffile":
        label = decode_tiff(data, str(path))
    elif _is_grey_png(data):
        label = decode_image(data, "unchanged", name=str(path))
    else:
        label = open_pillow(data, str(path))
    return _as_indices(label, path)


def _is_grey_png(data: bytes) -> bool:
    """Return True for a grey PNG of 8 or 16 bits, whose stored values OpenCV gives."""
    return data.startswith(PNG) and len(data) > 25 and data[25] == 0 and data[24] >= 8


def _as_indices(label: np.ndarray, path: Path) -> np.ndarray:
    while label.ndim > 2 and 1 in (label.shape[0], label.shape[-1]):  # a single band or page, but not a row
        label = label[..., 0] if label.shape[-1] == 1 else label[0]
    if label.ndim == 3 and all(np.array_equal(label[..., 0], label[..., k]) for k in range(1, min(3, label.shape[2]))):
        label = label[..., 0]
    if label.ndim != 2:
        raise UserError(
            f"the label {path} is a colour image ({'x'.join(map(str, label.shape))}); labels are class indices in one "
            "channel: convert it first, `terrazzo data convert --help` shows how"
        )
    if label.dtype == np.bool_:
        return label.astype(np.uint8)
    if label.dtype == np.uint8:
        return label
    return fit_type(np.where(label < 0, 255, label) if label.dtype.kind in "if" else label)


def _decode_cv2(data: bytes, color_type: str) -> np.ndarray | None:
    buffer = np.frombuffer(data, np.uint8)
    flags = CV2_FLAGS[color_type]
    in_colour = color_type.startswith("color")
    if in_colour and COLOR_RGB is not None:
        flags = flags & ~cv2.IMREAD_COLOR | COLOR_RGB
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error:
        return None
    if image is None or image.ndim == 2:
        return image if image is None else image[..., None]
    if image.shape[2] in (3, 4) and not (in_colour and COLOR_RGB is not None):
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return image


def _decode_pillow(data: bytes, color_type: str, name: str) -> np.ndarray:
    upright = color_type in ("color", "grayscale")
    if color_type == "unchanged":
        return channels_last(open_pillow(data, name))
    return channels_last(open_pillow(data, name, "RGB" if color_type.startswith("color") else "L", upright))


def open_pillow(data: bytes, name: str, mode: str | None = None, upright: bool = False) -> np.ndarray:
    """Decode with Pillow; `mode` converts the colours, `upright` turns the image by its EXIF entry."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            turned: Image.Image = ImageOps.exif_transpose(image) if upright else image
            if mode is not None and turned.mode.startswith("I;16"):
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return np.array(turned if mode is None else turned.convert(mode))
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large to decode in one piece ({error}); cut it into tiles first") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise damaged(name, str(error)) from error


def decode_tiff(data: bytes, name: str) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise UserError(f"reading {name} needs tifffile: pip install 'terrazzo[geo]'") from error
    try:
        return tifffile.imread(io.BytesIO(data))
    except (tifffile.TiffFileError, ValueError, OSError) as error:
        raise damaged(name, str(error)) from error


def load_numpy(data: bytes, name: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise damaged(name, str(error)) from error


def channels_last(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image


def damaged(name: str, reason: str = "") -> UserError:
    detail = f" ({reason})" if reason else ""
    return UserError(
        f"cannot decode {name}{detail}: the file is damaged, truncated or not an image; replace or remove it"
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
