"""Windows of scenes as samples: apart in space, the same again, on labels that lie anyhow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")

from rasterio.transform import from_origin

from support.scenes import save_scene
from support.tiny import fit, same_weights, stop_at
from terrazzo.data.build import build_dataset
from terrazzo.data.checks.run import check_specs
from terrazzo.data.scenes.windows import MARGIN
from terrazzo.errors import UserError
from terrazzo.training.planning.plan import make_plan

SIDE, SIZE = 240, 40
ORIGIN, PIXEL = (500_000.0, 4_600_000.0), 0.5
CLASSES = ["background", "field", "pond"]


def label_of(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Classes by place: a field in the west of each strip of 60 pixels, a few ponds."""
    field = (columns % 60 < 25).astype(np.uint8)
    pond = ((rows % 80 - 20) ** 2 + (columns % 120 - 80) ** 2 < 100).astype(np.uint8)
    return np.where(pond, 2, field).astype(np.uint8)


def save_pair(root: Path, name: str = "a", left: int = 0, **profile) -> None:
    """A scene whose bands are the row and column of each pixel of the ground, with its label."""
    rows, columns = np.indices((SIDE, SIDE))
    columns = columns + left
    origin = (ORIGIN[0] + PIXEL * left, ORIGIN[1])
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    save_scene(root / f"images/{name}.tif", np.stack([rows + 1, columns + 1]).astype(np.uint16), origin, **profile)
    save_scene(root / f"labels/{name}.tif", label_of(rows, columns)[None], origin)


def section(root: Path, part: str | None = "train", **options) -> dict:
    loading = {"type": "LoadImageFromFile", "bands": [1, 2]}
    holdout = {"holdout": {"share": 0.2, "part": part}} if part else {}
    return {
        "data_root": str(root),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "metainfo": {"classes": CLASSES},
        "windows": {"size": [SIZE, SIZE], "random": part == "train"},
        "pipeline": [loading, {"type": "LoadAnnotations"}],
        **holdout,
        **options,
    }


def ground_of(dataset, epochs: int = 1) -> np.ndarray:
    """How often each pixel of the ground is seen with a class."""
    seen = np.zeros((SIDE, 2 * SIDE), int)
    for epoch in range(epochs):
        for index in range(len(dataset)):
            sample = dataset[epoch, index]
            counts = sample.label != 255
            rows, columns = (sample.image[counts].astype(int) - 1).T
            assert (sample.label[counts] == label_of(rows, columns)).all()
            np.add.at(seen, (rows, columns), 1)
    return seen


def test_training_and_validation_are_apart_in_space(tmp_path):
    save_pair(tmp_path), save_pair(tmp_path, "b", SIDE)
    train, val = (build_dataset(section(tmp_path, part)) for part in ("train", "val"))
    held = ground_of(val)
    assert set(np.unique(held)) == {0, 1}  # on a grid, each pixel once
    assert 0.1 < held.mean() < 0.3
    seen = ground_of(train, epochs=3) > 0
    margin = int(MARGIN * SIZE)
    near = np.pad(held, margin)
    for down, across in ((-1, -1), (-1, 1), (1, -1), (1, 1), (0, 0)):
        moved = np.roll(near, (down * margin, across * margin), (0, 1))[margin:-margin, margin:-margin] > 0
        assert not (seen & moved).any()
    assert seen.mean() > 0.4
    sample = next(one for one in (train[0, index] for index in range(len(train))) if (one.label == 255).any())
    assert np.isnan(sample.image[sample.label == 255]).all()  # not even the pixels of validation are seen


def test_folds_hold_out_every_block_of_the_ground_once(tmp_path):
    save_pair(tmp_path), save_pair(tmp_path, "b", SIDE)
    folds = [
        build_dataset(section(tmp_path, "val", holdout={"share": 1 / 3, "part": "val", "folds": 3, "fold": fold}))
        for fold in (1, 2, 3)
    ]
    held = [ground_of(fold) for fold in folds]
    assert (sum(held) == 1).all()
    assert all(0.2 < one.mean() < 0.5 for one in held)
    with pytest.raises(UserError, match="no 500 folds: lower `folds`"):
        build_dataset(section(tmp_path, "val", holdout={"share": 0.1, "part": "val", "folds": 500}))


