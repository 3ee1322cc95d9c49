"""Bytes, arrays and pictures from files: a fixed list of formats, sizes judged before memory is taken."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from terrazzo.errors import OutOfMemory, UserError
from terrazzo.system.limits import MOST_PIXELS, check_pixels
from terrazzo.transforms.members import read_member, shard_of

PNG = b"\x89PNG\r\n\x1a\n"
NUMPY = b"\x93NUMPY"
JPEG = b"\xff\xd8"
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000", "AVIF")  # none that starts other programs
ORIENTATION = 274  # of EXIF and TIFF

if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MOST_PIXELS)


def read_bytes(path: Path | str) -> bytes:
    """Return the content of a file, which may be in a shard. Raises UserError where it cannot be read."""
    check_regular(path)
    shard = shard_of(Path(path))
    if shard is not None:
        return read_member(shard, Path(path))
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def read_start(path: Path, count: int = 512) -> bytes:
    """The first bytes of a file. Raises UserError where it cannot be read."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def check_regular(path: Path | str) -> None:
    """Raise UserError for a pipe, a socket or a device, which may never end."""
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise UserError(f"{path} is not a file: a picture is not read from a pipe or a device")


def damaged(name: str, reason: str = "") -> UserError:
    detail = f" ({reason})" if reason else ""
    return UserError(
        f"cannot decode {name}{detail}: the file is damaged, truncated or not an image; replace or remove it"
    )


def out_of_memory(name: str) -> OutOfMemory:
    return OutOfMemory(f"{name} needs more memory than there is: cut it into tiles, or use fewer workers")


def is_cut_png(data: bytes) -> bool:
    """Return whether a PNG has a chunk beyond the end of the file: OpenCV takes as much memory as one claims."""
    position, name = len(PNG), b""
    while data.startswith(PNG) and name != b"IEND" and position + 12 <= len(data):
        name = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")  # with length, name and checksum
    return data.startswith(PNG) and position > len(data)


@cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that the installed Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_picture(source: bytes | Path, name: str = "") -> Image.Image:
    """Open a picture, reading no more than its header. Raises UserError for other files and for one too large."""
    name = name or str(source)
    if isinstance(source, Path):
        check_regular(source)
        source = source if shard_of(source) is None else read_bytes(source)
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats())
    except UnidentifiedImageError as error:
        raise damaged(name) from error
    except FileNotFoundError as error:
        raise UserError(f"cannot read {source!r}: {error.strerror}") from error
    except Exception as error:  # whatever a decoder stumbles over in a broken file
        raise damaged(name, str(error)) from error
    check_pixels(image.height, image.width, name)
    return image


def open_pillow(data: bytes, name: str, mode: str | None = None, upright: bool = False) -> np.ndarray:
    """Decode with Pillow; `mode` converts the colours, `upright` turns the image by its EXIF entry."""
    with open_picture(data, name) as image:
        try:
            image.load()
            turned: Image.Image = ImageOps.exif_transpose(image) if upright else image
            if mode is not None and turned.mode.startswith("I;16"):
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return np.array(turned if mode is None else turned.convert(mode))
        except MemoryError as error:
            raise out_of_memory(name) from error
        except Exception as error:  # whatever a decoder stumbles over in a broken file
            raise damaged(name, str(error)) from error


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture: 1 for upright, 5 to 8 for one that is turned by a right angle."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF is none
        return 1
    return found if found in range(1, 9) else 1


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W, ...) turned upright by its EXIF orientation."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def load_numpy(path: Path | str) -> np.ndarray:
    """Read an array of numbers. Raises UserError for other files, before memory is taken for what they only claim."""
    check_regular(path)
    in_shard = shard_of(Path(path)) is not None
    try:
        if in_shard:
            stored: Any = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
        else:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)  # fails where the file is shorter than its array
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # NumPy parses the header as Python text
        raise damaged(str(path), str(error)[:200]) from error
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf":
        kind = stored.dtype if isinstance(stored, np.ndarray) else "several arrays"
        raise UserError(f"{path} holds {kind} rather than one array of numbers")
    if stored.size > 8 * MOST_PIXELS:
        check_pixels(stored.size, 1, str(path))
    try:
        return np.array(stored)
    except MemoryError as error:
        raise out_of_memory(str(path)) from error
