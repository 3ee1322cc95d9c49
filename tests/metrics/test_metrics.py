"""The confusion matrix and its scores, equal to those measured with MMSegmentation 1.2.2."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from support.paths import GOLDEN
from terrazzo.errors import UserError
from terrazzo.metrics import ConfusionMatrix
from terrazzo.training.monitoring.log import as_text, class_table, summary

FACTS = json.loads((GOLDEN / "metrics.json").read_text())["cases"]
GROUPS = ("mIoU", "mDice", "mFscore")


def golden_images(case: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prediction, label) of each image, as the golden file says that they were drawn."""
    random, size, count = np.random.Generator(np.random.PCG64(case["seed"])), case["size"], case["num_classes"]
    images = []
    for _ in range(case["images"]):
        label = random.integers(0, count, size)
        prediction = np.where(random.random(size) < 0.7, label, random.integers(0, count, size))
        images.append((prediction, np.where(random.random(size) < 0.05, 255, label)))
    return images


def matrix_of(case: dict, dtype: torch.dtype = torch.int64) -> ConfusionMatrix:
    matrix = ConfusionMatrix(case["num_classes"])
    for prediction, label in golden_images(case):
        matrix.update(torch.from_numpy(prediction), torch.from_numpy(label).to(dtype))
    return matrix


@pytest.mark.parametrize("name", FACTS)
def test_equal_to_golden(name):
    case = FACTS[name]
    result = matrix_of(case).compute(GROUPS)
    expected = case["metrics"]
    assert result["aAcc"] == pytest.approx(100 * expected["aAcc"], rel=1e-6)
    for score in ("IoU", "Acc", "Dice", "Fscore", "Precision", "Recall"):
        values = [row[score] for row in result["per_class"].values()]
        assert values == pytest.approx([100 * value for value in expected[score]], rel=1e-6), score
        assert result[f"m{score}"] == pytest.approx(100 * np.mean(expected[score]), rel=1e-6), score


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_the_type_of_the_labels_does_not_matter(dtype):
    case = FACTS["c"]
    assert torch.equal(matrix_of(case, dtype).counts, matrix_of(case).counts)


def test_more_classes_than_a_byte_holds():
    matrix = ConfusionMatrix(847)
    matrix.update(torch.tensor([[3, 300]]), torch.tensor([[3, 255]], dtype=torch.uint8))
    matrix.update(torch.tensor([[846, 79]]), torch.tensor([[846, 80]]))
    assert matrix.counts.sum() == 3
    assert [tuple(pair) for pair in matrix.counts.nonzero().tolist()] == [(3, 3), (80, 79), (846, 846)]


def test_memory_does_not_grow_with_the_images():
    matrix = ConfusionMatrix(19)
    for _ in range(20):
        matrix.update(torch.zeros(64, 64, dtype=torch.int64), torch.zeros(64, 64, dtype=torch.int64))
    tensors = [value for value in vars(matrix).values() if isinstance(value, torch.Tensor)]
    assert [tuple(tensor.shape) for tensor in tensors] == [(19, 19)]
    assert all(isinstance(value, (int, torch.Tensor)) for value in vars(matrix).values())
    assert int(matrix.counts[0, 0]) == 20 * 64 * 64


def scores(labels: list[int], predictions: list[int], classes: int = 3) -> dict:
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.tensor([predictions]), torch.tensor([labels]))
    return matrix.compute(GROUPS, [f"class {index}" for index in range(classes)])


def test_an_absent_class_is_none_and_left_out_of_the_mean():
    result = scores([0, 0, 1, 1], [0, 0, 1, 0])
    assert result["per_class"]["class 2"] == {
        "IoU": None, "Acc": None, "Dice": None, "Fscore": None, "Precision": None, "Recall": None,
    }  # fmt: skip
    assert result["mIoU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    table = as_text(class_table(result))
    assert table.count("absent") == 6 and "nan" not in table.lower()


def test_a_class_that_is_only_predicted_counts_as_zero():
    result = scores([0, 0, 1, 1], [0, 2, 1, 1])
    assert result["per_class"]["class 2"]["IoU"] == 0.0
    assert result["per_class"]["class 2"]["Acc"] is None, "nothing of it was there to find"
    assert result["mIoU"] == pytest.approx(100 * (1 / 2 + 1 + 0) / 3)
    assert result["mAcc"] == pytest.approx(75)


def test_a_class_that_is_never_found_counts_as_zero():
    row = scores([0, 0, 1, 2], [0, 0, 1, 1])["per_class"]["class 2"]
    assert (row["IoU"], row["Acc"], row["Dice"], row["Fscore"], row["Recall"]) == (0, 0, 0, 0, 0)
    assert row["Precision"] is None, "it was never predicted"


@pytest.mark.parametrize("predictions", [[0, 0, 1, 1], [0, 2, 1, 1]])
def test_a_class_without_a_hit_has_an_fscore_of_zero_as_its_dice_score(predictions):
    """Also where precision and recall are both 0; MMSegmentation leaves the class out."""
    result = scores([0, 0, 1, 2], predictions)
    assert result["per_class"]["class 2"]["Fscore"] == 0
    assert result["mFscore"] == pytest.approx(result["mDice"])


def test_ignored_pixels_do_not_count():
    assert scores([0, 255, 255], [0, 1, 2])["aAcc"] == 100
    nothing = scores([255, 255], [0, 1])
    assert nothing["aAcc"] is None and nothing["mIoU"] is None
    assert "absent" in summary(nothing)


@pytest.mark.parametrize(("predictions", "expected"), [([1, 1, 1], 1), ([1, 1, 0], None)])
def test_one_class_for_everything_is_noticed(predictions, expected):
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor(predictions), torch.tensor([0, 1, 2]))
    assert matrix.single_class == expected


def test_the_summary_puts_the_first_score_first():
    text = summary({"aAcc": 90.0, "mIoU": 61.2, "mAcc": 70.111, "loss": 0.51234, "per_class": {}})
    assert text == "mIoU 61.20  mAcc 70.11  aAcc 90.00  loss 0.5123"


@pytest.mark.parametrize("value", [3, 4, 254, 1000])
def test_a_label_outside_the_classes(value):
    with pytest.raises(UserError, match=f"the value {value}, outside the 3 classes"):
        scores([0, value], [0, 1])