def test_a_plan_for_scenes_keeps_windows_and_names_no_groups(tmp_path):
    save_pair(tmp_path), save_pair(tmp_path, "b", SIDE)
    (tmp_path / "scenes.yaml").write_text(
        "recipe: unet\nmean: none\nstd: none\n"
        "data: {root: ., images: images, labels: labels, val: 0.2, windows: 40, bands: [1, 2], "
        f"classes: [{', '.join(CLASSES)}]}}\n"
    )
    draft, groups = make_plan(tmp_path / "scenes.yaml", budget=600)
    assert draft.data["windows"] == 40 and not groups and "groups" not in draft.data


def test_windows_are_random_in_training_and_the_same_again(tmp_path):
    save_pair(tmp_path)
    first, second = (build_dataset(section(tmp_path), seed=3) for _ in range(2))
    for position in ((0, 1), (4, 1), (7, 2)):
        assert first[position].image_path == second[position].image_path
    assert len({first[epoch, 1].image_path for epoch in range(6)}) > 3
    val = build_dataset(section(tmp_path, "val"))
    assert val[0, 0].image_path == val[5, 0].image_path


def as_polygons(root: Path, name: str) -> dict:
    """The labels as polygons in degrees, in one vector file."""
    import pyogrio
    import shapely
    from rasterio.features import shapes
    from rasterio.transform import from_origin
    from rasterio.warp import transform

    label = label_of(*np.indices((SIDE, SIDE)))
    pieces = [
        (shapely.geometry.shape(shape), CLASSES[int(value)])
        for shape, value in shapes(label, label > 0, transform=from_origin(*ORIGIN, PIXEL, PIXEL))
    ]
    places = shapely.transform(
        np.array([shape for shape, _ in pieces]),
        lambda points: np.stack(transform("EPSG:32633", "EPSG:4326", *points.T), axis=1),
    )
    values = [np.array([value for _, value in pieces], object)]
    pyogrio.raw.write(root / name, shapely.to_wkb(places), values, ["kind"], geometry_type="Polygon", crs="EPSG:4326")
    prefix = {"img_path": "images", "seg_map_path": name}
    return {"data_prefix": prefix, "label_format": {"type": "vector", "attribute": "kind"}}


def as_warped(root: Path, name: str) -> dict:
    """The labels in another coordinate reference system, with smaller pixels."""
    import rasterio
    from rasterio.vrt import WarpedVRT

    (root / name).mkdir()
    with rasterio.open(root / "labels/a.tif") as source, WarpedVRT(source, crs="EPSG:3857", add_alpha=True) as warped:
        values, alpha = warped.read()
        profile = {"driver": "GTiff", "crs": warped.crs, "transform": warped.transform, "nodata": 9}
    values[alpha == 0] = 9
    save_scene(root / name / "a.tif", values[None], **profile)
    return {"data_prefix": {"img_path": "images", "seg_map_path": name}}


