"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import shared


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
