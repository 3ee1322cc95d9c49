"""The names of 0.x, each from its twin of 1.x, and its config in the 0.x vocabulary, as the official file writes it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from terrazzo.recipes import datasets
from terrazzo.recipes import names_v1 as official
from terrazzo.recipes.parts import IMAGENET, Spec, init, ohem
from terrazzo.recipes.plan import Plan

RATIOS = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
ENDS = ({"type": "DefaultFormatBundle"}, {"type": "Collect", "keys": ["img", "gt_semantic_seg"]})
# Recipes that are new in 1.x
NEWER = re.compile(r"(mask2former|maskformer|segnext|san-|vpd|ddrnet|pidnet|cityscapes$|voc$).*|.*_(levir|mapillay).*")
# Changes to a draft `{model}_{devices}x{batch}_{options}_{crop}_{iterations}k_{dataset}`, one after the other:
# a part of the drafts concerned, a pattern in them, its replacement
RENAMES = (
    ("pascal-context", r"pascal-context(-59)?$", lambda m: "pascal_context" + (m[1] or "").replace("-", "_")),
    ("chase-db1", r"(?<!dice-3.0)_(\d+x\d+_40k)_chase-db1", r"_\1_chase_db1"),
    ("dark-zurich", r"cityscapes_dark-zurich", "dark"),
    ("night-driving", r"cityscapes_night-driving", "night_driving"),
    ("_amp", r"_(\d+x\d)_amp", r"_fp16_\1"),
    ("fcn-d6", r"fcn-d6", "fcn_d6"),
    ("-in1k-pre_", r"-in1k-pre_(\d+x\d+)_", r"_in1k-pre_\1_"),
    ("bisenetv1", r"(bisenetv1_.*?)_(4x4_512)", r"\1_lr5e-3_\2"),
    ("_ohem", r"_(4x4)_ohem", r"_ohem_\1"),
    ("cgnet_fcn", r"cgnet_fcn", "cgnet"),
    ("fast_scnn", r"fast_scnn_8x4_512x1024", "fast_scnn_lr0.12_8x4"),
    ("unet-s5", r"unet-(s5-d16)_(\w+?)_(.*)", r"\2_unet_\1_\3"),
    ("mobilenet-v2", r"mobilenet-v2-d8_(\w+?)_", r"\1_m-v2-d8_"),
    ("mobilenet-v3", r"mobilenet-v3-d8(-scratch)?(-s)?_lraspp",
     lambda m: f"lraspp_m-v3{'s' * bool(m[2])}-d8{'_scratch' * bool(m[1])}"),
    ("resnest", r"resnest_(s101-d8)_(\w+?)_", r"\2_\1_"),
    ("ocrnet_r101", r"(ocrnet_r101-d8)_(\dx2)_(.*k)_", lambda m: f"{m[1]}_{m[3]}_b{8 if m[2] == '4x2' else 16}_"),
    ("rsb_", r"(pspnet_r50-d\d+)[-_]rsb_4x2_adamw_(.*)_80k", r"\1_rsb-pretrain_\2_adamw_80k"),
    ("knet-", r"knet-(s3)_(.*)_(\w+)_8x2_adamw_(\d+x\d+)", r"knet_\1_\3_\2_8x2_\4_adamw"),
    ("segmenter", r"segmenter_vit-s_fcn", "segmenter_vit-s_linear"),
    ("segmenter", r"segmenter_vit-l_mask_8x1_512x512", "segmenter_vit-l_mask_8x1_640x640"),
    ("setr", r"setr_vit-l[_-](\w+)_8x(\d)_(512x512_160k)", lambda m: f"setr_{m[1]}_{m[3]}_b{8 * int(m[2])}"),
    ("setr", r"setr_vit-l_", "setr_vit-large_"),
    ("_upernet", r"vit_((?:deit|vit)-\w+?)(-ln)?(_mln)?_upernet",
     lambda m: f"upernet_{m[1]}{'_ln' * bool(m[2])}{m[3] or ''}"),
    ("_upernet", r"(beit|mae)-(base|large)_upernet_(.*)_ade20k", r"upernet_\1-\2_\3_ade20k"),
    ("upernet_", r"(upernet_(?:beit|mae).*?)_8x\d(_.*)[_-]ms", r"\1\2_ms"),
    ("mae", r"upernet_mae-base_8x2", "upernet_mae-base_fp16_8x2"),
    ("convnext", r"convnext-(\w+?)_upernet", r"upernet_convnext_\1"),
    ("swin-", r"swin-(\w+)-patch4-window(\d+)-in(\d+)k(-384x384)?-pre_upernet_(.*)", lambda m: swin_name(*m.groups())),
    ("_coco", r"_4x4_512x512_(\d+k_coco)", r"_512x512_4x4_\1"),
    ("bisenetv1", r"(bisenetv1.*)_512x512_4x4_", r"\1_4x4_512x512_"),
)  # fmt: skip
TWIN = r"(.+)_(\d+)xb(\d+)-(?:(.+)-)?(\d+k)_(.+?)-(\d+x\d+)(_[a-z-]+(?=-\d))?(?:-\d+x\d+)?(.*)"
# Names that contain devices and images a device; the others omit them
SAYS_BATCH = re.compile(
    r"(bisenet|erfnet|fast_scnn|fpn_poolformer|knet|segmenter|twins|setr_vit|upernet_(beit|mae)).*|pspnet.*potsdam|"
    r".*_(vaihingen|isaid|coco-stuff\w+)|segformer.*cityscapes|fastfcn.*_4x4_512x1024.*|fcn_unet.*cityscapes"
)


def swin_name(size: str, window: str, classes: str, side: str | None, rest: str) -> str:
    """Put the pretraining into a Swin Transformer's name: in the middle for the largest, at the end for the others."""
    crop, _, schedule = rest.removeprefix("8x2_").partition("_")
    pretrained = f"pretrain_{'384x384' if side else '224x224'}_{classes}K"
    order = (crop, pretrained, schedule) if size == "large" else (crop, schedule, pretrained)
    return f"upernet_swin_{size}_patch4_window{window}_" + "_".join(order)


