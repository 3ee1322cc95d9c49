"""What a scene is read from: tiles in a folder, virtual rasters, masks and alpha, addresses, other pixel sizes."""

from __future__ import annotations

import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

import terrazzo as tz
from support.scenes import landscape, save_model, save_scene
from terrazzo.errors import UserError
from terrazzo.inference.runtime import Memory

rasterio = pytest.importorskip("rasterio")

WINDOWS = Memory(window=(96, 96), overlap=0.25)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def segmenter(model):
    found = tz.load(model, device="cpu")
    found.memory = WINDOWS
    return found


def save_tiles(folder: Path, image: np.ndarray, side: int = 100) -> Path:
    """An image as adjacent tiles, without the last one."""
    folder.mkdir()
    corners = [(top, left) for top in range(0, image.shape[1], side) for left in range(0, image.shape[2], side)]
    for top, left in corners[:-1]:
        part = image[:, top : top + side, left : left + side]
        save_scene(folder / f"{top}_{left}.tif", part, (500_000 + left / 2, 4_600_000 - top / 2))
    return folder


def test_adjacent_tiles_are_one_scene(segmenter, tmp_path):
    image = landscape(200, 300)
    whole = segmenter(save_scene(tmp_path / "whole.tif", image)).labels
    (prediction,) = segmenter(save_tiles(tmp_path / "tiles", image))
    assert (prediction.labels[100:, 200:] == 255).all()
    assert np.array_equal(prediction.labels[:, :100], whole[:, :100])  # as far as the missing tile is not seen
    assert prediction.georeference.transform.c == 500_000


@pytest.mark.parametrize("change", ["apart", "over each other", "of other bands"])
def test_other_folders_are_images(segmenter, tmp_path, change):
    image = landscape(64, 64)
    offset = {"apart": 100, "over each other": 16, "of other bands": 32}[change]
    save_scene(tmp_path / "a.tif", image)
    save_scene(tmp_path / "b.tif", image[:3] if change == "of other bands" else image, (500_000 + offset, 4_600_000))
    assert len(segmenter(tmp_path)) == 2


def test_masks_and_alpha_are_honoured(segmenter, tmp_path):
    image = landscape(150, 150)
    hidden = np.zeros((150, 150), bool)
    hidden[:70, 40:90] = True
    with_alpha = np.concatenate([image, np.where(hidden, 0, 65535)[None].astype(np.uint16)])
    alpha = save_scene(tmp_path / "alpha.tif", with_alpha)
    with rasterio.open(alpha, "r+") as file:
        file.colorinterp = [*file.colorinterp[:4], rasterio.enums.ColorInterp.alpha]
    masked = save_scene(tmp_path / "masked.tif", image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as file:
        file.write_mask(~hidden)
    for path in (alpha, masked):
        for memory in (Memory(), WINDOWS):
            segmenter.memory = memory
            assert np.array_equal(segmenter(path).labels == 255, hidden), path.name


@pytest.mark.parametrize("size", [0.25, 1.0])
def test_a_resolution_resamples_on_reading(tmp_path, size):
    path = save_scene(tmp_path / "x.tif", landscape(200, 240))
    saved = save_model(tmp_path / "model.safetensors", loading={"resolution": size})
    segmenter = tz.load(saved, device="cpu")
    whole = segmenter(path)
    segmenter.memory = WINDOWS
    windows = segmenter(path)
    assert windows.labels.shape == whole.labels.shape == (200 * 0.5 / size, 240 * 0.5 / size)
    assert windows.georeference.transform.a == size and whole.georeference == windows.georeference
    assert (windows.labels != whole.labels).mean() < 0.001


class Server(SimpleHTTPRequestHandler):
    """A server of a folder that knows ranges, and ends early where it is told to."""

    ends_at: int | None = None

    def log_message(self, *arguments: object) -> None:
        pass

    def send_head(self):  # type: ignore[no-untyped-def]
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        wanted = self.headers.get("Range")
        start, _, stop = (wanted or "bytes=0-").partition("=")[2].partition("-")
        first, last = int(start or 0), min(int(stop or len(content) - 1), len(content) - 1)
        if wanted and self.ends_at is not None and last >= self.ends_at:
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[first : last + 1])
        return None


@pytest.fixture
def address(tmp_path):
    (tmp_path / "served").mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_an_address_is_read_in_place(segmenter, tmp_path, address, prefix):
    path = save_scene(tmp_path / "served" / "x.tif", landscape(150, 200))
    found = segmenter(f"{prefix}{address}/x.tif")
    assert np.array_equal(found.labels, segmenter(path).labels)
    with pytest.raises(UserError, match="cannot open"):
        segmenter(f"{prefix}{address}/other.tif")


def test_an_address_that_ends_early_names_the_parts(segmenter, tmp_path, address, monkeypatch):
    save_scene(tmp_path / "served" / "x.tif", landscape(400, 400), compress="none", interleave="pixel")
    monkeypatch.setattr(Server, "ends_at", 1_200_000)
    found = segmenter(f"{address}/x.tif")
    assert "is damaged or truncated" in found.damage()
    assert (found.labels[:64] < 255).all() and (found.labels[-64:, -64:] == 255).all()


def test_a_mosaic_of_the_command_is_one_file(model, tmp_path):
    from terrazzo.cli.main import main

    save_tiles(tmp_path / "tiles", landscape(200, 200))
    arguments = [str(tmp_path / "tiles"), "--model", str(model), "--window", "96", "--out", str(tmp_path / "out")]
    assert main(["predict", *arguments]) == 0
    with rasterio.open(tmp_path / "out" / "tiles.tif") as file:
        assert file.shape == (200, 200)
