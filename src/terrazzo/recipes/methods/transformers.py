"""SegFormer, SegNeXt, Segmenter, SETR, DPT; ViT, BEiT, MAE, Swin, Twins, ConvNeXt and PoolFormer below other heads."""

from __future__ import annotations

from typing import Any

from terrazzo.recipes import backbones
from terrazzo.recipes.backbones import HOST, PRETRAIN, Backbone, backbone
from terrazzo.recipes.methods import family
from terrazzo.recipes.parts import Spec, adamw, batch_norm, fpn, init, keys, mixed, no_decay, part, sgd, wrapper
from terrazzo.recipes.plan import Plan


@family("segformer", r"segformer_(?P<word>mit-b[0-5])", "segformer_mit-b0")
def segformer(plan: Plan, word: str) -> None:
    """Xie et al., NeurIPS 2021."""
    body = backbone(word)
    if plan.words.older and plan.words.dataset == "ade20k":
        body.model["pretrained"] = body.spec.pop("init_cfg")["checkpoint"]
    square = plan.words.crop == (1024, 1024)
    test = {"test_cfg": plan.slide(stride=[768, 768])} if square else {}
    plan.segmentor(body, plan.head("SegformerHead", body.channels, [0, 1, 2, 3], 256), **test)
    plan.optimizer, plan.schedule = wrapper(adamw(6e-5, 0.01), **faster_head()), plan.transformer_schedule()
    plan.use_few_workers()
    if plan.words.dataset == "ade20k" and plan.words.crop == (640, 640):
        plan.train_pipeline[2]["scale"] = plan.test_pipeline[1]["scale"] = [2048, 640]


def faster_head() -> Spec:
    """The head learns ten times as fast as the encoder."""
    settings = no_decay("pos_block", "norm")["paramwise_cfg"]["custom_keys"]
    return keys(**settings, head={"lr_mult": 10.0})


@family("segnext", r"segnext_(?P<word>mscan-[tsbl])", "segnext_mscan-t")
def segnext(plan: Plan, word: str) -> None:
    """Guo et al., NeurIPS 2022."""
    body = backbone(word)
    width = {"t": 256, "s": 256, "b": 512, "l": 1024}[word[-1]]
    ham = {"MD_S": 1, "MD_R": 16, "train_steps": 6, "eval_steps": 7, "inv_t": 100, "rand_init": True}
    options = {"ham_channels": width, "norm_cfg": part("GN", num_groups=32, requires_grad=True), "ham_kwargs": ham}
    plan.segmentor(body, plan.head("LightHamHead", body.channels[1:], [1, 2, 3], width, **options))
    plan.optimizer, plan.schedule = wrapper(adamw(6e-5, 0.01), **faster_head()), plan.transformer_schedule()
    plan.preprocessor["test_cfg"] = {"size_divisor": 32}


# size -> width, layers, heads
VIT = {"t": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}
VIT_DECAY = ("pos_embed", "cls_token", "norm")
SEGMENTER_WEIGHTS = {"t": "vit_tiny_p16_384_20220308-cce8c795", "s": "vit_small_p16_384_20220308-410f6037",
    "b": "vit_base_p16_384_20220308-96dfe169", "l": "vit_large_p16_384_20220308-d4efb41d"}  # fmt: skip


