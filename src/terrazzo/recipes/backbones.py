"""Backbones by the word of recipe names, such as `r50-d8`, `hr18s` or `mit-b0`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import UserError
from terrazzo.recipes.parts import Spec, batch_norm, init, part

HOST = "https://download.openmmlab.com/"
PRETRAIN = HOST + "mmsegmentation/v0.5/pretrain/"


@dataclass
class Backbone:
    """A backbone's section, the channels of its stages, and `pretrained` of the model where it is named there."""

    spec: Spec
    channels: list[int]
    model: Spec
    width: int = 512  # of a dilated model's head
    auxiliary_width: int = 256
    low_width: int = 48  # of DeepLabV3+'s reduced first stage


BUILDERS: list[tuple[str, Callable[..., Backbone]]] = []


def builder(pattern: str) -> Callable[[Callable[..., Backbone]], Callable[..., Backbone]]:
    def add(function: Callable[..., Backbone]) -> Callable[..., Backbone]:
        BUILDERS.append((pattern, function))
        return function

    return add


def backbone(word: str) -> Backbone:
    """The backbone of a word. Raises UserError."""
    for pattern, function in BUILDERS:
        match = re.fullmatch(pattern, word)
        if match:
            return function(**match.groupdict())
    raise UserError(f"there is no backbone '{word}'")


def resnet_spec(depth: int, kind: str = "ResNetV1c", **options: Any) -> Spec:
    """A ResNet at stride 32, unless `strides` and `dilations` set another."""
    return part(kind, depth=depth, num_stages=4, out_indices=[0, 1, 2, 3], dilations=[1, 1, 1, 1], strides=[1, 2, 2, 2],
        norm_cfg=batch_norm(), norm_eval=False, style="pytorch", contract_dilation=True) | options  # fmt: skip


# suffix of a ResNet's word -> strides, dilations
STRIDES = {
    "": ([1, 2, 2, 2], [1, 1, 1, 1]),
    "-d8": ([1, 2, 1, 1], [1, 1, 2, 4]),
    "-d16": ([1, 2, 2, 1], [1, 1, 1, 2]),
    "-d32": ([1, 2, 2, 2], [1, 1, 2, 4]),  # as the official recipes of that name have it
}


def resnet_channels(depth: int) -> list[int]:
    return [64, 128, 256, 512] if depth < 50 else [256, 512, 1024, 2048]


@builder(r"r(?P<depth>18|34|50|101|152)(?P<kind>[bs]?)(?P<stride>|-d8|-d16|-d32)(?P<grid>-mg124|)(?P<rsb>-rsb|)")
def resnet(depth: str, kind: str, stride: str, grid: str, rsb: str) -> Backbone:
    """He et al., CVPR 2016; `b` is torchvision's stem, `s` a wide one, `rsb` the weights of a stronger training."""
    layers = int(depth)
    strides, dilations = STRIDES[stride]
    spec = resnet_spec(layers, strides=strides, dilations=dilations)
    pretrained: str | None = f"open-mmlab://resnet{depth}_v1c"
    if kind == "b":
        spec["type"], pretrained = "ResNet", f"torchvision://resnet{depth}"
    elif kind == "s":
        spec["stem_channels"] = 128
    if grid:
        spec["multi_grid"] = [1, 2, 4]
    if rsb:
        weights = HOST + "mmclassification/v0/resnet/resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth"
        spec |= {"type": "ResNet", "init_cfg": init(weights, prefix="backbone.")}
        pretrained = None
    widths = (128, 64, 12) if layers < 50 else ()  # basic blocks have a quarter of the channels
    return Backbone(spec, resnet_channels(layers), {"pretrained": pretrained}, *widths)


@builder(r"s(?P<depth>50|101|200)-d8")
def resnest(depth: str) -> Backbone:
    """Zhang et al., CVPRW 2022."""
    strides, dilations = STRIDES["-d8"]
    spec = resnet_spec(int(depth), "ResNeSt", strides=strides, dilations=dilations)
    spec |= {"stem_channels": 128, "radix": 2, "reduction_factor": 4, "avg_down_stride": True}
    return Backbone(spec, resnet_channels(int(depth)), {"pretrained": f"open-mmlab://resnest{depth}"})


@builder(r"hr(?P<size>18|32|40|48)(?P<small>s?)")
def hrnet(size: str, small: str) -> Backbone:
    """Wang et al., TPAMI 2020."""
    channels = [int(size) * 2**branch for branch in range(4)]
    blocks, modules = (2, (1, 1, 3, 2)) if small else (4, (1, 1, 4, 3))
    extra: Spec = {}
    for branches in (1, 2, 3, 4):
        block, widths = ("BASIC", channels[:branches]) if branches > 1 else ("BOTTLENECK", [64])
        stage: Spec = {
            "num_modules": modules[branches - 1],
            "num_branches": branches,
            "num_blocks": [blocks] * branches,
        }
        extra[f"stage{branches}"] = stage | {"block": block, "num_channels": widths}
    spec = {"type": "HRNet", "norm_cfg": batch_norm(), "norm_eval": False, "extra": extra}
    return Backbone(spec, channels, {"pretrained": f"open-mmlab://msra/hrnetv2_w{size}{'_small' if small else ''}"})


