"""The cache of decoded files: the same samples, shared by processes, true to the files, and gone when it should be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from support.tiny import dataset_config, environment, make_streets, save_image, street
from terrazzo import load_config
from terrazzo.data import cache as caching
from terrazzo.data import loaders
from terrazzo.data.build import build_dataset
from terrazzo.data.cache import DecodedCache
from terrazzo.data.loaders import TrainingSampler, make_loader
from terrazzo.errors import UserError
from terrazzo.transforms import loading


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> Path:
    """Folders of this test's own, on disk and in place of memory."""
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(caching, "MEMORY", tmp_path)
    return tmp_path


def kept(places: Path) -> list[Path]:
    return sorted(places.rglob("*.npy"))


def samples(dataset, workers: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = [positions for positions, _ in zip(TrainingSampler(len(dataset), 2, seed=5), range(7), strict=False)]
    with loaders.loading(make_loader(dataset, order, workers)) as batches:
        return [(batch.image, batch.targets["label"]) for batch in batches]


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [True, False])
def test_samples_are_the_same(streets, places, kind, workers, augment, monkeypatch, recwarn):
    plain = samples(build_dataset(dataset_config(streets, "train", augment=augment)), 0)
    cached = build_dataset(dataset_config(streets, "train", augment=augment) | {"cache": kind})
    first = samples(cached, workers)
    assert len(kept(places)) == 2 * len(cached), "every image and label once"

    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(loading, "read_image", fail)
    monkeypatch.setattr(loading, "read_label", fail)
    again = samples(build_dataset(dataset_config(streets, "train", augment=augment) | {"cache": kind}), workers)
    for one, *others in zip(plain, first, again, strict=True):
        assert all(torch.equal(a, b) for other in others for a, b in zip(one, other, strict=True))
    assert not [warning for warning in recwarn if "not writable" in str(warning.message)]


def test_a_changed_file_is_read_anew(tmp_path, places):
    root = make_streets(tmp_path / "data", train=1)
    dataset = build_dataset(dataset_config(root, "train") | {"cache": "disk"})
    before, path = dataset[0].image, root / "images" / "train" / "00.png"
    save_image(path, 255 - street(0)[0])
    os.utime(path, ns=(1, 2))
    np.testing.assert_array_equal(dataset[0].image, 255 - before)
    assert len(kept(places)) == 2, "the older array is gone"


@pytest.mark.parametrize("change", [{"ignore": [2]}, {"label_map": {2: 0}}, {"reduce_zero_label": True}])
def test_other_readings_of_a_file_are_kept_apart(streets, change):
    build_dataset(dataset_config(streets, "train") | {"cache": "disk"})[0]
    changed = build_dataset(dataset_config(streets, "train") | change | {"cache": "disk"})
    expected = build_dataset(dataset_config(streets, "train") | change)[0].label
    for _ in range(2):
        np.testing.assert_array_equal(changed[0].label, expected)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"nonsense", None])
def test_a_broken_array_is_made_anew(streets, places, content):
    dataset = build_dataset(dataset_config(streets, "train") | {"cache": "disk"})
    image = dataset[0].image.copy()
    for path in kept(places):
        path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    np.testing.assert_array_equal(dataset[0].image, image)
    np.testing.assert_array_equal(dataset[0].image, image)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_what_would_not_fit_is_said_at_once(streets, kind, monkeypatch):
    monkeypatch.setattr(caching, "free_space", lambda kind, folder: 1000.0)
    with pytest.raises(UserError, match=rf"cache: {kind} would take about .* GiB for 6 images .*or no cache"):
        build_dataset(dataset_config(streets, "train") | {"cache": kind})


def test_a_full_disk_ends_the_cache_and_not_the_training(streets, monkeypatch):
    dataset = build_dataset(dataset_config(streets, "train") | {"cache": "disk"})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.np, "save", full)
    with pytest.warns(UserWarning, match="no more decoded images are kept in .*No space left"):
        sample = dataset[0]
    assert sample.image is not None and not list(dataset.files.cache.folder.rglob("*.tmp"))


def test_an_unknown_kind_is_refused(streets):
    with pytest.raises(UserError, match="cache is `ram` or `disk`, not 'rma'; did you mean 'ram'"):
        build_dataset(dataset_config(streets, "train") | {"cache": "rma"})


def test_the_short_form_takes_it(streets, tmp_path):
    data = {"root": str(streets), "classes": ["sky", "road", "car"], "cache": "ram"}
    path = tmp_path / "street.json"
    path.write_text(str({"recipe": "fastscnn", "data": data, "crop": "32x32"}).replace("'", '"'))
    assert load_config(path).to_dict()["train_dataloader"]["dataset"]["cache"] == "ram"


PROGRAM = """
import sys
from pathlib import Path
from terrazzo.data import cache
cache.MEMORY = Path(sys.argv[1])
opened = cache.open_cache("ram", [Path(sys.argv[2])])
opened.get(Path(sys.argv[2]), "x", lambda: __import__("numpy").zeros((3, 4)))
print(len(list(opened.folder.rglob("*.npy"))), flush=True)
sys.stdin.readline()
if sys.argv[3] == "killed":
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="processes are told apart by signals")
def test_memory_is_freed_by_the_last_process_or_after_it(streets, places):
    def start(end: str) -> subprocess.Popen:
        command = [sys.executable, "-c", PROGRAM, str(places), str(streets / "images/train/00.png"), end]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment())
        assert process.stdout.readline() == "1\n"
        return process

    first, second = start("ends"), start("ends")
    first.communicate("\n")
    assert len(kept(places)) == 1
    second.communicate("\n")
    assert not kept(places) and not list(places.glob("terrazzo-*"))
    start("killed").communicate("\n")
    assert len(kept(places)) == 1
    caching.leave_dead(caching.memory_folder())
    assert not kept(places)


def test_kept_arrays_are_mapped_and_read_only(places):
    save_image(places / "a.png", cv2.resize(street(0)[0], (64, 512)))
    cache = DecodedCache(places / "cache")
    read = [cache.get(places / "a.png", "x", lambda: np.ones((512, 64, 3), np.uint8)) for _ in range(2)][1]
    assert isinstance(read.base, np.memmap) and not read.flags.writeable
