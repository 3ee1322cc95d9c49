"""Steps that load labels or change them, in both styles."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets.pipelines import LoadAnnotations as OlderLoadAnnotations
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)


@TRANSFORMS.register_module()
class LoadWithoutVoid(LoadAnnotations):
    """Labels whose class 3 is none."""

    def _load_seg_map(self, results):
        super()._load_seg_map(results)
        results["gt_seg_map"][results["gt_seg_map"] == 3] = 255


@TRANSFORMS.register_module()
class ReadColourMasks(OlderLoadAnnotations):
    """Masks of colours, of images that have been read."""

    def __call__(self, results):
        mask = mmcv.imread(results["ann_info"]["seg_map"], channel_order="rgb")
        assert mask.shape == results["img"].shape
        results["gt_semantic_seg"] = (mask[:, :, None] == COLOURS).all(-1).argmax(-1).astype(np.uint8)
        results["seg_fields"].append("gt_semantic_seg")
        return results


@TRANSFORMS.register_module()
class VoidTo255(BaseTransform):
    def transform(self, results):
        results["gt_seg_map"][results["gt_seg_map"] == 3] = 255
        return results
