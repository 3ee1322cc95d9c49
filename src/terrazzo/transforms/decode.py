"""Image files to arrays: RGB or as stored, and an error that names a file that is broken."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from terrazzo.errors import UserError, nearest
from terrazzo.transforms.opening import (
    JPEG,
    NUMPY,
    damaged,
    is_cut_png,
    load_numpy,
    open_picture,
    open_pillow,
    orientation_of,
    read_bytes,
)
from terrazzo.transforms.parts import names_window, window_of
from terrazzo.transforms.planes import is_nifti, plane_of, read_slice, volume_shape
from terrazzo.transforms.tiff import (
    REAL,
    SAMPLES,
    TIFF,
    TIFF_SUFFIXES,
    header_of,
    import_tifffile,
    read_tiff,
    several_images,
    tiff_header,
)

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
    if plane_of(Path(path)) is not None or is_nifti(Path(path)):
        return plane_picture(Path(path), color_type)
    data = read_bytes(path)
    if color_type != "unchanged" and Path(path).suffix.lower() in (".tif", ".tiff", ".npy"):
        check_is_picture(data, str(path))
    return decode_image(data, color_type, backend, str(path))


def plane_picture(path: Path, color_type: str) -> np.ndarray:
    """A plane of a stack as a picture. Raises UserError for one that is none."""
    values = read_stored(path)
    if color_type == "unchanged":
        return values
    if values.dtype not in (np.uint8, np.uint16) or values.shape[2] not in (1, 3, 4):
        raise UserError(
            f"{path} has {values.shape[2]} band{'s' * (values.shape[2] != 1)} of {values.dtype}, which is not an 8-bit "
            f"picture: name the bands to read, such as `bands: {list(range(1, min(values.shape[2], 3) + 1))}`"
        )
    values = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
    if color_type.startswith("grayscale"):
        return values if values.shape[2] == 1 else cv2.cvtColor(values[..., :3], cv2.COLOR_RGB2GRAY)[..., None]
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else np.ascontiguousarray(values[..., :3])


def check_is_picture(data: bytes, name: str) -> None:
    """Raise UserError for a TIFF or array that a reader of pictures would decode wrongly, or not at all."""
    if data.startswith(NUMPY):
        raise UserError(f"{name} is an array, not a picture: name the bands to read, such as `bands: [1, 2, 3]`")
    if not data.startswith(TIFF):
        return
    header = tiff_header(io.BytesIO(data), name)
    samples, bits, pages = header.samples, header.bits, len(header.pages)
    if len(header.images) > 1:
        raise UserError(several_images(name, header))
    is_real = header.sample_format == REAL
    if pages > 1:
        kind, count = f"{pages} pages of the same size", pages * samples
    elif samples == 2 or samples > 4 or is_real or (bits > 8 and samples > 1 and header.planes == 2):
        kind, count = f"{samples} bands of {bits} bits" if samples > 1 else "one band of real numbers", samples
    else:
        return
    listed = list(range(1, min(count, 3) + 1))
    raise UserError(
        f"{name} has {kind}, which is not an 8-bit picture: name the bands to read, such as `bands: {listed}`"
        + (" (each page is a band), or save the pages as files of their own" if pages > 1 else "")
    )


def decode_image(data: bytes, color_type: str = "color", backend: str = "cv2", name: str = "image") -> np.ndarray:
    """Decode the bytes of an image file as (H, W, C), see `read_image`; `name` is for the error message."""
    if color_type not in CV2_FLAGS:
        raise UserError(
            f"color_type '{color_type}' is not one of {', '.join(CV2_FLAGS)}{nearest(color_type, CV2_FLAGS)}"
        )
    if backend not in BACKENDS:
        raise UserError(f"imdecode_backend '{backend}' is not one of {', '.join(BACKENDS)}{nearest(backend, BACKENDS)}")
    if backend == "tifffile":
        return channels_last(_decode_tifffile(data, name))
    image = _decode_cv2(data, color_type) if backend != "pillow" and not is_cut_png(data) else None
    if image is None:
        return _decode_pillow(data, color_type, name)
    if data.startswith(JPEG) and not data.rstrip(b"\0").endswith(JPEG_END):
        _decode_pillow(data, color_type, name)  # older OpenCV paints the missing part grey; Pillow raises
    return image


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


def _decode_tifffile(data: bytes, name: str) -> np.ndarray:
    tifffile = import_tifffile(name)
    try:
        return tifffile.imread(io.BytesIO(data))
    except Exception as error:  # a broken file, or a compression that needs imagecodecs
        raise damaged(name, str(error)) from error


def _decode_pillow(data: bytes, color_type: str, name: str) -> np.ndarray:
    upright = color_type in ("color", "grayscale")
    if color_type == "unchanged":
        return channels_last(open_pillow(data, name))
    return channels_last(open_pillow(data, name, "RGB" if color_type.startswith("color") else "L", upright))


def channels_last(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image


MOST_SOFT = 0.5  # share of an alpha channel that is neither opaque nor transparent
KEPT = ("uint8", "uint16", "int16", "float32")  # types that are resampled as they are; all others become float32


def read_stored(path: Path | str, bands: Sequence[int] | None = None) -> np.ndarray:
    """Read an image as (H, W, C) in the file's own scale: the `bands`, numbered from 1 as in GDAL, or all of them.

    GeoTIFF is read by rasterio or tifffile where installed; a pixel without data in any band becomes NaN, and pages of
    one size are bands. An array of a .npy file is (H, W), (H, W, C), or (C, H, W) if that makes the channels the
    shortest axis. Raises UserError for a file that cannot be read and for a band that it does not have.
    """
    path = Path(path)
    plane = plane_of(path)
    file = path if plane is None else path.parent
    suffix = file.suffix.lower()
    if is_nifti(file):
        image = read_slice(file, one_plane(file) if plane is None else plane)
    elif suffix == ".npy":
        image = array_image(load_numpy(path), path)
    elif suffix in TIFF_SUFFIXES:
        image = read_tiff(file, plane)
    elif suffix in (".jpg", ".jpeg"):
        image = open_pillow(read_bytes(path), str(path), upright=True)
    else:
        image = decode_image(read_bytes(path), "unchanged", name=str(path))
    image = channels_last(image)
    if str(image.dtype) not in KEPT:
        image = image.astype(np.uint8 if image.dtype == np.bool_ else np.float32)
    return image if bands is None else select(image, bands, path)


def one_plane(file: Path) -> int:
    """The index of the only slice of a volume. Raises UserError for several, which are images of their own."""
    count = volume_shape(file)[2]
    if count > 1:
        raise UserError(f"{file} is a volume of {count} slices, each of which is an image of its own")
    return 0


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
    """Return an array as (H, W, C). Raises UserError for one of other dimensions."""
    if array.ndim not in (2, 3) or not array.size:
        raise UserError(
            f"{path} holds an array {array.shape} of {array.dtype}; an image is (H, W) or (H, W, C) numbers"
        )
    if array.ndim == 3 and array.shape[0] < min(array.shape[1:]):
        return np.ascontiguousarray(np.moveaxis(array, 0, -1))
    return array


def read_size(path: Path | str) -> tuple[int, int]:
    """Return height and width of an image as it is loaded, from its header where possible. Raises UserError."""
    path = Path(path)
    if names_window(path):
        return window_of(path)[2:]
    file = path if plane_of(path) is None else path.parent
    if is_nifti(file):
        width, height, _ = volume_shape(file)
        return height, width
    path = file
    if path.suffix.lower() in TIFF_SUFFIXES:
        header = header_of(path)
        return (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)
    if path.suffix.lower() == ".npy":
        return read_stored(path).shape[:2]  # type: ignore[return-value]
    with open_picture(path) as image:
        turned = orientation_of(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def file_orientation(path: Path) -> int:
    """The EXIF orientation of an image file, by which it is turned when it is read; 1 for an upright one."""
    try:
        with open_picture(path) as image:
            return orientation_of(image)
    except UserError:  # arrays, and TIFF of forms that have none
        return 1


def has_fourth_band(path: Path) -> bool:
    """Report whether an 8-bit picture has a fourth band of measurements, which its reading as RGB omits.

    An alpha channel is opaque or transparent nearly everywhere, whatever the file calls it.
    """
    try:
        with open_picture(path) as image:
            if image.mode != "RGBA" and getattr(image, "tag_v2", {}).get(SAMPLES) != 4:
                return False
        fourth = read_stored(path)[..., 3]
    except (UserError, IndexError):
        return False
    return fourth.dtype == np.uint8 and bool(np.mean((fourth > 0) & (fourth < 255)) > MOST_SOFT)
