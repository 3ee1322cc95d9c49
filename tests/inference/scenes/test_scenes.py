"""Scenes predicted in windows: the same labels as in one pass, whatever the extent, with georeference and no data."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

import terrazzo as tz
from support.scenes import CLASSES, PALETTE, landscape, save_model, save_scene
from support.tiny import environment
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.inference.runtime import Memory
from terrazzo.inference.scenes import opening
from terrazzo.inference.scenes.grid import chunks, reaching, window_spans

rasterio = pytest.importorskip("rasterio")

WINDOWS = Memory(window=(96, 128), overlap=0.25)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def segmenter(model):
    return tz.load(model, device="cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """400 x 500 pixels, the upper left corner of which is no data."""
    image = landscape(400, 500)
    image[:, :140, :150] = 0
    return save_scene(tmp_path_factory.mktemp("scene") / "field.tif", image, nodata=0)


def in_windows(segmenter, source, memory: Memory = WINDOWS):
    segmenter.memory = memory
    return segmenter(source)


# The grid


@pytest.mark.parametrize("length", [1, 96, 127, 128, 129, 160, 700, 1001])
@pytest.mark.parametrize("anchor", [0, 5, -1_000_003])
def test_windows_cover_an_axis_once_they_are_complete(length, anchor):
    spans = window_spans(length, 128, 0.25, anchor)
    assert spans[0].start == 0 and spans[-1].stop == spans[-1].done == length
    assert all(span.done == following.start < span.stop for span, following in itertools.pairwise(spans))
    assert all(len(span) == 128 for span in spans[:-1])
    assert [span for group in chunks(spans, 300) for span in group] == spans
    assert reaching(spans, 0, length) == spans


def test_windows_of_a_part_are_those_of_the_whole():
    whole = {span.start for span in window_spans(2000, 128, 0.25, anchor=7)}
    part = [span.start + 333 for span in window_spans(1000, 128, 0.25, anchor=7 - 333)]
    assert len(part) > 8 and set(part[1:-1]) <= whole


# Labels


def test_windows_give_the_labels_of_one_pass(segmenter, scene):
    whole = segmenter(scene)
    windows = in_windows(segmenter, scene)
    assert type(whole).__name__ == "Prediction" and type(windows).__name__ == "ScenePrediction"
    different = windows.labels != whole.labels
    assert different.mean() < 0.001
    assert np.array_equal(whole.labels == 255, windows.labels == 255)
    assert (whole.labels[:140, :150] == 255).all() and (whole.labels == 255).sum() == 140 * 150
    assert np.allclose(windows.probs[:, 200:], whole.probs[:, 200:], atol=0.02)
    assert np.array_equal(windows.confidence[200:], windows.probs[:, 200:].max(0))
    assert np.isnan(windows.confidence[:140, :150]).all()


def test_labels_do_not_depend_on_the_extent(segmenter, scene, tmp_path):
    top, left, border = 61, 37, 128 + 32  # a window, and the pixels by which the last one may be longer
    with rasterio.open(scene) as file:
        window = rasterio.windows.Window(left, top, 440, 339)
        place = file.window_transform(window)
        part = save_scene(tmp_path / "part.tif", file.read(window=window), transform=place, nodata=0)
    whole, own = in_windows(segmenter, scene).labels, in_windows(segmenter, part).labels
    inside = own[border:-border, border:-border]
    assert inside.size and np.array_equal(inside, whole[top:, left:][border : 339 - border, border : 440 - border])


def test_chunks_of_columns_do_not_change_a_bit(segmenter, scene, monkeypatch):
    from terrazzo.inference.scenes import prediction

    expected = in_windows(segmenter, scene)
    choose = prediction.choose_windows
    monkeypatch.setattr(prediction, "choose_windows", lambda *about: replace(choose(*about), widest=128))
    found = in_windows(segmenter, scene)
    assert found.windows.widest == 128 < expected.windows.widest
    assert np.array_equal(found.labels, expected.labels) and np.array_equal(found.probs, expected.probs, equal_nan=True)


@pytest.mark.parametrize(
    "storage",
    [{}, {"tiled": False}, {"interleave": "band"}, {"compress": "none", "tiled": False}],
    ids=["tiles", "strips", "planes", "plain"],
)
def test_without_rasterio_tifffile_reads_the_parts(segmenter, tmp_path, monkeypatch, storage):
    image = landscape(200, 230)
    image[:, :50, :60] = 0
    path = save_scene(tmp_path / "x.tif", image, nodata=0, crs=None, transform=None, **storage)
    expected = in_windows(segmenter, path)
    find = opening.find_spec
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "rasterio" else find(name))
    found = in_windows(segmenter, path)
    assert type(found.scene).__name__ == "TiffScene"
    assert np.array_equal(found.labels, expected.labels)


def test_arrays_and_pictures_are_cut_too(tmp_path):
    segmenter = tz.load(device="cpu")
    picture = (landscape(160, 200, bands=3).transpose(1, 2, 0) // 256).astype(np.uint8)
    assert cv2.imwrite(str(tmp_path / "x.png"), picture[..., ::-1])
    found = [in_windows(segmenter, source, Memory(window=(96, 128))) for source in (picture, tmp_path / "x.png")]
    assert np.array_equal(found[0].labels, found[1].labels)
    stored = found[1].save(tmp_path / "labels.png")
    assert np.array_equal(cv2.imread(str(stored))[..., ::-1], np.array(segmenter.palette)[found[1].labels])


def test_memory_decides(segmenter, tmp_path):
    path = save_scene(tmp_path / "x.tif", landscape(900, 1000))
    assert type(in_windows(segmenter, path, Memory())).__name__ == "Prediction"
    assert type(in_windows(segmenter, path, Memory(limit=64 << 20))).__name__ == "ScenePrediction"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_exported_models_predict_scenes_too(model, segmenter, scene, tmp_path, suffix):
    pytest.importorskip({".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch"}[suffix])
    tz.export(model, tmp_path / f"model{suffix}")
    expected, found = (in_windows(one, scene) for one in (segmenter, tz.load(tmp_path / f"model{suffix}")))
    assert type(found).__name__ == "ScenePrediction"
    assert (found.labels != expected.labels).mean() < 0.001


# Files


def test_a_geotiff_keeps_its_place(segmenter, scene, tmp_path):
    for memory in (Memory(), WINDOWS):
        prediction = in_windows(segmenter, scene, memory)
        path = prediction.save(tmp_path / "labels.tif")
        with rasterio.open(scene) as source, rasterio.open(path) as file:
            assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, source.shape)
            assert file.nodata == 255 and file.dtypes == ("uint8",)
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.colormap(1)[2][:3] == tuple(PALETTE[2])
            assert [file.tags(1)[f"CLASS_{index}"] for index in range(4)] == CLASSES
            assert np.array_equal(file.read(1), prediction.labels)


def test_overviews_of_a_larger_map(tmp_path):
    from terrazzo.inference.scenes.rasters import save_geotiff

    labels = np.random.default_rng(0).integers(0, 4, (900, 1100), np.uint8)
    save_geotiff(tmp_path / "x.tif", labels, None, CLASSES, PALETTE)
    with rasterio.open(tmp_path / "x.tif") as file:
        assert file.overviews(1) and np.array_equal(file.read(1), labels)
    assert not list(tmp_path.glob(".*"))


# The command line


def predict(*arguments: object) -> int | str | None:
    try:
        return main(["predict", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_gives_the_same_bytes(model, scene, tmp_path):
    options = ["--model", model, "--window", "64", "--overlap", "0.5", "--confidence"]
    assert predict(scene, *options, "--out", tmp_path / "once") == 0
    out = tmp_path / "twice"
    journal = out / ".field.unfinished" / "journal.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "terrazzo", "predict", scene, *map(str, options), "--out", out], env=environment()
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not journal.is_file():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert journal.is_file(), "the run was over before it was killed"
    done = [json.loads(line)["rows"] for line in journal.read_text().splitlines()]
    assert 0 < done[-1] < 400 and not (out / "field.tif").exists()

    assert predict(scene, *options, "--out", out, "--resume") == 0
    names = {path.name for path in (tmp_path / "once").iterdir()}
    assert names == {path.name for path in out.iterdir()}
    assert all((tmp_path / "once" / name).read_bytes() == (out / name).read_bytes() for name in names)


def test_results_of_the_command(model, scene, tmp_path):
    options = ["--probabilities", "--confidence", "--window", "128"]
    assert predict(scene, "--model", model, "--out", tmp_path, *options) == 0
    names = ["field.tif", "field.tif.aux.xml", "field_confidence.tif", "field_overlay.png", "field_probabilities.tif"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with rasterio.open(tmp_path / "field_probabilities.tif") as file:
        assert file.descriptions == tuple(CLASSES) and np.isnan(file.nodata)
        assert np.allclose(file.read()[:, 200:].sum(0), 1, atol=1e-5)


# What goes wrong


def truncate(path: Path, target: Path) -> Path:
    """The first half of a file."""
    target.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return target


def test_a_truncated_scene_names_its_parts_and_writes_the_rest(model, tmp_path, capsys):
    whole = save_scene(tmp_path / "whole.tif", landscape(600, 300), compress="none")
    half = truncate(whole, tmp_path / "half.tif")
    assert predict(half, "--model", model, "--out", tmp_path / "out", "--window", "128") == 1
    errors = capsys.readouterr().err
    assert "half.tif is damaged or truncated" in errors and "rows " in errors
    with rasterio.open(tmp_path / "out" / "half.tif") as file:
        labels = file.read(1)
    assert (labels[:200] < 255).all() and (labels[-100:] == 255).all()


def test_a_scene_of_which_nothing_can_be_read_is_refused_at_once(tmp_path):
    path = tmp_path / "claims.bmp"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    header = bytearray(path.read_bytes())
    header[18:26] = (20000).to_bytes(4, "little") * 2  # the width and the height of pixels that are not there
    path.write_bytes(header)
    begin = time.process_time()
    with pytest.raises(UserError, match=r"claims\.bmp"):
        tz.load(device="cpu")(path)
    assert time.process_time() - begin < 5


NAN = float("nan")
BAD = {
    "no size": ({"transform": (1, 1, 0, 1, 1, 0)}, ["--polygons", "x.gpkg"], "has no coordinate reference system", 1),
    "no number": ({"transform": (NAN, 0, 0, 0, NAN, 0)}, ["--polygons", "x.gpkg"], "has no coordinate reference", 1),
    "no place": ({"transform": (1, 0, 1e18, 0, -1, 1e18)}, ["--polygons", "x.gpkg"], "have no place in EPSG:6933", 1),
    "bands": ({"bands": 3}, [], "has 3 bands, and this model takes 4", 1),
    "no CRS": ({"crs": None, "transform": None}, ["--polygons", "x.gpkg"], "has no coordinate reference system", 1),
    "polygons of what": ({}, ["--polygons", "x.shp"], "use .gpkg, .geojson, .parquet", 1),
    "several scenes": ({}, ["y.tif", "--polygons", "x.gpkg"], "the polygons of one scene", 2),
    "no polygons": ({}, ["--simplify", "2"], "give --polygons", 2),
    "overlap": ({}, ["--overlap", "1"], "not a share from 0 to below 1", 2),
    "memory": ({}, ["--memory", "lots"], "write 2G or 800M", 2),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_in_one_message(case, model, tmp_path, capsys, monkeypatch):
    pytest.importorskip("shapely")
    settings, options, message, code = BAD[case]
    monkeypatch.chdir(tmp_path)
    image = landscape(200, 200, bands=settings.get("bands", 4))
    settings = {key: value for key, value in settings.items() if key != "bands"}
    if settings.get("transform"):
        settings["transform"] = rasterio.Affine(*settings["transform"])
    save_scene(tmp_path / "x.tif", image, **settings)
    assert predict("--model", model, "--window", "128", "x.tif", *options) == code
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(tmp_path.glob("predictions/*")) and not list(tmp_path.glob("x.gpkg"))


def test_a_crs_that_is_unknown(segmenter, tmp_path):
    path = save_scene(tmp_path / "x.tif", landscape(200, 200), crs='LOCAL_CS["somewhere", UNIT["metre", 1]]')
    prediction = in_windows(segmenter, path)
    prediction.save(tmp_path / "labels.tif")
    with rasterio.open(tmp_path / "labels.tif") as file:
        assert file.transform == prediction.georeference.transform


VRT = (
    '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
)
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>{address}</ServerUrl></Service><DataWindow><UpperLeftX>-9</UpperLeftX>'
    "<UpperLeftY>9</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>-9</LowerRightY><TileLevel>1</TileLevel>"
    "<TileCountX>1</TileCountX><TileCountY>1</TileCountY></DataWindow><BandsCount>1</BandsCount></GDAL_WMS>"
)


def test_nothing_is_fetched_that_no_path_names(segmenter, tmp_path):
    path = tmp_path / "x.vrt"
    path.write_text(VRT.format(relative=0, source="/vsicurl/http://127.0.0.1:9/x.tif"))
    with pytest.raises(UserError, match="refers to data elsewhere"):
        segmenter(path)


@pytest.mark.parametrize(
    "kind", ["/vsicurl/{address}/x.nothing", "{address}/x.png", "WMS:{address}?service=WMS", "map"]
)
def test_nothing_is_fetched_that_a_file_behind_a_path_names(segmenter, tmp_path, kind):
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        inner = (
            WMS.format(address=address)
            if kind == "map"
            else VRT.format(relative=0, source=kind.format(address=address))
        )
        (tmp_path / "inner.dat").write_text(inner)
        (tmp_path / "x.vrt").write_text(VRT.format(relative=1, source="inner.dat"))
        with pytest.raises(UserError):
            segmenter(tmp_path / "x.vrt").save(tmp_path / "y.png")
        server.shutdown()
    assert not asked