@pytest.mark.parametrize(
    ("form", "name"),
    [(as_polygons, "a.gpkg"), (as_polygons, "a.geojson"), (as_polygons, "all.shp"), (as_warped, "warped")],
)
def test_labels_that_lie_otherwise(tmp_path, form, name):
    save_pair(tmp_path)
    dataset = build_dataset(section(tmp_path, None, **form(tmp_path, name)))
    assert len(dataset) == (SIDE // SIZE) ** 2
    right = total = 0
    for index in range(len(dataset)):
        sample = dataset[0, index]
        rows, columns = (sample.image.astype(int) - 1).transpose(2, 0, 1)
        counts = sample.label != 255
        right += (sample.label == label_of(rows, columns))[counts].sum()
        total += counts.sum()
    assert total > 0.97 * SIDE**2
    assert right > 0.97 * total  # nearest neighbours along borders


@pytest.mark.parametrize(
    ("kind", "image", "label"),
    [
        ("no-crs", {"crs": None}, {"shape": (SIDE // 2, SIDE // 2)}),
        ("no-overlap", {}, {"origin": (600_000.0, 4_600_000.0)}),
        ("band-count", {"count": 1}, {}),
        ("no-data", {"nodata": 0, "values": 0}, {}),
        ("other-crs", {}, {"shape": (SIDE // 2, SIDE // 2), "transform": from_origin(*ORIGIN, 1, 1)}),
        ("partly-labelled", {}, {"shape": (SIDE, SIDE // 3)}),
    ],
)
def test_the_check_knows_what_goes_wrong(tmp_path, kind, image, label):
    save_pair(tmp_path), save_pair(tmp_path, "b", SIDE)
    count, values, profile = image.pop("count", 2), image.pop("values", 7), image
    save_scene(tmp_path / "images/a.tif", np.full((count, SIDE, SIDE), values, np.uint16), **profile)
    shape, origin = label.pop("shape", (SIDE, SIDE)), label.pop("origin", ORIGIN)
    stored = np.resize(np.arange(3, dtype=np.uint8), (1, *shape))
    save_scene(tmp_path / "labels/a.tif", stored, origin, **label)
    findings = check_specs({"train": section(tmp_path, None)}, None).findings
    found = next(finding for finding in findings if finding.kind == kind)
    assert found.files[0].name == "a.tif"
    assert "a.tif" in found.message


def test_a_config_for_a_folder_of_scenes(tmp_path, monkeypatch, capsys):
    from terrazzo.cli.main import main

    monkeypatch.setattr("terrazzo.data.discovery.scenes.LEAST", SIDE)
    save_pair(tmp_path / "region"), save_pair(tmp_path / "region", "b", SIDE)
    as_polygons(tmp_path / "region", "fields.gpkg")
    for path in (tmp_path / "region/labels").iterdir():
        path.unlink()
    assert main(["data", "init", str(tmp_path / "region"), "--out", str(tmp_path / "region.yaml")]) == 0
    text = capsys.readouterr().out
    for line in (
        "labels: fields.gpkg",
        "label_format: {type: vector, attribute: kind}",
        "classes: [background, field, pond]",
        "val: 0.2",
        "bands: [1, 2]",
        "windows: 128",
        "exclude: [images/b.tif]",
    ):
        assert line in text
    assert main(["data", "check", str(tmp_path / "region.yaml")]) == 0


def test_a_scene_that_ends_early_is_found_without_reading_it(tmp_path):
    save_pair(tmp_path), save_pair(tmp_path, "b", SIDE)
    path = tmp_path / "images/b.tif"
    path.write_bytes(path.read_bytes()[:-500])
    (found,) = check_specs({"train": section(tmp_path, None)}, None).findings
    assert (found.kind, found.files) == ("unreadable", (path,))
    assert "beyond its end" in found.message
    assert found.changes == {"exclude": ["images/b.tif"]}


@pytest.mark.slow
def test_a_resumed_run_sees_the_same_windows(tmp_path, monkeypatch):
    save_pair(tmp_path), save_pair(tmp_path, "b", SIDE)
    data = {"root": str(tmp_path), "bands": [1, 2], "windows": SIZE, "val": 0.2, "classes": CLASSES}
    run = {"crop": 32, "batch": 2, "iterations": 6, "workers": 2, "mean": [120, 240], "std": [70, 140]}
    config = {"recipe": "fastscnn", "data": data, "rare_class_sampling": 0.5, "checkpoint_interval": 3, **run}
    whole = fit(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        fit(config, tmp_path / "parts")
    resumed = fit(config, tmp_path / "parts", resume=True)
    assert same_weights(whole.last, resumed.last)
