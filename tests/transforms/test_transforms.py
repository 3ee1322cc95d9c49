"""The transforms against facts measured from MMSegmentation, and against what their documentation promises."""

from __future__ import annotations

import json
import math
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from support.paths import GOLDEN
from support.transforms import EVERY_KIND
from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.transforms import Compose, read_image, read_label
from terrazzo.transforms.crop import ResizeCrop, is_varied
from terrazzo.transforms.geometry import crop, resize, resize_crop
from terrazzo.transforms.labels import LabelMapping
from terrazzo.transforms.reading import StoredFiles, bind

FACTS = json.loads((GOLDEN / "transforms.json").read_text())["cases"]


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


@pytest.mark.parametrize("case", FACTS, ids=lambda case: str(case["transform"]))
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


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)], ids=["grey", "rgb"])
@pytest.mark.parametrize("read", [read_image, read_label])
def test_a_png_that_claims_to_be_longer_than_it_is_never_reaches_opencv(tmp_path, monkeypatch, shape, read):
    """OpenCV would take 2 GiB for such a chunk."""
    data = cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes()
    start = data.index(b"IDAT") - 4
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("OpenCV reads it"))
    (tmp_path / "x.png").write_bytes(data[:start] + b"\x7f\xff\xff\xffteXt" + data[start:])
    with pytest.raises(UserError, match=r"x\.png"):
        read(tmp_path / "x.png")


def test_what_follows_the_end_of_a_png_does_not_matter(tmp_path):
    data = cv2.imencode(".png", np.full((4, 5), 7, np.uint8))[1].tobytes()
    (tmp_path / "x.png").write_bytes(data + b"\x7f\xff\xff\xffanything")
    assert (read_label(tmp_path / "x.png") == 7).all() and (read_image(tmp_path / "x.png") == 7).all()


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
    with pytest.raises(UserError, match=r"colours\.png is a colour image.*`palette`.*`label_format: rgb`"):
        read_label(tmp_path / "colours.png")


def test_label_values_are_reduced_then_mapped_then_ignored():
    stored = np.array([[0, 1, 2, 3, 11, 255]], np.uint8)
    assert LabelMapping(reduce_zero_label=True).apply(stored).tolist() == [[255, 0, 1, 2, 10, 255]]
    assert LabelMapping(True, {1: 7, 2: -1}).apply(stored).tolist() == [[255, 0, 7, 255, 10, 255]]
    assert LabelMapping(ignore=[11]).apply(stored).tolist() == [[0, 1, 2, 3, 255, 255]]
    assert LabelMapping(label_map={110: 4}, ignore=[30]).apply(stored.astype(np.int32) * 10).tolist() == [
        [0, 10, 20, 255, 4, 2550]
    ]


def test_loading_follows_the_dataset_and_checks_the_sizes(tmp_path):
    Image.fromarray(synthetic_image()).save(tmp_path / "a.png")
    Image.fromarray(synthetic_label()).save(tmp_path / "a_label.png")
    load = Compose([{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}])
    paths = {"image_path": tmp_path / "a.png", "label_path": tmp_path / "a_label.png"}
    files = StoredFiles(LabelMapping(reduce_zero_label=True))
    bound = load.mapped(lambda step: bind(step, files))
    assert repr(bound) == repr(load) and bound.transforms == load.transforms
    sample = bound(Sample(**paths), np.random.default_rng(0))
    assert np.array_equal(sample.label, files.mapping.apply(synthetic_label()))
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
    assert isinstance(fused.transforms[0], ResizeCrop)
    apart, rng = make_sample(), np.random.default_rng(seed)
    for spec in specs:
        apart = TRANSFORMS.build(spec)(apart, rng)
    together = fused(make_sample(), np.random.default_rng(seed))
    assert np.array_equal(together.label, apart.label)
    difference = np.abs(together.image.astype(int) - apart.image)
    assert difference.max() <= 2 and difference.mean() < 0.25
    assert together.meta == apart.meta


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_label_is_varied_where_no_class_covers_too_much(dtype):
    rng = np.random.default_rng(0)
    for _ in range(300):
        shares = rng.dirichlet(np.full(4, 0.5))
        label = rng.choice([0, 3, 18, 255], size=rng.integers(1, 60, 2), p=shares).astype(dtype)
        counts = np.array([np.count_nonzero(label == index) for index in (0, 3, 18)])
        for most in (0.2, 0.75, 0.99):
            expected = np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < most
            assert is_varied(label, most, 255) == expected


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


