"""Which images are predicted in windows, and what reads them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from terrazzo.errors import UserError
from terrazzo.inference.scenes.choice import fits_whole
from terrazzo.inference.segmenter import declared_size
from terrazzo.system.limits import MOST_PIXELS
from terrazzo.transforms.decode import file_orientation
from terrazzo.transforms.scenes import ArrayScene, RasterScene, Scene, is_raster
from terrazzo.transforms.slides import SlideScene, is_slide
from terrazzo.transforms.tiff import TIFF_SUFFIXES, header_of

SURELY_SMALL = 1 << 19  # pixels, below which nothing is computed to decide


def open_scene(segmenter: Any, source: Any) -> Scene | None:
    """The scene that an image is to be predicted as; None for one that is predicted in one pass.

    Raises UserError for a file that cannot be read in parts and is too large to be read as a whole.
    """
    memory = segmenter.memory
    is_path = isinstance(source, (str, Path))
    is_resampled = getattr(segmenter.reader, "resolution", None) is not None
    if is_path and (is_raster(str(source)) or (is_resampled and Path(source).suffix.lower() in TIFF_SUFFIXES)):
        return RasterScene(source, segmenter.reader, segmenter.runtime.bands)
    if is_path and is_slide(Path(source)):
        return SlideScene(source, segmenter.reader, segmenter.runtime.bands)
    size = file_size(Path(source)) if is_path else array_size(source)
    if size is None or (memory.window is None and size[0] * size[1] <= min(SURELY_SMALL, memory.limit >> 12)):
        return None
    if fits_whole(segmenter, *size, memory):
        return None
    if not is_path:
        return ArrayScene(segmenter.read(source)[0])
    path = Path(source)
    if (scene := tiff_scene(segmenter, path)) is not None:
        return scene
    if size[0] * size[1] <= min(MOST_PIXELS, memory.limit // (4 * segmenter.runtime.bands)):
        return ArrayScene(segmenter.read(path)[0], str(path))
    if file_orientation(path) == 1 and find_spec("rasterio"):
        return RasterScene(path, segmenter.reader, segmenter.runtime.bands)
    raise UserError(
        f"{path} has {size[1]}x{size[0]} pixels, too many to decode in one piece: save it as TIFF, and "
        'pip install "terrazzo[geo]", which reads TIFF in parts (or raise --memory)'
    )


def scene_in_parts(segmenter: Any, source: Any, image: np.ndarray | None = None) -> Scene | None:
    """The scene of an `image` at hand, else of a file for which memory did not suffice; None where none reads parts."""
    if image is not None:
        return ArrayScene(image, str(source) if isinstance(source, (str, Path)) else "this image")
    if not isinstance(source, (str, Path)):
        return None
    path = Path(source)
    if file_orientation(path) == 1 and path.suffix.lower() not in TIFF_SUFFIXES and find_spec("rasterio"):
        return RasterScene(path, segmenter.reader, segmenter.runtime.bands)
    return tiff_scene(segmenter, path)


def tiff_scene(segmenter: Any, path: Path) -> Scene | None:
    """The scene of a TIFF of one page; None for other files, and where nothing is installed that reads parts of it."""
    if path.suffix.lower() not in TIFF_SUFFIXES or len(header_of(path, any_size=True).pages) != 1:
        return None
    if find_spec("rasterio"):
        return RasterScene(path, segmenter.reader, segmenter.runtime.bands)
    if find_spec("tifffile"):
        from terrazzo.inference.scenes.tiff import TiffScene

        return TiffScene(path, segmenter.reader, segmenter.runtime.bands)
    return None


def file_size(path: Path) -> tuple[int, int] | None:
    """Height and width of an image by its header, however large; None for a file without one."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        width, height = declared_size(path)
        return (height, width) if height else None
    try:
        header = header_of(path, any_size=True)
    except UserError:  # which reading it as a whole explains
        return None
    return header.height, header.width


def array_size(source: Any) -> tuple[int, int] | None:
    """Height and width of an array or a PIL image; None for anything else."""
    if isinstance(source, Image.Image):
        return source.height, source.width
    return (source.shape[0], source.shape[1]) if isinstance(source, np.ndarray) and source.ndim >= 2 else None
