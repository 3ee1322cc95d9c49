"""A cluster of Ray, or one that is started on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from terrazzo.errors import UserError, first_line
from terrazzo.system.extras import import_extra


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The library, connected to the cluster at an address; without one to that of this session, else to a new one here.

    Raises UserError where it is not installed, or nothing answers.
    """
    ray = import_extra("ray", "ray", "clusters")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its coming behaviour, of which it warns
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address or None, include_dashboard=False if not address else None, **quiet)
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise UserError(f"--ray {address or ''}: no cluster answers: {first_line(problem)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def worker_count(ray: Any, needs_gpu: bool) -> int:
    """The processes with a core, or a GPU, each that the cluster has room for; at least one."""
    return max(1, int(ray.cluster_resources().get("GPU" if needs_gpu else "CPU", 1)))
