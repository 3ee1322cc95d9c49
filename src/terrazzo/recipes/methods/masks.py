"""Methods that classify masks or kernels: K-Net, MaskFormer, Mask2Former, SAN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from terrazzo.recipes import backbones
from terrazzo.recipes.backbones import HOST, SHORT_SIZES, Backbone, resnet_channels, swin_channels, swin_weights
from terrazzo.recipes.datasets import VOC_CLASSES, VOC_COLOURS, metainfo
from terrazzo.recipes.methods import family
from terrazzo.recipes.methods.dilated import HEADS
from terrazzo.recipes.methods.transformers import SWIN_DECAY, VIT_DECAY
from terrazzo.recipes.parts import Spec, adamw, batch_norm, clip, init, keys, mixed, no_decay, part, wrapper
from terrazzo.recipes.plan import Plan

RELU = {"type": "ReLU", "inplace": True}
GROUP_NORM = {"type": "GN", "num_groups": 32}


@family("knet", r"knet-s3_(?P<word>.+)_(?P<method>fcn|pspnet|deeplabv3|upernet)", "knet-s3_r50-d8_fcn")
def knet(plan: Plan, word: str, method: str) -> None:
    """Zhang et al., NeurIPS 2021."""
    transformer = word.startswith("swin-")
    if transformer:
        body = knet_swin(plan, SHORT_SIZES[word.removeprefix("swin-")])
    else:
        body = backbones.backbone(word.removesuffix("-d8") if method == "upernet" else word)
    first = plan.uper_head(body.channels) if method == "upernet" else HEADS[method](plan, body)
    decode = part("IterativeDecodeHead", num_stages=3, kernel_update_head=[kernel_update(plan) for _ in range(3)],
        kernel_generate_head=first)  # fmt: skip
    plan.segmentor(body, decode, plan.auxiliary(body.channels[2]))
    if transformer:
        plan.optimizer = wrapper(adamw(6e-5, 0.0005), **no_decay(*SWIN_DECAY), **clip(1))
    else:
        plan.optimizer = wrapper({"type": "AdamW", "lr": 1e-4, "weight_decay": 0.0005}, **clip(1))
    plan.schedule = plan.steps()
    plan.use_few_workers()


def knet_swin(plan: Plan, size: str) -> Backbone:
    weights = {"tiny": "tiny_patch4_window7_224_20220308-f41b89d3",
        "large": "large_patch4_window7_224_22k_20220308-d5bdebaf"}  # fmt: skip
    address = f"{backbones.PRETRAIN}swin/swin_{weights[size]}.pth" if size in weights else swin_weights(size, 7, False)
    spec = backbones.swin_core(size, drop_path=0.4 if plan.words.crop == (640, 640) else 0.3)
    spec["use_abs_pos_embed"] = False
    return Backbone(spec, swin_channels(size), {"pretrained": address})


def kernel_update(plan: Plan) -> Spec:
    """One of K-Net's rounds."""
    updator = part("KernelUpdator", in_channels=256, feat_channels=256, out_channels=256, act_cfg=dict(RELU),
        norm_cfg={"type": "LN"})  # fmt: skip
    return part("KernelUpdateHead", num_classes=plan.num_classes, num_ffn_fcs=2, num_heads=8, num_mask_fcs=1,
        feedforward_channels=2048, in_channels=512, out_channels=512, dropout=0.0, conv_kernel_size=1,
        ffn_act_cfg=dict(RELU), with_ffn=True, feat_transform_cfg={"conv_cfg": {"type": "Conv2d"}, "act_cfg": None},
        kernel_updator_cfg=updator)  # fmt: skip


def query_decoder(layers: int, dropout: float) -> Spec:
    """The transformer decoder of MaskFormer and Mask2Former."""
    attention = {"embed_dims": 256, "num_heads": 8, "attn_drop": dropout, "proj_drop": dropout, "dropout_layer": None,
        "batch_first": True}  # fmt: skip
    forward = {"embed_dims": 256, "feedforward_channels": 2048, "num_fcs": 2, "act_cfg": dict(RELU),
        "ffn_drop": dropout, "dropout_layer": None, "add_identity": True}  # fmt: skip
    layer = {"self_attn_cfg": attention, "cross_attn_cfg": dict(attention), "ffn_cfg": forward}
    return {"return_intermediate": True, "num_layers": layers, "layer_cfg": layer, "init_cfg": None}


