"""Metrics, streaming and on the device of the predictions."""

from terrazzo.metrics.base import Metric, Seen
from terrazzo.metrics.confusion import ConfusionMatrix
from terrazzo.metrics.evaluator import DepthEvaluator, Evaluator

__all__ = ["ConfusionMatrix", "DepthEvaluator", "Evaluator", "Metric", "Seen"]