def test_crops_contain_the_rare_class_that_the_image_has():
    def sample():
        made = make_sample()
        made.label[:] = 0
        made.label[70, 110] = 3
        return made

    spec = {"type": "RandomCrop", "crop_size": 16, "rare_classes": [5, 3], "rare_share": 1.0}
    for seed in range(8):
        assert (run(spec, sample(), seed).label == 3).any()
    assert run(spec | {"rare_classes": [5]}, sample()).size == (16, 16)


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


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "Resize", "scale": [-1, 2], "keep_ratio": True}, r"Resize's scale must be above 0, not \[-1, 2\]"),
        ({"type": "Resize", "scale": math.inf, "keep_ratio": True}, r"Resize's scale must be .* not inf"),
        ({"type": "Resize", "scale_factor": math.nan}, r"scale_factor must be .* not nan"),
        ({"type": "ResizeShortestEdge", "scale": 0}, r"scale must be above 0, not 0"),
        ({"type": "RandomResize", "scale": [math.nan, 9], "ratio_range": [1, 2]}, r"RandomResize's scale must be"),
        ({"type": "RandomResize", "scale": [[60, 50], [80, math.inf]]}, r"RandomResize's scale must be"),
        ({"type": "RandomResize", "ratio_range": [0, 2]}, r"ratio_range must be above 0"),
    ],
)
def test_sizes_that_no_image_can_have(spec, message):
    with pytest.raises(UserError, match=message):
        run(spec)


def test_a_scale_may_leave_one_edge_open():
    image = make_sample().image
    height, width = run({"type": "Resize", "scale": [math.inf, 20], "keep_ratio": True}).size
    assert min(height, width) == 20 and height / width == pytest.approx(image.shape[0] / image.shape[1], abs=0.05)


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


def test_photometric_distortion_draws_a_gamma_as_often_as_it_is_one_half():
    """Of the changes only the gamma is left; 64 at a gamma of 2 is 255 * (64 / 255) ** 0.5 = 127."""
    spec = {"type": "PhotoMetricDistortion", "brightness_delta": 0, "contrast_range": [1, 1]}
    spec |= {"saturation_range": [1, 1], "hue_delta": 0, "gamma_range": [2.0, 2.0]}
    grey = [run(spec, Sample(image=np.full((4, 4, 3), 64, np.uint8)), seed=seed).image for seed in range(40)]
    values = [int(image[0, 0, 0]) for image in grey]
    assert set(values) == {64, 127} and 10 < values.count(127) < 30


