"""Where the tests find real data and golden facts that are too large for the repository."""

from __future__ import annotations

import os
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
