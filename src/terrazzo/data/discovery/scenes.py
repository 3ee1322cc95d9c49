"""Scenes in a folder: GeoTIFF files whose windows are to be samples, with labels that are rasters or polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from terrazzo.data.discovery.files import FileTree, place_of, split_word
from terrazzo.data.discovery.layouts import FolderLayout, section_pairs
from terrazzo.data.discovery.splits import ANY_SPLIT, Location, Pictures, combine
from terrazzo.errors import UserError, some
from terrazzo.system.extras import import_extra
from terrazzo.transforms.formats.vector import VECTOR_SUFFIXES, class_attribute
from terrazzo.transforms.scenes import opened
from terrazzo.transforms.tiff import TIFF_SUFFIXES, header_of

LEAST = 1500  # pixels of a side, from which a georeferenced image is a scene to be read in windows
MOST_READ = 20  # images whose size is read
LARGEST, SMALLEST, STEP = 768, 128, 32  # pixels of a window's side
WINDOWS = 36  # that the scenes should have, at least about


def polygons_and_scenes(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """TIFF images with polygons: one vector file for all of them, or one for each, of its name."""
    vectors = [path for paths in tree.holding(VECTOR_SUFFIXES).values() for path in paths]
    if not vectors:
        return None
    images = {
        folder: [path for path in paths if path.suffix.lower() in TIFF_SUFFIXES]
        for folder, paths in pictures.items()
        if place_of(folder).role.kind != "label"
    }
    images = {folder: paths for folder, paths in images.items() if paths}
    if not images:
        return None
    import_extra("pyogrio", "geo", f"the vector labels in {tree.root}")
    stems = {path.stem for paths in images.values() for path in paths}
    own = [path for path in vectors if path.stem in stems]
    if not own and len(vectors) > 1:
        raise UserError(
            f"{tree.root}: which of {some(map(str, vectors), 4)} has the labels? Keep one, with the classes of all "
            "images, or one for each image, of its name"
        )
    locations = []
    for folder in images:
        word = split_word(folder.parts)
        labels = vectors[0] if not own else next((path.parent for path in own if word in path.parts), own[0].parent)
        locations.append(Location(folder, labels, word))
    image_pattern, label_pattern, splits = combine(locations, tree, pictures)
    first = tree.root / (own or vectors)[0]
    return FolderLayout(
        tree.root,
        image_pattern.removesuffix(ANY_SPLIT),
        label_pattern.removesuffix(ANY_SPLIT),
        splits,
        {"type": "vector", "attribute": class_attribute(first)},
        image_suffix=sorted({path.suffix for paths in images.values() for path in paths}),
        found=f"{sum(map(len, images.values()))} TIFF images, and polygons in {some(map(str, own or vectors), 2)}",
    )


def with_windows(layout: FolderLayout) -> FolderLayout:
    """The layout with the side of windows, where its images are large scenes."""
    form = layout.label_format if isinstance(layout.label_format, str) else (layout.label_format or {}).get("type")
    if form not in (None, "vector") or not find_spec("rasterio"):
        return layout
    pairs = [pair for split in layout.splits for pair in section_pairs(layout.section(split), strict=False)]
    images = list(dict.fromkeys(image for image, _ in pairs))
    if not images or any(image.suffix.lower() not in TIFF_SUFFIXES for image in images):
        return layout
    sizes = []
    for image in images[:: -(-len(images) // MOST_READ)]:
        header = header_of(image, any_size=True)
        with opened(image) as file:
            is_scene = max(header.height, header.width) >= LEAST and file is not None and bool(file.crs)
        if not is_scene and max(header.height, header.width) < 4 * LEAST:
            return layout
        sizes.append((header.height, header.width))
    return replace(layout, windows=window_side(sizes, len(images)))


def stored_bands(path: Path) -> tuple[str, int] | None:
    """The type and number of a scene's bands; None for an 8-bit picture."""
    with opened(path) as file:
        numbers = [colour.name for colour in file.colorinterp if colour.name != "alpha"]
        is_picture = file.dtypes[0] == "uint8" and len(numbers) in (1, 3)
        return None if is_picture else (file.dtypes[0], len(numbers))


def window_side(sizes: Sequence[tuple[int, int]], images: int) -> int:
    """The side of windows for scenes of some sizes: so many pixels that there are enough of them."""
    area = float(np.mean([height * width for height, width in sizes])) * images
    wanted = min(LARGEST, int((area / WINDOWS) ** 0.5), min(min(size) for size in sizes))
    return max(SMALLEST, wanted // STEP * STEP)
