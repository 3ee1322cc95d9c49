"""Servers in processes of their own, and a model that costs them nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.served import PICTURE
from support.tiny import CLASSES, COLOURS, environment, street

STARTED = "serving "


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """`terrazzo serve`, and what it has printed."""

    process: subprocess.Popen[str]
    address: str
    lines: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask(path, None, headers)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.ask(path, body, headers)

    def ask(self, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.address}{path}", body, named)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as problem:
            return Answer(problem.code, problem.headers, problem.read())

    def worker(self) -> int:
        """The id of the process that holds the models."""
        own = self.process.pid
        return int(Path(f"/proc/{own}/task/{own}/children").read_text().split()[0])

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.split("{")[0].split(" ")[0] == f"terrazzo_{name}"]
        return sum(map(float, values))

    def wait(self, is_so: Any, seconds: float = 60.0) -> None:
        ends = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < ends, "it does not happen"
            time.sleep(0.05)

    def stop(self) -> tuple[int, str]:
        """Exit code and all that it printed."""
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, "".join(self.lines) + rest


def start(*arguments: Any) -> Server:
    """A server on a free port."""
    command = [sys.executable, "-m", "terrazzo", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(STARTED):
            return Server(process, line.split(" on ")[1].split(" ")[0].strip(), lines)
    pytest.fail("".join(lines))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file `street.onnx` as `tz.export` writes them, whose only layer is a convolution."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    from terrazzo.inference.exported import ModelFacts
    from terrazzo.inference.likeness import fingerprint

    weight = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32) / 100
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight"], ["logits"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "street",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", "H", "W"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    known = fingerprint([street(seed, 48, 64)[0] for seed in range(8)])
    facts = ModelFacts(CLASSES, COLOURS.tolist(), source="street", training_images=known.values())
    helper.set_model_props(file, facts.texts())
    path = tmp_path_factory.mktemp("served") / "street.onnx"
    onnx.save(file, path)
    return path


@pytest.fixture(scope="session")
def started() -> Iterator[Any]:
    """A function that starts a server; all are stopped at the end."""
    servers: list[Server] = []

    def begin(*arguments: Any) -> Server:
        servers.append(start(*arguments))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="session")
def studio():
    """A Label Studio of one image: its address, and the keys that it was shown."""
    shown: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            shown.append(self.headers.get("Authorization", ""))
            found = self.path == "/data/upload/1/a.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(PICTURE if found else b"")

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"access": "short"}')

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", shown
    server.shutdown()


@pytest.fixture(scope="session")
def server(model, started, studio):
    """The server of most tests."""
    return started(model, "--max-bytes", "300K", "--max-pixels", "200000", "--label-studio", studio[0])