def older_name(name: str) -> str:
    """The name in 0.x of a recipe of 1.x."""
    canonical = official.SPELLINGS.get(name, name) if "setr" not in name else name
    match = re.fullmatch(TWIN, canonical)
    assert match is not None, name
    model, devices, batch, options, iterations, dataset, crop, test, rest = match.groups(default="")
    parts = (model, f"{devices}x{batch}", options, crop, iterations, dataset + test + rest)
    draft = "_".join(part for part in parts if part)
    for marker, pattern, replacement in RENAMES:
        if marker in draft:  # many times faster than to search for each pattern
            draft = re.sub(pattern, replacement, draft)
    if SAYS_BATCH.fullmatch(draft):
        return draft
    return re.sub(r"_\d{1,2}x\d{1,2}(?=_(?:\d+x|fp16|ce-))", "", draft, count=1)


def written(plan: Plan) -> Spec:
    """The whole config of a plan, in the 0.x vocabulary."""
    interval = plan.interval or plan.iterations // 10
    optimizer = {**plan.optimizer["optimizer"]}
    optimizer |= {key: plan.optimizer[key] for key in ("paramwise_cfg", "constructor") if key in plan.optimizer}
    config = {"model": plan.model, "data": data_section(plan),
        "log_config": {"interval": 50, "hooks": [{"type": "TextLoggerHook", "by_epoch": False}]},
        "dist_params": {"backend": "nccl"}, "log_level": "INFO", "load_from": None, "resume_from": None,
        "workflow": [["train", 1]], "cudnn_benchmark": True, "optimizer": optimizer, **precision(plan),
        "lr_config": rate_section(plan.schedule), "runner": {"type": "IterBasedRunner", "max_iters": plan.iterations},
        "checkpoint_config": {"by_epoch": False, "interval": interval},
        "evaluation": {"interval": interval, "metric": plan.data.metric, "pre_eval": True}}  # fmt: skip
    if "custom_imports" in plan.settings:  # of `mmcls`, which became `mmpretrain`
        config["custom_imports"] = {"imports": "mmcls.models", "allow_failed_imports": False}
        plan.model["backbone"]["type"] = plan.model["backbone"]["type"].replace("mmpretrain.", "mmcls.")
    return config


def precision(plan: Plan) -> Spec:
    """`optimizer_config`, and `fp16` for mixed precision."""
    if plan.optimizer["type"] == "OptimWrapper":
        clip = plan.optimizer.get("clip_grad")
        return {"optimizer_config": {"grad_clip": clip} if clip else {}}
    if "accumulative_counts" in plan.optimizer:
        counts = plan.optimizer["accumulative_counts"]
        return {"optimizer_config": {"type": "GradientCumulativeFp16OptimizerHook", "cumulative_iters": counts},
            "fp16": {}}  # fmt: skip
    return {"optimizer_config": {"type": "Fp16OptimizerHook", "loss_scale": plan.optimizer["loss_scale"]}, "fp16": {}}