def mask_losses(num_classes: int, classes: float, masks: Spec, dice: float) -> Spec:
    """The three losses of a mask classifier: its last class, 'no object', counts a tenth."""
    named: Spec = {"type": "mmdet.CrossEntropyLoss", "use_sigmoid": False, "loss_weight": classes, "reduction": "mean"}
    overlap = part(
        "mmdet.DiceLoss", use_sigmoid=True, activate=True, reduction="mean", naive_dice=True, eps=1.0, loss_weight=dice
    )
    weights = [1.0] * num_classes + [0.1]
    return {"loss_cls": named | {"class_weight": weights}, "loss_mask": masks, "loss_dice": overlap}


def matching(scope: str, classes: float, masks: Spec, dice: float) -> Spec:
    """The matching of predicted masks to true ones."""
    costs = [{"type": f"{scope}ClassificationCost", "weight": classes}, masks,
        {"type": f"{scope}DiceCost", "weight": dice, "pred_act": True, "eps": 1.0}]  # fmt: skip
    return {"assigner": {"type": f"{scope}HungarianAssigner", "match_costs": costs}}


POSITIONS = {"num_feats": 128, "normalize": True}
POINTS = {"num_points": 12544, "oversample_ratio": 3.0, "importance_sample_ratio": 0.75}


def swin_keys(size: str, rate: float, names: tuple[str, ...]) -> Spec:
    """The norms of a Swin Transformer learn at `rate` and do not decay."""
    setting = {"lr_mult": rate, "decay_mult": 0.0}
    depths = backbones.SWIN[size][1]
    blocks = [f"backbone.stages.{stage}.blocks.{block}.norm" for stage in range(4) for block in range(depths[stage])]
    downsamples = [f"backbone.stages.{stage}.downsample.norm" for stage in range(3)]
    return {name: dict(setting) for name in (*names, *blocks, *downsamples)}


MASKFORMER = r"maskformer_r(?P<depth>50|101)-d32|maskformer_swin-(?P<letter>[ts])_upernet"


