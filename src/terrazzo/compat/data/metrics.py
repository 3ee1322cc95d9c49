"""Metrics that see SegDataSamples: users' ones in terrazzo's evaluation, and `IoUMetric` as a base."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.compat.files.image import imread, imwrite
from terrazzo.compat.registry import BUILDS, ORIGINALS, wrapping
from terrazzo.metrics.base import Metric, Seen
from terrazzo.metrics.confusion import class_scores

SCORES = {"mIoU": ("IoU", "Acc"), "mDice": ("Dice", "Acc"), "mFscore": ("Fscore", "Precision", "Recall")}


class BaseMetric:
    """A metric that keeps results of images in `self.results` and computes scores of all of them."""

    default_prefix: str | None = None
    dataset_meta: Any = None

    def __init__(self, collect_device: str = "cpu", prefix: str | None = None, collect_dir: Any = None) -> None:
        self.collect_device, self.prefix = collect_device, prefix or self.default_prefix
        self.results: list[Any] = []

    def evaluate(self, size: int) -> dict[str, float]:
        scores, self.results = dict(self.compute_metrics(self.results)), []  # type: ignore[attr-defined]
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in scores.items()}


class IoUMetric(BaseMetric):
    """IoU, Dice or F-score of classes from intersections and unions of histograms."""

    def __init__(
        self, ignore_index: int = 255, iou_metrics: Sequence[str] = ("mIoU",), nan_to_num: int | None = None,
        beta: int = 1, collect_device: str = "cpu", output_dir: Any = None, format_only: bool = False,
        prefix: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(collect_device, prefix)
        self.ignore_index, self.metrics, self.nan_to_num, self.beta = ignore_index, iou_metrics, nan_to_num, beta
        self.output_dir, self.format_only = output_dir, format_only

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        for sample in data_samples:
            predicted = sample["pred_sem_seg"]["data"].squeeze()
            if self.output_dir is not None:  # counted from 1 where label 0 is none
                labels = predicted.cpu().numpy() + int(bool(sample.get("reduce_zero_label")))
                imwrite(labels.astype(np.uint8), Path(self.output_dir, f"{Path(sample['img_path']).stem}.png"))
            if not self.format_only:
                label, count = sample["gt_sem_seg"]["data"].squeeze(), len(self.dataset_meta["classes"])
                self.results.append(self.intersect_and_union(predicted.to(label), label, count, self.ignore_index))

    @staticmethod
    def intersect_and_union(pred_label: Any, label: Any, num_classes: int, ignore_index: int) -> tuple[Any, ...]:
        valid = label != ignore_index
        predicted, label = pred_label[valid], label[valid]
        areas = [torch.histc(x.float(), bins=num_classes, min=0, max=num_classes - 1).cpu()
                 for x in (predicted[predicted == label], predicted, label)]  # fmt: skip
        return areas[0], areas[1] + areas[2] - areas[0], areas[1], areas[2]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        totals = [sum(column) for column in zip(*results, strict=True)]
        options: Any = (self.metrics, self.nan_to_num, self.beta)
        scores = self.total_area_to_metrics(*totals, *options)
        return {name if name == "aAcc" else f"m{name}": float(np.round(np.nanmean(value) * 100, 2))
                for name, value in scores.items()}  # fmt: skip

    @staticmethod
    def total_area_to_metrics(
        total_area_intersect: Any, total_area_union: Any, total_area_pred_label: Any, total_area_label: Any,
        metrics: Sequence[str] = ("mIoU",), nan_to_num: int | None = None, beta: int = 1,
    ) -> OrderedDict[str, Any]:  # fmt: skip
        metrics = [metrics] if isinstance(metrics, str) else metrics
        if unknown := [name for name in metrics if name not in SCORES]:
            raise KeyError(f"metrics {unknown} is not supported")
        areas = [np.asarray(area, float) for area in (total_area_intersect, total_area_label, total_area_pred_label)]
        found = class_scores(areas[0], areas[1], areas[2], beta, nan_to_num)
        chosen = dict.fromkeys(["aAcc", *(score for name in metrics for score in SCORES[name])])
        return OrderedDict((name, found[name]) for name in chosen)


def intersect_and_union(
    pred_label: Any, label: Any, num_classes: int, ignore_index: int, label_map: Any = None,
    reduce_zero_label: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """0.x: the areas of two class maps (H, W), or of the files that they are in."""
    predicted = torch.as_tensor(np.load(pred_label) if isinstance(pred_label, str) else np.asarray(pred_label))
    stored = torch.as_tensor(np.asarray(imread(label, "unchanged") if isinstance(label, str) else label)).long()
    found = stored
    for old, new in (label_map or {}).items():
        found = torch.where(stored == old, new, found)
    if reduce_zero_label:
        found = torch.where((found == 0) | (found == 255), 255, found - 1)
    return IoUMetric.intersect_and_union(predicted.long(), found, num_classes, ignore_index)


def pre_eval_to_metrics(
    pre_eval_results: Any, metrics: Any = ("mIoU",), nan_to_num: int | None = None, beta: int = 1
) -> OrderedDict[str, Any]:
    """0.x: the scores of the areas of several images."""
    both, either, predicted, label = (sum(column) for column in zip(*pre_eval_results, strict=True))
    return IoUMetric.total_area_to_metrics(both, either, predicted, label, metrics, nan_to_num, beta)


def eval_metrics(
    results: Any, gt_seg_maps: Any, num_classes: int, ignore_index: int, metrics: Any = ("mIoU",),
    nan_to_num: int | None = None, label_map: Any = None, reduce_zero_label: bool = False, beta: int = 1,
) -> OrderedDict[str, Any]:  # fmt: skip
    """0.x: the scores of predicted and true class maps (H, W)."""
    given: Any = (num_classes, ignore_index, label_map, reduce_zero_label)
    areas = [intersect_and_union(*maps, *given) for maps in zip(results, gt_seg_maps, strict=True)]
    return pre_eval_to_metrics(areas, metrics, nan_to_num, beta)


class LazySample(dict):  # type: ignore[type-arg]
    """A sample's values, whose logits are computed when they are asked for."""

    seen: Seen

    def __missing__(self, key: str) -> Any:
        if key != "seg_logits":
            raise KeyError(key)
        self[key] = {"data": torch.cat([*self.seen.logits()]).T.reshape(-1, *self["ori_shape"])}
        return self[key]


