"""Every reader with broken, wrong and odd input. What hypothesis found is in the tests of the reader."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from support.fuzz import MANY, QUICK, broken, changed, fuzz, one_message
from support.scenes import save_scene
from support.tiny import CLASSES, make_streets, model_config, short_form
from terrazzo.checkpoints.inspect import inspect_checkpoint
from terrazzo.config.load import load_config
from terrazzo.data.build import build_dataset
from terrazzo.data.declarations.decathlon import read_dataset_json
from terrazzo.data.declarations.dsdl import load as load_dsdl
from terrazzo.data.listing import read_rows, split_values
from terrazzo.data.pairs import read_groups
from terrazzo.data.remote import read_index
from terrazzo.data.spec import Source
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.load import open_onnx
from terrazzo.inference.many.manifest import Manifest
from terrazzo.inference.many.shards import read_done
from terrazzo.inference.many.sources import Item
from terrazzo.inference.scenes.store import Layer, Store
from terrazzo.inference.scenes.vectors import save_with_ogr
from terrazzo.inference.video.reading import Frames
from terrazzo.models.checkpoint import legend_of, read_checkpoint
from terrazzo.serving.gate import Refused
from terrazzo.serving.label_studio import Interface
from terrazzo.system.palette import written_palette
from terrazzo.system.text import read_json
from terrazzo.training.checkpoints import read_state
from terrazzo.training.monitoring.runs import read_record, read_run
from terrazzo.transforms.decode import read_image, read_size, read_stored
from terrazzo.transforms.formats.tables import read_class_table
from terrazzo.transforms.formats.vector import read_facts, read_layer
from terrazzo.transforms.formats.yolo import names_in
from terrazzo.transforms.label_files import read_label
from terrazzo.transforms.planes import plane_paths
from terrazzo.transforms.scenes import georeference, valid_pixels
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


CONFIGS = {
    "a.yaml": b"a: 1\nb: [1, 2, {c: x}]\noptimizer: &o {type: SGD, lr: 0.1}\nother: *o\n",
    "a.json": b'{"a": 1, "b": [1, 2, {"c": "x"}], "optimizer": {"type": "SGD", "lr": 0.1}}',
    "a.py": b"a = 1\nb = [1, dict(c='x')]\noptimizer = dict(type='SGD', lr=a * 0.1)\n",
}


@times
@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name, tmp_path, times):
    fuzz(broken(CONFIGS[name]), into(tmp_path / name, lambda path: load_config(path, upgrade=False)), 12, times)


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


def clip(name: str, codec: str) -> bytes:
    path = Path(tempfile.mkdtemp()) / name
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10.0, (48, 40))
    for index in range(4):
        writer.write(np.roll(RGB, 8 * index, axis=1))
    writer.release()
    return path.read_bytes()


def read_frames(path: Path) -> None:
    frames = Frames(path)
    try:
        for _ in itertools.islice(frames, 6):
            pass
    finally:
        frames.close()


def scene() -> bytes:
    pytest.importorskip("rasterio")
    path = Path(tempfile.mkdtemp()) / "a.tif"
    return save_scene(path, GRADIENT[None], nodata=0).read_bytes()


def polygons(name: str) -> bytes:
    pytest.importorskip("pyogrio")
    shapely, crs = pytest.importorskip("shapely"), pytest.importorskip("rasterio.crs").CRS.from_epsg(4326)
    path = Path(tempfile.mkdtemp()) / name
    save_with_ogr(path, np.array([shapely.box(0, 0, 9, 9)], object), {"class": np.array(["road"], object)}, crs)
    return path.read_bytes()


def read_polygons(path: Path) -> None:
    read_facts.cache_clear()
    read_layer.__wrapped__(path, "class")


FILES_OF_SEVERAL: dict[str, tuple[Callable[[], bytes], list[Callable[[Path], Any]]]] = {
    "a.nii": (volume, [lambda path: read_image(plane_paths(path)[-1]), lambda path: read_volume(path, "nifti")]),
    "a.nii.gz": (lambda: gzip.compress(volume()), [lambda path: read_image(plane_paths(path)[-1])]),
    "scene.tif": (scene, [georeference, lambda path: valid_pixels(path, GRADIENT[..., None])]),
    "a.geojson": (lambda: polygons("a.geojson"), [read_polygons]),
    "a.gpkg": (lambda: polygons("a.gpkg"), [read_polygons]),
    "a.mp4": (lambda: clip("a.mp4", "mp4v"), [read_frames]),
    "a.avi": (lambda: clip("a.avi", "MJPG"), [read_frames]),
    "a.mkv": (lambda: clip("a.mkv", "FFV1"), [read_frames]),
    "a.tar": (tar, [lambda path: read_image(path / "a.png")]),
    "a.parquet": (parquet, [lambda path: read_image(path / "00000/000001.image.png")]),
}


@times
@pytest.mark.parametrize("name", FILES_OF_SEVERAL)
def test_volumes_shards_scenes_polygons_and_videos(name, tmp_path, times):
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
    inputs = broken(write(META)) | changed(META).map(write)
    if write is pth:  # whose metadata may be tensors too
        inputs |= st.sampled_from(list(META)).map(lambda key: pth(META | {key: torch.ones(3)}))
    fuzz(inputs, into(path, *readers, lambda path: legend_of(read_checkpoint(path))), 60, times)


@times
def test_facts_of_exported_models(times):
    facts = ModelFacts(classes=["road"], palette=[[1, 2, 3]]).texts()
    fuzz(changed(facts).map(lambda found: {str(key): str(text) for key, text in found.items()}),
         lambda texts: ModelFacts.read(texts, "m.onnx"), 30, times)  # fmt: skip


@pytest.mark.slow
def test_exported_models(exported, tmp_path):
    fuzz(broken(exported.onnx.read_bytes()), into(tmp_path / "m.onnx", lambda path: open_onnx(path, False)), 30, 10)


# Lists, tables, records


def read_listing(path: Path) -> None:
    for name in "abc":
        (path.parent / f"{name}.nii.gz").touch()
    read_dataset_json(Source(path.parent, None, path, path.parent, False))


def read_manifest(path: Path) -> None:
    item = Item(path.parent / "a.png", Path(), "a")
    Manifest(path.parent, "x").is_done(item)


def read_journal(path: Path) -> None:
    """Resume a scene whose journal this is."""
    content, layers = path.read_bytes(), {"labels": Layer(1, "uint8")}
    Store(path.parent, (4, 4), layers, {}).close()
    path.write_bytes(content)
    Store(path.parent, (4, 4), layers, {}, resume=True).close()


def read_interface(path: Path) -> None:
    with suppress(Refused):
        Interface.read(path.read_text(errors="replace")).classes(["road"])


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
    "groups.csv": ("a.png,first\nb.png,second\n", [lambda path: read_groups(path, ["a.png", "b.png"])]),
    "dataset.json": ('{"labels": {"0": "background", "1": "liver"}, "test": ["./c.nii.gz"], '
                     '"training": [{"image": "./a.nii.gz", "label": "./b.nii.gz"}]}', [read_listing]),
    "versions.json": ('{"a.png": [3, "x"]}', [read_index, read_done]),
    ".manifest.jsonl": ('{"source": "a.png", "input": [1, 2], "files": {"a.png": [1, 2]}, "job": "x"}\n',
                        [read_manifest]),
    "journal.jsonl": ('{"chunk": 0, "rows": 3, "damaged": [[1, 2, 3, 4]]}\n', [read_journal]),
    "interface.xml": ('<View><Image name="image" value="$image"/><BrushLabels name="l" toName="image">'
                      '<Label value="road"/></BrushLabels></View>', [read_interface]),
    "metrics.jsonl": ('{"step": 1, "mode": "train", "loss": 0.5}\n{"step": 2, "mode": "val", "mIoU": 1.5}\n',
                      [lambda path: read_run(path.parent, "x")]),
}  # fmt: skip


@times
@pytest.mark.parametrize("name", TEXTS)
def test_lists_tables_and_records(name, tmp_path, times):
    text, readers = TEXTS[name]
    odd = st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
    others = (
        changed(json.loads(text.splitlines()[0])).map(lambda value: json.dumps(value).encode())
        if text[0] == "{"
        else odd
    )
    fuzz(broken(text.encode()) | odd | others, into(tmp_path / name, *readers), 20, times)