@family("maskformer", MASKFORMER, "maskformer_r50-d32")
def maskformer(plan: Plan, depth: str, letter: str) -> None:
    """Cheng et al., NeurIPS 2021."""
    focal = {"type": "mmdet.FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "reduction": "mean"}
    focal_cost = {"type": "mmdet.FocalLossCost", "weight": 20.0, "binary_input": True}
    decode: Spec = part(
        "MaskFormerHead", feat_channels=256, in_index=[0, 1, 2, 3], num_classes=plan.num_classes, out_channels=256,
        num_queries=100,
        pixel_decoder={"type": "mmdet.PixelDecoder", "norm_cfg": dict(GROUP_NORM), "act_cfg": {"type": "ReLU"}},
        enforce_decoder_input_project=False, positional_encoding=dict(POSITIONS),
        transformer_decoder=query_decoder(6, 0.1),
        **mask_losses(plan.num_classes, 1.0, focal | {"loss_weight": 20.0}, 1.0),
        train_cfg=matching("mmdet.", 1.0, focal_cost, 1.0) | {"sampler": {"type": "mmdet.MaskPseudoSampler"}},
    )  # fmt: skip
    if letter:
        size = SHORT_SIZES[letter]
        spec = backbones.swin_upernet(size, 7, swin_weights(size, 7, False))
        names = ("backbone.patch_embed.norm", "backbone.norm", "relative_position_bias_table")
        settings = {"backbone": {"lr_mult": 1.0}, **swin_keys(size, 1.0, names), "query_embed": {"decay_mult": 0.0}}
        body = Backbone(spec, swin_channels(size), {})
        optimizer = adamw(6e-5, 0.01)
        plan.schedule = plan.transformer_schedule()
    else:
        weights = init(f"torchvision://resnet{depth}")
        spec = backbones.resnet_spec(int(depth), "ResNet", norm_eval=True, init_cfg=weights)
        settings = {"backbone": {"lr_mult": 0.1}}
        body = Backbone(spec, resnet_channels(int(depth)), {})
        optimizer = adamw(1e-4, 1e-4)
        plan.schedule = plan.poly(0)
    plan.optimizer = wrapper(optimizer, **clip(0.01), **keys(**settings))
    plan.segmentor(body, decode | {"in_channels": body.channels})
    plan.use_few_workers()


SWIN_WORD = r"swin-(?P<letter>[tsbl])(?:-in(?P<classes>1k|22k)-384x384-pre)?"


@family("mask2former", rf"mask2former_(?:r(?P<depth>50|101)|{SWIN_WORD})", "mask2former_r50")
def mask2former(plan: Plan, depth: str, letter: str, classes: str) -> None:
    """Cheng et al., CVPR 2022."""
    settings: Spec = {"backbone": {"lr_mult": 0.1, "decay_mult": 1.0}}
    for name in ("query_embed", "query_feat", "level_embed"):
        settings[name] = {"lr_mult": 1.0, "decay_mult": 0.0}
    if letter:
        size, window = SHORT_SIZES[letter], 12 if classes else 7
        weights = init(swin_weights(size, window, classes == "22k"))
        spec = backbones.swin_core(size, window) | {"with_cp": False, "frozen_stages": -1, "init_cfg": weights}
        if window == 12:
            spec["pretrain_img_size"] = 384
        names = ("backbone.patch_embed.norm", "backbone.norm", "absolute_pos_embed", "relative_position_bias_table")
        settings |= swin_keys(size, 0.1, names)
        body = Backbone(spec, swin_channels(size), {})
    else:
        body = Backbone(mask2former_resnet(int(depth)), resnet_channels(int(depth)), {})
    plan.segmentor(body, mask2former_head(plan, body.channels))
    optimizer = {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05, "eps": 1e-8, "betas": [0.9, 0.999]}
    paramwise = {"custom_keys": settings, "norm_decay_mult": 0.0}
    plan.optimizer = wrapper(optimizer, **clip(0.01), paramwise_cfg=paramwise)
    plan.schedule = plan.poly(0)
    plan.interval, plan.checkpoint = 5000, {"save_best": "mIoU"}
    if plan.words.crop != (640, 640):
        plan.preprocessor["test_cfg"] = {"size_divisor": 32}
    plan.settings["auto_scale_lr"] = {"enable": False, "base_batch_size": 16}
    if plan.words.crop == (512, 512):
        plan.settings["custom_imports"] = {"imports": "mmdet.models", "allow_failed_imports": False}
    short = plan.data.scale[1] if plan.data.kind == "CityscapesDataset" else plan.crop[0]  # type: ignore[index]
    plan.train_pipeline[2] = choice_of_sizes(short, 20)


def choice_of_sizes(short: int, most: int) -> Spec:
    """The shorter edge becomes five to `most` tenths of `short`."""
    scales = [short * tenths // 10 for tenths in range(5, most + 1)]
    resizing = {"resize_type": "ResizeShortestEdge", "max_size": short * 4}
    return {"type": "RandomChoiceResize", "scales": scales, **resizing}


def mask2former_resnet(depth: int) -> Spec:
    return part("ResNet", depth=depth, deep_stem=False, num_stages=4, out_indices=[0, 1, 2, 3], frozen_stages=-1,
        norm_cfg=batch_norm(requires_grad=False), style="pytorch",
        init_cfg=init(f"torchvision://resnet{depth}"))  # fmt: skip


def pixel_decoder() -> Spec:
    """Multi-scale deformable attention over three levels."""
    attention = {"embed_dims": 256, "num_heads": 8, "num_levels": 3, "num_points": 4, "im2col_step": 64, "dropout": 0.0,
        "batch_first": True, "norm_cfg": None, "init_cfg": None}  # fmt: skip
    forward = {"embed_dims": 256, "feedforward_channels": 1024, "num_fcs": 2, "ffn_drop": 0.0, "act_cfg": dict(RELU)}
    layer = {"self_attn_cfg": attention, "ffn_cfg": forward}
    return part("mmdet.MSDeformAttnPixelDecoder", num_outs=3, norm_cfg=dict(GROUP_NORM), act_cfg={"type": "ReLU"},
        encoder={"num_layers": 6, "layer_cfg": layer, "init_cfg": None}, positional_encoding=dict(POSITIONS),
        init_cfg=None)  # fmt: skip


def mask2former_head(plan: Plan, channels: list[int]) -> Spec:
    entropy = {"type": "mmdet.CrossEntropyLoss", "use_sigmoid": True, "reduction": "mean", "loss_weight": 5.0}
    entropy_cost = {"type": "mmdet.CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True}
    training = POINTS | matching("mmdet.", 2.0, entropy_cost, 5.0) | {"sampler": {"type": "mmdet.MaskPseudoSampler"}}
    return part("Mask2FormerHead", in_channels=channels, strides=[4, 8, 16, 32], feat_channels=256, out_channels=256,
        num_classes=plan.num_classes, num_queries=100, num_transformer_feat_level=3, align_corners=False,
        pixel_decoder=pixel_decoder(), enforce_decoder_input_project=False, positional_encoding=dict(POSITIONS),
        transformer_decoder=query_decoder(9, 0.0), **mask_losses(plan.num_classes, 2.0, entropy, 5.0),
        train_cfg=training)  # fmt: skip


# size -> width, layers kept, heads, patch, input, layers of the mask generator, width of the text, its heads, weights
CLIP = {"b16": (768, 9, 12, 16, 224, 3, 512, 8, "clip_vit-base-patch16-224_3rdparty-d08f8887"),
    "l14": (1024, 18, 16, 14, 336, 6, 768, 12, "clip_vit-large-patch14-336_3rdparty-0b5df9cb")}  # fmt: skip
SAN_DATA = {"pascal-context-59": "pascal_context", "voc12aug": "voc"}  # as CLIPTextEncoder calls them


@family("san", r"san-vit-(?P<size>b16|l14)", "san-vit-b16")
def san(plan: Plan, size: str) -> None:
    """Xu et al., CVPR 2023."""
    if plan.words.dataset == "voc12aug":  # without the background
        plan.data = replace(plan.data, num_classes=20, test_options={"metainfo": metainfo(VOC_CLASSES, VOC_COLOURS)})
    width, layers, heads, patch, side, mask_layers, text_width, text_heads, weights = CLIP[size]
    image = part("VisionTransformer", img_size=[side, side], patch_size=patch, patch_pad=0, in_channels=3,
        embed_dims=width, num_layers=layers, num_heads=heads, mlp_ratio=4, out_origin=True,
        out_indices=[layers * part // 3 - 1 for part in (1, 2, 3)], qkv_bias=True, drop_rate=0.0, attn_drop_rate=0.0,
        drop_path_rate=0.0, with_cls_token=True, output_cls_token=True, patch_bias=False, pre_norm=True,
        norm_cfg={"type": "LN", "eps": 1e-5}, act_cfg={"type": "QuickGELU"}, norm_eval=False,
        interpolate_mode="bicubic", frozen_exclude=["pos_embed"])  # fmt: skip
    text = part("CLIPTextEncoder", dataset_name=SAN_DATA.get(plan.words.dataset, plan.words.dataset), templates="vild",
        embed_dims=text_width, num_layers=12, num_heads=text_heads, mlp_ratio=4, output_dims=text_width,
        cache_feature=True, cat_bg=True, norm_cfg={"type": "LN", "eps": 1e-5})  # fmt: skip
    pretrained = f"{HOST}mmsegmentation/v0.5/san/{weights}.pth"
    if plan.data.kind != "COCOStuffDataset":
        pretrained = f"pretrain/{'vit_base_patch16_224' if size == 'b16' else 'jx_vit_base_p16_224-80ecf9dd'}.pth"
    plan.model = part("MultimodalEncoderDecoder", pretrained=pretrained, asymetric_input=True,
        encoder_resolution=0.5 if size == "b16" else 0.7, image_encoder=image, text_encoder=text,
        decode_head=san_head(plan, width, heads, mask_layers, text_width), train_cfg={},
        test_cfg={"mode": "whole"})  # fmt: skip
    san_training(plan, size)


def san_head(plan: Plan, width: int, heads: int, mask_layers: int, text_width: int) -> Spec:
    decoder = {"num_layers": 1, "embed_channels": 256, "mlp_channels": 256, "num_mlp": 3, "rescale": True}
    adapter = {"in_channels": 3, "clip_channels": width, "embed_dims": 240, "patch_size": 16, "patch_bias": True,
        "num_queries": 100, "cfg_encoder": {"num_encode_layer": 8, "num_heads": 6, "mlp_ratio": 4},
        "fusion_index": [0, 1, 2, 3], "cfg_decoder": {"num_heads": heads, **decoder},
        "norm_cfg": {"type": "LN", "eps": 1e-6}}  # fmt: skip
    masks = {"sos_token_format": "cls_token", "sos_token_num": 100, "cross_attn": False, "num_layers": mask_layers,
        "embed_dims": width, "num_heads": heads, "mlp_ratio": 4, "qkv_bias": True, "out_dims": text_width,
        "final_norm": True, "act_cfg": {"type": "QuickGELU"}, "norm_cfg": {"type": "LN", "eps": 1e-5},
        "frozen_exclude": []}  # fmt: skip
    cost = {"type": "CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True}
    return part("SideAdapterCLIPHead", num_classes=plan.num_classes, deep_supervision_idxs=[7], san_cfg=adapter,
        maskgen_cfg=masks, align_corners=False, train_cfg=POINTS | matching("", 2.0, cost, 5.0),
        loss_decode=san_losses(plan.num_classes))  # fmt: skip


def san_losses(num_classes: int) -> list[Spec]:
    entropy: dict[str, Any] = {"type": "CrossEntropyLoss"}
    weights = [1.0] * num_classes + [0.1]
    overlap = {"type": "DiceLoss", "ignore_index": None, "naive_dice": True, "eps": 1}
    return [entropy | {"loss_name": "loss_cls_ce", "loss_weight": 2.0, "class_weight": weights},
        entropy | {"use_sigmoid": True, "loss_name": "loss_mask_ce", "loss_weight": 5.0},
        overlap | {"loss_name": "loss_mask_dice", "loss_weight": 5.0}]  # fmt: skip


def san_training(plan: Plan, size: str) -> None:
    """Set how SAN is trained; the names of its recipes contain no schedule."""
    plan.preprocessor |= {"mean": [122.7709, 116.746, 104.0937], "std": [68.5005, 66.6322, 70.3232]}
    plan.preprocessor |= {"size_divisor": plan.crop[0], "test_cfg": {"size_divisor": 32}}
    del plan.preprocessor["size"]
    plan.test_pipeline[1] = {"type": "ResizeShortestEdge", "scale": plan.crop, "max_size": plan.crop[0] * 4}
    plan.test_pipeline[2] = {"type": "LoadAnnotations"}
    if plan.data.kind == "COCOStuffDataset":
        plan.iterations, plan.batch = plan.words.iterations or 60000, plan.words.batch or (8 if size == "b16" else 4)
        names = {"img_encoder": {"lr_mult": 0.1, "decay_mult": 1.0}}
        settings = names | no_decay(*VIT_DECAY)["paramwise_cfg"]["custom_keys"]
        plan.optimizer = mixed(adamw(1e-4, 1e-4), **keys(**settings), loss_scale="dynamic", **clip(0.01))
        plan.schedule = plan.poly(0.0, 1.0)
        plan.loop, plan.checkpoint = {"val_interval": 500, "val_begin": 55000}, {"interval": 10000, "save_best": "mIoU"}
        plan.train_pipeline[2] = choice_of_sizes(plan.crop[0], 15)
        plan.train_pipeline[3]["cat_max_ratio"] = 1.0
        plan.train_pipeline[4:6] = reversed(plan.train_pipeline[4:6])
    else:
        plan.iterations, plan.batch = plan.words.iterations or 160000, plan.words.batch or 2
        plan.optimizer, plan.schedule = wrapper(adamw(6e-5, 0.01), **no_decay(*VIT_DECAY)), plan.transformer_schedule()
