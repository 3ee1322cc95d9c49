"""Fast methods, each with its own backbone."""

from __future__ import annotations

from typing import Any

from terrazzo.recipes.backbones import HOST, PRETRAIN, Backbone, resnet_channels, resnet_spec
from terrazzo.recipes.methods import family
from terrazzo.recipes.parts import CITYSCAPES_WEIGHTS, Spec, batch_norm, cross_entropy, init, ohem, part, sgd, wrapper
from terrazzo.recipes.plan import Plan

RELU = {"type": "ReLU", "inplace": True}


def side_head(plan: Plan, channels: int, index: int, width: int, **options: Any) -> Spec:
    """An auxiliary head without its own dropout."""
    return plan.auxiliary(channels, index, width, **({"dropout_ratio": None, "weight": 1.0} | options))


def body(spec: Spec, **model: Any) -> Backbone:
    return Backbone(spec, [], model)


@family("bisenetv1", r"bisenetv1_r(?P<depth>18|34|50|101)-d32(?P<pretrained>-in1k-pre)?", "bisenetv1_r18-d32")
def bisenetv1(plan: Plan, depth: str, pretrained: str) -> None:
    """Yu et al., ECCV 2018."""
    inner = resnet_spec(int(depth), "ResNet", in_channels=3)
    if pretrained:
        inner["init_cfg"] = init(f"open-mmlab://resnet{depth}_v1c")
    width = 256 if int(depth) < 50 else 1024
    spec = part("BiSeNetV1", in_channels=3, context_channels=resnet_channels(int(depth))[1:],
        spatial_channels=[width // 4] * 3 + [width // 2], out_indices=[0, 1, 2], out_channels=width, backbone_cfg=inner,
        norm_cfg=batch_norm(), align_corners=False, init_cfg=None)  # fmt: skip
    aside = [side_head(plan, width // 2, index, width // 4) for index in (1, 2)]
    plan.segmentor(body(spec), plan.fcn_head(width, 0, width, num_convs=1, concat_input=False), aside)
    rate = 0.005 if plan.data.kind == "COCOStuffDataset" else 0.025 if int(depth) < 50 else 0.05
    plan.optimizer, plan.schedule = plan.plain(sgd(rate)), plan.poly(warmup=1000)


@family("bisenetv2", "bisenetv2_fcn", "bisenetv2_fcn")
def bisenetv2(plan: Plan) -> None:
    """Yu et al., IJCV 2021."""
    spec = part("BiSeNetV2", detail_channels=[64, 64, 128], semantic_channels=[16, 32, 64, 128],
        semantic_expansion_ratio=6, bga_channels=128, out_indices=[0, 1, 2, 3, 4], init_cfg=None,
        align_corners=False)  # fmt: skip
    widths = ((16, 16), (32, 64), (64, 256), (128, 1024))
    aside = [side_head(plan, each, level, width, num_convs=2) for level, (each, width) in enumerate(widths, 1)]
    decode = plan.fcn_head(128, 0, 1024, num_convs=1, concat_input=False)
    plan.segmentor(body(spec, pretrained=None), decode, aside)
    plan.optimizer, plan.schedule = plan.plain(sgd(0.05)), plan.poly(warmup=1000)


@family("cgnet", "cgnet_fcn", "cgnet_fcn")
def cgnet(plan: Plan) -> None:
    """Wu et al., TIP 2021."""
    norm = batch_norm(eps=0.001)
    spec = part("CGNet", norm_cfg=norm, in_channels=3, num_channels=[32, 64, 128], num_blocks=[3, 21], dilations=[2, 4],
        reductions=[8, 16])  # fmt: skip
    weights = [2.5959933, 6.7415504, 3.5354059, 9.8663225, 9.690899, 9.369352, 10.289121, 9.953208, 4.3097677, 9.490387,
        7.674431, 9.396905, 10.347791, 6.3927646, 10.226669, 10.241062, 10.280587, 10.396974, 10.055647]  # fmt: skip
    loss = cross_entropy(class_weight=weights) if plan.words.dataset == "cityscapes" else cross_entropy()
    options = {"num_convs": 0, "concat_input": False, "dropout_ratio": 0, "norm_cfg": norm, "align_corners": None}
    plan.segmentor(body(spec), plan.fcn_head(256, 2, 256, **options, loss_decode=loss), train_cfg={"sampler": None})
    plan.optimizer = wrapper({"type": "Adam", "lr": 0.001, "eps": 1e-8, "weight_decay": 0.0005})
    plan.preprocessor |= {"mean": [72.39239876, 82.90891754, 73.15835921], "std": [1, 1, 1]}
    plan.interval = plan.iterations // 15
    plan.workers = 2
    if plan.words.crop == (680, 680):
        plan.workers = 4
        plan.train_pipeline = [step for step in plan.train_pipeline if step["type"] != "PhotoMetricDistortion"]
        del plan.train_pipeline[3]["cat_max_ratio"]


@family("ddrnet", r"ddrnet_23(?P<size>-slim)?_in1k-pre", "ddrnet_23-slim_in1k-pre")
def ddrnet(plan: Plan, size: str) -> None:
    """Hong et al., arXiv 2101.06085."""
    width = 32 if size else 64
    weights = "ddrnet23s-in1kpre_3rdparty-1ccac5b1" if size else "ddrnet23-in1kpre_3rdparty-9ca29f62"
    spec = part("DDRNet", in_channels=3, channels=width, ppm_channels=128, norm_cfg=batch_norm(), align_corners=False,
        init_cfg=init(f"{HOST}mmsegmentation/v0.5/ddrnet/pretrain/{weights}.pth"))  # fmt: skip
    losses = [hard_pixels(plan, 1.0), hard_pixels(plan, 0.4)]
    decode = plan.head("DDRHead", width * 4, None, width * 2, dropout_ratio=0.0, loss_decode=losses)
    plan.segmentor(body(spec), decode)
    seeded(plan)


def hard_pixels(plan: Plan, weight: float) -> Spec:
    """Cross-entropy of hard pixels."""
    return {"type": "OhemCrossEntropy", "thres": 0.9, "min_kept": 131072, "loss_weight": weight} | weights_of(plan)


def weights_of(plan: Plan) -> Spec:
    return {"class_weight": list(CITYSCAPES_WEIGHTS)} if plan.words.dataset == "cityscapes" else {}


def seeded(plan: Plan) -> None:
    """The settings beside the model that DDRNet and PIDNet share."""
    plan.schedule = plan.poly(0)
    plan.settings["randomness"] = {"seed": 304}


# size -> width, of the pooling, blocks of stem and branches, of the head, weights
PIDNET = {"s": (32, 96, 2, 3, 128, "pidnet-s_imagenet1k_20230306-715e6273"),
    "m": (64, 96, 2, 3, 128, "pidnet-m_imagenet1k_20230306-39893c52"),
    "l": (64, 112, 3, 4, 256, "pidnet-l_imagenet1k_20230306-67889109")}  # fmt: skip


@family("pidnet", r"pidnet-(?P<size>[sml])", "pidnet-s")
def pidnet(plan: Plan, size: str) -> None:
    """Xu et al., CVPR 2023."""
    width, pooling, stem, branch, head_width, weights = PIDNET[size]
    spec = part("PIDNet", in_channels=3, channels=width, ppm_channels=pooling, num_stem_blocks=stem,
        num_branch_blocks=branch, align_corners=False, norm_cfg=batch_norm(), act_cfg=dict(RELU),
        init_cfg=init(f"{PRETRAIN}pidnet/{weights}.pth"))  # fmt: skip
    boundary = {"type": "BoundaryLoss", "loss_weight": 20.0}
    losses = [cross_entropy(0.4, **weights_of(plan)), hard_pixels(plan, 1.0), boundary, hard_pixels(plan, 1.0)]
    options = {"dropout_ratio": None, "act_cfg": dict(RELU), "align_corners": True, "loss_decode": losses}
    plan.segmentor(body(spec), plan.head("PIDHead", width * 4, None, head_width, **options))
    plan.train_pipeline.insert(-1, {"type": "GenerateEdge", "edge_width": 4})
    plan.workers = 2
    seeded(plan)


@family("icnet", r"icnet_r(?P<depth>18|34|50|101)-d8(?P<pretrained>-in1k-pre)?", "icnet_r50-d8")
def icnet(plan: Plan, depth: str, pretrained: str) -> None:
    """Zhao et al., ECCV 2018."""
    inner = resnet_spec(int(depth), in_channels=3, dilations=[1, 1, 2, 4], strides=[1, 2, 1, 1])
    if pretrained:
        inner["init_cfg"] = init(f"open-mmlab://resnet{depth}_v1c")
    channels = resnet_channels(int(depth))
    shared = {"norm_cfg": batch_norm(), "align_corners": False}
    spec = part("ICNet", backbone_cfg=inner, in_channels=3, layer_channels=[channels[1], channels[3]],
        light_branch_middle_channels=32, psp_out_channels=512, out_channels=[64, 256, 256], **shared)  # fmt: skip
    neck = {"type": "ICNeck", "in_channels": [64, 256, 256], "out_channels": 128, **shared}
    decode = plan.fcn_head(128, 2, 128, num_convs=1, concat_input=False, dropout_ratio=0)
    plan.segmentor(body(spec), decode, [side_head(plan, 128, index, 128, weight=0.4) for index in (0, 1)], neck)


@family("fastscnn", "fast_scnn", "fast_scnn")
def fast_scnn(plan: Plan) -> None:
    """Poudel et al., BMVC 2019."""
    norm = batch_norm(momentum=0.01)
    spec = part("FastSCNN", downsample_dw_channels=[32, 48], global_in_channels=64, global_block_channels=[64, 96, 128],
        global_block_strides=[2, 2, 1], global_out_channels=128, higher_in_channels=64, lower_in_channels=128,
        fusion_out_channels=128, out_indices=[0, 1, 2], norm_cfg=norm, align_corners=False)  # fmt: skip
    options = {"concat_input": False, "dropout_ratio": None, "norm_cfg": norm}
    loss = cross_entropy(1, use_sigmoid=True)
    decode = plan.head("DepthwiseSeparableFCNHead", 128, -1, 128, **options, loss_decode=loss)
    loss = cross_entropy(0.4, use_sigmoid=True)
    aside = [side_head(plan, each, at, 32, norm_cfg=norm, loss_decode=loss) for each, at in ((128, -2), (64, -3))]
    plan.segmentor(body(spec), decode, aside)
    plan.optimizer = plan.plain(sgd(0.12, 4e-5))


@family("erfnet", "erfnet_fcn", "erfnet_fcn")
def erfnet(plan: Plan) -> None:
    """Romera et al., T-ITS 2018."""
    spec = part("ERFNet", in_channels=3, enc_downsample_channels=[16, 64, 128], enc_stage_non_bottlenecks=[5, 8],
        enc_non_bottleneck_dilations=[2, 4, 8, 16], enc_non_bottleneck_channels=[64, 128],
        dec_upsample_channels=[64, 16], dec_stages_non_bottleneck=[2, 2], dec_non_bottleneck_channels=[64, 16],
        dropout_ratio=0.1, init_cfg=None)  # fmt: skip
    decode = plan.head("FCNHead", 16, None, 128, num_convs=1, concat_input=False)
    plan.segmentor(body(spec, pretrained=None), decode)


@family("mobilenet_v3", r"mobilenet-v3-d8(?P<scratch>-scratch)?(?P<small>-s)?_lraspp", "mobilenet-v3-d8_lraspp")
def mobilenet_v3(plan: Plan, scratch: str, small: str) -> None:
    """Howard et al., ICCV 2019."""
    norm = batch_norm(eps=0.001)
    size, indices, channels = ("small", [0, 1, 12], [16, 16, 576]) if small else ("large", [1, 3, 16], [16, 24, 960])
    spec = {"type": "MobileNetV3", "arch": size, "out_indices": indices, "norm_cfg": norm}
    options = {"input_transform": "multiple_select", "norm_cfg": norm, "act_cfg": {"type": "ReLU"}}
    model = {} if scratch else {"pretrained": f"open-mmlab://contrib/mobilenet_v3_{size}"}
    plan.segmentor(body(spec, **model), plan.head("LRASPPHead", channels, [0, 1, 2], 128, **options))


@family("stdc", r"stdc(?P<size>[12])(?P<pretrained>_in1k-pre)?", "stdc1")
def stdc(plan: Plan, size: str, pretrained: str) -> None:
    """Fan et al., CVPR 2021."""
    norm = {"type": "BN", "requires_grad": True}
    inner = part("STDCNet", stdc_type=f"STDCNet{size}", in_channels=3, channels=[32, 64, 256, 512, 1024],
        bottleneck_type="cat", num_convs=4, norm_cfg=norm, act_cfg={"type": "ReLU"}, with_final_conv=False)  # fmt: skip
    if pretrained:
        weights = {"1": "stdc1_20220308-5368626c", "2": "stdc2_20220308-7dbd9127"}[size]
        inner["init_cfg"] = init(f"{PRETRAIN}stdc/{weights}.pth")
    spec = part("STDCContextPathNet", backbone_cfg=inner, last_in_channels=[1024, 512], out_channels=128,
        ffm_cfg={"in_channels": 384, "out_channels": 256, "scale_factor": 4})  # fmt: skip
    shared = {"norm_cfg": norm, "sampler": ohem(thresh=0.7, min_kept=10000)}
    decode = plan.fcn_head(256, 3, 256, num_convs=1, concat_input=False, align_corners=True, **shared)
    detail_losses = [{"type": "CrossEntropyLoss", "loss_name": "loss_ce", "use_sigmoid": True, "loss_weight": 1.0},
        {"type": "DiceLoss", "loss_name": "loss_dice", "loss_weight": 1.0}]  # fmt: skip
    detail = {"type": "STDCHead", "num_classes": 2, "boundary_threshold": 0.1, "loss_decode": detail_losses}
    aside = [*(side_head(plan, 128, index, 64, align_corners=False, **shared) for index in (2, 1)),
        side_head(plan, 256, 0, 64, align_corners=True, norm_cfg=norm) | detail]  # fmt: skip
    plan.segmentor(body(spec, pretrained=None), decode, aside)
    plan.schedule = plan.poly(warmup=1000)
