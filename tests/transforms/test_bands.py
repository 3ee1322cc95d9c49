"""Images beyond 8-bit RGB: bands, 16 bits, real numbers, arrays, grey; from the file to the trained model's answer."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import terrazzo as tz
from support.tiny import CLASSES, model_config, save_label, street
from support.transforms import EVERY_KIND
from terrazzo import recipes
from terrazzo.cli.main import main
from terrazzo.config.short_form.data import set_in_channels
from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.system.painting import as_picture
from terrazzo.transforms.decode import read_image, read_size, read_stored

RNG = np.random.default_rng(0)
BANDS = RNG.integers(0, 60000, (20, 30, 8)).astype(np.uint16)


def write(path: Path, image: np.ndarray) -> Path:
    """An image of any number of bands, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".tif":
        options = {"planarconfig": "contig"} if image.ndim > 2 else {}
        pytest.importorskip("tifffile").imwrite(path, image, photometric="minisblack", **options)
    else:
        assert cv2.imwrite(str(path), image[..., ::-1] if image.shape[2] == 3 else image)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.int32])
def test_bands_are_read_as_stored_and_numbered_from_1(tmp_path, suffix, kind):
    image = (BANDS // 300).astype(kind)
    path = write(tmp_path / f"a{suffix}", image)
    found = read_stored(path, [3, 2, 1, 7])
    np.testing.assert_array_equal(found, image[..., [2, 1, 0, 6]])
    assert found.dtype == (kind if kind in (np.uint8, np.uint16, np.int16) else np.float32)
    assert read_stored(path).shape == (20, 30, 8) and read_size(path) == (20, 30)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20, 30), (20, 30, 1)), ((20, 30, 6), (20, 30, 6)), ((6, 20, 30), (20, 30, 6)), ((30, 20, 200), (30, 20, 200))],
)
def test_arrays_with_channels_last_or_first(tmp_path, shape, expected):
    array = RNG.normal(size=shape).astype(np.float32)
    found = read_stored(write(tmp_path / "a.npy", array))
    assert found.shape == expected
    np.testing.assert_array_equal(
        found[..., 0], array[0] if shape[0] == 6 else array.reshape(*expected[:2], -1)[..., 0]
    )