@family("segmenter", r"segmenter_vit-(?P<size>[tsbl])_(?P<method>mask|fcn)", "segmenter_vit-s_mask")
def segmenter(plan: Plan, size: str, method: str) -> None:
    """Strudel et al., ICCV 2021."""
    width, layers, heads = VIT[size]
    spec = part("VisionTransformer", img_size=plan.crop, patch_size=16, in_channels=3, embed_dims=width,
        num_layers=layers, num_heads=heads, drop_path_rate=0.1, attn_drop_rate=0.0, drop_rate=0.0, final_norm=True,
        norm_cfg={"type": "LN", "eps": 1e-6, "requires_grad": True}, with_cls_token=True,
        interpolate_mode="bicubic")  # fmt: skip
    options: Spec = {"dropout_ratio": 0.0, "norm_cfg": None, "align_corners": None}
    if method == "mask":
        options |= {"num_layers": 2, "num_heads": heads, "embed_dims": width}
        decode = plan.head("SegmenterMaskTransformerHead", width, None, width, **options)
    else:
        decode = plan.head("FCNHead", width, None, width, num_convs=0, concat_input=False, **options)
    body = Backbone(spec, [], {"pretrained": f"{PRETRAIN}segmenter/{SEGMENTER_WEIGHTS[size]}.pth"})
    plan.segmentor(body, decode, test_cfg=plan.slide(stride=[size - 32 for size in plan.crop]))
    del plan.model["train_cfg"]
    plan.optimizer = plan.plain(sgd(0.001, 0.0))
    plan.preprocessor |= {"mean": [127.5] * 3, "std": [127.5] * 3}


@family("setr", r"setr_vit-l_(?P<method>mla|naive|pup)", "setr_vit-l_naive")
def setr(plan: Plan, method: str) -> None:
    """Zheng et al., CVPR 2021."""
    spec = part("VisionTransformer", img_size=plan.crop, patch_size=16, in_channels=3, embed_dims=1024, num_layers=24,
        num_heads=16, out_indices=[5, 11, 17, 23] if method == "mla" else [9, 14, 19, 23], drop_rate=0.0,
        norm_cfg={"type": "LN", "eps": 1e-6, "requires_grad": True}, with_cls_token=method != "mla",
        interpolate_mode="bilinear", init_cfg=init("pretrain/vit_large_p16.pth"))  # fmt: skip
    street = plan.data.kind == "CityscapesDataset"
    body = Backbone(spec, [], {"pretrained": None})
    parts = setr_mla(plan, street) if method == "mla" else setr_up(plan, method, street)
    plan.segmentor(body, *parts, test_cfg=plan.slide())
    rate = {"mla": 0.002 if street else 0.001, "naive": 0.01, "pup": 0.01 if street else 0.001}[method]
    plan.optimizer = wrapper(sgd(rate, 0.0), clip_grad=None, **keys(head={"lr_mult": 10.0}))
    plan.workers = 2 if street else 4


def setr_mla(plan: Plan, street: bool) -> tuple[Spec, list[Spec], Spec]:
    """Multi-level aggregation: head, auxiliary heads, neck."""
    relu = {"act_cfg": {"type": "ReLU"}}
    neck = {"type": "MLANeck", "in_channels": [1024] * 4, "out_channels": 256, "norm_cfg": batch_norm(), **relu}
    decode = plan.head("SETRMLAHead", [256] * 4, [0, 1, 2, 3], 512, mla_channels=128, dropout_ratio=0)
    options = {"dropout_ratio": 0, "num_convs": 0, "kernel_size": 1} | ({"norm_cfg": None} if street else relu)
    return decode, [plan.auxiliary(256, index, 256, **options) for index in range(4)], neck


def setr_up(plan: Plan, method: str, street: bool) -> tuple[Spec, list[Spec]]:
    """Progressive or naive upsampling: head and auxiliary heads."""
    kernel = 3 if method == "pup" else 1
    growth = {"num_convs": 4, "up_scale": 2} if method == "pup" else {"num_convs": 1, "up_scale": 4}
    options: Spec = {"dropout_ratio": 0, "kernel_size": kernel}
    decode = plan.head("SETRUPHead", 1024, 3, 256, **options, **growth)
    if street:
        side: Spec = {"num_convs": 1 if method == "naive" else 2, "up_scale": 4}
    else:
        side = {"num_convs": 2, "act_cfg": {"type": "ReLU"}}
    return decode, [plan.head("SETRUPHead", 1024, index, 256, 0.4, **options, **side) for index in range(3)]


