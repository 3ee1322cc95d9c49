"""Vector labels on the ground: polygons of a GeoPackage, GeoJSON or Shapefile, whose attribute is the class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from terrazzo.errors import UserError, nearest, some
from terrazzo.system.extras import import_extra
from terrazzo.transforms.formats.base import LABEL_FORMATS, LabelFormat
from terrazzo.transforms.georeference import Georeference, apply, reproject
from terrazzo.transforms.labels import IGNORED
from terrazzo.transforms.opening import read_start
from terrazzo.transforms.parts import file_of
from terrazzo.transforms.scenes import MissingCrsError, opened, reason

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".shp", ".fgb")
STARTS = {".gpkg": b"SQLite format 3", ".geojson": b"{", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb"}
# names of attributes that hold classes, the surest first
CLASS_WORDS = (
    "class", "class_name", "classname", "label", "category", "landcover", "land_cover", "landuse", "land_use", "type",
    "kind", "code", "class_id", "name", "dn", "value",
)  # fmt: skip
MOST_CLASSES = 64
POLYGONS = (3, 6)  # type numbers of shapely
KEPT_FILES = 8  # whose polygons are kept in memory


class Layer(NamedTuple):
    """Polygons, large ones first, the value of each in an attribute, and their coordinate reference system."""

    polygons: np.ndarray
    values: np.ndarray  # of text; "" for none
    crs: Any


@LABEL_FORMATS.register(name="vector")
class VectorLabels(LabelFormat):
    """Polygons of georeferenced images: one file for all of them, or one each, of the image's name.

    `attribute` is the column that names classes (by default the one that looks like it), `layer` one of several. They
    are warped to an image's coordinate reference system; of polygons that overlap, the smallest counts.
    """

    suffixes = VECTOR_SUFFIXES
    is_index = True
    names_classes = True
    unlabelled = "skip"

    def __init__(self, root: Path, attribute: str = "", layer: str = "") -> None:
        self.root, self.attribute, self.layer = root, attribute, layer
        if not root.exists():
            raise UserError(f"there are no vector labels {root}: check data_root and data_prefix (or `data.labels`)")

    @cached_property
    def files(self) -> list[Path]:
        """The file of all images, or those of one each."""
        if self.root.is_file():
            return [self.root]
        found = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in self.suffixes)
        if not found:
            raise UserError(f"{self.root} holds no vector labels ({', '.join(self.suffixes)})")
        return found

    @property
    def own_classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.describe(())[0]

    def find_labels(self, images: Sequence[Path], folder: Path) -> list[Path | None]:
        by_stem = {path.stem: path for path in self.files}
        if len(self.files) == 1 and images and self.files[0].stem not in {image.stem for image in images}:
            return [self.files[0] / image.name for image in images]
        return [by_stem.get(image.stem) for image in images]

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        counts: Counter[str] = Counter()
        for path in self.files:
            counts.update(value for value in self.layer_of(path).values.tolist() if value)
        if len(counts) > MOST_CLASSES:
            raise UserError(
                f"the attribute '{self.column(self.files[0])}' of {self.files[0]} has {len(counts)} values, such as "
                f"{some(list(counts), 3)}, too many for classes: name another one, `label_format: {{type: vector, "
                "attribute: NAME}`"
            )
        names = sorted(counts, key=lambda name: (not name.lstrip("-").isdecimal(), natural(name)))
        return tuple(names), f"from the attribute '{self.column(self.files[0])}' of {len(self.files)} vector file(s)"

    def column(self, path: Path) -> str:
        """The attribute that holds the classes of a file."""
        return self.attribute or class_attribute(path, self.layer)

    def layer_of(self, path: Path) -> Layer:
        return read_layer(path, self.column(path), self.layer)

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        assert image is not None
        with opened(image) as file:
            if file is None:
                raise UserError(f"{path}: vector labels are about GeoTIFF images, and {image} is none")
            place = Georeference(file.crs, scaled(file.transform, file.height / size[0], file.width / size[1]))
        return self.burn(path, place, size, str(image))

    def burn(self, path: Path, place: Georeference, size: tuple[int, int], name: str) -> np.ndarray:
        """The class map (H, W) of the polygons on the grid of an image. Raises UserError for one without a CRS."""
        from rasterio.features import rasterize

        fill, shapes = self.names.background, []
        for polygon, value in self.placed(path, place, name).inside(place.transform, size):
            shapes.append((polygon, self.names.index(value, file_of(path)) if value else IGNORED))
        if not shapes:
            return np.full(size, fill, np.uint8)
        return rasterize(shapes, size, fill=fill, transform=place.transform, dtype="uint8")

    def placed(self, path: Path, place: Georeference, name: str) -> PlacedLayer:
        """The polygons in the coordinates of an image. Raises UserError for one without a CRS."""
        if not place.crs:
            raise MissingCrsError(
                f"{name} has no coordinate reference system (CRS), so the polygons of {path} have no place"
            )
        file = file_of(path)
        return placed_layer(file, self.column(file), self.layer, place.crs.to_wkt())


class PlacedLayer:
    """Polygons in the coordinates of an image, found by their extents."""

    def __init__(self, polygons: np.ndarray, values: np.ndarray) -> None:
        from shapely import STRtree

        self.polygons, self.values, self.tree = polygons, values, STRtree(polygons)

    def inside(self, transform: Any, size: tuple[int, int]) -> list[tuple[Any, str]]:
        """The polygons, with their values, that may lie in a raster of a size (H, W), the largest first."""
        import shapely

        corners = [apply(transform, column, row) for row in (0, size[0]) for column in (0, size[1])]
        found = np.sort(self.tree.query(shapely.MultiPoint(corners).envelope))
        return [(self.polygons[index], str(self.values[index])) for index in found]


@lru_cache(maxsize=KEPT_FILES)
def placed_layer(path: Path, column: str, layer: str, crs: str) -> PlacedLayer:
    """The polygons of a file in another coordinate reference system."""
    import shapely
    from rasterio.crs import CRS

    stored, wanted = read_layer(path, column, layer), CRS.from_wkt(crs)

    def moved(points: np.ndarray) -> np.ndarray:
        return np.stack(reproject(stored.crs, wanted, *points.T), axis=1) if len(points) else points

    polygons = stored.polygons if stored.crs == wanted else shapely.transform(stored.polygons, moved)
    order = np.argsort(-shapely.area(polygons), kind="stable")
    return PlacedLayer(polygons[order], stored.values[order])


@lru_cache(maxsize=KEPT_FILES)
def read_layer(path: Path, column: str, layer: str = "") -> Layer:
    """The polygons of a layer. Raises UserError for a file that cannot be read, and for other shapes."""
    import shapely
    from rasterio.crs import CRS

    pyogrio = import_extra("pyogrio", "geo", "vector labels")
    facts = read_facts(path, layer)
    columns = list(facts["fields"])
    if column not in columns:
        raise UserError(f"{path} has no attribute '{column}'{nearest(column, columns)} It has {some(columns, 8)}")
    if not facts["crs"]:
        raise MissingCrsError(f"{path} has no coordinate reference system (CRS): save it with one, such as EPSG:4326")
    try:
        _, _, geometry, (stored,) = pyogrio.raw.read(path, layer=layer or None, columns=[column])
        polygons = shapely.force_2d(shapely.make_valid(shapely.from_wkb(geometry)))
    except Exception as problem:  # of GDAL and GEOS, of several classes
        raise UserError(f"cannot read {path}: {reason(problem)}") from None
    areas = shapely.area(polygons) > 0
    if not areas.any():
        kinds = sorted({one.geom_type for one in polygons if one is not None})
        raise UserError(
            f"{path} holds {some(kinds) or 'no shapes'}: labels are polygons; give lines and points an area"
        )
    values = np.array([text_of(value) for value in stored], object)
    return Layer(polygons[areas], values[areas], CRS.from_user_input(facts["crs"]))


@lru_cache(maxsize=KEPT_FILES)
def read_facts(path: Path, layer: str = "") -> Mapping[str, Any]:
    """The fields, types and CRS of a vector file's layer. Raises UserError for another file, and for several layers."""
    pyogrio = import_extra("pyogrio", "geo", "vector labels")
    start = STARTS.get(path.suffix.lower(), b"")
    if not read_start(path).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start):  # a VRT could name other files
        raise UserError(f"cannot read {path}: it is damaged, or not what its suffix says")
    try:
        layers = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        if len(layers) > 1 and not layer:
            example = f"label_format: {{type: vector, layer: {layers[0]}}}"
            raise UserError(f"{path} has the layers {some(layers, 8)}: name one, `{example}`")
        return pyogrio.read_info(path, layer=layer or None)
    except UserError:
        raise
    except Exception as problem:  # of GDAL, of several classes
        raise UserError(f"cannot read {path}: {reason(problem)}") from None


def class_attribute(path: Path, layer: str = "") -> str:
    """The attribute that names classes: by its name, else the only one with few values. Raises UserError."""
    names = [str(name) for name in read_facts(path, layer)["fields"]]
    known = sorted((CLASS_WORDS.index(name.lower()), name) for name in names if name.lower() in CLASS_WORDS)
    few = [name for _, name in known] or names
    fitting = [name for name in few if 0 < len(set(read_layer(path, name, layer).values.tolist())) <= MOST_CLASSES]
    if fitting and (known or len(fitting) == 1):
        return fitting[0]
    raise UserError(
        f"which attribute of {path} names the classes? It has {some(names, 12) or 'none'}: "
        "`label_format: {type: vector, attribute: NAME}`"
    )


def text_of(value: Any) -> str:
    """An attribute's value as the name of a class; empty where it has none."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, (float, np.floating)) and value == int(value) else str(value).strip()


def scaled(transform: Any, down: float, across: float) -> Any:
    """The transform of a raster whose pixels are `down` times as high and `across` times as wide."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return type(transform)(a * across, b * down, c, d * across, e * down, f)


def natural(name: str) -> list[Any]:
    """A key by which class2 comes before class10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]
