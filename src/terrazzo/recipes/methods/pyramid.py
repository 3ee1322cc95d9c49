"""Methods that use all four stages of a backbone: HRNet's FCN, OCRNet, Semantic FPN, PointRend, UPerNet, FastFCN."""

from __future__ import annotations

from terrazzo.recipes.backbones import Backbone, backbone
from terrazzo.recipes.methods import family
from terrazzo.recipes.parts import Spec, batch_norm, fpn, part, sgd, wrapper
from terrazzo.recipes.plan import Plan


def joined_fcn(plan: Plan, body: Backbone, weight: float = 1.0) -> Spec:
    """One 1x1 convolution on the stages of HRNet, resized to one size and joined."""
    options = {"input_transform": "resize_concat", "kernel_size": 1, "num_convs": 1, "concat_input": False}
    return plan.head("FCNHead", body.channels, [0, 1, 2, 3], sum(body.channels), weight, dropout_ratio=-1, **options)


@family("hrnet", r"fcn_(?P<word>hr\d+s?)", "fcn_hr18")
def hrnet(plan: Plan, word: str) -> None:
    body = backbone(word)
    plan.segmentor(body, joined_fcn(plan, body))


@family("ocrnet", r"ocrnet_(?P<word>hr\d+s?|r\d+b?-d8)", "ocrnet_hr18")
def ocrnet(plan: Plan, word: str) -> None:
    """Yuan et al., ECCV 2020."""
    body = backbone(word)
    if word.startswith("hr"):
        first = joined_fcn(plan, body, 0.4)
        joined = {"input_transform": "resize_concat", "dropout_ratio": -1}
        second = plan.head("OCRHead", body.channels, [0, 1, 2, 3], 512, ocr_channels=256, **joined)
    else:
        first = plan.auxiliary(body.channels[2])
        second = plan.head("OCRHead", body.channels[3], 3, 512, ocr_channels=256)
    plan.segmentor(body, [first, second], type="CascadeEncoderDecoder", num_stages=2)
    if plan.words.devices == 8 and plan.words.batch == 2:  # twice the usual 8 images
        plan.optimizer, plan.schedule = wrapper(sgd(0.02), clip_grad=None), plan.poly(2e-4)


@family("sem_fpn", r"fpn_(?P<word>.+)", "fpn_r50")
def sem_fpn(plan: Plan, word: str) -> None:
    body = backbone(word)
    plan.segmentor(body, plan.fpn_head(), neck=fpn(body.channels))


@family("point_rend", r"pointrend_(?P<word>.+)", "pointrend_r50")
def point_rend(plan: Plan, word: str) -> None:
    """Kirillov et al., CVPR 2020."""
    body = backbone(word)
    options = {"num_fcs": 3, "coarse_pred_each_layer": True, "dropout_ratio": -1, "norm_cfg": None}
    points = plan.head("PointHead", [256], [0], 256, **options)
    training = {"num_points": 2048, "oversample_ratio": 3, "importance_sample_ratio": 0.75}
    test = {**plan.test_cfg, "subdivision_steps": 2, "subdivision_num_points": 8196, "scale_factor": 2}
    cascade = {"type": "CascadeEncoderDecoder", "num_stages": 2, "train_cfg": training, "test_cfg": test}
    plan.segmentor(body, [plan.fpn_head(dropout_ratio=-1), points], neck=fpn(body.channels), **cascade)
    plan.schedule = plan.poly(warmup=200)


@family("upernet", r"upernet_(?P<word>.+)", "upernet_r50")
def upernet(plan: Plan, word: str) -> None:
    body = backbone(word)
    plan.segmentor(body, plan.uper_head(body.channels), plan.auxiliary(body.channels[2]))


@family("fastfcn", r"fastfcn_(?P<word>r\d+b?-d32)_jpu_(?P<method>aspp|enc|psp)", "fastfcn_r50-d32_jpu_psp")
def fastfcn(plan: Plan, word: str, method: str) -> None:
    """Wu et al., arXiv 1903.11816."""
    body = backbone(word)
    body.spec["out_indices"] = [1, 2, 3]
    neck = part("JPU", in_channels=body.channels[1:], mid_channels=512, start_level=0, end_level=-1,
        dilations=[1, 2, 4, 8], align_corners=plan.odd, norm_cfg=batch_norm())  # fmt: skip
    if method == "enc":
        decode = plan.encoding_head([512, 1024, 2048], [0, 1, 2])
    else:
        decode = plan.aspp_head(2048, 2) if method == "aspp" else plan.psp_head(2048, 2)
    plan.segmentor(body, decode, plan.auxiliary(body.channels[2], 1), neck)


@family("unet", r"unet-s5-d16_(?P<method>fcn|pspnet|deeplabv3)", "unet-s5-d16_fcn")
def unet(plan: Plan, method: str) -> None:
    """Ronneberger et al., MICCAI 2015."""
    spec = part("UNet", in_channels=3, base_channels=64, num_stages=5, strides=[1] * 5, enc_num_convs=[2] * 5,
        dec_num_convs=[2] * 4, downsamples=[True] * 4, enc_dilations=[1] * 5, dec_dilations=[1] * 4, with_cp=False,
        conv_cfg=None, norm_cfg=batch_norm(), act_cfg={"type": "ReLU"}, upsample_cfg={"type": "InterpConv"},
        norm_eval=False)  # fmt: skip
    heads = {"fcn": lambda: plan.fcn_head(64, 4, 64, num_convs=1, concat_input=False),
        "pspnet": lambda: plan.psp_head(64, 4, 16), "deeplabv3": lambda: plan.aspp_head(64, 4, 16)}  # fmt: skip
    decode = heads[method]()
    body = Backbone(spec, [64, 128, 256, 512], {"pretrained": None})
    plan.segmentor(body, decode, plan.auxiliary(128, 3, 64))