@builder("mobilenet-v2-d8")
def mobilenet_v2() -> Backbone:
    """Sandler et al., CVPR 2018."""
    spec = part("MobileNetV2", widen_factor=1.0, strides=[1, 2, 2, 1, 1, 1, 1], dilations=[1, 1, 1, 2, 2, 4, 4],
        out_indices=[1, 2, 4, 6], norm_cfg=batch_norm())  # fmt: skip
    return Backbone(spec, [24, 32, 96, 320], {"pretrained": "mmcls://mobilenet_v2"})


# size -> width of the first stage, layers of the four stages, weights
MIT = {"b0": (32, [2, 2, 2, 2], "mit_b0_20220624-7e0fe6dd"), "b1": (64, [2, 2, 2, 2], "mit_b1_20220624-02e5a6a1"),
    "b2": (64, [3, 4, 6, 3], "mit_b2_20220624-66e8bf70"), "b3": (64, [3, 4, 18, 3], "mit_b3_20220624-13b1141c"),
    "b4": (64, [3, 8, 27, 3], "mit_b4_20220624-d588d980"),
    "b5": (64, [3, 6, 40, 3], "mit_b5_20220624-658746d9")}  # fmt: skip


@builder(r"mit-(?P<size>b[0-5])")
def mit(size: str) -> Backbone:
    """The encoder of SegFormer (Xie et al., NeurIPS 2021)."""
    width, layers, weights = MIT[size]
    spec = part("MixVisionTransformer", in_channels=3, embed_dims=width, num_stages=4, num_layers=layers,
        num_heads=[1, 2, 5, 8], patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=[0, 1, 2, 3], mlp_ratio=4,
        qkv_bias=True, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.1,
        init_cfg=init(f"{PRETRAIN}segformer/{weights}.pth"))  # fmt: skip
    return Backbone(spec, [width * factor for factor in (1, 2, 5, 8)], {"pretrained": None})


# size -> width, layers, heads of the first stage
SWIN = {"tiny": (96, [2, 2, 6, 2], 3), "small": (96, [2, 2, 18, 2], 3), "base": (128, [2, 2, 18, 2], 4),
    "large": (192, [2, 2, 18, 2], 6)}  # fmt: skip
# size, window, trained on 22k classes -> weights
SWIN_WEIGHTS = {
    ("tiny", 7, False): "224_20220317-1cdeb081", ("small", 7, False): "224_20220317-7ba6d6dd",
    ("base", 7, False): "224_20220317-e9b98025", ("base", 7, True): "224_22k_20220317-4f79f7c0",
    ("base", 12, False): "384_20220317-55b0104a", ("base", 12, True): "384_22k_20220317-e5c09f74",
    ("large", 7, True): "224_22k_20220412-aeecf2aa", ("large", 12, True): "384_22k_20220412-6580f57d",
}  # fmt: skip


def swin_core(size: str, window: int = 7, drop_path: float = 0.3) -> Spec:
    """The arguments that every Swin Transformer of the recipes has."""
    width, depths, heads = SWIN[size]
    return part("SwinTransformer", embed_dims=width, depths=depths, num_heads=[heads * 2**level for level in range(4)],
        window_size=window, mlp_ratio=4, qkv_bias=True, qk_scale=None, drop_rate=0.0, attn_drop_rate=0.0,
        drop_path_rate=drop_path, patch_norm=True, out_indices=[0, 1, 2, 3])  # fmt: skip


def swin_channels(size: str) -> list[int]:
    return [SWIN[size][0] * 2**level for level in range(4)]


def swin_weights(size: str, window: int, large_set: bool) -> str:
    """The address of a Swin Transformer's weights. Raises UserError where none are published."""
    found = SWIN_WEIGHTS.get((size, window, large_set))
    if found is None:
        classes = "22k" if large_set else "1k"
        raise UserError(f"swin-{size} with window {window} has no published weights of {classes} classes")
    return f"{PRETRAIN}swin/swin_{size}_patch4_window{window}_{found}.pth"


def swin_upernet(size: str, window: int = 7, weights: str | None = None) -> Spec:
    """Swin Transformer as its authors use it below UPerHead."""
    spec = swin_core(size, window) | {"pretrain_img_size": 384 if window == 12 else 224, "patch_size": 4,
        "strides": [4, 2, 2, 2], "use_abs_pos_embed": False, "act_cfg": {"type": "GELU"},
        "norm_cfg": {"type": "LN", "requires_grad": True}}  # fmt: skip
    return spec | ({"init_cfg": init(weights)} if weights else {})


SHORT_SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large"}


