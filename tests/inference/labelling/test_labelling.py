"""Class maps for labelling tools: what is written is read back, by `data init` and the label formats."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import terrazzo as tz
from support.scenes import save_model
from support.tiny import save_image, street
from terrazzo.cli.main import main
from terrazzo.cli.predict import TOOLS as OFFERED
from terrazzo.config.load import load_config
from terrazzo.data.build import build_dataset
from terrazzo.data.discovery.propose import Proposal
from terrazzo.inference.labelling.tools import TOOLS, distinct
from terrazzo.system.terminal import Console
from terrazzo.transforms.label_files import read_label

LOADING = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
WITHIN_A_PIXEL = ("labelme", "yolo")
CLASSES = {
    "with a background": ["road", "background", "a tree", "car"],
    "without": ["sky", "road", "树", "car"],
}
PALETTE = [[128, 64, 128], [9, 9, 9], [0, 200, 0], [0, 0, 142]]


def scene(seed: int) -> np.ndarray:
    """A class map (H, W) of rings with holes in one another, noise, single pixels and some of no class."""
    y, x = np.mgrid[:48, :64]
    labels = (np.hypot(y - 20, x - 24) // 7).astype(np.uint8) % 4
    labels[30:, 40:] = cv2.resize(np.random.default_rng(seed).integers(0, 4, (6, 8)).astype(np.uint8), (24, 18))
    labels[5, 50] = labels[6, 51] = 3
    labels[40:44, 2:9] = 255
    return labels


def read_back(folder: Path, target: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The classes and the class maps of all images that `data init` finds in a folder."""
    target.write_text(Proposal(folder, "fastscnn", Console(quiet=True)).text(target, []), encoding="utf-8")
    config = load_config(target)
    labels = {}
    for name in ("train_dataloader", "val_dataloader"):
        dataset: Any = build_dataset({**config[name]["dataset"], "pipeline": LOADING})
        for index in range(len(dataset)):
            sample = dataset[index]
            labels[Path(sample.image_path).stem] = sample.label
    return list(config["train_dataloader"]["dataset"]["metainfo"]["classes"]), labels


def write(folder: Path, name: str, classes: list[str]) -> dict[str, np.ndarray]:
    """Write three images for a tool, and return their class maps."""
    tool = TOOLS[name](folder, classes, PALETTE)
    written = {}
    for seed, above in enumerate(("", "", "deeper")):
        path = PurePosixPath(above) / f"photo{seed}.png"
        (folder / tool.images / path).parent.mkdir(parents=True, exist_ok=True)
        image = save_image(folder / tool.images / path, street(seed, 48, 64)[0])
        written[path.stem] = scene(seed)
        tool.add(path, written[path.stem], image)
    tool.finish()
    return written


@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("name", TOOLS)
def test_labels_are_read_back(name, classes, tmp_path):
    written = write(tmp_path / name, name, classes)
    names, found = read_back(tmp_path / name, tmp_path / "found.yaml")
    assert found.keys() == written.keys()
    for stem, labels in written.items():
        read = np.array([*names, *["no class"] * (256 - len(names))], object)[found[stem]]
        meant = np.array([*classes, *["no class"] * (256 - len(classes))], object)[labels]
        blank = ("background", "no class")  # pixels that nothing covers
        wrong = (read != meant) & ~(np.isin(read, blank) & np.isin(meant, blank))
        if name in WITHIN_A_PIXEL:
            kernel = np.ones((3, 3), np.uint8)
            wrong &= cv2.dilate(labels, kernel) == cv2.erode(labels, kernel)
        assert not wrong.any(), f"{stem}: {read[wrong]} for {meant[wrong]}"


@pytest.mark.parametrize(("name", "form"), [("coco", "coco_instances"), ("cvat", "voc_segmentation")])
def test_datumaro_with_which_cvat_imports_reads_the_masks(name, form, tmp_path):
    datumaro = pytest.importorskip("datumaro")
    classes = CLASSES["without"]
    written = write(tmp_path / name, name, classes)
    dataset = datumaro.Dataset.import_from(str(tmp_path / name), form)
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    assert len(dataset) == len(written)
    for item in dataset:
        found = np.full(written["photo0"].shape, 255)
        for shape in item.annotations:
            if shape.type == datumaro.AnnotationType.mask and names[shape.label] in classes:
                found[shape.image > 0] = classes.index(names[shape.label])
        assert np.array_equal(found, written[PurePosixPath(item.id).name])


def test_fiftyone_reads_the_masks(tmp_path):
    importers = pytest.importorskip("fiftyone.utils.data.importers")
    written = write(tmp_path / "fiftyone", "fiftyone", CLASSES["without"])
    importer = importers.LegacyFiftyOneDatasetImporter(str(tmp_path / "fiftyone"))
    importer.setup()
    samples = {Path(sample.filepath).stem: sample for sample in importer}
    assert samples.keys() == written.keys() and all(Path(sample.filepath).is_file() for sample in samples.values())
    for stem, labels in written.items():
        assert np.array_equal(samples[stem].labels.get_mask(), np.where(labels == 255, 0, labels + 1))


