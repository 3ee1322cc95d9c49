"""A server under load: many clients at once beside one alone, in the same run, on this machine's loopback.

    python benchmarks/serve.py --clients 32 --seconds 120
    python benchmarks/serve.py --model street.onnx --size 512x1024 --seconds 20

Clients send one picture after another for `--seconds`, between two turns of a quarter of that in which a single client
does. Latency is a client's, from sending to the last byte of the class map. Memory is that of the server and its
worker, resident, when a quarter of the time is over and at the end (Linux).
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.cli.common import image_size
from terrazzo.demo.scenes import draw_scene


class Server:
    """`terrazzo serve` on a free port."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "terrazzo", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise SystemExit("the server does not start")

    def worker(self) -> int:
        """The id of the process that holds the models."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def memory(self) -> float:
        """Resident memory of the server and its worker in MiB; 0 where the system does not tell."""
        total = 0
        try:
            for process in (self.process.pid, self.worker()):
                status = Path(f"/proc/{process}/status").read_text()
                total += int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
        except (OSError, TypeError, IndexError):
            return 0
        return total / 1024

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def post(port: int, body: bytes, path: str = "/predict", **headers: str) -> tuple[int, bytes]:
    """Status and body of the answer to one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=150)
    try:
        connection.request("POST", path, body, {"Accept": "image/png", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def load(port: int, pictures: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """What clients saw that sent one picture after another for some seconds."""
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    begin = time.perf_counter()

    def send(number: int) -> None:
        while time.perf_counter() - begin < seconds:
            started = time.perf_counter()
            try:
                status, body = post(port, pictures[number % len(pictures)])
                statuses[str(status) if body else "empty"] += 1
            except OSError as problem:
                statuses[type(problem).__name__] += 1
            latencies.append(time.perf_counter() - started)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)).round(3).tolist()
    answered = statuses["200"]
    found = {"clients": clients, "requests": len(latencies), "lost": len(latencies) - answered, "statuses": statuses}
    return found | {"per_second": round(answered / took, 2), "p50": p50, "p95": p95, "p99": p99}


def measure(arguments: list[str], size: tuple[int, int], clients: int, seconds: float) -> dict[str, Any]:
    """The figures of one client, of many, and of one again."""
    rng = np.random.default_rng(0)
    pictures = [cv2.imencode(".jpg", draw_scene(rng, size)[0][..., ::-1])[1].tobytes() for _ in range(4)]
    server = Server(*arguments)
    try:
        load(server.port, pictures, 1, 0.1)
        before = load(server.port, pictures, 1, seconds / 4)
        memory: list[float] = []
        ends = threading.Event()

        def watch() -> None:
            while not ends.wait(seconds / 40):
                memory.append(server.memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        many = load(server.port, pictures, clients, seconds)
        ends.set()
        watcher.join()
        after = load(server.port, pictures, 1, seconds / 4)
    finally:
        code = server.stop()
    alone = (before["per_second"] + after["per_second"]) / 2
    quarter = [round(value) for value in (memory[len(memory) // 4], max(memory[-3:]))]
    return {
        "one": [before, after],
        "many": many,
        "throughput": round(many["per_second"] / alone, 2),
        "memory": quarter,
        "exit": code,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="street")
    parser.add_argument("--size", type=image_size, default=(360, 480), metavar="HxW")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--batch", default="8")
    args = parser.parse_args()
    found = measure([args.model, "--batch", args.batch], args.size, args.clients, args.seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
