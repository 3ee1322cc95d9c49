"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import terrazzo as tz
from support.exports import need
from support.paths import shared
from support.tiny import fit, make_streets, tiny_config, write_config


@pytest.fixture(scope="session")
def camvid() -> Path:
    """Folder with images/{train,val} and labels/{train,val}."""
    return shared("data", "camvid")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from the user's cache folder, and nothing written to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRAZZO_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A trained tiny model: its data (`streets`), `config`, checkpoint (`best`), and itself as `onnx` file."""
    need("onnx")
    root = tmp_path_factory.mktemp("exported")
    streets = make_streets(root / "data")
    config = tiny_config(streets, steps=40, batch=4)
    best = fit(config, root / "run").best
    report = tz.export(best, root / "street.onnx", outputs=["labels", "confidence"])
    return SimpleNamespace(
        streets=streets, config=write_config(root / "c.yaml", config), best=best, onnx=report.path, report=report
    )