def test_every_tool_is_offered():
    assert tuple(TOOLS) == OFFERED


def test_colours_of_classes_are_distinct():
    assert distinct(PALETTE, 1) == [PALETTE[0], [0, 0, 0], *PALETTE[2:]]
    found = distinct([[1, 2, 3], [1, 2, 3], [0, 0, 0]], None)
    assert len({(0, 0, 0), *map(tuple, found)}) == 4


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors", bands=3, spread=(120.0, 60.0))


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("a", "b", "in/a"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(tmp_path / "photos" / f"{name}.png", street(len(name))[0])
    return tmp_path / "photos"


def predict(*arguments: object) -> Any:
    try:
        return main(["predict", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


def test_predict_writes_for_tools(photos, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(photos, "--model", model, "--out", out, "--to", "coco", "--to", "label-studio") == 0
    content = json.loads((out / "coco" / "annotations" / "instances_default.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png", "in/a.png"]
    tasks = json.loads((out / "label-studio" / "tasks.json").read_text())
    assert tasks[2]["data"]["image"] == "/data/local-files/?d=images/in/a.png"
    classes = tz.load(model).classes
    names, found = read_back(out / "coco", tmp_path / "coco.yaml")
    assert (np.array(names)[found["b"]] == np.array(classes)[read_label(out / "b.png")]).all()
    assert {path.name for path in out.iterdir()} >= {"coco", "label-studio", "a.png", "in"}

    (out / "coco" / "annotations" / "instances_default.json").write_text("corrected")
    assert predict(photos, "--model", model, "--out", out, "--to", "coco") == 1
    assert "perhaps with corrections" in capsys.readouterr().err
    assert (out / "coco" / "annotations" / "instances_default.json").read_text() == "corrected"
    assert predict(photos, "--model", model, "--out", out, "--to", "coco", "--to", "yolo", "--resume") == 0
    assert f"of an earlier run, left as they are: {out / 'coco'}" in capsys.readouterr().out
    assert (out / "coco" / "annotations" / "instances_default.json").read_text() == "corrected"
    assert len(yaml.safe_load((out / "yolo" / "data.yaml").read_text())["names"]) == len(classes)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--to", "paper"], 2, "is none of labelme"),
        (["--to", "coco", "--shard", "1/2"], 2, "omit --shard"),
        (["clip.mp4", "--to", "coco"], 1, "is not an image file"),
    ],
)
def test_what_cannot_be_written_for_a_tool(arguments, code, message, photos, model, capsys):
    (photos / "clip.mp4").write_bytes(b"-")
    arguments = [photos / word if word == "clip.mp4" else word for word in arguments]
    assert predict(photos / "a.png", *arguments, "--model", model, "--out", photos / "out") == code
    assert message in capsys.readouterr().err
    assert not (photos / "out").exists()


def test_polygons_of_a_geotiff_are_in_degrees(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("pyogrio")
    (tmp_path / "geojson" / "images").mkdir(parents=True)
    image = tmp_path / "geojson" / "images" / "field.tif"
    about = {"width": 64, "height": 48, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(image, "w", "GTiff", transform=rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5.6e6), **about) as file:
        file.write(street(0, 48, 64)[0].transpose(2, 0, 1))
    tool = TOOLS["geojson"](tmp_path / "geojson", ["soil", "crop", "weed", "tree"], PALETTE)
    tool.add(PurePosixPath("field.tif"), scene(0), image)
    content = json.loads((tmp_path / "geojson" / "labels" / "field.geojson").read_text())
    longitude, latitude = content["features"][0]["geometry"]["coordinates"][0][0]
    assert 13 < longitude < 14 and 50 < latitude < 51
    form = tz.transforms.formats.base.make_label_format("geojson", tmp_path, tool.classes)
    assert np.array_equal(form.read(tmp_path / "geojson" / "labels" / "field.geojson", image, (48, 64)), scene(0))


def test_masks_of_fiftyone_number_the_classes_from_one(tmp_path):
    image = save_image(tmp_path / "a.png", street(0, 48, 64)[0])
    tool = TOOLS["fiftyone"](tmp_path / "made", CLASSES["without"], PALETTE)
    tool.add(PurePosixPath("a.png"), scene(0), image)
    tool.finish()
    (sample,) = json.loads((tmp_path / "made" / "samples.json").read_text())["samples"]
    assert sample["filepath"] == "fields/images/a.png" and sample["labels"]["_cls"] == "Segmentation"
    mask = np.asarray(Image.open(tmp_path / "made" / sample["labels"]["mask_path"]))
    assert np.array_equal(mask, np.where(scene(0) == 255, 0, scene(0) + 1))
    info = json.loads((tmp_path / "made" / "metadata.json").read_text())["info"]
    assert info["default_mask_targets"] == {"1": "sky", "2": "road", "3": "树", "4": "car"}
