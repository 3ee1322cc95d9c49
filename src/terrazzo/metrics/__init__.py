"""Metrics, streaming and on the device of the predictions."""

from terrazzo.metrics.confusion import ConfusionMatrix

__all__ = ["ConfusionMatrix"]
