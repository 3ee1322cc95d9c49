"""Metrics, streaming and on the device of the predictions."""

from terrazzo.metrics.confusion import ConfusionMatrix, check_groups

__all__ = ["ConfusionMatrix", "check_groups"]