# Pipelines


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
        ({"type": "PhotoMetricDistortion", "gamma_range": [0, 2]}, "gamma_range is two numbers above zero"),
        ({"type": "LoadImageFromFile", "backend_args": {"backend": "petrel"}}, "petrel"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        Compose([spec])


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


# Covering and mixing


def test_cut_out_covers_image_and_label():
    spec = {"type": "RandomCutOut", "prob": 1.0, "n_holes": 1, "cutout_shape": [20, 10], "fill_in": [1, 2, 3]}
    covered = (run(spec, seed=2).image == [1, 2, 3]).all(axis=2)
    rows, columns = np.nonzero(covered)
    assert 0 < np.ptp(rows) < 10 and 0 < np.ptp(columns) < 20
    assert covered[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert np.array_equal(run(spec | {"seg_fill_in": 254}, seed=2).label == 254, covered)


def test_erasing_covers_the_area_it_was_asked_to():
    spec = {"type": "RandomErasing", "prob": 1.0, "area_ratio": [0.2, 0.2], "fill": 0, "seg_fill": 200}
    for seed in range(10):
        assert (run(spec, seed=seed).label == 200).mean() == pytest.approx(0.2, abs=0.02)


def mixed(spec, sizes=((97, 131),) * 4, seed=0):
    transform, rng = TRANSFORMS.build(spec), np.random.default_rng(seed)
    samples = [make_sample(*size, seed=10 * k) for k, size in enumerate(sizes)]
    indices = transform.get_indices(len(sizes), rng)
    return transform(samples[0], rng, [samples[index] for index in indices])


def test_mosaic_joins_four_images_of_different_sizes_around_a_point():
    spec = {"type": "RandomMosaic", "prob": 1.0, "img_scale": [64, 80], "pad_val": 3}
    for seed in range(10):
        sample = mixed(spec, [(97, 131), (40, 200), (200, 40), (97, 131)], seed)
        assert sample.size == (128, 160) and sample.label.shape == (128, 160)
        assert (sample.label != 255).mean() > 0.2


def test_mosaic_puts_an_image_where_it_belongs():
    spec = {"type": "RandomMosaic", "prob": 1.0, "img_scale": [97, 131], "center_ratio_range": [1.0, 1.0]}
    sample = mixed(spec)
    assert np.array_equal(sample.image[:97, :131], synthetic_image())
    assert np.array_equal(sample.label[:97, :131], synthetic_label())


def test_class_mix_pastes_half_of_the_other_classes():
    sample = make_sample()
    other = make_sample(seed=5)
    other.targets["label"].array = np.arange(131, dtype=np.uint8)[None].repeat(97, 0) % 4 + 100
    result = TRANSFORMS.build({"type": "ClassMix", "prob": 1.0})(sample, np.random.default_rng(0), [other])
    pasted = result.label >= 100
    pasted &= result.label != 255
    assert len(np.unique(result.label[pasted])) == 2
    assert np.array_equal(result.image[pasted], other.image[pasted])
    assert np.array_equal(result.image[~pasted], synthetic_image()[~pasted])


def test_copy_paste_takes_whole_regions_of_the_chosen_classes():
    sample, other = make_sample(), make_sample(seed=5)
    label = np.zeros((97, 131), np.uint8)
    label[10:30, 10:30] = 50
    label[60:90, 60:90] = 60
    other.targets["label"].array = label
    paste = TRANSFORMS.build({"type": "CopyPaste", "prob": 1.0, "classes": [50]})
    result = paste(sample, np.random.default_rng(0), [other])
    assert np.array_equal(result.label == 50, label == 50)
    assert np.array_equal(result.image[10:30, 10:30], other.image[10:30, 10:30])


@pytest.mark.parametrize("kind", ["RandomMosaic", "ClassMix", "CopyPaste"])
def test_mixing_says_that_it_needs_a_mixing_dataset(kind):
    with pytest.raises(UserError, match="MultiImageMixDataset"):
        run({"type": kind, "prob": 1.0})


# Edges, depth, pairs of images


def test_edges_lie_where_classes_meet():
    sample = make_sample()
    sample.targets["label"].array = np.array([[1, 1, 1, 2, 2, 255, 3]] * 3, np.uint8)
    for dtype in (np.uint8, np.int64):
        sample.targets["label"].array = sample.targets["label"].array.astype(dtype)
        edges = run({"type": "GenerateEdge", "edge_width": 1}, sample).targets["edge"].array
        assert edges.tolist() == [[0, 0, 1, 1, 0, 0, 0]] * 3


def test_depth_is_read_scaled_and_mixed_into_a_strip(tmp_path):
    cv2.imwrite(str(tmp_path / "depth.png"), np.full((97, 131), 9000, np.uint16))
    sample = run(
        {"type": "LoadDepthAnnotation", "depth_rescale_factor": 0.001}, make_sample(depth_path=tmp_path / "depth.png")
    )
    assert sample.targets["depth"].array.dtype == np.float32
    np.testing.assert_allclose(sample.targets["depth"].array, 9)
    mixed = run({"type": "RandomDepthMix", "prob": 1.0}, sample)
    strip = (mixed.image == 9).all(axis=(0, 2)) | (mixed.image == 8).all(axis=(0, 2))
    columns = np.flatnonzero(strip)
    assert len(columns) and strip[columns.min() : columns.max() + 1].all() and not strip.all()


def test_a_pair_of_images_for_change_detection_stays_a_pair(tmp_path):
    first, second = synthetic_image(), synthetic_image(seed=4)
    Image.fromarray(first).save(tmp_path / "a.png")
    Image.fromarray(second).save(tmp_path / "b.png")
    Image.fromarray(synthetic_label()).save(tmp_path / "l.png")
    pipeline = Compose(
        [
            {"type": "LoadMultipleRSImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomFlip", "prob": 1.0},
            {"type": "ConcatCDInput"},
            {"type": "PackSegInputs"},
        ]
    )
    sample = Sample(
        image_path=tmp_path / "a.png", label_path=tmp_path / "l.png", meta={"image_path2": tmp_path / "b.png"}
    )
    sample = pipeline(sample, np.random.default_rng(0))
    assert sample.image.dtype == np.float32 and list(sample.targets) == ["label"]
    assert np.array_equal(sample.image, np.concatenate([first, second], axis=2)[:, ::-1])


# Volumes


def make_volume():
    generator = np.random.default_rng(0)
    label = np.zeros((10, 20, 30), np.int64)
    label[2:4, 5:8, 20:25] = 1
    volume = generator.normal(size=(2, 10, 20, 30)).astype(np.float32)
    return Sample(image=volume, targets={"label": Target(label)})


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"type": "BioMedical3DRandomCrop", "crop_shape": [4, 8, 8]}, (4, 8, 8)),
        ({"type": "BioMedical3DPad", "pad_shape": [16, 8, 40]}, (16, 20, 40)),
        ({"type": "BioMedical3DRandomFlip", "prob": 1.0, "axes": [0, 2]}, (10, 20, 30)),
        ({"type": "BioMedicalGaussianNoise", "prob": 1.0}, (10, 20, 30)),
        ({"type": "BioMedicalGaussianBlur", "prob": 1.0, "prob_per_channel": 1.0}, (10, 20, 30)),
        ({"type": "BioMedicalRandomGamma", "prob": 1.0, "retain_stats": True}, (10, 20, 30)),
        ({"type": "BioMedicalRandomGamma", "prob": 1.0, "per_channel": True, "invert_image": True}, (10, 20, 30)),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_volumes(spec, shape):
    given = make_volume()
    result = run(spec, given)
    assert result.image.shape == (2, *shape) and result.label.shape == shape
    assert result.image.dtype == np.float32 and not np.array_equal(result.image, make_volume().image)
    assert result.label.max() == 1  # the foreground is still there
    assert np.array_equal(run(spec, make_volume()).image, result.image)


