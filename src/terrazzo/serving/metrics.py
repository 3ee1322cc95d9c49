"""The server's metrics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from terrazzo.serving.messages import Answer
from terrazzo.system.extras import import_extra

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Requests, latency, queue, images and batches."""

    def __init__(self) -> None:
        self.library = library = import_extra("prometheus_client", "serve", "metrics")
        self.registry = library.CollectorRegistry()
        library.ProcessCollector(registry=self.registry)

        def make(kind: str, name: str, about: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
            return getattr(library, kind)(f"terrazzo_{name}", about, labels, registry=self.registry, **options)

        self.requests = make("Counter", "requests", "Requests by path and status.", ("path", "status"))
        self.latency = make("Histogram", "request_seconds", "Time of a request.", ("path",), buckets=SECONDS)
        self.images = make("Counter", "images", "Images that were segmented.", ("model",))
        self.pixels = make("Counter", "pixels", "Pixels that were segmented.", ("model",))
        self.failures = make("Counter", "failures", "Images that could not be segmented.", ("model",))
        self.batches = make("Histogram", "batch_images", "Images of a batch.", buckets=(1, 2, 4, 8, 16, 32))
        self.restarts = make("Counter", "worker_restarts", "Workers that ended and were replaced.")
        about = "How unlike the training images are: 95% of those have 1 or less."
        self.unlike = make("Histogram", "unlike", about, ("model", "kind"), buckets=(0.5, 1, 1.5, 2, 3, 5, 10))
        self.queue = make("Gauge", "queue", "Images that wait.")
        self.running = make("Gauge", "running", "Images that the worker has.")
        self.ready = make("Gauge", "ready", "1 where the models are loaded.")

    def watch(self, waiting: Callable[[], float], running: Callable[[], float], is_ready: Callable[[], float]) -> None:
        """Read these whenever somebody asks for the metrics."""
        self.queue.set_function(waiting)
        self.running.set_function(running)
        self.ready.set_function(is_ready)

    def answered(self, model: str, answer: Answer) -> None:
        """Count an answer of the worker."""
        if answer.status != 200:
            self.failures.labels(model).inc()
            return
        self.images.labels(model).inc()
        self.pixels.labels(model).inc(answer.facts["pixels"])
        for kind, value in answer.facts["unlike"].items():
            self.unlike.labels(model, kind).observe(value)

    def text(self) -> bytes:
        return self.library.generate_latest(self.registry)
