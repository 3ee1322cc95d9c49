"""Drawn street scenes: exact labels, the same from the same seed, quick enough for a demo."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from terrazzo.demo.dataset import write_scenes
from terrazzo.demo.scenes import CLASSES, IGNORED, PALETTE, draw_scene
from terrazzo.demo.scenes.stage import HOURS, Stage
from terrazzo.demo.scenes.street import SMALLEST


def scene(number: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    return draw_scene(np.random.default_rng((11, number)), size)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [scene(number) for number in range(24)]


@pytest.mark.parametrize("size", [(192, 256), (96, 128), (65, 131), (160, 96)])
def test_a_scene_is_an_rgb_image_with_a_class_map(size):
    image, label = scene(0, size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert label.shape == size and label.dtype == np.uint8
    assert set(np.unique(label)) <= {*range(len(CLASSES)), IGNORED}
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE))


def test_the_same_seed_draws_the_same_scene():
    for one, other in zip(scene(3), scene(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (scene(3)[0] != scene(4)[0]).mean() > 0.5


def test_every_class_appears_where_it_belongs(scenes):
    labels = np.stack([label for _, label in scenes])
    share = np.bincount(labels.ravel(), minlength=IGNORED + 1)[: len(CLASSES)] / labels.size
    assert share.min() > 0.003, dict(zip(CLASSES, share, strict=True))
    rows = np.arange(labels.shape[1])[None, :, None] + np.zeros(labels.shape)
    height = {name: rows[labels == index].mean() for index, name in enumerate(CLASSES)}
    assert height["sky"] < height["building"] < height["car"] < height["road"]
    assert (labels[:, -1] == CLASSES.index("sky")).sum() == 0


def test_labels_follow_the_edges_of_the_picture(scenes):
    """Brightness changes more across a label's border than elsewhere, and most where the label is not shifted."""

    def contrast(shift: int) -> float:
        values = []
        for image, label in scenes:
            steps = np.abs(np.diff(image.astype(float).mean(-1), axis=1))
            border = np.roll(np.diff(label.astype(int), axis=1) != 0, shift, axis=1)
            values.append(steps[border].mean() / steps.mean())
        return float(np.mean(values))

    assert contrast(0) > 1.5
    assert all(contrast(0) > contrast(shift) + 0.2 for shift in (-3, -2, 2, 3))


def test_light_varies(scenes):
    assert np.std([image.mean() for image, _ in scenes]) > 12
    stages = [Stage(np.random.default_rng(seed), 8, 8) for seed in range(200)]
    assert {stage.visibility for stage in stages} == {hour[5] for hour in HOURS}


def test_scenes_are_written_as_a_data_set(tmp_path):
    counts = {"train": 3, "val": 2}
    assert list(write_scenes(tmp_path, counts, (48, 64), seed=5)) == [1, 2, 3, 4, 5]
    for split, count in counts.items():
        for kind in ("images", "labels"):
            names = sorted(path.name for path in (tmp_path / kind / split).iterdir())
            assert names == [f"{number:04d}.png" for number in range(count)]
    image, label = draw_scene(np.random.default_rng((5, 1, 1)), (48, 64))
    stored = cv2.imread(str(tmp_path / "images/val/0001.png"), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(stored[..., ::-1], image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "labels/val/0001.png"), cv2.IMREAD_UNCHANGED), label)


def test_more_scenes_keep_the_first_ones(tmp_path):
    assert len(list(write_scenes(tmp_path / "few", {"train": 1, "val": 1}, (48, 64)))) == 2
    assert len(list(write_scenes(tmp_path / "many", {"train": 2, "val": 1}, (48, 64)))) == 3
    for name in ("images/train/0000.png", "labels/val/0000.png"):
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_drawing_does_not_need_torch():
    code = "import sys, terrazzo.demo.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_there_are_no_specks():
    specks = 0
    for number in range(12):
        label = draw_scene(np.random.default_rng((6, number)), (192, 256))[1]
        specks += int((label == IGNORED).sum())
        for kind in range(len(CLASSES)):
            facts = cv2.connectedComponentsWithStats((label == kind).astype(np.uint8), connectivity=8)[2]
            assert (facts[1:, cv2.CC_STAT_AREA] >= SMALLEST).all(), CLASSES[kind]
    assert 0 < specks < 0.01 * 12 * label.size


def test_several_processes_write_the_same_scenes(tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        written = write_scenes(tmp_path / name, {"train": 3, "val": 1, "test": 2}, (48, 64), processes=processes)
        assert list(written) == [1, 2, 3, 4, 5, 6]
    for path in sorted((tmp_path / "one").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    assert len(list((tmp_path / "two/labels/test").iterdir())) == 2