@pytest.mark.parametrize("layout", ["pixel", "band"])
def test_geotiff_by_rasterio(tmp_path, layout):
    rasterio = pytest.importorskip("rasterio")
    image = BANDS.astype(np.int16)
    image[:4] = -9999
    shape = {"height": 20, "width": 30, "count": 8, "dtype": "int16", "nodata": -9999}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", interleave=layout, **shape) as file:
        file.write(np.moveaxis(image, -1, 0))
    found = read_stored(tmp_path / "a.tif", [3, 8])
    assert np.isnan(found[:4]).all(), "pixels without data"
    np.testing.assert_array_equal(found[4:], image[4:][..., [2, 7]])
    with rasterio.open(tmp_path / "b.tif", "w", driver="GTiff", interleave=layout, **shape | {"count": 3}) as file:
        file.write(np.moveaxis(image[..., :3], -1, 0))
    if layout == "band":  # OpenCV would take this one for a grey image
        with pytest.raises(UserError, match=r"b.tif has 3 bands of 16 bits.* `bands: \[1, 2, 3\]`"):
            read_image(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("name", "image", "bands", "words"),
    [
        ("a.npy", BANDS[..., :6], [3, 2, 1, 7], ["a.npy has 6 bands", "numbered from 1", "band 7"]),
        ("a.npy", BANDS[..., :6], [0], ["asks for band 0"]),
        ("a.npy", BANDS[..., 0], [2], ["one band"]),
        ("a.npy", BANDS[None], [1], ["a.npy holds an array (1, 20, 30, 8) of uint16"]),
        ("a.npy", np.array(["x"]), [1], ["a.npy holds"]),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, image, bands, words):
    path = write(tmp_path / name, image)
    with pytest.raises(UserError) as error:
        read_stored(path, bands)
    assert all(word in str(error.value) for word in words), error.value


def test_an_array_read_as_a_picture_asks_for_bands(tmp_path):
    with pytest.raises(UserError, match=r"a.npy is an array, not a picture: name the bands"):
        read_image(write(tmp_path / "a.npy", BANDS))


def test_sixteen_bit_png_and_upright_photographs(tmp_path):
    image = BANDS[..., :3]
    np.testing.assert_array_equal(read_stored(write(tmp_path / "a.png", image), [1, 2, 3]), image)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray((image >> 8).astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif, quality=100)
    assert read_stored(tmp_path / "a.jpg").shape == read_image(tmp_path / "a.jpg").shape == (30, 20, 3)
    assert read_size(tmp_path / "a.jpg") == (30, 20)


def test_a_picture_to_look_at():
    assert as_picture(BANDS).shape == (20, 30, 3) and as_picture(BANDS).dtype == np.uint8
    real = BANDS.astype(np.float32)
    real[0] = np.nan
    assert (as_picture(real)[0] == 0).all() and as_picture(real).max() == 255
    grey = (BANDS[..., :1] >> 8).astype(np.uint8)
    np.testing.assert_array_equal(as_picture(grey), np.repeat(grey, 3, axis=2))


FAMILIES = [name for name in recipes.families() if name not in ("vpd", "san", "segnext")]  # bound to RGB; not for meta


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_any_number_of_channels(family):
    spec = recipes.family(family, 5, (128, 128))["model"]
    set_in_channels(spec, 4)
    with torch.device("meta"), torch.inference_mode():
        model = tz.build_model(spec).eval()
        assert model(torch.zeros(1, 4, 128, 128)).shape == (1, 5, 128, 128)


COLOUR = ("PhotoMetricDistortion", "AdjustGamma", "CLAHE", "RandomChoice")  # of 8 bits
RGB_ONLY = ("Normalize", "RGB2Gray")


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("spec", EVERY_KIND, ids=lambda spec: spec["type"])
def test_transforms_of_thirteen_bands(spec, kind):
    image = RNG.integers(0, 30000, (64, 80, 13)).astype(kind)
    label = Target(RNG.integers(0, 3, (64, 80)).astype(np.uint8))
    sample = Sample(image=image, targets={"label": label}, original_size=(64, 80))
    transform = TRANSFORMS.build(spec)
    if spec["type"] in RGB_ONLY or (spec["type"] in COLOUR and kind != np.float32):
        with pytest.raises(UserError, match=r"channels|8-bit images"):
            transform(sample, np.random.default_rng(0))
        return
    result = transform(sample, np.random.default_rng(0))
    assert result.image.shape[2] == 13
    assert result.image.shape[:2] == result.label.shape or spec["type"] == "SegRescale"  # of labels alone
    assert spec["type"] in (*COLOUR, "Rerange") or result.image.dtype == kind


# From the files to the trained model


def multispectral(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight 16-bit bands, of which only the 7th tells the classes apart, and the label."""
    rng = np.random.default_rng(seed)
    _, label = street(seed)
    image = rng.normal(3000, 200, (*label.shape, 8))
    image[..., 6] += 4000.0 * label
    return image.astype(np.uint16), label


def make_multispectral(root: Path, suffix: str) -> Path:
    for split, seeds in (("train", range(6)), ("val", range(100, 103))):
        for seed in seeds:
            image, label = multispectral(seed)
            write(root / "images" / split / f"{seed}{suffix}", image)
            save_label(root / "labels" / split / f"{seed}.png", label)
    return root


def short_form(path: Path, **more) -> Path:
    data = {"root": str(path.parent), "classes": CLASSES, "bands": [3, 2, 1, 7]} | more.pop("data", {})
    values = {"recipe": "unet", "data": data, "crop": "32x32", "batch": 2, "iterations": 4, "workers": 0, **more}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_from_multispectral_files_to_predictions(tmp_path, suffix):
    make_multispectral(tmp_path, suffix)
    small = {"backbone": {"base_channels": 4}, "decode_head": {"in_channels": 4}, "auxiliary_head": None}
    config = short_form(tmp_path / "a.yaml", model=small, mean=[3000, 3000, 3000, 6000], std=[200, 200, 200, 3000])
    run = tz.train(config, work_dir=tmp_path / "run", quiet=True, device="cpu")
    segmenter = tz.load(run.last)
    file = tmp_path / "images" / "val" / f"100{suffix}"
    prediction = segmenter(file)
    assert prediction.image.shape == (32, 40, 4) and prediction.labels.shape == (32, 40)
    assert prediction.overlay().shape == (32, 40, 3)
    np.testing.assert_array_equal(segmenter(multispectral(100)[0][..., [2, 1, 0, 6]]).labels, prediction.labels)
    with pytest.raises(UserError, match=r"takes arrays \(H, W, 4\) .* not \(32, 40, 8\) uint16"):
        segmenter(multispectral(100)[0])
    folder = tmp_path / "images" / "val"
    assert main(["predict", "--model", str(run.last), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert main(["test", str(config), str(run.last), "--show-dir", str(tmp_path / "show")]) == 0
    assert (tmp_path / "out" / "100_overlay.png").exists() and (tmp_path / "show" / "100.png").exists()


def test_grey_images(tmp_path):
    config = short_form(tmp_path / "a.yaml", in_channels=1, data={"bands": None})
    model = tz.build_model(tz.load_config(config))
    assert model.backbone.encoder[0][0].convs[0].conv.in_channels == 1
    sample = Sample(image_path=write(tmp_path / "a.png", street(0)[0]))
    loader = TRANSFORMS.build(tz.load_config(config).train_dataloader.dataset.pipeline[0])
    assert loader(sample, RNG).image.shape == (32, 40, 1)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ["mean", "std", "terrazzo data stats"]),
        ({"in_channels": 3}, ["in_channels is 3", "names 4 bands"]),
        ({"mean": [1, 2, 3, 4]}, ["`mean` is given alone"]),
        ({"mean": [1, 2, 3], "std": [1, 1, 1]}, ["`mean` must be a list of 4 numbers"]),
        ({"mean": [1, 2, 3, 4], "std": [1, 0, 1, 1]}, ["`std` must be above zero"]),
        ({"data": {"bands": [0, 1]}}, ["data.bands", "from 1"]),
        ({"data": {"bands": 3}}, ["data.bands"]),
        ({"in_channels": 0, "data": {"bands": None}}, ["in_channels"]),
    ],
)
def test_mistakes_about_bands(tmp_path, more, words):
    with pytest.raises(UserError) as error:
        tz.load_config(short_form(tmp_path / "a.yaml", **more))
    assert all(word in str(error.value) for word in words), error.value


def test_pixels_without_data_become_the_mean():
    model = model_config()
    model = tz.build_model(
        {"type": "EncoderDecoder", "data_preprocessor": {"mean": [5.0, 6.0], "std": [2.0, 2.0]}}
        | {"backbone": model["backbone"] | {"in_channels": 2}, "decode_head": model["decode_head"]}
    )
    images = torch.full((1, 2, 4, 4), torch.nan)
    images[0, 0, 0, 0] = 9
    found = model.preprocess(images)
    assert found[0, 0, 0, 0] == 2 and found.abs().sum() == 2
    with pytest.raises(UserError, match="the images have 3 channels, `mean` and `std` of the data_preprocessor 2"):
        model.preprocess(torch.zeros(1, 3, 4, 4))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("read", [read_image, read_size, read_stored], ids=lambda read: read.__name__)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path, name, read):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is not a file"):
        read(tmp_path / name)