@family("dpt", "dpt_vit-b16", "dpt_vit-b16")
def dpt(plan: Plan) -> None:
    """Ranftl et al., ICCV 2021."""
    spec = part("VisionTransformer", img_size=224, embed_dims=768, num_layers=12, num_heads=12,
        out_indices=[2, 5, 8, 11], final_norm=False, with_cls_token=True, output_cls_token=True)  # fmt: skip
    options = {"embed_dims": 768, "post_process_channels": [96, 192, 384, 768], "readout_type": "project",
        "input_transform": "multiple_select", "dropout_ratio": None, "align_corners": None}  # fmt: skip
    decode = plan.head("DPTHead", [768] * 4, [0, 1, 2, 3], 256, **options)
    body = Backbone(spec, [], {"pretrained": "pretrain/vit-b16_p16_224-80ecf9dd.pth"})
    plan.segmentor(body, decode)
    plan.use_few_workers()
    plan.model["auxiliary_head"] = None
    plan.optimizer, plan.schedule = wrapper(adamw(6e-5, 0.01), **no_decay(*VIT_DECAY)), plan.transformer_schedule()


def transformer_spec(plan: Plan, kind: str, size: str, indices: list[int], **options: Any) -> Spec:
    """A plain transformer below UPerHead."""
    width, layers, heads = VIT[size]
    return part(kind, img_size=plan.crop, patch_size=16, in_channels=3, embed_dims=width, num_layers=layers,
        num_heads=heads, mlp_ratio=4, out_indices=indices, attn_drop_rate=0.0, drop_path_rate=0.1,
        norm_cfg={"type": "LN", "eps": 1e-6}, act_cfg={"type": "GELU"}, norm_eval=False) | options  # fmt: skip


VIT_WEIGHTS = {"deit-b": "deit_base_patch16_224-b5f2ef4d", "deit-s": "deit_small_patch16_224-cd65a155",
    "vit-b": "vit_base_patch16_224"}  # fmt: skip


@family("vit", r"vit_(?P<kind>deit|vit)-(?P<size>[bs])16(?P<norm>-ln)?(?P<neck>_mln)?_upernet", "vit_deit-s16_upernet")
def vit(plan: Plan, kind: str, size: str, norm: str, neck: str) -> None:
    """Dosovitskiy et al., ICLR 2021; Touvron et al., ICML 2021."""
    options = {"qkv_bias": True, "drop_rate": 0.0, "with_cls_token": True, "interpolate_mode": "bicubic"}
    spec = transformer_spec(plan, "VisionTransformer", size, [2, 5, 8, 11], **options)
    if norm:
        spec["final_norm"] = True
    elif kind == "vit":
        spec["drop_path_rate"] = 0.0
    width = spec["embed_dims"]
    levels = {"type": "MultiLevelNeck", "in_channels": [width] * 4, "out_channels": width, "scales": [4, 2, 1, 0.5]}
    body = Backbone(spec, [], {"pretrained": f"pretrain/{VIT_WEIGHTS[f'{kind}-{size}']}.pth"})
    decode = plan.uper_head([width] * 4)
    plan.segmentor(body, decode, plan.auxiliary(width, 3), neck=levels if neck else None)
    plan.model.setdefault("neck", None)
    plan.optimizer, plan.schedule = wrapper(adamw(6e-5, 0.01), **no_decay(*VIT_DECAY)), plan.transformer_schedule()


def with_pyramid(plan: Plan, spec: Spec, pretrained: str) -> None:
    """UPerNet on a plain transformer whose levels are rescaled to a pyramid."""
    width = spec["embed_dims"]
    neck = {"type": "Feature2Pyramid", "embed_dim": width, "rescales": [4, 2, 1, 0.5]}
    body = Backbone(spec, [], {"pretrained": pretrained})
    plan.segmentor(body, plan.uper_head([width] * 4, width), plan.auxiliary(width), neck, test_cfg=plan.slide())


