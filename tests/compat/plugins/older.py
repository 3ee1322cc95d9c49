"""A plug-in of every kind in the style of MMSegmentation 0.x."""

import mmcv
import numpy as np
import torch
import torch.nn as nn
from mmcv.cnn import ConvModule, build_norm_layer, constant_init
from mmcv.runner import HOOKS, BaseModule, Hook, auto_fp16, force_fp32
from mmseg.core import add_prefix
from mmseg.datasets.builder import DATASETS, PIPELINES
from mmseg.datasets.custom import CustomDataset
from mmseg.datasets.pipelines import Compose
from mmseg.models.backbones import VisionTransformer
from mmseg.models.builder import BACKBONES, HEADS, LOSSES, NECKS, SEGMENTORS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses.utils import weight_reduce_loss
from mmseg.models.segmentors.encoder_decoder import EncoderDecoder
from mmseg.ops import resize
from mmseg.utils import get_root_logger

CALLS = []


@BACKBONES.register_module()
class OldBackbone(BaseModule):
    def __init__(self, widths, norm_cfg=dict(type="SyncBN"), pretrained=None, init_cfg=None):
        super(OldBackbone, self).__init__(init_cfg)
        self.first = ConvModule(3, widths[0], 3, stride=2, padding=1, norm_cfg=norm_cfg)
        self.norm_name, norm = build_norm_layer(norm_cfg, widths[1], postfix=1)
        self.second = nn.Conv2d(widths[0], widths[1], 3, 2, 1, bias=False)
        self.add_module(self.norm_name, norm)

    def init_weights(self, pretrained=None):
        CALLS.append("init_weights")
        constant_init(self.bn1, 2.0)

    def forward(self, x):
        x = self.first(x)
        return [x, self.bn1(self.second(x)).relu()]


class OldViT(VisionTransformer):
    def __init__(self, img_size, patch_size, in_channels, embed_dims, num_layers, num_heads):
        super(OldViT, self).__init__(img_size, patch_size, in_channels, embed_dims, num_layers, num_heads)


@NECKS.register_module()
class OldNeck(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(width, out_channels, 1) for width in in_channels])

    def forward(self, inputs):
        return tuple(conv(x) for conv, x in zip(self.convs, inputs))


@LOSSES.register_module()
class OldLoss(nn.Module):
    def __init__(self, loss_weight=1.0, loss_name="loss_old"):
        super().__init__()
        self.loss_weight, self._loss_name = loss_weight, loss_name

    @property
    def loss_name(self):
        return self._loss_name

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None, ignore_index=255, **kwargs):
        values = nn.functional.cross_entropy(pred, target, reduction="none", ignore_index=ignore_index)
        return self.loss_weight * weight_reduce_loss(values, weight, "mean", avg_factor)


@HEADS.register_module()
class OldHead(BaseDecodeHead):
    def __init__(self, options, **kwargs):
        super(OldHead, self).__init__(input_transform="multiple_select", **kwargs)
        self.mix = ConvModule(sum(self.in_channels), self.channels, 1, norm_cfg=self.norm_cfg)
        self.scale = options.scale  # a section's keys are attributes

    @auto_fp16()
    def forward(self, inputs):
        first, *others = self._transform_inputs(inputs)
        others = [resize(x, size=first.shape[2:], mode="bilinear", align_corners=self.align_corners) for x in others]
        return self.cls_seg(self.mix(torch.cat([first, *others], dim=1)) * self.scale)

    @force_fp32(apply_to=("seg_logit",))
    def losses(self, seg_logit, seg_label):
        losses = super().losses(seg_logit, seg_label)
        losses["loss_size"] = 0.1 * seg_logit.square().mean()
        return losses

    def forward_train(self, inputs, img_metas, gt_semantic_seg, train_cfg):
        assert gt_semantic_seg.ndim == 4 and "img_shape" in img_metas[0]
        return self.losses(self.forward(inputs), gt_semantic_seg)


@SEGMENTORS.register_module()
class OldSegmentor(EncoderDecoder):
    def extract_feat(self, img):
        CALLS.append("extract_feat")
        return super().extract_feat(img)

    def forward_train(self, img, img_metas, gt_semantic_seg, **kwargs):
        x = self.extract_feat(img)
        losses = dict()
        losses.update(self._decode_head_forward_train(x, img_metas, gt_semantic_seg))
        losses.update(add_prefix({"loss_extra": x[0].abs().mean()}, "own"))
        return losses

    def encode_decode(self, img, img_metas):
        return super().encode_decode(img, img_metas) + 1.0


@DATASETS.register_module()
class OldDataset(CustomDataset):
    CLASSES = ("sky", "wall", "road")
    PALETTE = [[0, 0, 255], [128, 128, 128], [64, 0, 64]]

    def __init__(self, **kwargs):
        super(OldDataset, self).__init__(img_suffix="_photo.png", seg_map_suffix="_classes.png", **kwargs)


@PIPELINES.register_module()
class OldTransform:
    def __init__(self, value, prob=1.0):
        self.value, self.prob = value, prob

    def __call__(self, results):
        if np.random.rand() <= self.prob:
            results["img"][..., 0] = self.value  # blue: images are BGR
            results["gt_semantic_seg"] = mmcv.imflip(results["gt_semantic_seg"])
            results["img"] = mmcv.imflip(results["img"])
        return results


@HOOKS.register_module()
class OldHook(Hook):
    def before_run(self, runner):
        CALLS.append("before_run")
        get_root_logger().info("a run of %d steps", runner.max_iters)

    def after_train_iter(self, runner):
        CALLS.append(("after_train_iter", runner.iter, runner.outputs["loss"].item() > 0))


@DATASETS.register_module()
class CopiedDataset(torch.utils.data.Dataset):
    """A copy of the base of 0.x, as projects have it: it lists its images and makes its items itself."""

    CLASSES = ("sky", "wall", "road")
    PALETTE = np.array([[0, 0, 0], [9, 9, 9], [64, 0, 64]])

    def __init__(self, pipeline, img_dir, img_suffix="_photo.png", ann_dir=None, data_root=None, test_mode=False):
        self.pipeline, self.test_mode = Compose(pipeline), test_mode
        self.img_dir, self.ann_dir = (f"{data_root}/{folder}" for folder in (img_dir, ann_dir))
        self.label_map = {0: -1, 1: 1, 2: 2}
        names = mmcv.scandir(self.img_dir, img_suffix)
        self.img_infos = [dict(filename=name, ann=dict(seg_map=name.replace("photo", "classes"))) for name in names]

    def __len__(self):
        return len(self.img_infos)

    def __getitem__(self, idx):
        return self.prepare_test_img(idx) if self.test_mode else self.prepare_train_img(idx)

    def pre_pipeline(self, results):
        results.update(seg_fields=[], img_prefix=self.img_dir, seg_prefix=self.ann_dir, own="mine")

    def prepare_train_img(self, idx):
        results = dict(img_info=self.img_infos[idx], ann_info=self.img_infos[idx]["ann"])
        self.pre_pipeline(results)
        return self.pipeline(results)

    def prepare_test_img(self, idx):
        results = dict(img_info=self.img_infos[idx])
        self.pre_pipeline(results)
        return self.pipeline(results)
