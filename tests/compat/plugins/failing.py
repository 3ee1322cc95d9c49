"""Parts that fail, each at a line of this file."""

from mmcv.transforms import BaseTransform
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmseg.registry import HOOKS, METRICS, TRANSFORMS


@HOOKS.register_module()
class FailingHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise KeyError("of the hook")


@METRICS.register_module()
class FailingMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        raise AssertionError("of the metric")


@TRANSFORMS.register_module()
class FailingTransform(BaseTransform):
    def __init__(self, value):
        self.value = value

    def transform(self, results):
        if self.value == 9:
            raise FileNotFoundError("of the transform")
        return results["what the transform needs"]
