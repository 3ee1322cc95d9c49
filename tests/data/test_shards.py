"""Training data in shards, read in place: tar archives of webdataset and parquet files of images and labels."""

from __future__ import annotations

import io
import tarfile
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import pytest

import terrazzo as tz
from support.tiny import CLASSES, fit, same_weights, short_form, stop_at, street, write_config
from terrazzo.data.build import build_dataset
from terrazzo.data.declarations.sharded import shard_files
from terrazzo.data.loaders import TrainingSampler
from terrazzo.errors import UserError
from terrazzo.training.class_balance import shard_lengths
from terrazzo.transforms.opening import read_bytes


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1].tobytes()


def save_tar(path: Path, seeds: range, ends: tuple[str, str] = ("jpg.png", "seg.png")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for seed in seeds:
            for end, picture in zip((*ends, "json"), (*map(png, street(seed)), b"{}"), strict=True):
                member = tarfile.TarInfo(f"./{seed:04d}.{end}")
                member.size = len(picture)
                archive.addfile(member, io.BytesIO(picture))
    return path


def save_parquet(path: Path, seeds: range) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [[{"bytes": data, "path": None} for data in map(png, street(seed))] for seed in seeds]
    columns = {"image": [row[0] for row in pictures], "annotation": [row[1] for row in pictures]}
    parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


def opened(root: Path, images: str, labels: str | None = None):
    prefix = {"img_path": images} | ({"seg_map_path": labels} if labels else {})
    steps = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    section = {"type": "ShardedDataset", "data_root": str(root), "data_prefix": prefix, "pipeline": steps}
    return build_dataset(section | {"metainfo": {"classes": CLASSES}})


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_samples_are_read_in_place(tmp_path, kind):
    save = save_tar if kind == "tar" else save_parquet
    for number in range(2):
        save(tmp_path / f"train-{number:04d}.{kind}", range(3 * number, 3 * number + 3))
    dataset = opened(tmp_path, f"train-{{0000..0001}}.{kind}", None if kind == "tar" else "annotation")
    assert len(dataset) == 6 and shard_lengths(dataset) == ([3, 3] if kind == "tar" else [2, 1, 2, 1])
    for seed in range(6):
        image, label = street(seed)
        assert np.array_equal(dataset[seed].image, image) and np.array_equal(dataset[seed].label, label)
    assert len(opened(tmp_path, f"*-0001.{kind}")) == 3 and len(list(shard_files(tmp_path))) == 2


def test_shards_are_shuffled_and_the_samples_in_each():
    sampler = TrainingSampler(9, 3, shards=[4, 3, 2], seed=5)
    orders = [[index for _, index in sampler.epoch(epoch)] for epoch in range(4)]
    for order in orders:
        assert sorted(order) == list(range(9))
        assert len(list(groupby(order, lambda index: 0 if index < 4 else 1 if index < 7 else 2))) == 3
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.slow
def test_a_run_over_shards_is_resumed_like_one_over_folders(tmp_path, monkeypatch):
    for split, seeds in (("train", range(6)), ("val", range(6, 8))):
        save_tar(tmp_path / "shards" / f"{split}-0.tar", seeds)
    form = short_form(tmp_path / "shards")
    form["data"] |= {"images": "{split}-*.tar", "labels": "seg.png"}
    config = write_config(tmp_path / "street.yaml", form)
    whole = fit(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        fit(config, tmp_path / "parts")
    resumed = tz.train(config, work_dir=tmp_path / "parts", resume=True, quiet=True, device="cpu")
    assert same_weights(whole.last, resumed.last)


WRONG = {
    "no shard": (lambda path: None, "there is no shard"),
    "truncated": (lambda path: path.write_bytes(save_tar(path, range(3)).read_bytes()[:4000]), "truncated|cannot read"),
    "compressed": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(600)), "as a tar archive without compression"),
    "no label": (lambda path: save_tar(path, range(2), ("png", "txt")), "name the end of the labels' names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_shard_is_named(tmp_path, case):
    make, message = WRONG[case]
    make(tmp_path / "a.tar")
    with pytest.raises(UserError, match=message):
        dataset = opened(tmp_path, "*.tar")
        for index in range(len(dataset)):
            found = dataset[index]
            if hasattr(found, "message"):
                raise UserError(found.message)


def test_a_file_that_a_tar_archive_cannot_hold_takes_no_memory(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.size = 7 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(512))
    with pytest.raises(UserError, match=r"cannot read .*a\.tar as a tar archive"):
        read_bytes(tmp_path / "a.tar/a.png")


@pytest.mark.parametrize("name", ["00000/000000.number.png", "00000/000001.picture.png", "00000/000000.text.png"])
def test_a_cell_without_a_picture_is_named(tmp_path, name):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": b"1"}, {"bytes": None}]
    columns = {"number": [1, 2], "text": ["a", "b"], "picture": pictures}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="there is no picture in this row"):
        read_bytes(tmp_path / "a.parquet" / name)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("name", ["b.png", "00009/000000.image.png", "00000/000099.image.png", "00000/000000.none.png"])
def test_a_file_that_is_not_in_a_shard_is_named(tmp_path, kind, name):
    shard = (save_tar if kind == "tar" else save_parquet)(tmp_path / f"a.{kind}", range(2)) or tmp_path / f"a.{kind}"
    with pytest.raises(UserError, match=f"has no file {name}"):
        read_bytes(shard / name)
