"""The `*_evaluator` sections: the metrics of a run and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.arguments import described, fits
from terrazzo.config.reading.section import Section
from terrazzo.config.sections import ACTS, ANY, Only, check_section, number, switch, whole_number, wrong
from terrazzo.errors import UserError, nearest
from terrazzo.registry import METRICS

METRIC_NAMES = (
    "mIoU", "mDice", "mFscore", "boundary", "trimap", "per-image", "calibration", "threshold", "cityscapes", "depth",
)  # fmt: skip
SHARED = {
    **dict.fromkeys(("type", "format_only", "output_dir"), ACTS),
    **dict.fromkeys(("prefix", "collect_device", "collect_dir", "dist_collect_mode"), ANY),
}
DEPTH_KEYS = ("depth_metrics", "min_depth_eval", "max_depth_eval", "crop_type")
KEYS = {
    "IoUMetric": SHARED | dict.fromkeys(("iou_metrics", "beta", "ignore_index", "nan_to_num"), ACTS),
    "CityscapesMetric": SHARED | {
        "keep_results": Only((False,), "`terrazzo test --out` keeps them"),
        "ignore_index": Only((255,), "its own script decides"),
    },
    "DepthMetric": SHARED | dict.fromkeys(DEPTH_KEYS, ACTS) | {"depth_scale_factor": ANY},
}  # fmt: skip


@dataclass(frozen=True)
class EvaluatorSettings:
    """Metrics as specs, `{"type": name, **options}`; with `format_only` predictions are written and nothing scored."""

    metrics: tuple[dict[str, Any], ...] = ({"type": "mIoU"},)
    beta: float = 1.0  # of mFscore
    ignore_index: int | None = None  # a class whose pixels do not count, besides 255
    nan_to_num: float | None = None  # the score (a fraction) of a class that occurs nowhere; None: it does not count
    format_only: bool = False
    output_dir: str | None = None


def evaluator_settings(section: Any, where: str) -> EvaluatorSettings:
    """Read one evaluator, or several as one. Raises UserError for an unknown metric or key."""
    evaluators = section if isinstance(section, (list, tuple)) else [section or {}]
    metrics: dict[str, dict[str, Any]] = {}
    for evaluator in evaluators:
        metrics |= {spec["type"]: spec for spec in metric_specs(evaluator, where)}
    joined = Section()
    for evaluator in evaluators:
        joined.absorb(evaluator)
    ignored, absent, folder = (joined.get(key) for key in ("ignore_index", "nan_to_num", "output_dir"))
    for key, value, kind in (("nan_to_num", absent, float | None), ("output_dir", folder, str | None)):
        if not fits(value, kind):
            raise wrong(joined, key, where, described(kind))
    return EvaluatorSettings(
        metrics=tuple(metrics.values()),
        beta=number(joined, "beta", 1.0, where),
        format_only=switch(joined, "format_only", where),
        output_dir=folder,
        ignore_index=None if ignored in (None, 255) else whole_number(joined, "ignore_index", 255, where, 0, 255),
        nan_to_num=absent,
    )


def metric_specs(evaluator: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The metrics of one evaluator."""
    kind = str(evaluator.get("type", "IoUMetric")).rpartition(".")[2]
    if kind not in KEYS or kind in METRICS.raw:  # a user's comes first
        return [checked_metric(dict(evaluator), f"{where}.type")]
    check_section(evaluator, KEYS[kind], where)
    if kind == "CityscapesMetric":
        return [{"type": "cityscapes"}]
    if kind == "DepthMetric":
        options = {key: evaluator[key] for key in DEPTH_KEYS if key in evaluator}
        return [{"type": "depth", **options}]
    wanted = evaluator.get("iou_metrics") or ["mIoU"]
    items = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    specs = [dict(item) if isinstance(item, Mapping) else {"type": item} for item in items]
    return [checked_metric(spec, f"{where}.iou_metrics") for spec in specs]


def checked_metric(spec: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a metric's spec unchanged. Raises UserError if neither we nor the user have a metric of that name."""
    name = str(spec.get("type"))
    if name not in METRIC_NAMES and name not in METRICS:
        raise UserError(f"{where}: no metric is called '{name}'{nearest(name, (*METRIC_NAMES, *METRICS))}")
    return spec
