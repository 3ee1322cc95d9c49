"""Folders of adjacent tiles, which are one scene: a virtual raster of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from terrazzo.errors import UserError
from terrazzo.transforms.scenes import opened
from terrazzo.transforms.tiff import TIFF_SUFFIXES

NEAR = 0.01  # pixels by which tiles may miss their common grid
TYPES = {"uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32"}
TYPES |= {"float32": "Float32", "float64": "Float64"}


class Tile(NamedTuple):
    """A tile of `height` x `width` pixels, whose first one is at (row, column) of a grid."""

    path: Path
    row: int
    column: int
    height: int
    width: int


class Facts(NamedTuple):
    """The properties that tiles of one scene share, and the size of one."""

    crs: Any
    types: tuple[str, ...]
    colours: tuple[str, ...]
    nodata: float | None
    height: int
    width: int


class Mosaic(NamedTuple):
    """Tiles, what they share, and GDAL's transform of the grid's first pixel."""

    tiles: list[Tile]
    shared: Facts
    transform: tuple[float, ...]


def is_mosaic(folder: Path) -> bool:
    """Return whether the TIFF files in a folder are tiles of one scene: adjacent on one grid, none over another."""
    return mosaic_of(folder) is not None


def mosaic_of(folder: Path) -> Mosaic | None:
    """The mosaic of a folder's TIFF files; None where they are not tiles of one scene."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in TIFF_SUFFIXES)
    if len(paths) < 2 or not find_spec("rasterio"):
        return None
    try:
        facts = [facts_of(path) for path in paths]
    except UserError:
        return None
    shared, step = facts[0]
    if not shared.crs or step.b or step.d:
        return None
    tiles = []
    for path, (own, transform) in zip(paths, facts, strict=True):
        column, row = (transform.c - step.c) / step.a, (transform.f - step.f) / step.e
        differs = abs(transform.a / step.a - 1) + abs(transform.e / step.e - 1) + abs(transform.b) + abs(transform.d)
        if own[:4] != shared[:4] or differs > 1e-6 or max(abs(column - round(column)), abs(row - round(row))) > NEAR:
            return None
        tiles.append(Tile(path, round(row), round(column), own.height, own.width))
    if not are_adjacent(tiles):
        return None
    top, left = min(tile.row for tile in tiles), min(tile.column for tile in tiles)
    moved = [tile._replace(row=tile.row - top, column=tile.column - left) for tile in tiles]
    corner = step.c + left * step.a, step.a, 0.0, step.f + top * step.e, 0.0, step.e
    return Mosaic(moved, shared, corner)


def facts_of(path: Path) -> tuple[Facts, Any]:
    """The metadata of a file, and its transform. Raises UserError where it cannot be opened."""
    with opened(path) as file:
        colours = tuple(one.name for one in file.colorinterp)
        return Facts(file.crs, file.dtypes, colours, file.nodata, file.height, file.width), file.transform


def are_adjacent(tiles: Sequence[Tile]) -> bool:
    """Return whether no tile lies over another, and each is reached from the first over common borders."""
    reached, waiting, rest = 1, [tiles[0]], list(tiles[1:])
    while waiting:
        tile = waiting.pop()
        for other in list(rest):
            down = min(tile.row + tile.height, other.row + other.height) - max(tile.row, other.row)
            across = min(tile.column + tile.width, other.column + other.width) - max(tile.column, other.column)
            if min(down, across) > 0:
                return False
            if min(down, across) == 0 and max(down, across) > 0:
                rest.remove(other)
                waiting.append(other)
                reached += 1
    return reached == len(tiles)


def virtual_raster(mosaic: Mosaic) -> str:
    """The text of a VRT of the tiles, with a mask of what they cover and declare to be data."""
    height = max(tile.row + tile.height for tile in mosaic.tiles)
    width = max(tile.column + tile.width for tile in mosaic.tiles)

    def sources(band: str) -> str:
        return "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(str(tile.path.resolve()))}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{tile.width}" ySize="{tile.height}"/>'
            f'<DstRect xOff="{tile.column}" yOff="{tile.row}" xSize="{tile.width}" ySize="{tile.height}"/>'
            "</SimpleSource>"
            for tile in mosaic.tiles
        )

    bands = "".join(
        f'<VRTRasterBand dataType="{TYPES[kind]}" band="{number}"><ColorInterp>{colour.capitalize()}</ColorInterp>'
        f"{sources(str(number))}</VRTRasterBand>"
        for number, (kind, colour) in enumerate(zip(mosaic.shared.types, mosaic.shared.colours, strict=True), 1)
    )
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{sources("mask,1")}</VRTRasterBand></MaskBand>'
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{escape(mosaic.shared.crs.to_wkt())}</SRS>'
        f"<GeoTransform>{', '.join(map(repr, mosaic.transform))}</GeoTransform>{bands}{mask}</VRTDataset>"
    )
