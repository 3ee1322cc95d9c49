"""The model that terrazzo brings along."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

import terrazzo as tz
from support.paths import REPOSITORY
from support.tiny import terrazzo
from terrazzo.errors import UserError
from terrazzo.inference.load import CARD, STREET

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


@pytest.fixture(scope="module")
def segmenter():
    return tz.load(device="cpu")


@pytest.mark.parametrize("size", [(360, 480), (97, 131), (900, 1200), (16, 16)])
def test_any_image_is_segmented_at_its_own_size(segmenter, size):
    assert segmenter.classes == CLASSES
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert segmenter(image).labels.shape == size


def test_its_card_tells_what_it_may_be_used_for():
    assert STREET.stat().st_size < 12_000_000
    text = CARD.read_text(encoding="utf-8")
    for word in ("CamVid", "CC BY-NC", "terrazzo train", "mIoU"):
        assert word in text


def test_its_file_tells_nothing_of_the_machine_it_was_trained_on():
    assert not re.search(rb"/(home|tmp|root|work|data)/", STREET.read_bytes()[:20000])


def test_predict_takes_it_where_no_model_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "street.png"), np.full((60, 80, 3), 90, np.uint8))
    result = terrazzo("predict", tmp_path / "street.png", "--out", tmp_path / "out", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert "non-commercial" in result.stdout and (tmp_path / "out" / "street.png").exists()


def test_a_checkpoint_without_its_config_is_no_embedded_model():
    with pytest.raises(UserError, match=r"give x.pth alone.*or after its config"):
        tz.load(checkpoint="x.pth")


def test_it_sees_a_street(segmenter, camvid):
    path = sorted((camvid / "images" / "val").iterdir())[40]
    label = cv2.imread(str(camvid / "labels" / "val" / path.name), cv2.IMREAD_UNCHANGED)
    labelled = label < len(CLASSES)
    assert (segmenter(path).labels == label)[labelled].mean() > 0.8


@pytest.mark.slow
def test_it_scores_what_its_card_says(camvid):
    (told,) = re.findall(r"\*\*(\d+\.\d+) mIoU\*\*", CARD.read_text(encoding="utf-8"))
    config = REPOSITORY / "configs" / "camvid.yaml"
    metrics = tz.evaluate(config, STREET, device="cpu", data_root=camvid)
    assert metrics["mIoU"] == pytest.approx(float(told), abs=0.1)
