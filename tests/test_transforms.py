"""The transforms against facts measured from MMSegmentation, and against what their documentation promises."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.transforms import Compose, read_image, read_label
from terrazzo.transforms.crop import ResizeCrop
from terrazzo.transforms.decode import map_label
from terrazzo.transforms.geometry import crop, resize, resize_crop

GOLDEN = json.loads((Path(__file__).parent / "golden" / "transforms.json").read_text())["cases"]


def synthetic_image(height=97, width=131, seed=0, channels=3):
    """Waves with noise, in RGB."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:height, :width]
    base = np.stack([127 + 100 * np.sin(x / (7 + 3 * k)) * np.cos(y / (11 - 2 * k)) for k in range(channels)], -1)
    image = np.clip(base + generator.normal(0, 12, (height, width, channels)), 0, 255).astype(np.uint8)
    return image[..., ::-1].copy()


def synthetic_label(height=97, width=131, classes=19, seed=1):
    """Stripes of classes with 3% ignored pixels."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:height, :width]
    label = ((x // 13 + 3 * (y // 9)) % classes).astype(np.uint8)
    label[generator.random((height, width)) < 0.03] = 255
    return label


def make_sample(height=97, width=131, seed=0, **meta):
    return Sample(
        image=synthetic_image(height, width, seed),
        targets={"label": Target(synthetic_label(height, width, seed=seed + 1))},
        original_size=(height, width),
        meta=meta,
    )


def run(spec, sample=None, seed=0):
    transform = TRANSFORMS.build(spec)
    return transform(make_sample() if sample is None else sample, np.random.default_rng(seed))


def assert_equals_golden(array, fact, tolerance):
    assert list(array.shape) == fact["shape"]
    positions = np.random.Generator(np.random.PCG64(1)).integers(0, array.size, 128)
    np.testing.assert_allclose(array.reshape(-1)[positions], fact["values"], rtol=0, atol=tolerance)
    assert array.mean() == pytest.approx(fact["mean"], abs=max(tolerance, 1e-4))
    if tolerance == 0:
        assert zlib.crc32(np.ascontiguousarray(array).tobytes()) == fact["crc32"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["transform"]))
def test_equals_what_mmsegmentation_does(case):
    kind = case["transform"]["type"]
    sample = run(case["transform"])
    in_rgb = kind == "Normalize" or sample.image.shape[2] == 1
    bytes_expected = case["img"]["dtype"] == "uint8"
    resampled = sample.size != (97, 131) or kind == "RandomRotate"  # other OpenCV versions round differently
    assert_equals_golden(
        sample.image if in_rgb else sample.image[..., ::-1],
        case["img"],
        tolerance=(1 if resampled and cv2.__version__ < "5" else 0) if bytes_expected else 1e-4,
    )
    assert_equals_golden(sample.label, case["gt_seg_map"], tolerance=0)
    if "gt_edge_map" in case:
        assert_equals_golden(sample.targets["edge"].array, case["gt_edge_map"], tolerance=0)
    if "scale_factor" in case:
        assert sample.meta["scale_factor"] == pytest.approx(case["scale_factor"])


# Reading files


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg", ".gif"])
def test_reads_an_image_from_a_unicode_path_in_rgb(tmp_path, suffix):
    path = tmp_path / f"Straße 街道{suffix}"
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 250
    Image.fromarray(red).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    for backend in ("cv2", "pillow"):
        np.testing.assert_allclose(read_image(path, backend=backend), red, atol=10)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg", ".gif"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"broken{suffix}"
    Image.fromarray(synthetic_image()).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(UserError, match="broken"):
        read_image(path)
    if suffix in (".png", ".tif"):
        with pytest.raises(UserError, match="broken"):
            read_label(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.png.*No such file"):
        read_image(tmp_path / "nowhere.png")


def test_grey_images_become_three_channels_unless_asked_otherwise(tmp_path):
    grey = synthetic_image()[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(read_image(tmp_path / "grey.png", "grayscale"), grey[..., None])
    assert np.array_equal(read_image(tmp_path / "grey.png", "unchanged"), grey[..., None])


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_exif_orientation_is_honoured(tmp_path, backend):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    Image.fromarray(synthetic_image(40, 60)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg", backend=backend).shape == (60, 40, 3)
    assert read_image(tmp_path / "turned.jpg", "color_ignore_orientation", backend).shape == (40, 60, 3)


def test_unchanged_keeps_alpha_and_sixteen_bits(tmp_path):
    rgba = np.dstack([synthetic_image(), np.full((97, 131), 9, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png", "unchanged"), rgba)
    assert np.array_equal(read_image(tmp_path / "rgba.png"), rgba[..., :3])
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert np.array_equal(read_image(tmp_path / "deep.png", "unchanged")[..., 0], deep)
    for backend in ("cv2", "pillow"):
        np.testing.assert_allclose(read_image(tmp_path / "deep.png", backend=backend)[..., 1], deep / 256, atol=1)


def test_palette_labels_are_read_as_indices(tmp_path):
    label = synthetic_label()
    image = Image.fromarray(label, "L").convert("P")
    image = Image.frombytes("P", image.size, label.tobytes())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    for name in ("label.png", "label.tif", "label.bmp"):
        image.save(tmp_path / name)
        assert np.array_equal(read_label(tmp_path / name), label), name


def test_labels_of_other_depths(tmp_path):
    label = np.arange(600).reshape(20, 30)
    cv2.imwrite(str(tmp_path / "deep.png"), label.astype(np.uint16))
    assert np.array_equal(read_label(tmp_path / "deep.png"), label)
    Image.fromarray(label % 2 == 1).save(tmp_path / "bits.png")
    assert np.array_equal(read_label(tmp_path / "bits.png"), label % 2)
    np.save(tmp_path / "label.npy", np.where(label > 255, -1, label))
    assert np.array_equal(read_label(tmp_path / "label.npy"), np.minimum(label, 255))


def test_a_coloured_label_is_an_error_that_says_what_to_do(tmp_path):
    Image.fromarray(synthetic_image()).save(tmp_path / "colours.png")
    with pytest.raises(UserError, match=r"colours\.png is a colour image.*terrazzo data convert"):
        read_label(tmp_path / "colours.png")


def test_label_values_are_reduced_then_mapped_then_ignored():
    stored = np.array([[0, 1, 2, 3, 11, 255]], np.uint8)
    assert map_label(stored, reduce_zero_label=True).tolist() == [[255, 0, 1, 2, 10, 255]]
    assert map_label(stored, True, {1: 7, 2: -1}).tolist() == [[255, 0, 7, 255, 10, 255]]
    assert map_label(stored, ignore=[11]).tolist() == [[0, 1, 2, 3, 255, 255]]
    assert map_label(stored.astype(np.int32) * 10, label_map={110: 4}, ignore=[30]).tolist() == [
        [0, 10, 20, 255, 4, 2550]
    ]


def test_loading_follows_the_dataset_and_checks_the_sizes(tmp_path):
    Image.fromarray(synthetic_image()).save(tmp_path / "a.png")
    Image.fromarray(synthetic_label()).save(tmp_path / "a_label.png")
    load = Compose([{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}])
    paths = {"image_path": tmp_path / "a.png", "label_path": tmp_path / "a_label.png"}
    sample = load(Sample(**paths, meta={"reduce_zero_label": True}), np.random.default_rng(0))
    assert np.array_equal(sample.label, map_label(synthetic_label(), True))
    assert sample.original_size == (97, 131)
    Image.fromarray(synthetic_label(50, 60)).save(tmp_path / "a_label.png")
    with pytest.raises(UserError, match=r"a_label\.png is 60x50 but its image .*a\.png is 131x97"):
        load(Sample(**paths), np.random.default_rng(0))


def test_an_array_needs_no_file():
    sample = run({"type": "InferencerLoader"}, Sample(image=synthetic_image()[..., 0]))
    assert sample.image.shape == (97, 131, 3)


# Geometry


@pytest.mark.parametrize("ratio", [0.37, 0.5, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("channels", [3, 6])
def test_a_resized_crop_equals_the_crop_of_the_resized_image(ratio, channels):
    image, label = synthetic_image(240, 320, channels=channels), synthetic_label(240, 320)
    size = (int(320 * ratio), int(240 * ratio))
    box = (size[1] // 3, size[0] // 4, size[1] // 3 + 64, size[0] // 4 + 48)
    box = (box[0], box[1], min(box[2], size[1]), min(box[3], size[0]))
    for dtype in (np.uint8, np.int64):
        whole = crop(resize(label.astype(dtype), size, "nearest"), box)
        assert np.array_equal(resize_crop(label.astype(dtype), size, box, "nearest"), whole)
    difference = np.abs(resize_crop(image, size, box).astype(int) - crop(resize(image, size), box))
    assert difference.max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_compose_fuses_resize_and_crop_without_changing_the_result(seed):
    specs = [
        {"type": "RandomResize", "scale": [262, 194], "ratio_range": [0.5, 2.0], "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": 64, "cat_max_ratio": 0.2},
        {"type": "RandomFlip", "prob": 0.5},
    ]
    fused = Compose(specs)
    assert isinstance(fused._steps[0], ResizeCrop)
    apart, rng = make_sample(), np.random.default_rng(seed)
    for spec in specs:
        apart = TRANSFORMS.build(spec)(apart, rng)
    together = fused(make_sample(), np.random.default_rng(seed))
    assert np.array_equal(together.label, apart.label)
    assert np.abs(together.image.astype(int) - apart.image).max() <= 1
    assert together.meta == apart.meta


def test_every_target_follows_the_image():
    sample = make_sample()
    sample.targets["depth"] = Target(np.indices((97, 131))[1].astype(np.float32), "bilinear", fill=-1)
    sample.targets["second"] = Target(sample.image.copy(), "bilinear", fill=0)
    pipeline = Compose(
        [
            {"type": "Resize", "scale_factor": 2.0},
            {"type": "RandomFlip", "prob": 1.0},
            {"type": "Pad", "size": [300, 200]},
        ]
    )
    sample = pipeline(sample, np.random.default_rng(0))
    assert sample.size == (200, 300)
    assert np.array_equal(sample.targets["second"].array, sample.image)
    depth = sample.targets["depth"].array
    assert depth[0, 0] == 130 and depth[0, 261] == 0 and depth[-1, -1] == -1
    assert sample.label[-1, -1] == 255
    assert sample.meta["padding"] == (0, 0, 38, 6)
    assert (sample.meta["flip"], sample.meta["flip_direction"]) == (True, "horizontal")


@pytest.mark.parametrize("crop_size", [40, [40, 40], (40, 40)])
def test_crop_takes_numbers_lists_and_tuples(crop_size):
    assert run({"type": "RandomCrop", "crop_size": crop_size}).size == (40, 40)


def test_crop_is_height_by_width_and_never_larger_than_the_image():
    assert run({"type": "RandomCrop", "crop_size": [30, 50]}).size == (30, 50)
    assert run({"type": "RandomCrop", "crop_size": [200, 50]}).size == (97, 50)


def test_crop_avoids_a_class_that_covers_too_much():
    label = np.zeros((100, 100), np.uint8)
    label[:, 60:] = 1
    label[:50] = 255
    for seed in range(20):
        sample = Sample(image=np.zeros((100, 100, 3), np.uint8), targets={"label": Target(label)})
        cropped = run({"type": "RandomCrop", "crop_size": 60, "cat_max_ratio": 0.75}, sample, seed).label
        counts = np.bincount(cropped[cropped < 255], minlength=2)
        assert counts.max() / counts.sum() < 0.75


@pytest.mark.parametrize(
    ("prob", "direction", "expected"),
    [
        (0.0, "horizontal", {None}),
        (1.0, "vertical", {"vertical"}),
        (1.0, ["horizontal", "vertical"], {"horizontal", "vertical"}),
        ([0.3, 0.3], ["horizontal", "diagonal"], {"horizontal", "diagonal", None}),
    ],
)
def test_flip_directions(prob, direction, expected):
    spec = {"type": "RandomFlip", "prob": prob, "direction": direction}
    assert {run(spec, seed=seed).meta["flip_direction"] for seed in range(30)} == expected


def test_flip_swaps_left_and_right_classes():
    sample = Sample(image=np.zeros((2, 3, 3), np.uint8), targets={"label": Target(np.array([[1, 2, 3], [0, 0, 1]]))})
    flipped = run({"type": "RandomFlip", "prob": 1.0, "swap_seg_labels": [1, 3]}, sample)
    assert flipped.label.tolist() == [[1, 2, 3], [3, 0, 0]]


def test_random_sizes_cover_their_range():
    by_ratio = {"type": "RandomResize", "scale": (200, 100), "ratio_range": [0.5, 2.0], "keep_ratio": True}
    widths = {run(by_ratio, seed=seed).size[1] for seed in range(40)}
    assert min(widths) < 90 and max(widths) > 200
    between = {"type": "RandomResize", "scale": [[60, 50], [80, 70]]}
    assert {run(between, seed=seed).size[1] for seed in range(300)} == set(range(60, 81))
    choice = {"type": "RandomChoiceResize", "scales": [50, 60], "resize_type": "ResizeShortestEdge", "max_size": 70}
    assert {run(choice, seed=seed).size for seed in range(20)} == {(50, 68), (52, 70)}


# Colour


def test_photometric_distortion_follows_the_float_formula():
    """Brightness, contrast and colour in real numbers, against the tables."""
    image = make_sample().image
    changed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        brighten, contrast_first, contrast, saturate, turn_hue = rng.random(5) < 0.5
        expected = image.astype(np.float32)
        expected = np.floor(np.clip(expected + (rng.uniform(-32, 32) if brighten else 0), 0, 255))
        factor = rng.uniform(0.5, 1.5) if contrast else 1.0
        if contrast_first:
            expected = np.floor(np.clip(expected * factor, 0, 255))
        if saturate or turn_hue:
            hsv = cv2.cvtColor(expected.astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
            hsv[..., 1] = np.clip(hsv[..., 1] * (rng.uniform(0.5, 1.5) if saturate else 1.0), 0, 255)
            hsv[..., 0] = (hsv[..., 0] + (rng.integers(-18, 18) if turn_hue else 0)) % 180
            expected = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
        if not contrast_first:
            expected = np.floor(np.clip(expected * factor, 0, 255))
        result = run({"type": "PhotoMetricDistortion"}, seed=seed).image
        assert np.abs(result - expected).max() <= 1
        changed += not np.array_equal(result, image)
    assert changed > 15


# Pipelines


EVERY_KIND = [
    {"type": "Resize", "scale": [64, 48]},
    {"type": "RandomCrop", "crop_size": 32},
    {"type": "RandomFlip", "prob": 1.0},
    {"type": "Pad", "size_divisor": 32},
    {"type": "CenterCrop", "crop_size": 32},
    {"type": "RandomRotate", "prob": 1.0, "degree": 10},
    {"type": "RandomRotFlip", "flip_prob": 1.0},
    {"type": "PhotoMetricDistortion"},
    {"type": "Normalize", "mean": [1, 2, 3], "std": [1, 2, 3]},
    {"type": "AdjustGamma", "gamma": 2.0},
    {"type": "CLAHE"},
    {"type": "Rerange"},
    {"type": "SegRescale", "scale_factor": 0.5},
    {"type": "PackSegInputs"},
]


@pytest.mark.parametrize("spec", EVERY_KIND, ids=lambda spec: spec["type"])
def test_is_repeatable_and_leaves_the_callers_arrays_alone(spec):
    results = []
    for _ in range(2):
        sample = make_sample()
        image, label = sample.image, sample.label
        results.append(run(spec, sample, seed=3))
        assert np.array_equal(image, synthetic_image()) and np.array_equal(label, synthetic_label())
    assert np.array_equal(results[0].image, results[1].image)
    assert np.array_equal(results[0].label, results[1].label)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "RandomFlip", "prob": 1.5}, "probability between 0 and 1"),
        ({"type": "RandomFlip", "direction": "sideways"}, "horizontal, vertical, diagonal"),
        ({"type": "Resize"}, "scale"),
        ({"type": "Pad"}, "size_divisor"),
        ({"type": "RandomCrop", "crop_size": [1, 2, 3]}, "crop_size must be a number or two numbers"),
        ({"type": "RandomCrop", "size": 3}, "no argument 'size'"),
        ({"type": "Resize", "scale": [4, 4], "interpolation": "cubical"}, "bicubic"),
        ({"type": "LoadImageFromFile", "backend_args": {"backend": "petrel"}}, "petrel"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        TRANSFORMS.build(spec)


def test_a_cityscapes_pipeline_packs_a_training_sample(tmp_path):
    Image.fromarray(synthetic_image(128, 256)).save(tmp_path / "a.png")
    Image.fromarray(synthetic_label(128, 256)).save(tmp_path / "l.png")
    pipeline = Compose(
        [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomResize", "scale": (256, 128), "ratio_range": (0.5, 2.0), "keep_ratio": True},
            {"type": "RandomCrop", "crop_size": (64, 64), "cat_max_ratio": 0.75},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PhotoMetricDistortion"},
            {"type": "PackSegInputs"},
        ]
    )
    sample = Sample(image_path=tmp_path / "a.png", label_path=tmp_path / "l.png")
    sample = pipeline(sample, np.random.default_rng(0))
    assert sample.image.shape == (64, 64, 3) and sample.image.dtype == np.uint8 and sample.image.flags.c_contiguous
    assert sample.label.shape == (64, 64) and sample.label.dtype == np.uint8 and sample.label.flags.c_contiguous
    assert sample.original_size == (128, 256)