# size -> widths, depths, drop path, weights
MSCAN = {"t": ([32, 64, 160, 256], [3, 3, 5, 2], 0.1, "mscan_t_20230227-119e8c9f"),
    "s": ([64, 128, 320, 512], [2, 2, 4, 2], 0.1, "mscan_s_20230227-f33ccdf2"),
    "b": ([64, 128, 320, 512], [3, 3, 12, 3], 0.1, "mscan_b_20230227-3ab7d230"),
    "l": ([64, 128, 320, 512], [3, 5, 27, 3], 0.3, "mscan_l_20230227-cef260d4")}  # fmt: skip


@builder(r"mscan-(?P<size>[tsbl])")
def mscan(size: str) -> Backbone:
    """The encoder of SegNeXt (Guo et al., NeurIPS 2022)."""
    channels, depths, drop_path, weights = MSCAN[size]
    spec = part("MSCAN", init_cfg=init(f"{PRETRAIN}segnext/{weights}.pth"), embed_dims=channels,
        mlp_ratios=[8, 8, 4, 4], drop_rate=0.0, drop_path_rate=drop_path, depths=depths,
        attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]], attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
        act_cfg={"type": "GELU"}, norm_cfg={"type": "BN", "requires_grad": True})  # fmt: skip
    return Backbone(spec, list(channels), {"pretrained": None})


# kind, size -> widths, heads, depths, weights
TWINS = {
    ("pcpvt", "s"): ([64, 128, 320, 512], [1, 2, 5, 8], [3, 4, 6, 3], "pcpvt_small_20220308-e638c41c"),
    ("pcpvt", "b"): ([64, 128, 320, 512], [1, 2, 5, 8], [3, 4, 18, 3], "pcpvt_base_20220308-0621964c"),
    ("pcpvt", "l"): ([64, 128, 320, 512], [1, 2, 5, 8], [3, 8, 27, 3], "pcpvt_large_20220308-37579dc6"),
    ("svt", "s"): ([64, 128, 256, 512], [2, 4, 8, 16], [2, 2, 10, 4], "alt_gvt_small_20220308-7e1c3695"),
    ("svt", "b"): ([96, 192, 384, 768], [3, 6, 12, 24], [2, 2, 18, 2], "alt_gvt_base_20220308-1b7eb711"),
    ("svt", "l"): ([128, 256, 512, 1024], [4, 8, 16, 32], [2, 2, 18, 2], "alt_gvt_large_20220308-fb5936f3"),
}


@builder(r"(?P<kind>pcpvt|svt)-(?P<size>[sbl])")
def twins(kind: str, size: str) -> Backbone:
    """Chu et al., NeurIPS 2021."""
    channels, heads, depths, weights = TWINS[kind, size]
    spec = part(kind.upper(), init_cfg=init(f"{PRETRAIN}twins/{weights}.pth"), in_channels=3, embed_dims=channels,
        num_heads=heads, patch_sizes=[4, 2, 2, 2], strides=[4, 2, 2, 2],
        mlp_ratios=[8, 8, 4, 4] if kind == "pcpvt" else [4, 4, 4, 4], out_indices=[0, 1, 2, 3], qkv_bias=True,
        norm_cfg={"type": "LN"}, depths=depths, sr_ratios=[8, 4, 2, 1], norm_after_stage=kind == "svt", drop_rate=0.0,
        attn_drop_rate=0.0, drop_path_rate=0.2)  # fmt: skip
    if kind == "svt":
        spec["windiow_sizes"] = [7, 7, 7, 7]  # so spelled in the published configs
    return Backbone(spec, list(channels), {})


# size -> channels of the first stage, drop path, weights of 1k and of 21k classes
CONVNEXT = {"tiny": (96, 0.4, "32xb128-noema_in1k_20220301-795e9634", None),
    "small": (96, 0.3, "32xb128-noema_in1k_20220301-303e75e3", None),
    "base": (128, 0.4, "32xb128-noema_in1k_20220301-2a0ee547", "in21k_20220301-262fd037"),
    "large": (192, 0.4, None, "in21k_20220301-e6e0ea0a"),
    "xlarge": (256, 0.4, None, "in21k_20220301-08aa5ddc")}  # fmt: skip


@builder(r"convnext-(?P<size>tiny|small|base|large|xlarge)(?P<more>(?:-in21k)?)")
def convnext(size: str, more: str) -> Backbone:
    """Liu et al., CVPR 2022."""
    width, drop_path, smaller, larger = CONVNEXT[size]
    weights = larger if more or smaller is None else smaller
    if weights is None:
        raise UserError(f"convnext-{size} has no published weights of 21k classes")
    address = f"{HOST}mmclassification/v0/convnext/downstream/convnext-{size}_3rdparty_{weights}.pth"
    spec = part("mmpretrain.ConvNeXt", arch=size, out_indices=[0, 1, 2, 3], drop_path_rate=drop_path,
        layer_scale_init_value=1.0, gap_before_final_norm=False,
        init_cfg=init(address, prefix="backbone."))  # fmt: skip
    return Backbone(spec, [width * 2**level for level in range(4)], {"pretrained": None})