def test_flipped_volume_and_gamma_formula():
    volume = make_volume()
    flipped = run({"type": "BioMedical3DRandomFlip", "prob": 1.0, "axes": [0]}, make_volume())
    assert np.array_equal(flipped.image, volume.image[:, ::-1]) and np.array_equal(flipped.label, volume.label[::-1])
    same = run({"type": "BioMedicalRandomGamma", "prob": 1.0, "gamma_range": [1.0, 1.0]}, make_volume())
    np.testing.assert_allclose(same.image, volume.image, atol=1e-5)


def test_volumes_from_numpy_files_and_a_hint_for_nifti(tmp_path):
    volume = make_volume()
    np.save(tmp_path / "v.npy", np.concatenate([volume.image, volume.label[None]]))
    sample = run({"type": "LoadBiomedicalData", "with_seg": True}, Sample(image_path=tmp_path / "v.npy"))
    assert np.array_equal(sample.image, volume.image) and np.array_equal(sample.label, volume.label)
    np.save(tmp_path / "l.npy", volume.label)
    sample = Sample(image_path=tmp_path / "v.npy", label_path=tmp_path / "l.npy")
    sample = run({"type": "LoadBiomedicalImageFromFile", "decode_backend": "numpy"}, sample)
    sample = run({"type": "LoadBiomedicalAnnotation", "decode_backend": "numpy"}, sample)
    assert sample.image.shape == (3, 10, 20, 30) and np.array_equal(sample.label, volume.label)
    (tmp_path / "v.nii.gz").write_bytes(b"no volume")
    with pytest.raises(UserError, match=r"v\.nii\.gz"):
        run({"type": "LoadBiomedicalImageFromFile"}, Sample(image_path=tmp_path / "v.nii.gz"))


