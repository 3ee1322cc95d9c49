"""Segmenter and Prediction: images in, class maps and pictures out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import terrazzo as tz
from support.tiny import (
    CLASSES,
    environment,
    fit,
    make_streets,
    model_config,
    save_image,
    street,
    tiny_config,
    write_config,
)
from terrazzo.errors import UserError
from terrazzo.system.palette import suggested_palette


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def best(streets, tmp_path_factory) -> Path:
    return fit(tiny_config(streets, steps=40, batch=4), tmp_path_factory.mktemp("run")).best


@pytest.fixture(scope="module")
def segmenter(best):
    return tz.load(best, device="cpu")


SIZES = [(32, 40), (31, 57), (64, 33)]


def test_path_array_and_pil_image_give_the_same(segmenter, streets):
    path = streets / "images" / "val" / "00.png"
    array = street(100)[0]
    given = [path, str(path), array, Image.fromarray(array)]
    labels = [segmenter(source).labels for source in given]
    assert all(np.array_equal(labels[0], other) for other in labels[1:])
    assert (labels[0] == street(100)[1]).mean() > 0.9


def test_a_list_and_a_folder_give_iterators(segmenter, streets):
    folder = streets / "images" / "val"
    paths = sorted(folder.iterdir())
    for source in (paths, folder, str(folder), iter(paths)):
        predictions = segmenter(source)
        assert next(predictions).path == paths[0], "one at a time"
        assert [prediction.path for prediction in predictions] == paths[1:]


def test_predictions_of_a_list_and_a_folder_have_a_length(segmenter, streets):
    folder = streets / "images" / "val"
    assert len(segmenter(folder)) == len(segmenter(list(folder.iterdir()))) == 3
    assert repr(segmenter(folder)) == "Predictions(3 images)"
    with pytest.raises(TypeError):
        len(segmenter(iter(folder.iterdir())))
    assert len(list(segmenter(iter(folder.iterdir())))) == 3


def test_what_a_notebook_shows(segmenter):
    assert repr(segmenter) == "Segmenter(3 classes: sky, road, car; RGB; on cpu)"
    page = segmenter._repr_html_()
    assert all(text in page for text in (*CLASSES, *(f"rgb{tuple(colour)}" for colour in segmenter.palette)))
    prediction = segmenter(street(100, 320, 400)[0])
    picture = cv2.imdecode(np.frombuffer(prediction._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(picture, prediction.overlay(legend=True))
    np.testing.assert_array_equal(picture[:, :400], prediction.overlay())
    assert picture.shape[1] > 400


def test_the_class_map_as_an_array(segmenter, tmp_path):
    prediction = segmenter(street(100)[0])
    assert prediction.save(tmp_path / "x.npy") == tmp_path / "x.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), prediction.labels)


def test_images_of_too_many_pixels_or_for_too_little_memory_are_named(segmenter, streets, monkeypatch):
    path = streets / "images" / "val" / "00.png"
    monkeypatch.setattr(segmenter, "max_pixels", 1279)
    for source, name in ((path, str(path)), (street(1)[0], "this image")):
        with pytest.raises(UserError, match=f"{name} has 40x32 pixels, more than the limit of 1279"):
            segmenter(source)
    monkeypatch.setattr(segmenter, "max_pixels", None)
    monkeypatch.setattr(segmenter.runtime, "infer", lambda *_: np.empty(2**50))
    with pytest.raises(UserError, match=r"not enough memory to segment .*00.png \(8.00 PiB more\): cut it into tiles"):
        segmenter(path)


def test_an_error_does_not_end_the_iterator(segmenter, streets, tmp_path):
    shutil.copytree(streets / "images" / "val", tmp_path / "images")
    (tmp_path / "images" / "01.png").write_bytes(b"no image")
    predictions, found = segmenter(tmp_path / "images"), []
    while True:
        try:
            found.append(next(predictions).path.name)
        except StopIteration:  # noqa: PERF203
            break
        except UserError as problem:
            found.append(str(problem))
    assert found[0] == "00.png" and "01.png" in found[1] and found[2:] == ["02.png"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pipeline", ["none", "resize", "pad"])
def test_everything_is_at_the_images_own_size(best, size, pipeline):
    steps = {
        "none": [],
        "resize": [{"type": "Resize", "scale": (96, 64), "keep_ratio": True}],
        "pad": [{"type": "Pad", "size_divisor": 32}],
    }[pipeline]
    checkpoint = tz.models.checkpoint.read_checkpoint(best)
    config = checkpoint.meta["config"]
    config["test_dataloader"]["dataset"]["pipeline"][1:1] = steps
    prediction = tz.load(config, checkpoint=best, device="cpu")(street(7, *size)[0])
    assert prediction.labels.shape == size and prediction.labels.dtype == np.uint8
    assert prediction.probs.shape == (3, *size) and prediction.probs.dtype == np.float32
    assert prediction.confidence.shape == size
    np.testing.assert_allclose(prediction.probs.sum(0), 1, atol=1e-5)
    assert (prediction.probs.argmax(0) == prediction.labels).all()
    np.testing.assert_array_equal(prediction.confidence, prediction.probs.max(0))
    assert (prediction.labels == street(7, *size)[1]).mean() > 0.8


def test_classes_palette_and_text(segmenter):
    prediction = segmenter(street(100)[0])
    assert prediction.classes == CLASSES
    assert prediction.palette == suggested_palette(CLASSES)
    assert repr(prediction) == "Prediction(40x32: sky, road, car)"


@pytest.mark.parametrize("opacity", [0, 0.5, 1])
def test_overlay(segmenter, opacity):
    image = street(100)[0]
    prediction = segmenter(image)
    colours = np.array(prediction.palette, np.float32)[prediction.labels]
    expected = np.rint(image + opacity * (colours - image))
    np.testing.assert_allclose(prediction.overlay(opacity), expected, atol=1)
    assert prediction.overlay(opacity).dtype == np.uint8


def test_a_saved_class_map_is_an_indexed_png_that_reads_back(segmenter, tmp_path):
    prediction = segmenter(street(100)[0])
    path = prediction.save(tmp_path / "out.png")
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), prediction.labels)
        colours = np.array(prediction.palette, np.uint8)[prediction.labels]
        np.testing.assert_array_equal(np.array(image.convert("RGB")), colours)
    np.testing.assert_array_equal(tz.transforms.read_label(path), prediction.labels)


def test_a_saved_overlay_is_a_picture(segmenter, tmp_path):
    prediction = segmenter(street(100)[0])
    prediction.save(tmp_path / "out.png", opacity=0.5)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out.png"))[..., ::-1], prediction.overlay(0.5))


@pytest.mark.parametrize(
    ("name", "message"), [("out.jpg", "use .png"), ("gone/out.png", "cannot save"), ("out.xyz", "cannot save")]
)
def test_places_where_a_class_map_cannot_go(segmenter, tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        segmenter(street(100)[0]).save(tmp_path / name)


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1)])
def test_grey_arrays(segmenter, shape):
    assert segmenter(np.full(shape, 90, np.uint8)).labels.shape == (20, 24)


def test_an_image_too_small_for_its_model_is_named(tmp_path):
    narrow = {
        "backbone": {"base_channels": 4},
        "decode_head": {"in_channels": 4, "channels": 4},
        "auxiliary_head": {"in_channels": 8, "channels": 4},
    }
    config = tz.load_config({"recipe": "unet", "data": {"root": ".", "classes": ["a", "b"]}, "model": narrow})
    torch.save({"state_dict": tz.build_model(config).state_dict()}, tmp_path / "unet.pth")
    segmenter = tz.load(config, tmp_path / "unet.pth")
    with pytest.raises(UserError, match=r"does not run on images of 7x7 pixels.*such as to 32x32"):
        segmenter(np.zeros((7, 7, 3), np.uint8))


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((20, 24, 3), np.float32),
        np.zeros((20, 24), np.float64),
        np.zeros((20, 24, 4), np.uint8),
        np.zeros((3, 20, 24), np.uint8),
        np.zeros((0, 24, 3), np.uint8),
        7,
        None,
        "missing.png",
        torch.zeros(3, 8, 8),
    ],
    ids=lambda source: str(getattr(source, "dtype", source)),
)
def test_what_is_no_image(segmenter, source):
    with pytest.raises(UserError):
        segmenter(source)


def test_an_empty_folder(segmenter, tmp_path):
    with pytest.raises(UserError, match="contains no image"):
        segmenter(tmp_path)


# What a Segmenter is loaded from


def test_best_safetensors_alone_suffices(best, streets, tmp_path):
    """In another process, another folder, and with nothing else of the run left."""
    shutil.copy(best, tmp_path / "model.safetensors")
    shutil.copy(streets / "images" / "val" / "00.png", tmp_path / "photo.png")
    code = "import terrazzo as tz; p = tz.load('model.safetensors')('photo.png'); print(p.classes, p.labels.shape)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.stdout.strip() == f"{CLASSES} (32, 40)", result.stderr


def weights_of(best: Path, path: Path, meta: dict | None = None) -> Path:
    """The weights as MMSegmentation would save them."""
    torch.save({"state_dict": tz.models.checkpoint.read_checkpoint(best).weights, "meta": meta or {}}, path)
    return path


@pytest.mark.parametrize("kind", ["path", "config", "dict"])
def test_a_config_with_a_checkpoint(best, streets, tmp_path, kind):
    values = tiny_config(streets)
    path = write_config(tmp_path / "config.yaml", values)
    source = {"path": path, "config": tz.load_config(path), "dict": values}[kind]
    segmenter = tz.load(source, checkpoint=weights_of(best, tmp_path / "x.pth"), device="cpu")
    assert segmenter.classes == CLASSES
    expected = tz.load(best, device="cpu")(street(100)[0]).labels
    np.testing.assert_array_equal(segmenter(street(100)[0]).labels, expected)


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": ("a", "b", "c"), "PALETTE": [[1, 1, 1], [2, 2, 2], [3, 3, 3]]},
        {"dataset_meta": {"classes": ("a", "b", "c"), "palette": [[1, 1, 1], [2, 2, 2], [3, 3, 3]]}},
    ],
    ids=["0.x", "1.x"],
)
def test_classes_and_palette_of_the_checkpoint(best, streets, tmp_path, meta):
    segmenter = tz.load(tiny_config(streets), checkpoint=weights_of(best, tmp_path / "x.pth", meta), device="cpu")
    assert segmenter.classes == ["a", "b", "c"]
    assert segmenter.palette == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.safetensors", "no checkpoint file"),
        ("missing.yaml", "no config file"),
        ("no-such-recipe_r50", "no-such-recipe"),
    ],
)
def test_what_cannot_be_loaded(source, message):
    with pytest.raises(UserError, match=message):
        tz.load(source, device="cpu")


def test_weights_without_a_config_say_what_is_missing(best, tmp_path):
    with pytest.raises(UserError, match=r"without a config.*--config"):
        tz.load(weights_of(best, tmp_path / "x.pth"), device="cpu")


def test_a_config_without_weights_says_what_is_missing(streets, tmp_path):
    with pytest.raises(UserError, match="give its weights too"):
        tz.load(write_config(tmp_path / "config.yaml", tiny_config(streets)), device="cpu")


def test_weights_that_fit_in_part_are_refused(streets, tmp_path):
    model = tz.build_model(model_config(4))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"decode_head.conv_seg.weight"):
        tz.load(tiny_config(streets), checkpoint=tmp_path / "x.pth", device="cpu")


def test_a_device_that_is_not_there(best):
    with pytest.raises(UserError, match=r"device 'cuda:99' cannot be used here .*available: cpu"):
        tz.load(best, device="cuda:99")


DENORMALS = """
import sys, threading, torch
before = torch.full((2**20,), 1e-30) @ torch.ones(2**20)  # the pool of threads runs
torch.ones(2**22).mul(2).sum()
from terrazzo.system.devices import choose_device
choose_device("cpu")
tiny = torch.full((2**22,), 1e-30)
products = tiny * 1e-10  # each is a denormal number, spread over all threads
matrix = torch.full((256, 256), 1e-22) @ torch.full((256, 256), 1e-22)
found = []
thread = threading.Thread(target=lambda: found.append(int((tiny * 1e-10).count_nonzero())))
thread.start(); thread.join()
print(int(products.count_nonzero()), int(matrix.count_nonzero()), found[0])
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_denormals_are_flushed_in_all_threads(threads):
    environ = environment() | {"OMP_NUM_THREADS": str(threads)}
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    result = subprocess.run([sys.executable, "-c", DENORMALS], env=environ, capture_output=True, text=True)
    assert result.stdout.split() == ["0", "0", "0"], result.stderr


def test_images_are_read_upright(segmenter, tmp_path):
    """A phone stores a turned picture with a note; the prediction is as one sees it."""
    image = Image.fromarray(street(100)[0])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    prediction = segmenter(tmp_path / "turned.jpg")
    assert prediction.labels.shape == (40, 32) == prediction.image.shape[:2]


def test_a_folder_takes_images_alone(segmenter, tmp_path):
    save_image(tmp_path / "b.JPG", street(1)[0])
    save_image(tmp_path / "a.png", street(2)[0])
    (tmp_path / "notes.txt").write_text("x")
    assert [prediction.path.name for prediction in segmenter(tmp_path)] == ["a.png", "b.JPG"]