class UserMetric(Metric):
    """A user's metric among terrazzo's: it sees each image as a dict of a SegDataSample's values."""

    palette = property(None, lambda self, value: self.inner.dataset_meta.update(palette=[[*rgb] for rgb in value]))

    def __init__(self, inner: Any, classes: Sequence[str] = ()) -> None:
        super().__init__(classes)
        self.inner, self.count = inner, 0
        inner.dataset_meta = {"classes": tuple(classes), "palette": None}

    def update(self, seen: Seen) -> None:
        size = seen.labels.shape[-2:]
        maps = {"pred_sem_seg": seen.prediction, "gt_sem_seg": seen.labels}
        sample = LazySample({name: {"data": value.reshape(1, *size)} for name, value in maps.items()})
        sample.update(img_path=str(seen.image_path), seg_map_path=str(seen.label_path), ori_shape=size, img_shape=size)
        sample.seen = seen
        self.inner.process({"inputs": [], "data_samples": [sample]}, [sample])
        self.count += 1

    def compute(self) -> dict[str, Any]:
        scores = self.inner.evaluate(self.count)
        return {name: float(value) for name, value in scores.items() if np.ndim(value) == 0}


BUILDS["metric"] = wrapping(UserMetric)
ORIGINALS["metric"] = {"IoUMetric": IoUMetric}.get
TABLE: dict[str, Any] = {
    f"mean_{name}": lambda results, gt_seg_maps, num_classes, ignore_index, *given, metrics=score, **options: (
        eval_metrics(results, gt_seg_maps, num_classes, ignore_index, metrics, *given, **options)
    )
    for name, score in (("iou", "mIoU"), ("dice", "mDice"), ("fscore", "mFscore"))
}
