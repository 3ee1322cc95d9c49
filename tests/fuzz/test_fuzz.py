"""Every reader and writer with broken, wrong and odd input. What hypothesis found is in the tests of the reader."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from support.fuzz import MANY, QUICK, broken, changed, fuzz, one_message, scalars, values
from support.tiny import CLASSES, make_streets, model_config, short_form
from terrazzo.checkpoints.inspect import inspect_checkpoint
from terrazzo.config.config import Config
from terrazzo.config.load import load_config
from terrazzo.data.build import build_dataset
from terrazzo.data.declarations.dsdl import load as load_dsdl
from terrazzo.data.listing import read_rows, split_values
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.saved_config import describe
from terrazzo.models.checkpoint import read_checkpoint
from terrazzo.system.palette import written_palette
from terrazzo.system.text import read_json
from terrazzo.training.checkpoints import read_state
from terrazzo.training.monitoring.runs import read_record, read_run
from terrazzo.transforms.decode import read_image, read_size, read_stored
from terrazzo.transforms.formats.tables import read_class_table
from terrazzo.transforms.formats.yolo import names_in
from terrazzo.transforms.label_files import read_label
from terrazzo.transforms.planes import plane_paths
from terrazzo.transforms.volume import read_volume
from transforms.formats.test_formats import LABEL, WRITERS, image, train_set

times = pytest.mark.parametrize("times", [QUICK, MANY])


def into(path: Path, *readers: Callable[[Path], Any]) -> Callable[[bytes], None]:
    """A function that writes bytes to a file and gives it to each of the readers."""

    def use(content: bytes) -> None:
        path.write_bytes(content)
        for read in readers:
            with one_message():
                read(path)

    return use


# Configs


@times
def test_the_short_form(tmp_path, times):
    form = short_form(make_streets(tmp_path)) | {"lr": 0.1, "seed": 1, "val_interval": 2, "class_weight": [1, 2, 3]}
    fuzz(changed(form), load_config, 30, times)


# Images and labels

GRADIENT = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 34
GREY = (GRADIENT >> 8).astype(np.uint8)
RGB = np.stack([GREY, GREY.T[:40, :1].repeat(48, 1), GREY[::-1]], axis=2)
PICTURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a.png": (RGB, {}),
    "grey16.png": (GRADIENT, {}),
    "a.jpg": (RGB, {"exif": Image.Exif()}),
    "a.bmp": (RGB, {}),
    "a.gif": (GREY, {}),
    "a.ppm": (RGB, {}),
    "a.webp": (RGB, {"lossless": True}),
    "a.tif": (RGB, {}),
    "deflated.tif": (GRADIENT, {"compression": "tiff_adobe_deflate"}),
    "real.tif": (GREY.astype(np.float32), {}),
    "a.npy": (GREY, {}),
}


def encoded(name: str) -> bytes:
    """A picture in the format that its name ends in."""
    array, options = PICTURES[name]
    file = io.BytesIO()
    if name.endswith(".npy"):
        np.save(file, array)
    else:
        Image.fromarray(array).save(
            file, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.rpartition(".")[2]), **options
        )
    return file.getvalue()


def is_small(content: bytes) -> bool:
    """Return whether a picture is not one that is valid but large, whose cost `--max-pixels` bounds."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.width * picture.height < 10**7
    except Exception:
        return True


@times
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, tmp_path, times):
    fuzz(
        broken(encoded(name)).filter(is_small),
        into(tmp_path / name, read_image, read_label, lambda path: read_stored(path, [1]), read_size),
        18,
        times,
    )


def volume() -> bytes:
    nibabel = pytest.importorskip("nibabel")
    return nibabel.Nifti1Image(np.stack([GREY, GREY], axis=2).astype(np.int16), np.eye(4)).to_bytes()


def tar() -> bytes:
    file, picture = io.BytesIO(), encoded("a.png")
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(picture)
        archive.addfile(member, io.BytesIO(picture))
    return file.getvalue()


def parquet() -> bytes:
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    writer.write_table(arrow.table({"image": [{"bytes": encoded("a.png"), "path": None}] * 2}), file)
    return file.getvalue()


FILES_OF_SEVERAL: dict[str, tuple[Callable[[], bytes], list[Callable[[Path], Any]]]] = {
    "a.nii": (volume, [lambda path: read_image(plane_paths(path)[-1]), lambda path: read_volume(path, "nifti")]),
    "a.nii.gz": (lambda: gzip.compress(volume()), [lambda path: read_image(plane_paths(path)[-1])]),
    "a.tar": (tar, [lambda path: read_image(path / "a.png")]),
    "a.parquet": (parquet, [lambda path: read_image(path / "00000/000001.image.png")]),
}


@times
@pytest.mark.parametrize("name", FILES_OF_SEVERAL)
def test_files_of_several_images(name, tmp_path, times):
    make, readers = FILES_OF_SEVERAL[name]
    fuzz(broken(make()), into(tmp_path / name, *readers), 15, times)


