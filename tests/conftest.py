"""Where the tests find real data and golden facts that are too large for the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("TERRAZZO_TEST_DATA", Path(__file__).parents[2] / "shared"))


def shared(*parts: str) -> Path:
    """A path below the test-data folder; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs test data that is not part of the repository: {path} (set TERRAZZO_TEST_DATA)")
    return path


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
