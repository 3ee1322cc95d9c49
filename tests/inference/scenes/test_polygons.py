"""Regions of a class map as polygons, whole over the strips that they are found in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import label as connected

rasterio = pytest.importorskip("rasterio")
shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")

from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

from terrazzo.inference.scenes import polygons  # noqa: E402
from terrazzo.inference.scenes.polygons import Shapes, regions, save_polygons  # noqa: E402
from terrazzo.transforms.georeference import Georeference  # noqa: E402

CLASSES = ["water", "forest", "field"]
UTM = Georeference(CRS.from_epsg(32633), from_origin(500_000, 4_600_000, 0.5, 0.5))


@pytest.fixture
def labels() -> np.ndarray:
    """Blobs of three classes, and a corner without data."""
    coarse = np.random.default_rng(3).integers(0, 3, (24, 30), np.uint8)
    coarse[:3, :4] = 255
    return coarse.repeat(5, 0).repeat(5, 1)


@pytest.fixture(autouse=True)
def short_strips(monkeypatch):
    monkeypatch.setattr(polygons, "ROWS", 32)


def read(path):
    about, _, geometry, columns = pyogrio.raw.read(path)
    return about, shapely.from_wkb(geometry), dict(zip(about["fields"], columns, strict=True))


def test_each_region_is_one_valid_polygon(labels, tmp_path):
    confidence = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape)
    count = save_polygons(tmp_path / "x.gpkg", labels, confidence, UTM, CLASSES)
    about, outlines, columns = read(tmp_path / "x.gpkg")
    assert count == len(outlines) == sum(connected(labels == index)[1] for index in range(3))
    assert shapely.is_valid(outlines).all() and about["crs"] == "EPSG:32633"
    assert list(columns) == ["class", "area", "confidence"]

    # Rasterised, they are the class map again; areas and confidences are those of its pixels
    shapes = [(outline, CLASSES.index(name)) for outline, name in zip(outlines, columns["class"], strict=True)]
    drawn = rasterio.features.rasterize(shapes, labels.shape, fill=255, transform=UTM.transform, dtype="uint8")
    assert np.array_equal(drawn, labels)
    for index, name in enumerate(CLASSES):
        own = columns["class"] == name
        assert columns["area"][own].sum() == pytest.approx((labels == index).sum() / 4)
        mean = (columns["confidence"] * columns["area"])[own].sum() / columns["area"][own].sum()
        assert mean == pytest.approx(confidence[labels == index].mean(), abs=1e-3)


def test_small_ones_are_left_out_and_outlines_simplified(labels, tmp_path):
    ones = np.ones(labels.shape, np.float32)
    shapes = Shapes(simplify=2.0, min_area=20.0)
    count = save_polygons(tmp_path / "x.gpkg", labels, ones, UTM, CLASSES, shapes)
    pixels = [np.bincount(connected(labels == index)[0].ravel())[1:] for index in range(3)]
    assert count == (np.concatenate(pixels) / 4 >= 20).sum()
    _, outlines, _ = read(tmp_path / "x.gpkg")
    exact = [polygons.joined(region.pieces) for region in regions(labels, ones, UTM)]
    assert shapely.is_valid(outlines).all()
    assert shapely.get_num_coordinates(outlines).sum() < shapely.get_num_coordinates(exact).sum()


def test_geojson_is_in_degrees(labels, tmp_path):
    save_polygons(tmp_path / "x.geojson", labels, np.ones(labels.shape, np.float32), UTM, CLASSES)
    content = json.loads((tmp_path / "x.geojson").read_text())
    (longitude, latitude), *_ = content["features"][0]["geometry"]["coordinates"][0]
    assert (longitude, latitude) == pytest.approx((15, 41.55), abs=0.01)
    assert set(content["features"][0]["properties"]) == {"class", "area", "confidence"}


def test_geoparquet(labels, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    save_polygons(tmp_path / "x.parquet", labels, np.ones(labels.shape, np.float32), UTM, CLASSES)
    table = parquet.read_table(tmp_path / "x.parquet")
    about = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert (about["encoding"], about["crs"]["id"]["code"]) == ("WKB", 32633)
    assert shapely.is_valid(shapely.from_wkb(table["geometry"].to_numpy())).all()


@pytest.mark.parametrize("code", [4326, 3857])
def test_areas_are_those_on_the_ground(code, tmp_path):
    """A hundred pixels near 60 degrees north, where Mercator quadruples areas."""
    corner = (10.0, 60.0) if code == 4326 else (1_113_195.0, 8_399_738.0)
    size = 1e-4 if code == 4326 else 11.1
    place = Georeference(CRS.from_epsg(code), from_origin(*corner, size, size))
    save_polygons(tmp_path / "x.gpkg", np.zeros((10, 10), np.uint8), np.ones((10, 10), np.float32), place, CLASSES)
    _, _, columns = read(tmp_path / "x.gpkg")
    across, down = (size * 55_800, size * 111_415) if code == 4326 else (size * 0.5013, size * 0.5013)
    assert columns["area"][0] == pytest.approx(100 * across * down, rel=0.01)
