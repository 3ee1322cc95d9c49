"""Metrics, streaming and on the device of the predictions."""

from terrazzo.metrics.base import Metric, Seen
from terrazzo.metrics.confusion import ConfusionMatrix
from terrazzo.metrics.depth import DepthEvaluator
from terrazzo.metrics.evaluator import Evaluator

__all__ = ["ConfusionMatrix", "DepthEvaluator", "Evaluator", "Metric", "Seen"]
