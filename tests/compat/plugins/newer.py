"""A plug-in of every kind in the style of MMSegmentation 1.x."""

from typing import List

import numpy as np
import torch
import torch.nn as nn
from mmcv.cnn import DepthwiseSeparableConvModule, build_activation_layer
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmcv.transforms import BaseTransform
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MMLogger, print_log
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.models.decode_heads import FCNHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import accuracy
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import nchw_to_nlc, nlc_to_nchw, resize
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmseg.utils import ConfigType, OptConfigType, SampleList, add_prefix
from torch import Tensor

CALLS = []


@MODELS.register_module()
class NewActivation(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


@MODELS.register_module()
class NewBackbone(BaseModule):
    def __init__(
        self, width, act_cfg=dict(type="NewActivation"), init_cfg=dict(type="Normal", layer="Conv2d", std=0.02)
    ):
        super().__init__(init_cfg=init_cfg)
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.act = build_activation_layer(act_cfg)
        self.attn = MultiheadAttention(width, 2, batch_first=True, dropout_layer=dict(type="DropPath", drop_prob=0.1))
        self.ffn = FFN(width, width * 2, num_fcs=2, act_cfg=dict(type="GELU"))
        self.local = DepthwiseSeparableConvModule(width, width, 3, padding=1, norm_cfg=dict(type="BN"))

    def forward(self, x):
        x = self.act(self.stem(x))
        tokens = nchw_to_nlc(x)
        tokens = self.ffn(self.attn(tokens))
        return (self.local(nlc_to_nchw(tokens, x.shape[2:])),)


@MODELS.register_module(force=True)
class FCNHead(FCNHead):  # of an official name
    def _forward_feature(self, inputs):
        CALLS.append("_forward_feature")
        return super()._forward_feature(inputs)


@MODELS.register_module()
class NewHead(BaseDecodeHead):
    def __init__(self, extra: OptConfigType = None, **kwargs):
        super().__init__(**kwargs)
        self.fuse = nn.Conv2d(self.in_channels, self.channels, 1)

    def forward(self, inputs):
        return self.cls_seg(self.fuse(self._transform_inputs(inputs)))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: SampleList) -> dict:
        label = torch.stack([sample.gt_sem_seg.data for sample in batch_data_samples]).squeeze(1)
        logits = resize(seg_logits, size=label.shape[1:], mode="bilinear", align_corners=False)
        loss = self.loss_decode(logits, label, ignore_index=self.ignore_index)
        return dict(loss_new=loss, acc_seg=accuracy(logits, label, ignore_index=self.ignore_index))

    def predict(self, inputs, batch_img_metas: List[dict], test_cfg: ConfigType) -> Tensor:
        CALLS.append(("predict", batch_img_metas[0]["img_shape"]))
        return self.predict_by_feat(self.forward(inputs), batch_img_metas)


@MODELS.register_module()
class NewSegmentor(EncoderDecoder):
    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict:
        x = self.extract_feat(inputs)
        losses = self._decode_head_forward_train(x, data_samples)
        losses.update(add_prefix(dict(loss_count=x[0].new_tensor(float(len(data_samples)))), "own"))
        return losses


@MODELS.register_module()
class EachSegmentor(EncoderDecoder):
    """One that decides image by image, as Open-CD's do."""

    def predict(self, inputs: Tensor, data_samples: SampleList = None) -> SampleList:
        logits = self.encode_decode(inputs, [sample.metainfo for sample in data_samples])
        return self.postprocess_result(logits, data_samples)

    def postprocess_result(self, seg_logits: Tensor, data_samples: SampleList) -> SampleList:
        for i in range(len(seg_logits)):
            height, width = data_samples[i].metainfo["ori_shape"]
            data_samples[i].set_data({"seg_logits": PixelData(data=seg_logits[i, :, :height, :width])})
        return data_samples


@DATASETS.register_module()
class NewDataset(BaseSegDataset):
    METAINFO = dict(classes=("sky", "wall", "road"), palette=[[0, 0, 255], [128, 128, 128], [64, 0, 64]])

    def __init__(self, skip=0, **kwargs) -> None:
        self.skip = skip
        super().__init__(img_suffix="_photo.png", seg_map_suffix="_classes.png", **kwargs)

    def load_data_list(self) -> List[dict]:
        return super().load_data_list()[self.skip :]


@TRANSFORMS.register_module()
class NewTransform(BaseTransform):
    def __init__(self, value: int):
        self.value = value

    def transform(self, results: dict) -> dict:
        results["img"][..., 2] = self.value  # red: images are BGR
        results["gt_seg_map"] = np.where(results["gt_seg_map"] == 0, 255, results["gt_seg_map"])
        return results


@METRICS.register_module()
class NewMetric(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            label, predicted = sample["gt_sem_seg"]["data"], sample["pred_sem_seg"]["data"]
            assert sample["seg_logits"]["data"].shape[0] == len(self.dataset_meta["classes"])
            self.results.append(float((label == predicted).float().mean()))

    def compute_metrics(self, results) -> dict:
        print_log("the share of right pixels", MMLogger.get_current_instance())
        return {"share": float(np.mean(results))}


@HOOKS.register_module()
class NewHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        CALLS.append(("after_train_iter", runner.iter, sorted(outputs)))

    def after_val_epoch(self, runner, metrics=None) -> None:
        CALLS.append(("after_val_epoch", "mIoU" in metrics))