def rate_section(schedule: list[Spec]) -> Spec:
    """`lr_config`: poly or step, with a linear warm-up."""
    *first, decay = schedule
    section: Spec = {"policy": "step", "step": decay.get("milestones"), "by_epoch": False}
    if decay["type"] == "PolyLR":
        section = {"policy": "poly", "power": decay["power"], "min_lr": decay["eta_min"], "by_epoch": False}
    for warmup in first:
        section |= {"warmup": "linear", "warmup_iters": warmup["end"]}
        if warmup["start_factor"] != 0.1:  # which is the default
            section["warmup_ratio"] = warmup["start_factor"]
    return section


def data_section(plan: Plan) -> Spec:
    normalize = normalization(plan.preprocessor)
    data = plan.data
    train = split(data, 0, train_pipeline(plan, normalize))
    if data.kind == "PascalVOCDataset":
        train |= {"ann_dir": ["SegmentationClass", "SegmentationClassAug"]}
        train["split"] = [train["split"], "ImageSets/Segmentation/aug.txt"]
    times = plan.repeat or data.repeat
    if times:
        train = {"type": "RepeatDataset", "times": times, "dataset": train}
    val = split(data, 1, test_pipeline(plan.test_pipeline, normalize))
    test = val
    if plan.words.test:
        night = datasets.night_dataset(plan.words.test)
        prefix = night["data_prefix"]
        test = {"type": night["type"], "data_root": night["data_root"], "img_dir": prefix["img_path"]}
        test |= {"ann_dir": prefix["seg_map_path"], "pipeline": test_pipeline(night["pipeline"], normalize)}
    sizes = {"samples_per_gpu": plan.batch, "workers_per_gpu": plan.workers}
    return {**sizes, "train": train, "val": val, "test": test}


def split(data: datasets.Data, which: int, pipeline: list[Spec]) -> Spec:
    section: Spec = {"type": data.kind, "data_root": data.root, **data.options}
    section |= {"img_dir": data.images[which], "ann_dir": data.labels[which], "pipeline": pipeline}
    return section | ({"split": data.splits[which]} if data.splits else {})


def train_pipeline(plan: Plan, normalize: Spec) -> list[Spec]:
    pad = {"type": "Pad", "size": list(plan.words.read_crop or plan.words.crop), "pad_val": 0, "seg_pad_val": 255}
    steps: list[Spec] = []
    for step in plan.train_pipeline:
        if step["type"] == "RandomResize":
            steps.append({"type": "Resize", "img_scale": step["scale"], "ratio_range": step["ratio_range"]})
        elif step["type"] not in ("Pad", "PackSegInputs"):
            steps.append(step)
    return [*steps, normalize, pad, *ENDS]


def test_pipeline(steps: list[Spec], normalize: Spec) -> list[Spec]:
    scale = next(step["scale"] for step in steps if step["type"] == "Resize")
    multiple = [step for step in steps if step["type"] == "ResizeToMultiple"]
    inner = [{"type": "Resize", "keep_ratio": True}, *multiple, {"type": "RandomFlip"}, normalize]
    inner += [{"type": kind, "keys": ["img"]} for kind in ("ImageToTensor", "Collect")]
    return [steps[0], {"type": "MultiScaleFlipAug", "img_scale": scale, "flip": False, "transforms": inner}]


def normalization(preprocessor: Spec) -> Spec:
    return {"type": "Normalize", "mean": preprocessor["mean"], "std": preprocessor["std"], "to_rgb": True}


def augmented(shorter: int) -> Spec:
    """Six scales, each as it is and mirrored."""
    several = "data.{val,test}.pipeline.1"
    resize = {"type": "Resize", "keep_ratio": True, "min_size": shorter}
    return {f"{several}.img_ratios": RATIOS, f"{several}.flip": True, f"{several}.transforms.0": resize}


def faces() -> Spec:
    """Three training sets of faces, each behind hands or things."""
    normalize = normalization(IMAGENET)
    pipeline: list[Spec] = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"},
        {"type": "Resize", "img_scale": [512, 512]}, {"type": "RandomFlip", "prob": 0.5},
        {"type": "RandomRotate", "degree": [-30, 30], "prob": 0.5}, {"type": "PhotoMetricDistortion"}, normalize,
        *ENDS]  # fmt: skip
    where = {"type": "FaceOccludedDataset", "data_root": datasets.DATASETS["occluded-faces"].root, "split": "train.txt"}
    folders = ("NatOcc_hand_sot", "NatOcc_object", "RandOcc")
    train = [{"img_dir": f"{name}/img", "ann_dir": f"{name}/mask", "pipeline": pipeline} | where for name in folders]
    multiple: Spec = {"type": "ResizeToMultiple", "size_divisor": 32}
    val = test_pipeline([pipeline[0], {"type": "Resize", "scale": [512, 512]}, multiple], normalize)
    val[1] |= {"img_ratios": RATIOS, "flip": True}
    return {"data.train": train, "data.val.pipeline": val}


