"""Data sets whose root is an address on an object store."""

from __future__ import annotations

import pytest

import terrazzo as tz
from support.tiny import CLASSES, make_streets, short_form, write_config
from terrazzo.data.build import build_dataset
from terrazzo.data.discovery.data_root import locate
from terrazzo.data.remote import copied, without_pattern
from terrazzo.errors import UserError
from terrazzo.system.remote import put

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def streets(tmp_path, monkeypatch):
    """Streets on a store in memory; copies go to a folder of the test's own."""
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "home"))
    root = make_streets(tmp_path / "streets", train=2, val=1)
    for path in root.rglob("*.png"):
        put(path, f"memory://streets/{path.relative_to(root)}")
    yield root
    fsspec.filesystem("memory").rm("/streets", recursive=True)


def test_the_short_form_takes_an_address(streets, tmp_path):
    form = short_form(streets)
    form["data"]["root"] = "memory://streets"
    config = tz.load_config(write_config(tmp_path / "street.yaml", form))
    section = config.to_dict()["train_dataloader"]["dataset"]
    assert section["data_root"] == "memory://streets"
    dataset, local = build_dataset(section), build_dataset({**section, "data_root": str(streets)})
    assert [image.name for image, _ in dataset.pairs] == [image.name for image, _ in local.pairs]
    assert (dataset[0].image == local[0].image).all() and dataset.classes == tuple(CLASSES)
    assert not list((tmp_path / "home").rglob("val")), "only what the split names is copied"
    moved = locate(config, "memory://streets").to_dict()["val_dataloader"]["dataset"]["data_root"]
    assert moved.startswith(str(tmp_path / "home"))


def test_what_has_changed_is_copied_anew(streets, tmp_path, capsys):
    folder = copied("memory://streets", ["images/train"])
    assert "copying 2 files" in capsys.readouterr().out
    put(streets / "images" / "val" / "00.png", "memory://streets/images/train/00.png")
    assert copied("memory://streets", ["images/train"]) == folder and "copying 1 file from" in capsys.readouterr().out
    assert (folder / "images/train/00.png").read_bytes() == (streets / "images/val/00.png").read_bytes()
    copied("memory://streets", ["images/train"])
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="there is no file or folder memory://streets/none"):
        copied("memory://streets", ["none"])


def test_a_pattern_names_its_folder():
    assert [without_pattern(part) for part in ("a/*/b", "a/b", "*.png", "a/x_{split}/c")] == ["a", "a/b", "", "a"]
