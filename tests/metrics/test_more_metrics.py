"""Metrics beside the confusion matrix, each against what one would write down from its definition."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from support.paths import GOLDEN
from support.tiny import save_label
from terrazzo.data.spec import dataset_spec
from terrazzo.errors import UserError
from terrazzo.evaluation import scoring
from terrazzo.metrics import Evaluator, Metric
from terrazzo.metrics.cityscapes import IDS
from terrazzo.metrics.depth import DepthEvaluator
from terrazzo.registry import METRICS
from terrazzo.system.process_group import ProcessGroup
from terrazzo.training.monitoring.log import summary

K = 4
CLASSES = ["a", "b", "c", "d"]
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # labels, prediction, logits (K or 1, H, W)


def regions(rng: np.random.Generator, size: tuple[int, int], classes: int) -> np.ndarray:
    """A map of rectangles."""
    labels = np.zeros(size, np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        labels[top : top + rng.integers(3, 15), left : left + rng.integers(3, 15)] = rng.integers(0, classes)
    return labels


def images(count: int = 3, classes: int = K, channels: int | None = None) -> list[Pair]:
    """Labels with ignored pixels, and logits that often have them right; one class is in no image."""
    rng = np.random.default_rng(7)
    result = []
    for index in range(count):
        size = 25 + index, 31
        truth = regions(rng, size, max(2, classes - 1))
        labels = np.where(rng.random(size) < 0.05, 255, truth).astype(np.uint8)
        if channels == 1:
            logits = (2.0 * truth - 1 + rng.normal(0, 1.5, size))[None]
            prediction = 1 / (1 + np.exp(-logits[0])) > 0.3
        else:
            logits = 2.0 * np.eye(classes)[truth].transpose(2, 0, 1) + rng.normal(0, 1, (classes, *size))
            logits[-1] = -30
            prediction = logits.argmax(0)
        result.append((labels, prediction.astype(np.uint8), logits.astype(np.float32)))
    return result


def scored(pairs: list[Pair], *metrics: str | dict, **options) -> dict:
    """The result of an evaluator; logits come in strips of some rows."""
    specs = [{"type": metric} if isinstance(metric, str) else metric for metric in metrics]
    channels = len(pairs[0][2])
    evaluator = Evaluator(specs, CLASSES if channels > 1 else ["no", "yes"], **options)
    for labels, prediction, logits in pairs:
        flat = torch.from_numpy(logits).flatten(1).T
        evaluator.update(torch.from_numpy(prediction), torch.from_numpy(labels), lambda flat=flat: flat.split(100))
    return evaluator.compute()


def iou(labels: np.ndarray, prediction: np.ndarray, index: int) -> float:
    """Of one class, NaN if it is in neither; ignored pixels are left out."""
    valid = labels != 255
    one, other = (labels == index) & valid, (prediction == index) & valid
    union = (one | other).sum()
    return (one & other).sum() / union if union else np.nan


def near(values: object) -> list:
    """Numbers to compare a list with."""
    return [pytest.approx(float(value)) for value in values]


# Image by image


def test_iou_per_image():
    pairs = images()
    table = np.array([[iou(labels, prediction, index) for index in range(K)] for labels, prediction, _ in pairs])
    result = scored(pairs, "per-image")
    of_classes = np.nanmean(table[:, :3], axis=0)
    assert result["mIoU_I"] == pytest.approx(100 * np.nanmean(table, axis=1).mean())
    assert result["mIoU_C"] == pytest.approx(100 * of_classes.mean())
    assert [row["IoU_C"] for row in result["per_class"].values()] == [*near(100 * of_classes), None]


def test_an_image_without_labels_does_not_count():
    pairs = images()
    nothing = (np.full_like(pairs[0][0], 255), *pairs[0][1:])
    assert scored([*pairs, nothing], "per-image") == scored(pairs, "per-image")


# Near borders


def near_another(classes: np.ndarray, valid: np.ndarray, distance: int, margin: bool) -> np.ndarray:
    """Pixel by pixel, whether a square around it holds another class (or reaches out of the image)."""
    height, width = classes.shape
    found = np.zeros(classes.shape, bool)
    for row, column in np.ndindex(height, width):
        square = np.s_[max(0, row - distance) : row + distance + 1, max(0, column - distance) : column + distance + 1]
        others = classes[square][valid[square]]
        out = min(row, column, height - 1 - row, width - 1 - column) < distance
        found[row, column] = (others != classes[row, column]).any() or (margin and out)
    return found


@pytest.mark.parametrize("ratio", [0.02, 0.08])
def test_boundary_iou(ratio):
    pairs, both, either = images(), np.zeros(K), np.zeros(K)
    for labels, prediction, _ in pairs:
        valid, distance = labels != 255, max(1, round(ratio * np.hypot(*labels.shape)))
        one = valid & near_another(labels, valid, distance, margin=True)
        other = valid & near_another(prediction, valid, distance, margin=True)
        for index in range(K):
            rims = one & (labels == index), other & (prediction == index)
            both[index] += (rims[0] & rims[1]).sum()
            either[index] += (rims[0] | rims[1]).sum()
    result = scored(pairs, {"type": "boundary", "ratio": ratio})
    expected = 100 * both[:3] / either[:3]
    assert [row["BoundaryIoU"] for row in result["per_class"].values()] == [*near(expected), None]
    assert result["mBoundaryIoU"] == pytest.approx(expected.mean())


def test_trimap_iou():
    pairs = images()
    result = scored(pairs, {"type": "trimap", "widths": [1, 3]})
    for width in (1, 3):
        bands = []
        for labels, prediction, _ in pairs:
            band = near_another(labels, labels != 255, width, margin=False)
            bands.append((np.where(band, labels, 255), prediction))
        labels, predictions = (np.concatenate([pair[part].ravel() for pair in bands]) for part in (0, 1))
        expected = [100 * iou(labels, predictions, index) for index in range(3)]
        found = [row[f"TrimapIoU@{width}px"] for row in result["per_class"].values()]
        assert found == [*near(expected), None]
        assert result[f"mTrimapIoU@{width}px"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("name", ["boundary", "trimap"])
def test_a_perfect_prediction_near_borders(name):
    pairs = [(labels, np.where(labels == 255, 0, labels), logits) for labels, _, logits in images()]
    values = [value for key, value in scored(pairs, name).items() if key.startswith("m")]
    assert values == [100.0]


# Calibration


def flat(pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and logits (p, K) of all pixels that count, two logits for a single score."""
    logits = [pair[2].reshape(len(pair[2]), -1).T for pair in pairs]
    labels, predictions = (np.concatenate([pair[part].ravel() for pair in pairs]) for part in (0, 1))
    values = np.concatenate(logits).astype(np.float64)
    if values.shape[1] == 1:
        values = np.concatenate([np.zeros_like(values), values], axis=1)
    valid = labels != 255
    return labels[valid], predictions[valid], values[valid]


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        total += abs(confidence[inside].sum() - right[inside].sum())
    return total / len(confidence)


