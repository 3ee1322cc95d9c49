"""The `*_evaluator` sections: the metrics of a run and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.config.sections import check_keys
from terrazzo.errors import UserError, nearest
from terrazzo.registry import METRICS

METRIC_NAMES = (
    "mIoU", "mDice", "mFscore", "boundary", "trimap", "per-image", "calibration", "threshold", "cityscapes", "depth",
)  # fmt: skip
SHARED_KEYS = (
    "type", "prefix", "collect_device", "collect_dir", "dist_collect_mode", "format_only", "output_dir", "ignore_index",
    "nan_to_num",
)  # fmt: skip
KEYS = {
    "IoUMetric": ("iou_metrics", "beta"),
    "CityscapesMetric": ("keep_results",),
    "DepthMetric": ("depth_metrics", "min_depth_eval", "max_depth_eval", "crop_type", "depth_scale_factor"),
}


@dataclass(frozen=True)
class EvaluatorSettings:
    """Metrics as specs, `{"type": name, **options}`; with `format_only` predictions are written and nothing scored."""

    metrics: tuple[dict[str, Any], ...] = ({"type": "mIoU"},)
    beta: float = 1.0  # of mFscore
    format_only: bool = False
    output_dir: str | None = None


def evaluator_settings(section: Any, where: str) -> EvaluatorSettings:
    """Read one evaluator, or several as one. Raises UserError for an unknown metric or key."""
    evaluators = section if isinstance(section, (list, tuple)) else [section or {}]
    metrics: dict[str, dict[str, Any]] = {}
    for evaluator in evaluators:
        metrics |= {spec["type"]: spec for spec in metric_specs(evaluator, where)}
    joined = {key: value for evaluator in evaluators for key, value in evaluator.items()}
    return EvaluatorSettings(
        metrics=tuple(metrics.values()),
        beta=float(joined.get("beta", 1)),
        format_only=bool(joined.get("format_only", False)),
        output_dir=joined.get("output_dir"),
    )


def metric_specs(evaluator: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The metrics of one evaluator."""
    kind = str(evaluator.get("type", "IoUMetric")).rpartition(".")[2]
    if kind not in KEYS:
        return [checked_metric(dict(evaluator), f"{where}.type")]
    check_keys(evaluator, (*SHARED_KEYS, *KEYS[kind]), where)
    if kind == "CityscapesMetric":
        return [{"type": "cityscapes"}]
    if kind == "DepthMetric":
        options = {key: evaluator[key] for key in KEYS[kind][:4] if key in evaluator}
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