def layer_decay(layers: int, rate: float) -> Spec:
    """Earlier layers learn more slowly."""
    settings = {"num_layers": layers, "layer_decay_rate": rate}
    return {"constructor": "LayerDecayOptimizerConstructor", "paramwise_cfg": settings}


@family("beit", r"beit-(?P<size>base|large)_upernet", "beit-base_upernet")
def beit(plan: Plan, size: str) -> None:
    """Bao et al., ICLR 2022."""
    large = size == "large"
    indices, options = [3, 5, 7, 11], {"qv_bias": True, "init_values": 0.1}
    if large:
        indices, options = [7, 11, 15, 23], {"qv_bias": True, "init_values": 1e-6, "drop_path_rate": 0.2}
    spec = transformer_spec(plan, "BEiT", size[0], indices, **options)
    with_pyramid(plan, spec, f"pretrain/beit_{size}_patch16_224_pt22k_ft22k.pth")
    if large:
        plan.optimizer = mixed(adamw(2e-5, 0.05), **layer_decay(24, 0.95), accumulative_counts=2)
    else:
        plan.optimizer = wrapper(adamw(3e-5, 0.05), **layer_decay(12, 0.9))
    plan.schedule = plan.transformer_schedule(3000 if large else 1500)


@family("mae", "mae-base_upernet", "mae-base_upernet")
def mae(plan: Plan) -> None:
    """He et al., CVPR 2022."""
    with_pyramid(plan, transformer_spec(plan, "MAE", "b", [3, 5, 7, 11], init_values=1.0),
        "./pretrain/mae_pretrain_vit_base_mmcls.pth")  # fmt: skip
    plan.optimizer = wrapper(adamw(1e-4, 0.05), **layer_decay(12, 0.65))
    plan.schedule = plan.transformer_schedule()


SWIN_DECAY = ("absolute_pos_embed", "relative_position_bias_table", "norm")
SWIN_WORD = r"swin-(?P<size>[a-z]+)-patch4-window(?P<window>7|12)(-in(?P<classes>1k|22k)(-384x384)?-pre)?"


@family("swin", SWIN_WORD + "_upernet", "swin-tiny-patch4-window7-in1k-pre_upernet")
def swin(plan: Plan, size: str, window: str, classes: str) -> None:
    """Liu et al., ICCV 2021."""
    weights = backbones.swin_weights(size, int(window), classes == "22k") if classes else None
    channels = backbones.swin_channels(size)
    body = Backbone(backbones.swin_upernet(size, int(window), weights), channels, {"pretrained": None})
    plan.segmentor(body, plan.uper_head(channels), plan.auxiliary(channels[2]))
    plan.optimizer, plan.schedule = wrapper(adamw(6e-5, 0.01), **no_decay(*SWIN_DECAY)), plan.transformer_schedule()
    if plan.words.dataset == "levir":
        change_detection(plan)


def change_detection(plan: Plan) -> None:
    """Take two pictures of one place as six channels."""
    plan.model["backbone"]["in_channels"] = 6
    plan.preprocessor |= {"mean": plan.preprocessor["mean"] * 2, "std": plan.preprocessor["std"] * 2}
    flips = [{"type": f"{axis}Flip", "p": 0.5} for axis in ("Horizontal", "Vertical")]
    change = {"type": "Albu", "transforms": [{"type": "RandomBrightnessContrast", "p": 0.2}, *flips]}
    load: list[Spec] = [{"type": "LoadMultipleRSImageFromFile"}, {"type": "LoadAnnotations"}]
    pack: list[Spec] = [{"type": "ConcatCDInput"}, {"type": "PackSegInputs"}]
    plan.train_pipeline, plan.test_pipeline = [*load, change, *pack], [*load, *pack]
    augment = {"type": "TestTimeAug", "transforms": [[load[1]], [pack[0]], [pack[1]]]}
    plan.settings["tta_pipeline"] = [load[0], augment]