@pytest.mark.parametrize("channels", [None, 1])
def test_calibration(channels):
    pairs = images(classes=K if channels is None else 2, channels=channels)
    labels, predictions, logits = flat(pairs)
    places = np.arange(len(labels))
    result = scored(pairs, "calibration")
    confidence = softmax(logits)[places, predictions]
    assert result["ECE"] == pytest.approx(100 * calibration_error(confidence, predictions == labels), abs=0.02)

    def loss(temperature: float) -> float:
        return -np.log(softmax(logits / temperature)[places, labels]).mean()

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x
    assert result["temperature"] == pytest.approx(best, rel=0.01)
    assert result["ECE_fitted"] < result["ECE"] + 0.5
    assert sum(row["pixels"] for row in result["reliability"]) == len(labels)


def test_an_overconfident_model_is_cooled_down():
    pairs = images()
    plain = scored(pairs, "calibration")
    hot = scored([(labels, prediction, 8 * logits) for labels, prediction, logits in pairs], "calibration")
    assert hot["ECE_fitted"] < hot["ECE"] / 2
    assert hot["temperature"] == pytest.approx(8 * plain["temperature"], rel=0.01)


# Thresholds


def test_threshold_search():
    pairs = images(classes=2, channels=1)
    labels, _, logits = flat(pairs)
    scores = 1 / (1 + np.exp(-logits[:, 1].astype(np.float32)))
    found = {}
    for step in range(1, 100):
        above = scores > np.float32(step / 100)
        found[step / 100] = (above & (labels == 1)).sum() / (above | (labels == 1)).sum()
    best = max(found, key=found.get)
    result = scored(pairs, "threshold")
    assert result["best_threshold"] == best
    assert result["best_threshold_IoU"] == pytest.approx(100 * found[best])


