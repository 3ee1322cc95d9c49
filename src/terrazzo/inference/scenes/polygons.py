"""Class maps as polygons: regions of one class, joined over the strips they are found in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.scenes.store import rows_of
from terrazzo.inference.scenes.vectors import WRITERS
from terrazzo.system.extras import import_extra
from terrazzo.transforms.georeference import EQUAL_AREA, Georeference, apply, reproject

ROWS = 1024  # of a strip


@dataclass(frozen=True)
class Shapes:
    """The options of polygons."""

    simplify: float = 0.0  # metres by which outlines may move
    min_area: float = 0.0  # square metres, below which a region is left out


@dataclass
class Region:
    """Connected pixels of one class, in as many pieces as strips."""

    label: int
    pixels: int = 0
    confidence: float = 0.0  # sum over the pixels
    pieces: list[Any] = field(default_factory=list)
    parent: Region | None = None  # the region that this one was found to be a part of

    def root(self) -> Region:
        """The whole region."""
        region = self
        while region.parent is not None:
            region = region.parent
        return region

    def add(self, other: Region) -> None:
        """Make another region a part of this one."""
        self.pixels += other.pixels
        self.confidence += other.confidence
        self.pieces += other.pieces
        other.parent, other.pieces = self, []


def writer_of(path: Path) -> Callable[..., None]:
    """The function that writes polygons to a file of this suffix. Raises UserError for an unknown one."""
    if path.suffix.lower() not in WRITERS:
        raise UserError(f"--polygons {path}: the suffix names no format; use {', '.join(WRITERS)}")
    import_extra("shapely", "geo", "polygons")
    return WRITERS[path.suffix.lower()]


def save_polygons(
    path: Path,
    labels: np.ndarray,
    confidence: np.ndarray,
    place: Georeference,
    classes: Sequence[str],
    shapes: Shapes = Shapes(),
) -> int:
    """Write the regions of a class map (H, W) as polygons with `class`, `area` (m2) and mean `confidence`.

    Returns how many. Raises UserError where the file cannot be written.
    """
    write = writer_of(path)
    import shapely

    pixel = pixel_area(place, *labels.shape)
    kept = [region for region in regions(labels, confidence, place) if region.pixels * pixel >= shapes.min_area]
    outlines = np.array([joined(region.pieces) for region in kept], object)
    if shapes.simplify and len(outlines):
        # neighbours keep one common border; the tolerance is the side of the areas that vanish
        outlines = shapely.coverage_simplify(outlines, shapes.simplify / place.metres())
    outlines = np.where(shapely.is_valid(outlines), outlines, shapely.make_valid(outlines))
    areas = ground_areas(outlines, place, *labels.shape)
    columns = {
        "class": np.array([classes[region.label] for region in kept], object),
        "area": areas,
        "confidence": np.array([region.confidence / region.pixels for region in kept], float).round(4),
    }
    write(path, outlines, columns, place.crs)
    return len(kept)


def regions(labels: np.ndarray, confidence: np.ndarray, place: Georeference) -> Iterator[Region]:
    """Yield the regions of a class map (H, W), each once the strips below can no longer continue it."""
    no_data = np.iinfo(labels.dtype).max
    open_regions: dict[int, Region] = {}  # by the number of a component that touches the strip's lower border
    border_labels = border_numbers = None
    for top in range(0, len(labels), ROWS):
        strip = rows_of(labels, top, top + ROWS)
        numbers, present = components(strip, no_data)
        found = pieces_of(numbers, present, rows_of(confidence, top, top + ROWS), place, top)

        # Components that continue regions of the strip above are merged into them
        if border_numbers is not None:
            touching = (strip[0] == border_labels) & (strip[0] != no_data)
            pairs = np.unique(np.stack([border_numbers[touching], numbers[0][touching]], 1), axis=0)
            for above, below in pairs.tolist():
                one, other = open_regions[above].root(), found[below].root()
                if one is not other:
                    one.add(other)

        # Those that do not touch the lower border are complete
        going_on = set(np.unique(numbers[-1]).tolist()) - {0} if top + ROWS < len(labels) else set()
        continued = {id(found[number].root()) for number in going_on}
        everything = (region.root() for region in (*open_regions.values(), *found.values()))
        yield from (region for key, region in {id(one): one for one in everything}.items() if key not in continued)
        open_regions = {number: found[number].root() for number in going_on}
        border_labels, border_numbers = strip[-1], numbers[-1]


def components(strip: np.ndarray, no_data: int) -> tuple[np.ndarray, list[int]]:
    """The connected pixels of one class, numbered from 1 (h, w) int32, 0 for no data, and the class of each number."""
    numbers = np.zeros(strip.shape, np.int32)
    present = [no_data]
    for label in np.unique(strip).tolist():
        if label == no_data:
            continue
        mask = (strip == label).astype(np.uint8)
        count, own = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        np.copyto(numbers, own + (len(present) - 1), where=mask.view(bool))
        present += [label] * (count - 1)
    return numbers, present


def pieces_of(
    numbers: np.ndarray, present: Sequence[int], confidence: np.ndarray, place: Georeference, top: int
) -> dict[int, Region]:
    """The region of each component of a strip whose first row is `top`, with its outline."""
    from rasterio.features import shapes
    from rasterio.transform import Affine
    from shapely.geometry import shape

    flat = numbers.ravel()
    counts = np.bincount(flat, minlength=len(present))
    sums = np.bincount(flat, weights=np.nan_to_num(confidence).ravel(), minlength=len(present))
    found = {
        number: Region(present[number], int(counts[number]), float(sums[number])) for number in range(1, len(present))
    }
    left, upper = apply(place.transform, 0, top)
    transform = Affine(place.transform.a, place.transform.b, left, place.transform.d, place.transform.e, upper)
    for outline, number in shapes(numbers, mask=numbers > 0, connectivity=4, transform=transform):
        found[int(number)].pieces.append(shape(outline))
    return found


def joined(pieces: Sequence[Any]) -> Any:
    """One polygon of the pieces of a region, without corners where they met."""
    import shapely

    if len(pieces) == 1:
        return pieces[0]
    return shapely.simplify(shapely.union_all(pieces), 0)


def pixel_area(place: Georeference, height: int, width: int) -> float:
    """The square metres of a pixel in the middle of a raster."""
    import shapely

    corners = [apply(place.transform, width / 2 + x, height / 2 + y) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
    return float(ground_areas(np.array([shapely.Polygon(corners)], object), place, height, width)[0])


def ground_areas(outlines: np.ndarray, place: Georeference, height: int, width: int) -> np.ndarray:
    """The areas of polygons in square metres: in the raster's own coordinates where these keep areas."""
    import shapely

    if place.keeps_areas(height, width):
        return shapely.area(outlines) * place.metres() ** 2

    def project(points: np.ndarray) -> np.ndarray:
        return np.stack(reproject(place.crs, EQUAL_AREA, points[:, 0], points[:, 1]), 1)

    return shapely.area(shapely.transform(outlines, project))