def test_volume_from_nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = make_volume().image[0]
    nibabel.Nifti1Image(volume.T, np.eye(4)).to_filename(tmp_path / "v.nii.gz")  # NIfTI is X, Y, Z
    sample = run({"type": "LoadBiomedicalImageFromFile"}, Sample(image_path=tmp_path / "v.nii.gz"))
    np.testing.assert_allclose(sample.image[0], volume, rtol=1e-6)


# Test-time augmentation and albumentations


def test_tta_gives_every_combination():
    scales = [{"type": "Resize", "scale_factor": factor, "keep_ratio": True} for factor in (0.5, 1.0)]
    flips = [{"type": "RandomFlip", "prob": prob, "direction": "horizontal"} for prob in (0.0, 1.0)]
    transform = TRANSFORMS.build({"type": "TestTimeAug", "transforms": [scales, flips, [{"type": "PackSegInputs"}]]})
    given = make_sample()
    samples = Compose([transform])(given, np.random.default_rng(0))
    assert [(sample.size, sample.meta["flip"]) for sample in samples] == [
        ((49, 66), False),
        ((49, 66), True),
        ((97, 131), False),
        ((97, 131), True),
    ]
    assert given.size == (97, 131) and "flip" not in given.meta
    with pytest.raises(UserError, match="Resise"):
        TRANSFORMS.build({"type": "TestTimeAug", "transforms": [[{"type": "Resise"}]]})


def test_multi_scale_flip():
    spec = {"type": "MultiScaleFlipAug", "transforms": [{"type": "PackSegInputs"}], "allow_flip": True}
    samples = run(spec | {"scales": [[66, 49], [262, 194]], "flip_direction": ["horizontal", "vertical"]})
    directions = [None, "horizontal", "vertical"]
    assert [sample.meta["flip_direction"] for sample in samples] == directions * 2
    assert [sample.size for sample in samples] == [(49, 66)] * 3 + [(194, 262)] * 3
    assert len(run(spec | {"scale_factor": 0.5})) == 2


class FakeAlbumentations:
    """What the bridge uses of albumentations."""

    class HorizontalFlip:
        def __init__(self, p=0.5):
            self.p = p

    class Compose:
        def __init__(self, transforms, additional_targets):
            self.probability, self.kinds = transforms[0].p, additional_targets

        def set_random_seed(self, seed):
            self.rng = np.random.default_rng(seed)

        def __call__(self, **arrays):
            assert arrays.keys() == {"image", *self.kinds}
            flipped = self.rng.random() < self.probability
            return {name: array[:, ::-1] if flipped else array for name, array in arrays.items()}


def test_albumentations_is_asked_for_image_and_targets(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "albumentations", FakeAlbumentations)
    spec = {"type": "Albu", "transforms": [{"type": "HorizontalFlip", "p": 0.5}]}
    results = [run(spec, seed=seed) for seed in range(10)]
    flipped = [not np.array_equal(result.image, synthetic_image()) for result in results]
    assert {True, False} == set(flipped)
    for result, turned in zip(results, flipped, strict=True):
        assert np.array_equal(result.label, synthetic_label()[:, :: -1 if turned else 1])
    with pytest.raises(UserError, match="no 'HorizontalFlop'; did you mean 'HorizontalFlip'"):
        run({"type": "Albu", "transforms": [{"type": "HorizontalFlop"}]})


def test_a_missing_albumentations_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "albumentations", None)
    with pytest.raises(UserError, match=r"pip install 'albumentations==2\.0\.8'"):
        run({"type": "Albu", "transforms": [{"type": "HorizontalFlip"}]})