def test_thresholds_are_for_one_score():
    with pytest.raises(UserError, match="out_channels=1"):
        scored(images(), "threshold")


# Intervals


def test_bootstrap_intervals():
    pairs = images(8)
    result = scored(pairs, "mIoU", bootstrap=400)
    low, high = result["intervals"]["mIoU"]
    assert low < result["mIoU"] < high
    rng, values = np.random.default_rng(0), []
    for _ in range(400):
        drawn = [pairs[index] for index in rng.integers(0, len(pairs), len(pairs))]
        values.append(scored(drawn, "mIoU")["mIoU"])
    assert (low, high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1.5)
    assert result["intervals"]["per_class"]["d"]["IoU"] == (None, None), "there is none"
    assert f"mIoU {result['mIoU']:.2f} [{low:.2f}, {high:.2f}]" in summary(result)


def test_intervals_are_the_same_every_time():
    assert scored(images(), "mIoU", bootstrap=50) == scored(images(), "mIoU", bootstrap=50)


def test_one_image_has_no_spread():
    result = scored(images(1), "mIoU", bootstrap=20)
    assert result["intervals"]["mIoU"] == pytest.approx((result["mIoU"], result["mIoU"]))


# Depth

DEPTH = json.loads((GOLDEN / "depth.json").read_text())["cases"]


