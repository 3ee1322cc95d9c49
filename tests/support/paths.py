"""Where tests find the repository, its golden facts, and test data that is not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden"
SHARED = Path(os.environ.get("TERRAZZO_TEST_DATA", REPOSITORY.parent / "shared"))


def shared(*parts: str) -> Path:
    """A path below the test-data folder; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs test data that is not part of the repository: {path} (set TERRAZZO_TEST_DATA)")
    return path
