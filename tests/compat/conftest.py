"""Plug-ins in both styles, registered for one test; a small data set that only they can read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terrazzo import registry

PLUGINS = Path(__file__).parent / "plugins"
REGISTRIES = (registry.MODELS, registry.TRANSFORMS, registry.DATASETS, registry.METRICS, registry.HOOKS)


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch, tmp_path_factory):
    """Neither modules nor types of one test are there in the next, nor answered packages in other tests."""
    import terrazzo.compat as compat
    from terrazzo.compat import finder
    from terrazzo.compat import registry as theirs

    compat.install()
    before = set(sys.modules)
    for table in REGISTRIES:
        table.load()
    kept = [(dict(table.types), dict(table.raw), dict(table.hidden)) for table in REGISTRIES]
    own = [item for item in vars(theirs).values() if isinstance(item, theirs.Registry)]
    tables = [dict(item._module_dict) for item in own]
    monkeypatch.setattr(sys, "path", [str(PLUGINS), *sys.path])
    yield compat
    for table, (types, raw, hidden) in zip(REGISTRIES, kept, strict=True):
        table.types, table.raw, table.hidden = types, raw, hidden
    for item, values in zip(own, tables, strict=True):
        item._module_dict.clear()
        item._module_dict.update(values)
    sys.meta_path[:] = [item for item in sys.meta_path if item is not finder.Finder]
    for name in [name for name, module in sys.modules.items() if isinstance(module, finder.Answer)]:
        del sys.modules[name]
    finder.ANSWERED.clear()
    finder.FORKS.clear()
    written = (str(PLUGINS), str(tmp_path_factory.getbasetemp()))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(written):
            del sys.modules[name]


@pytest.fixture(params=["older", "newer"])
def plugins(request):
    """The module of one style."""
    return importlib.import_module(request.param)


@pytest.fixture
def older():
    return importlib.import_module("older")


@pytest.fixture
def newer():
    return importlib.import_module("newer")


@pytest.fixture
def photos(tmp_path):
    """A folder with photos of three bands, and their classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for index in range(3):
            label = np.repeat(np.array([0, 1, 2], np.uint8), 16)[:, None].repeat(64, axis=1)
            image = np.clip(label[..., None] * 80 + rng.normal(0, 9, (48, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{index}_photo.png")
            Image.fromarray(label).save(folder / f"{index}_classes.png")
    return tmp_path