@pytest.mark.parametrize("case", DEPTH, ids=lambda case: "-".join(case["options"]) or "plain")
def test_depth_equal_to_golden(case):
    errors, random = DepthEvaluator(**case["options"]), np.random.Generator(np.random.PCG64(5))
    for _ in range(2):
        truth = random.uniform(0, 12, (480, 640))
        truth[random.random((480, 640)) < 0.2] = 0
        found = truth * np.exp(random.normal(0, 0.2, (480, 640))) + random.uniform(0, 0.1, (480, 640))
        errors.update(torch.from_numpy(np.clip(found, 0.01, None)), torch.from_numpy(truth))
    assert errors.compute() == pytest.approx(case["scores"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"), [({"depth_metrics": ["rsme"]}, "'rmse'"), ({"crop_type": "kitti"}, "'kitti' is unknown")]
)
def test_mistakes_about_depth(options, message):
    with pytest.raises(UserError, match=message):
        DepthEvaluator(**options)


# All together


def test_metrics_join_one_result():
    result = scored(images(), "mIoU", "per-image", "boundary", "calibration")
    assert list(result)[:3] == ["aAcc", "mIoU", "mAcc"] and list(result)[-1] == "per_class"
    assert set(result["per_class"]["a"]) == {"IoU", "Acc", "IoU_C", "BoundaryIoU"}


def test_a_metric_of_ones_own():
    @METRICS.register(name="share-of-a")
    class ShareOfA(Metric):
        """Pixels predicted as the first class."""

        def __init__(self, classes):
            super().__init__(classes)
            self.first = self.pixels = 0

        def update(self, seen):
            self.first += int((seen.prediction == 0).sum())
            self.pixels += seen.prediction.numel()

        def compute(self):
            return {"share_of_a": 100 * self.first / self.pixels}

    try:
        pairs = images()
        share = np.mean(np.concatenate([(prediction == 0).ravel() for _, prediction, _ in pairs]))
        assert scored(pairs, "share-of-a")["share_of_a"] == pytest.approx(100 * share)
    finally:
        del METRICS.types["share-of-a"]


def test_what_two_processes_saw_adds_up(monkeypatch):
    names = ("mIoU", "boundary", "trimap", "per-image", "calibration")
    pairs = images(4)
    halves = []
    for part in (pairs[::2], pairs[1::2]):
        evaluator = Evaluator([{"type": name} for name in names], CLASSES)
        for labels, prediction, logits in part:
            values = torch.from_numpy(logits).flatten(1).T
            maps = torch.from_numpy(prediction), torch.from_numpy(labels)
            evaluator.update(*maps, lambda values=values: iter([values]))
        halves.append(evaluator)
    waiting = [getattr(part, name) for part in halves[1].parts for name in part.sums]
    monkeypatch.setattr(ProcessGroup, "sum", lambda group, value: value + torch.as_tensor(waiting.pop(0)))
    scoring.add_up(halves[0], ProcessGroup(size=2))
    found, expected = halves[0].compute(), scored(pairs, *names)
    assert found["per_class"] == expected["per_class"]
    for name in ("aAcc", "mIoU", "mBoundaryIoU", "mTrimapIoU@5px", "mIoU_I", "mIoU_C", "ECE"):
        assert found[name] == pytest.approx(expected[name]), name


def test_a_metric_without_sums_is_for_one_process():
    with pytest.raises(UserError, match="terrazzo test"):
        scoring.add_up(Namespace(parts=[Metric(CLASSES)]), ProcessGroup(size=2))


def test_memory_does_not_grow_with_the_images():
    specs = [{"type": name} for name in ("mIoU", "per-image", "boundary", "trimap", "calibration")]
    evaluator = Evaluator(specs, CLASSES)

    def elements() -> int:
        parts = [vars(metric) for metric in (evaluator.confusion, *evaluator.others)]
        arrays = [value for part in parts for value in part.values() if isinstance(value, np.ndarray | torch.Tensor)]
        lists = [len(value) for part in parts for value in part.values() if isinstance(value, list | dict)]
        return sum(int(np.prod(array.shape)) for array in arrays) + sum(lists)

    before = elements()
    for labels, prediction, logits in images(6):
        values = torch.from_numpy(logits).flatten(1).T
        evaluator.update(torch.from_numpy(prediction), torch.from_numpy(labels), lambda values=values: iter([values]))
    assert elements() == before


def test_the_script_of_cityscapes_scores_as_we_do(tmp_path):
    pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    classes = list(dataset_spec("CityscapesDataset").classes)
    evaluator = Evaluator([{"type": "mIoU"}, {"type": "cityscapes"}], classes)
    rng = np.random.default_rng(3)
    for index in range(2):
        labels = rng.choice([*range(19), 255], (64, 96)).astype(np.uint8)
        prediction = np.where(rng.random(labels.shape) < 0.7, labels % 19, rng.integers(0, 19, labels.shape))
        place = tmp_path / f"a_{index:06d}_000019_gtFine_labelTrainIds.png"
        save_label(place, labels)
        save_label(tmp_path / place.name.replace("TrainIds", "Ids"), np.array([*IDS, *[0] * 237], np.uint8)[labels])
        evaluator.update(
            torch.from_numpy(prediction.astype(np.uint8)), torch.from_numpy(labels), iter, label_path=place
        )
    result = evaluator.compute()
    assert result["official_IoU"] == pytest.approx(result["mIoU"])
