"""A server as its clients see it."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from support.exports import picture
from support.tiny import street
from terrazzo.cli.main import main
from terrazzo.inference.runtime import Memory
from terrazzo.serving.drift import Days

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
IMAGE = picture(48, 64, seed=3)
DARK = street(50, 96, 64)[0] // 4
RAW = "application/vnd.terrazzo.labels+gzip"


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def form(data: bytes, name: str = "a.png", field: str = "file") -> tuple[bytes, dict[str, str]]:
    """A body and its headers."""
    head = f'--xx\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n--xx--\r\n", {"Content_Type": "multipart/form-data; boundary=xx"}


@pytest.fixture(scope="module")
def expected(model):
    return tz.load(model)(IMAGE)


def test_answers(server, expected):
    body, headers = form(encoded(IMAGE))
    found = server.post("/predict", body, Accept="image/png", **headers)
    labels = np.array(Image.open(io.BytesIO(found.body)))
    assert (found.status, found.headers["Content-Type"]) == (200, "image/png")
    assert np.array_equal(labels, expected.labels)

    found = server.post("/predict", encoded(IMAGE)).json
    assert (found["model"], found["width"], found["height"]) == ("street", 64, 48)
    assert [entry["name"] for entry in found["classes"]] == expected.classes
    counts = np.bincount(expected.labels.ravel(), minlength=3).tolist()
    assert [entry["pixels"] for entry in found["classes"]] == counts
    assert sum(entry["share"] for entry in found["classes"]) == pytest.approx(1, abs=1e-5)

    overlay = server.post("/predict?opacity=0.3", encoded(IMAGE), Accept="image/jpeg").body
    assert overlay == encoded(expected.overlay(0.3), ".jpg")

    raw = zlib.decompress(server.post("/predict", encoded(IMAGE), Accept=RAW).body, 31)
    both = np.frombuffer(raw, np.uint8).reshape(2, 48, 64)
    assert np.array_equal(both[0], expected.labels)
    assert np.abs(both[1] / 255 - expected.confidence).max() <= 0.003


def test_options(server, expected):
    path = "/predict?confidence=0.6&classes=road,car"
    labels = np.array(Image.open(io.BytesIO(server.post(path, encoded(IMAGE), Accept="image/png").body)))
    kept = (expected.confidence >= 0.6) & (expected.labels >= 1)
    assert np.array_equal(labels, np.where(kept, expected.labels, 255)) and kept.any() and not kept.all()
    found = server.post("/predict?classes=road&masks=rle", encoded(IMAGE)).json
    (road,) = found["classes"]
    assert sum(road["mask"]["counts"][1::2]) == road["pixels"] == 48 * 64 - found["pixels_without_class"]
    (road,) = server.post("/predict?classes=road&masks=polygons", encoded(IMAGE)).json["classes"]
    assert road["polygons"][0]["exterior"]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".bmp"])
def test_formats(server, suffix, tmp_path, model):
    data = encoded(IMAGE, suffix)
    (tmp_path / f"a{suffix}").write_bytes(data)
    labels = np.array(Image.open(io.BytesIO(server.post("/predict", data, Accept="image/png").body)))
    assert np.array_equal(labels, tz.load(model)(tmp_path / f"a{suffix}").labels)


def test_a_geotiff_keeps_its_coordinates(server, expected):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(400_000, 5_000_000, 0.5, 0.5)}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=64, height=48, count=3, dtype="uint8", **place) as file:
            file.write(np.moveaxis(IMAGE, -1, 0))
        found = server.post("/predict", memory.read(), Accept="image/tiff")
    with rasterio.MemoryFile(found.body) as memory, memory.open() as file:
        assert (file.crs.to_string(), file.transform) == (place["crs"], place["transform"])
        assert np.array_equal(file.read(1), expected.labels) and file.nodata == 255


def test_what_the_server_tells(server):
    (model,) = server.get("/models").json["models"]
    assert (model["name"], model["bands"]) == ("street", 3)
    assert model["classes"][1]["name"] == "road"
    assert server.get("/health").json["status"] == "UP" and server.get("/ready").status == 200
    paths = server.get("/openapi.json").json["paths"]
    assert {"/predict", "/models", "/health", "/ready", "/metrics"} <= set(paths)
    docs = server.get("/docs").body.decode()
    files = re.findall(r'(?:href|src)="([^"]*)"', docs)
    assert len(files) == 3 and [server.get(file).status for file in files] == [200] * 3, "it works offline"
    assert '"validatorUrl": "none"' in docs and server.get("/docs-files/../../../etc/passwd").status == 404
    before = server.metric("images_total")
    server.post("/predict", encoded(IMAGE))
    assert server.metric("images_total") == before + 1


def test_how_unlike_images_are(server):
    usual = server.post("/predict", encoded(street(50, 48, 64)[0])).json["unlike"]
    assert max(usual.values()) < 1.5
    before = server.metric("unlike_count")
    found = server.post("/predict", encoded(DARK))
    assert found.headers["X-Unlike"].startswith("colours=")
    assert found.json["unlike"]["colours"] > 2 and found.json["unlike"]["size"] > 1.5
    assert server.metric("unlike_count") >= before + 2


def test_a_day_is_told_once():
    date = "a"
    told = Days(lambda: date)
    first = [line for _ in range(30) for line in told.note("m", {"colours": 3.0, "size": 0.5})]
    date = "b"
    second = [line for _ in range(25) for line in told.note("m", {"colours": 3.0})]
    assert len(first) == len(second) == 1 and first[0].startswith("a: 100% of today's 20 images for m")
    quiet = Days(lambda: "a")
    assert not [line for index in range(100) for line in quiet.note("m", {"colours": 3.0 * (index % 8 == 0)})]


def wrong(server: Any) -> list[tuple[str, int, str, dict[str, Any]]]:
    """Requests that are refused: path, status, part of the sentence, and what is sent."""
    data = encoded(IMAGE)
    huge = encoded(np.zeros((500, 600, 3), np.uint8))
    in_form, headers = form(data[:2000], "../../cut\x1b[31m.png")
    return [
        ("/predict", 400, "no body", {"body": b""}),
        ("/predict", 415, "cannot decode the image", {"body": b"hello"}),
        ("/predict", 422, "truncated", {"body": in_form, **headers}),
        ("/predict", 400, "field `file`", {"body": b"--xx--\r\n", **headers}),
        ("/predict", 400, "", {"body": b"no form", **headers}),
        ("/predict", 413, "600x500 pixels, more than the limit of 200000", {"body": huge}),
        ("/predict", 413, "400000 bytes", {"body": bytes(400_000)}),
        ("/predict", 406, "not text/html", {"body": data, "Accept": "text/html"}),
        ("/predict?model=stret", 404, "did you mean 'street'?", {"body": data}),
        ("/predict?classes=rod", 404, "did you mean 'road'?", {"body": data}),
        ("/predict?confidence=2", 422, "confidence", {"body": data}),
        ("/predict?masks=png", 422, "masks", {"body": data}),
        ("/nothing", 404, "", {"body": data}),
        ("/../../etc/passwd", 404, "", {"body": data}),
        ("/models", 405, "", {"body": data}),
    ]


def test_what_is_refused(server):
    for path, status, sentence, request in wrong(server):
        found = server.post(path, **request)
        assert found.status == status, (path, found.body)
        assert sentence in found.json["detail"]
        assert "/tmp" not in found.json["detail"]
    assert server.post("/predict", encoded(IMAGE)).status == 200


def test_an_endless_body_is_refused(server):
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            client.sendall(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert b" 413 " in client.recv(1000).split(b"\r\n")[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the worker is found as Linux tells it")
def test_a_killed_worker_is_replaced_and_its_clients_get_answers(server):
    first = server.worker()
    with ThreadPoolExecutor(12) as clients:
        waiting = [clients.submit(server.post, "/predict", encoded(picture(200, 300, seed=n))) for n in range(12)]
        server.wait(lambda: server.metric("running") or waiting[-1].done())
        os.kill(first, signal.SIGKILL)
        assert [answer.result().status for answer in waiting] == [200] * 12
    server.wait(lambda: server.get("/ready").status == 200)
    assert server.worker() != first and server.metric("worker_restarts_total") == 1


def test_windows_a_full_queue_a_token_and_the_end(model, started):
    arguments = "--queue", "3", "--batch", "1", "--token", "secret", "--memory", "64M"
    server = started(model, f"again={model}", *arguments)
    assert server.post("/predict", encoded(IMAGE)).status == 401
    assert server.get("/models", Authorization="Bearer wrong").status == 401
    assert server.get("/models", Authorization="Basic dTpzZWNyZXQ=").status == 200  # u:secret
    assert {server.get(path).status for path in ("/health", "/ready", "/docs", "/docs-files/swagger-ui.css")} == {200}
    assert "HTTPBearer" in server.get("/openapi.json").json["components"]["securitySchemes"]
    known = {"Authorization": "Bearer secret"}
    image = picture(600, 900)

    # An image that does not fit memory is predicted in windows, as by a Segmenter of that memory
    segmenter = tz.load(model)
    segmenter.memory = Memory(64 << 20)
    assert segmenter.scene(image) is not None
    found = server.post("/predict?confidence=0.6", encoded(image), Accept="image/png", **known)
    prediction = segmenter(image)
    labels = np.where(prediction.confidence >= 0.6, prediction.labels, 255)
    assert np.array_equal(np.array(Image.open(io.BytesIO(found.body))), labels)

    # More clients than the queue has places
    with ThreadPoolExecutor(12) as clients:
        data = encoded(image)
        answers = list(clients.map(lambda _: server.post("/predict?model=again", data, **known), range(12)))
    statuses = {answer.status for answer in answers}
    assert statuses == {200, 503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status == 503)

    # A day's images that are unlike the training images
    for _ in range(20):
        server.post("/predict?model=again", encoded(DARK), **known)

    # A request that has begun is finished
    ended: list[Any] = []
    client = threading.Thread(target=lambda: ended.append(server.post("/predict?model=again", data, **known)))
    client.start()
    server.wait(lambda: server.get("/health").status and is_busy(server, known))
    code, printed = server.stop()
    client.join()
    assert (ended[0].status, code) == (200, 0)
    assert printed.endswith("stopped\n")
    assert re.search("images for again are farther from its training images in their colours", printed)


def is_busy(server: Any, known: dict[str, str]) -> bool:
    text = server.get("/metrics", **known).body.decode()
    return "terrazzo_running 0.0" not in text or "terrazzo_queue 0.0" not in text


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["nothing.onnx"], "nothing.onnx", 1),
        (["street", "b/street"], "both called street", 2),
        (["a=b=c", "--port", "70000"], "70000", 2),
        (["--token", "a b"], "--token", 2),
        (["street", "b.pth", "--config", "c"], "--config is of one checkpoint", 2),
    ],
)
def test_wrong_usage(arguments, message, code, capfd):
    try:
        found = main(["serve", *arguments, *([] if "--port" in arguments else ["--port", "0"])])
    except SystemExit as end:
        found = end.code
    assert found == code and message in capfd.readouterr().err


def test_an_address_that_is_taken(server, capfd):
    assert main(["serve", "--port", server.address.rpartition(":")[2]]) == 1
    assert "cannot listen on 127.0.0.1" in capfd.readouterr().err
