"""A server under load, and under requests that are no good."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from support.exports import picture
from support.paths import REPOSITORY

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
HEAD = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
FORM = {"Content_Type": "multipart/form-data; boundary=xx"}


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def malformed(seed: int) -> tuple[str, bytes, dict[str, str]]:
    """A request that is no good: its path, body and headers."""
    rng = np.random.default_rng(seed)
    suffix = (".png", ".jpg", ".webp", ".tif", ".bmp")[seed % 5]
    data = bytearray(encoded(picture(40, 50, seed=seed), suffix))
    kind = seed // 5 % 8
    if kind == 0:  # cut
        return "/predict", bytes(data[: rng.integers(1, len(data) - 20)]), {}
    if kind == 1:  # damaged
        for place in rng.integers(0, len(data), 30):
            data[place] = rng.integers(0, 256)
        return "/predict", bytes(data), {}
    if kind == 2:  # a header that lies
        data[8:40] = rng.bytes(32)
        return "/predict", bytes(data), {}
    if kind == 3:  # noise after the first bytes of an image
        return "/predict", bytes(data[:16]) + rng.bytes(300), {}
    if kind == 4:  # bands that the model does not take
        array = rng.integers(0, 65535, (20, 30, (1, 2, 4, 3)[seed % 4])).astype(np.uint16)
        return "/predict", encoded(array if array.shape[2] != 2 else array[..., :1], ".tif"), {"Accept": "image/jpeg"}
    if kind == 5:  # forms
        body = HEAD % [b"a\0b.png", b"../../etc/passwd", "图.png".encode(), b"\xff\xfe", b'"'][seed % 5]
        return "/predict", body + bytes(data[: seed % 40 * 5]) + [b"\r\n--xx--\r\n", b"\r\n--xx", b""][seed % 3], FORM
    if kind == 6:  # questions
        query = ["confidence=x", "classes=%00", "model=../x", "masks=1", "opacity=1e999", "confidence=-1"][seed % 6]
        return f"/predict?{query}", bytes(data), {}
    texts = [b"{}", b'{"tasks": 3}', b"[" * 5000, b'{"tasks": [{"data": {"image": "file:///etc/passwd"}}]}', b"\xff"]
    return "/predict", texts[seed % 5], {"Content_Type": "application/json"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_many_clients_lose_nothing_and_memory_stays_flat(model):
    from serve import measure

    found = measure([str(model)], (240, 320), clients=32, seconds=20)
    many = found["many"]
    assert many["lost"] == 0 and many["requests"] > 200 and many["p50"] <= many["p95"] <= many["p99"] < 10
    assert found["throughput"] > 0.9 and found["exit"] == 0
    early, late = found["memory"]
    assert late < early + 40, "MiB"


@pytest.mark.slow
def test_malformed_requests_are_no_error_of_the_server(model, started):
    server = started(model)
    with ThreadPoolExecutor(8) as clients:
        requests = [malformed(seed) for seed in range(300)]
        answers = list(clients.map(lambda one: server.post(one[0], one[1], **one[2]), requests))
    statuses = Counter(answer.status // 100 for answer in answers)
    worst = [(one, answer.body) for one, answer in zip(requests, answers, strict=True) if answer.status >= 500]
    assert not worst and statuses[4] > 200, (statuses, worst[:3])
    assert server.get("/ready").status == 200 and server.metric("worker_restarts_total") == 0
    code, printed = server.stop()
    assert code == 0 and "Traceback" not in printed


@pytest.mark.slow
def test_what_takes_too_long_is_given_up(model, started):
    server = started(model, "--timeout", "1", "--memory", "64M", "--batch", "1")
    found = server.post("/predict?confidence=0.5", encoded(np.zeros((6000, 8000, 3), np.uint8)))
    assert found.status == 504 and "raise --timeout" in found.json["detail"]
    server.wait(lambda: server.metric("running") == 0)
    assert server.post("/predict", encoded(picture(40, 50))).status == 200
    assert server.metric("worker_restarts_total") == 0