def loveda(usual: str, own: str) -> Spec:
    """The usual backbone's weights beside its own."""
    return {"model.pretrained": f"open-mmlab://{usual}", "model.backbone.init_cfg": init(f"open-mmlab://{own}")}


LOADS = "names weights twice; those of the backbone are loaded last"
FACES = "deeplabv3plus_r101_512x512_C-CM+C-WO-NatOcc-SOT"
GONE = official.GONE
# As `official.EXCEPTIONS`, with the keys of 0.x
EXCEPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("upernet_beit-large_fp16_{8x1_640x640_160k_ade20k,640x640_160k_ade20k_ms}",
     {"iterations": 320000, "evaluation.pre_eval": GONE}, "runs 320k iterations"),
    ("{deeplabv3,pspnet}_{r50,r101}-d8_512x512_4x4_320k_coco-stuff164k", {"evaluation.pre_eval": GONE}, "no pre_eval"),
    ("bisenetv1_r50-d32_{,in1k-pre_}4x4_1024x1024_160k_cityscapes",
     {"model.auxiliary_head.{0,1}.{align_corners,loss_decode}": GONE}, "auxiliary heads keep the default loss"),
    ("cgnet_{512x1024,680x680}_60k_cityscapes",
     {"batch": 8, "data.workers_per_gpu": 4, "runner": GONE, "total_iters": 60000, "evaluation.pre_eval": GONE,
      "data.train.pipeline.4": {"type": "RandomFlip", "flip_ratio": 0.5}}, "written before 0.7"),
    ("dnl_{r50,r101}-d8_769x769_80k_cityscapes", {"optimizer.paramwise_cfg": official.POINTWISE},
     "theta and phi do not decay"),
    ("{deeplabv3plus,pspnet}_r18-d8_512x512_80k_loveda", loveda("resnet50_v1c", "resnet18_v1c"), LOADS),
    ("{deeplabv3plus,pspnet}_r101-d8_512x512_80k_loveda", loveda("resnet50_v1c", "resnet101_v1c"), LOADS),
    ("fcn_hr18s_512x512_80k_loveda", loveda("msra/hrnetv2_w18", "msra/hrnetv2_w18_small"), LOADS),
    ("fcn_hr48_512x512_80k_loveda", loveda("msra/hrnetv2_w18", "msra/hrnetv2_w48"), LOADS),
    ("knet_s3_upernet_swin-l_8x2_640x640_adamw_80k_ade20k",
     {"data.{train.pipeline.2,val.pipeline.1,test.pipeline.1}.img_scale": [2048, 640]}, "fits images to 2048x640"),
    ("lraspp_m-v3{,s}-d8_{,scratch_}512x1024_320k_cityscapes", {"{checkpoint_config,evaluation}.interval": 16000},
     "keeps the intervals of 160k"),
    ("segmenter_vit-l_mask_8x1_640x640_160k_ade20k", {"crop": (640, 640)}, ""),
    ("segformer_mit-{b0,b1,b2,b3,b4,b5}_8x1_1024x1024_160k_cityscapes", {"data.workers_per_gpu": 1}, ""),
    ("fcn_unet_s5-d16_4x4_512x1024_160k_cityscapes", {"model.test_cfg.crop_size": [256, 256],
     "model.test_cfg.stride": [170, 170]}, "keeps a window that testing on whole images does not use"),
    ("upernet_mae-base_fp16_{8x2_512x512_160k_ade20k,512x512_160k_ade20k_ms}", {"fp16": {"loss_scale": "dynamic"}},
     "mixed precision is set by `fp16` only"),
    ("upernet_{beit-base,beit-large_fp16}_640x640_160k_ade20k_ms", augmented(640), "tests with augmentation"),
    ("upernet_mae-base_fp16_512x512_160k_ade20k_ms", augmented(512), "tests with augmentation"),
    (FACES, {"{checkpoint_config,evaluation}.interval": 400, "evaluation.metric": ["mIoU", "mDice", "mFscore"],
     "auto_resume": False, "model.decode_head.sampler": ohem(thresh=0.7, min_kept=10000), "data.test": GONE},
     "validates every 400 iterations"),
    (FACES, faces(), "joins three sets of occluded faces"),
)  # fmt: skip


@lru_cache(maxsize=1)
def twins() -> dict[str, str]:
    """Name of 0.x -> name of 1.x."""
    found = {older_name(name): name for name in official.names() if not NEWER.fullmatch(name)}
    return found | {FACES: "deeplabv3plus_r101-d8_4xb2-30k_occluded-faces-512x512"}


@lru_cache(maxsize=1)
def exceptions() -> dict[str, tuple[Spec, str]]:
    """Name -> what differs in it, and why."""
    return official.by_name(EXCEPTIONS)