@times
@pytest.mark.parametrize("write", WRITERS)
def test_labels_in_every_format(write, tmp_path, times):
    image(tmp_path)
    dataset = train_set(tmp_path, write(tmp_path))
    assert len(dataset) == 1
    own = load_config(tmp_path / "a.yaml").train_dataloader.dataset | {
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    }
    (path, *_) = [path for path in sorted((tmp_path / "labels").rglob("*")) if path.is_file()]
    original = path.read_bytes()

    def use(content: Any) -> None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        opened = build_dataset(own)
        for _, label in opened.pairs:
            opened.check_label(label)
        for index in range(len(opened)):
            assert opened[index].label.shape == LABEL.shape

    fuzz(
        broken(original) if path.suffix != ".json" else broken(original) | changed(json.loads(original)), use, 12, times
    )


# Checkpoints

META = {
    "classes": CLASSES,
    "palette": [[1, 2, 3]] * 3,
    "step": 3,
    "metrics": {"mIoU": 1.5},
    "config": {"model": model_config()},
}


def pth(meta: Any) -> bytes:
    file = io.BytesIO()
    torch.save(
        {"meta": meta, "state_dict": {"a.weight": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.int64)}}, file
    )
    return file.getvalue()


def safetensors(meta: Any) -> bytes:
    texts = {str(key): json.dumps(value) for key, value in meta.items()} if isinstance(meta, dict) else {}
    return save({"a.weight": torch.ones(2, 3)}, texts)


@times
@pytest.mark.parametrize("write", [pth, safetensors])
def test_checkpoints(write, tmp_path, times):
    path = tmp_path / ("a.pth" if write is pth else "a.safetensors")
    readers = [inspect_checkpoint, read_checkpoint, *([read_state] if write is pth else [])]
    fuzz(broken(write(META)) | changed(META).map(write), into(path, *readers), 60, times)


@times
def test_facts_of_exported_models(times):
    facts = ModelFacts(classes=["road"], palette=[[1, 2, 3]]).texts()
    fuzz(changed(facts).map(lambda found: {str(key): str(text) for key, text in found.items()}),
         lambda texts: ModelFacts.read(texts, "m.onnx"), 30, times)  # fmt: skip


# Lists, tables, records

TEXTS: dict[str, tuple[str, list[Callable[[Path], Any]]]] = {
    "train.txt": ("a.png\nb/c.jpg labels/c.png\n名.png\n", [read_rows, read_class_table, names_in]),
    "a.csv": ("image,mask,split\na.png,a_mask.png,train\nb.png,b_mask.png,val\n",
              [read_rows, split_values, read_class_table]),
    "labelmap.txt": ("# label:color_rgb:parts:actions\nroad:1,2,3::\n", [read_class_table]),
    "colours.txt": ("road 1 2 3\nsky #102030\n", [lambda path: written_palette(str(path), CLASSES, [[0, 0, 0]] * 3)]),
    "classes.json": ('{"names": [{"name": "road", "id": 1, "color": [1, 2, 3]}]}', [read_class_table, read_json]),
    "data.yaml": ("names: {0: road, 1: sky}\npath: &p x\nval: *p\n", [names_in, read_class_table, load_dsdl]),
    "run.json": ('{"state": "running", "host": "x", "process": 1, "seconds": 2, "resumed": 3}',
                 [lambda path: read_record(path.parent)]),
    "metrics.jsonl": ('{"step": 1, "mode": "train", "loss": 0.5}\n{"step": 2, "mode": "val", "mIoU": 1.5}\n',
                      [lambda path: read_run(path.parent, "x")]),
}  # fmt: skip


@times
@pytest.mark.parametrize("name", TEXTS)
def test_lists_tables_and_records(name, tmp_path, times):
    text, readers = TEXTS[name]
    fuzz(broken(text.encode()) | st.text(max_size=40).map(lambda odd: odd.encode("utf-8", "surrogatepass")),
         into(tmp_path / name, *readers), 20, times)  # fmt: skip


# Writers: what they write is read back as it was

letters = st.characters(exclude_categories=["Cs"])
words = st.sampled_from(["a", "b", "c", "a_1", "名"])


@times
@pytest.mark.parametrize("name", ["a.py", "a.yaml", "a.json"])
def test_a_written_config_is_read_as_it_was(name, tmp_path, times):
    path = tmp_path / name

    def use(content: Any) -> None:
        Config(content).dump(path)
        found = load_config(path, upgrade=False).to_dict()
        assert repr(found) == repr(content)

    fuzz(st.dictionaries(words, scalars | st.lists(scalars, max_size=3), max_size=4), use, 30, times)


@times
def test_the_description_of_weights_is_read_as_it_was(tmp_path, times):
    def use(content: Any) -> None:
        names, config = content
        (tmp_path / "a.safetensors").write_bytes(save({"a": torch.ones(1)}, describe({"model": config}, names, [])))
        meta = read_checkpoint(tmp_path / "a.safetensors").meta
        assert meta["classes"] == names and meta["config"].keys() == {"model"}

    fuzz(
        st.tuples(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3), values),
        use,
        30,
        times,
    )