@family("twins", r"twins_(?P<word>(?:pcpvt|svt)-[sbl])_(?P<method>fpn_fpnhead|uperhead)", "twins_pcpvt-s_fpn_fpnhead")
def twins(plan: Plan, word: str, method: str) -> None:
    """Chu et al., NeurIPS 2021."""
    body = backbone(word)
    if method == "uperhead":
        body.spec["drop_path_rate"] = 0.3 if word in ("pcpvt-b", "pcpvt-l", "svt-l") else 0.2
        plan.segmentor(body, plan.uper_head(body.channels), plan.auxiliary(body.channels[2]))
        plan.use_few_workers()
        plan.optimizer = wrapper(adamw(6e-5, 0.01), **no_decay("pos_block", "norm"))
        plan.schedule = plan.transformer_schedule()
    else:
        body.spec["drop_path_rate"] = 0.3 if word == "svt-l" else 0.2
        plan.segmentor(body, plan.fpn_head(), neck=fpn(body.channels))
        plan.optimizer = wrapper({"type": "AdamW", "lr": 1e-4, "weight_decay": 1e-4}, clip_grad=None)


@family("convnext", r"convnext-(?P<size>tiny|small|base|large|xlarge)_upernet", "convnext-tiny_upernet")
def convnext(plan: Plan, size: str) -> None:
    """Liu et al., CVPR 2022."""
    body = backbone(f"convnext-{size}" + ("-in21k" if plan.words.crop == (640, 640) else ""))
    decode, aside = plan.uper_head(body.channels), plan.auxiliary(body.channels[2])
    plan.segmentor(body, decode, aside, test_cfg=plan.slide())
    decay = {"decay_rate": 0.9, "decay_type": "stage_wise", "num_layers": 6 if size == "tiny" else 12}
    optimizer = adamw(8e-5 if size == "xlarge" else 1e-4, 0.05)
    constructor = "LearningRateDecayOptimizerConstructor"
    plan.optimizer = mixed(optimizer, paramwise_cfg=decay, constructor=constructor, loss_scale="dynamic")
    plan.schedule = plan.transformer_schedule()
    plan.settings["custom_imports"] = {"imports": "mmpretrain.models", "allow_failed_imports": False}


# size -> channels of the first stage, weights
POOLFORMER = {"s12": (64, "20220414-f8d83051"), "s24": (64, "20220414-d7055904"), "s36": (64, "20220414-d78ff3e8"),
    "m36": (96, "20220414-c55e0949"), "m48": (96, "20220414-9378f3eb")}  # fmt: skip


@family("poolformer", r"fpn_poolformer_(?P<size>s12|s24|s36|m36|m48)", "fpn_poolformer_s12")
def poolformer(plan: Plan, size: str) -> None:
    """Yu et al., CVPR 2022."""
    width, weights = POOLFORMER[size]
    channels = [64, 128, 320, 512] if width == 64 else [96, 192, 384, 768]
    address = f"{HOST}mmclassification/v0/poolformer/poolformer-{size}_3rdparty_32xb128_in1k_{weights}.pth"
    spec = part("mmpretrain.PoolFormer", arch=size, init_cfg=init(address, prefix="backbone."), in_patch_size=7,
        in_stride=4, in_pad=2, down_patch_size=3, down_stride=2, down_pad=1, drop_rate=0.0, drop_path_rate=0.0,
        out_indices=[0, 2, 4, 6], frozen_stages=0)  # fmt: skip
    plan.segmentor(Backbone(spec, channels, {}), plan.fpn_head(), neck=fpn(channels))
    precision = wrapper if plan.words.older else mixed
    plan.optimizer = precision({"type": "AdamW", "lr": 0.0002, "weight_decay": 0.0001})
    plan.schedule = plan.poly(0.0)
    plan.repeat = 50
    plan.test_pipeline.insert(2, {"type": "ResizeToMultiple", "size_divisor": 32})
    plan.settings["tta_pipeline"] = None
    plan.settings["custom_imports"] = {"imports": ["mmpretrain.models"], "allow_failed_imports": False}
