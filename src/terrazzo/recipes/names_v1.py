"""The official names of 1.x: grids that spell them, other spellings, and configs that contradict their names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from terrazzo.recipes.parts import adamw, clip, keys, wrapper


def expand(text: str) -> list[str]:
    """`a{b,c}` -> ["ab", "ac"]: every choice of every brace."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    before, after = text[: match.start()], text[match.end() :]
    return [name for choice in match[1].split(",") for name in expand(before + choice + after)]


CONTEXTS = "pascal-context-480x480,pascal-context-59-480x480"
STREETS = "cityscapes-{512x1024,769x769}"
AERIAL = "{loveda,potsdam,vaihingen}-512x512"
GRIDS = (
    "{ann,apcnet,ccnet,danet,deeplabv3,deeplabv3plus,dmnet,dnl,encnet,fcn,gcnet,isanet,nonlocal,psanet,pspnet}"
    f"_{{r50,r101}}-d8_4xb2-{{40,80}}k_{STREETS}",
    "{ann,apcnet,ccnet,danet,deeplabv3,deeplabv3plus,dmnet,dnl,encnet,fcn,gcnet,isanet,nonlocal,psanet,pspnet}"
    "_{r50,r101}-d8_4xb4-{80,160}k_ade20k-512x512",
    "{ann,ccnet,danet,deeplabv3,deeplabv3plus,encnet,fcn,gcnet,isanet,nonlocal,psanet,pspnet}"
    "_{r50,r101}-d8_4xb4-{20,40}k_voc12aug-512x512",
    f"{{deeplabv3,deeplabv3plus,fcn,pspnet}}_{{r50,r101}}-d8_4xb4-{{40,80}}k_{{{CONTEXTS}}}",
    f"{{deeplabv3,deeplabv3plus,fcn,pspnet}}_{{r18,r18b,r50b,r101b}}-d8_4xb2-80k_{STREETS}",
    "{deeplabv3,deeplabv3plus,fcn,pspnet}_r101-d8_4xb2-amp-80k_cityscapes-512x1024",
    "{deeplabv3,deeplabv3plus}_r101-d16-mg124_4xb2-{40,80}k_cityscapes-512x1024",
    "{deeplabv3,pspnet}_{r50,r101}-d8_4xb4-{{20,40}k_coco-stuff10k,{80,160,320}k_coco-stuff164k}-512x512",
    f"{{deeplabv3plus,pspnet}}_{{r18,r50,r101}}-d8_4xb4-80k_{AERIAL}",
    "{deeplabv3plus,pspnet}_{r18,r50}-d8_4xb4-80k_isaid-896x896",
    "deeplabv3plus_r50-d8_4xb2-300k_mapillay_v1_65-1280x1280",
    f"emanet_{{r50,r101}}-d8_4xb2-80k_{STREETS}",
    "encnet_r50s-d8_4xb4-80k_ade20k-512x512",
    f"fcn-d6_{{r50,r101}}-d16_4xb2-{{40,80}}k_{STREETS}",
    f"fcn-d6_{{r50b,r101b}}-d16_4xb2-80k_{STREETS}",
    "pspnet_{r50-d32,r50b-d32}_4xb2-80k_cityscapes-512x1024",
    "pspnet_r50-{d32_rsb,d8-rsb}_4xb2-adamw-80k_cityscapes-512x1024",
    "pspnet_{{r50,r101}-d8_4xb2-40k,{r50,r101b}-d8_4xb2-80k}_cityscapes-512x1024_{dark-zurich,night-driving}-1920x1080",
    "fastfcn_r50-d32_jpu_{aspp,enc,psp}_{4xb{2,4}-80k_cityscapes-512x1024,4xb4-{80,160}k_ade20k-512x512}",
    "fcn_{hr18,hr18s,hr48}_4xb2-{40,80,160}k_cityscapes-512x1024",
    "fcn_{hr18,hr18s,hr48}_4xb4-{{80,160}k_ade20k-512x512,{20,40}k_voc12aug-512x512,80k_isaid-896x896}",
    f"fcn_{{hr18,hr18s,hr48}}_4xb4-{{80k_{AERIAL},{{40,80}}k_{{{CONTEXTS}}}}}",
    "ocrnet_hr{18,18s,48}_{4xb2-{40,80,160}k_cityscapes-512x1024,4xb4-{{80,160}k_ade20k,{20,40}k_voc12aug}-512x512}",
    "ocrnet_r101-d8_{4xb2-40k,8xb2-40k,8xb2-80k}_cityscapes-512x1024",
    "{fpn,pointrend}_{r50,r101}_{4xb2-80k_cityscapes-512x1024,4xb4-160k_ade20k-512x512}",
    "upernet_{r18,r50,r101}_{4xb2-{40,80}k_cityscapes-512x1024,4xb4-{{80,160}k_ade20k,{20,40}k_voc12aug}-512x512}",
    "upernet_{r50,r101}_4xb2-{40,80}k_cityscapes-769x769",
    "unet-s5-d16_{fcn,pspnet}_4xb4-{,ce-1.0-dice-3.0-}40k_{chase-db1-128x128,drive-64x64,hrf-256x256,stare-128x128}",
    "unet-s5-d16_deeplabv3_4xb4-{,ce-1.0-dice-3.0-}40k_{drive-64x64,hrf-256x256,stare-128x128}",
    "unet-s5-d16_{deeplabv3_4xb4-ce-1.0-dice-3.0-40k_chase-db1-128x128,fcn_4xb4-160k_cityscapes-512x1024}",
    "unet_s5-d16_deeplabv3_4xb4-40k_chase-db1-128x128",
    "mobilenet-v2-d8_{fcn,pspnet,deeplabv3,deeplabv3plus}_{4xb2-80k_cityscapes-512x1024,4xb4-160k_ade20k-512x512}",
    "mobilenet-v3-d8{,-s,-scratch,-scratch-s}_lraspp_4xb4-320k_cityscapes-512x1024",
    "resnest_s101-d8_{fcn,deeplabv3,deeplabv3plus,pspnet}_4xb4-160k_ade20k-512x512",
    "resnest_s101-d8_{{fcn,deeplabv3,deeplabv3plus}_4xb2-80k_cityscapes-,pspnet_4xb2-80k_cityscapes}512x1024",
    "bisenetv1_{r18,r50,r101}-d32{,-in1k-pre}_4xb4-160k_coco-stuff164k-512x512",
    "bisenetv1_{{r18,r50}-d32{,-in1k-pre}_4xb4,r18-d32-in1k-pre_4xb8}-160k_cityscapes-1024x1024",
    "bisenetv2_fcn_4xb{4,4-amp,4-ohem,8}-160k_cityscapes-1024x1024",
    "cgnet_fcn_{4xb4-60k_cityscapes-680x680,4xb8-60k_cityscapes-512x1024}",
    "ddrnet_23{,-slim}_in1k-pre_2xb6-120k_cityscapes-1024x1024",
    "pidnet-{s,m,l}_2xb6-120k_1024x1024-cityscapes",
    "icnet_{r18,r50,r101}-d8{,-in1k-pre}_4xb2-{80,160}k_cityscapes-832x832",
    "{erfnet_fcn_4xb4,fast_scnn_8xb4}-160k_cityscapes-{512x1024}",
    "stdc{1,2}{,_in1k-pre}_4xb12-80k_cityscapes-512x1024",
    "segformer_mit-{b0,b1,b2,b3,b4,b5}_{8xb1-160k_cityscapes-1024x1024,8xb2-160k_ade20k-512x512}",
    "segformer_mit-b5_8xb2-160k_ade20k-640x640",
    "segmenter_vit-{t_mask,s_mask,s_fcn,b_mask,l_mask}_8xb1-160k_ade20k-512x512",
    "segnext_mscan-{t,s,b,l}_1xb16-adamw-160k_ade20k-512x512",
    "setr_vit-l_{mla,naive,pup}_{8xb1-80k_cityscapes-768x768,8xb2-160k_ade20k-512x512}",
    "setr_vit-l-mla_8xb1-160k_ade20k-512x512",
    "dpt_vit-b16_8xb2-160k_ade20k-512x512",
    "vit_deit-{b,s}16_{upernet_8xb2-80k,upernet_8xb2-160k,mln_upernet_8xb2-160k}_ade20k-512x512",
    "vit_{{deit-b16,deit-s16,vit-b16}-ln_mln_upernet_8xb2-160k,vit-b16_mln_upernet_8xb2-{80,160}k}_ade20k-512x512",
    "beit-{base_upernet_8xb2,large_upernet_8xb1-amp}-160k_ade20k-640x640{,_ms}",
    "mae-base_upernet_8xb2-amp-160k_ade20k-512x512{,-ms}",
    "swin-{tiny,small,base}-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512",
    "swin-{base,large}-patch4-{window7-in22k,window12-in22k-384x384}-pre_upernet_8xb2-160k_ade20k-512x512",
    "swin-base-patch4-window12-in1k-384x384-pre_upernet_8xb2-160k_ade20k-512x512",
    "swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256",
    "twins_{pcpvt,svt}-{s,b,l}_fpn_fpnhead_8xb4-80k_ade20k-512x512",
    "twins_{pcpvt-s_uperhead_8xb4,{pcpvt-b,pcpvt-l,svt-s,svt-b,svt-l}_uperhead_8xb2}-160k_ade20k-512x512",
    "convnext-{{tiny,small,base}_upernet_8xb2-amp-160k_ade20k-512x512,"
    "{base,large,xlarge}_upernet_8xb2-amp-160k_ade20k-640x640}",
    "fpn_poolformer_{{s12,s24,m36,m48}_8xb4-40k_ade20k-512x512,s36_8x4_512x512_40k_ade20k}",
    "knet-s3_{r50-d8_{fcn,pspnet,deeplabv3,upernet},swin-t_upernet,swin-l_upernet}_8xb2-adamw-80k_ade20k-512x512",
    "knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-640x640",
    "maskformer_{r50-d32,r101-d32,swin-t_upernet,swin-s_upernet}_8xb2-160k_ade20k-512x512",
    "mask2former_{r50,r101,swin-t,swin-s}_8xb2-{90k_cityscapes-512x1024,160k_ade20k-512x512}",
    "mask2former_swin-{b-in1k,b-in22k,l-in22k}-384x384-pre_8xb2-160k_ade20k-640x640",
    "mask2former_swin-{b,l}-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024",
    "san-vit-{b16,l14}_{coco-stuff164k,pascal_context,voc12aug}-640x640",
    "vpd_sd_4xb8-25k_nyu-{480x480,512x512}",
    "{cityscapes,voc}",
)
# names with an unusual spelling -> the usual one
SPELLINGS = {"cityscapes": "deeplabv3_r50-d8_4xb2-40k_dsdl-cityscapes-512x1024",
    "voc": "deeplabv3_r50-d8_4xb4-20k_dsdl-voc-512x512",
    "fpn_poolformer_s36_8x4_512x512_40k_ade20k": "fpn_poolformer_s36_8xb4-40k_ade20k-512x512",
    **{f"pidnet-{size}_2xb6-120k_1024x1024-cityscapes": f"pidnet-{size}_2xb6-120k_cityscapes-1024x1024"
       for size in "sml"},
    "pspnet_r50-d32_rsb_4xb2-adamw-80k_cityscapes-512x1024": "pspnet_r50-d32-rsb_4xb2-adamw-80k_cityscapes-512x1024",
    "resnest_s101-d8_pspnet_4xb2-80k_cityscapes512x1024": "resnest_s101-d8_pspnet_4xb2-80k_cityscapes-512x1024",
    "setr_vit-l-mla_8xb1-160k_ade20k-512x512": "setr_vit-l_mla_8xb1-160k_ade20k-512x512",
    "unet_s5-d16_deeplabv3_4xb4-40k_chase-db1-128x128": "unet-s5-d16_deeplabv3_4xb4-40k_chase-db1-128x128"}  # fmt: skip
GONE = object()  # a key that the config does not have
SAN_WEIGHTS = [1.0] * 171 + [0.1]
POINTWISE = {"custom_keys": {"theta": {"wd_mult": 0.0}, "phi": {"wd_mult": 0.0}}}
SLOW_BACKBONE = wrapper(adamw(1e-4, 1e-4), **clip(0.01), **keys(backbone={"lr_mult": 0.1, "decay_mult": 1.0}))
MAPILLARY = "deeplabv3plus_r50-d8_4xb2-300k_mapillay_v1_65-1280x1280"
ALONE = "decode_head.loss_decode.0.class_weight"
# (names, what differs: a word of the name, or a key of the config; why). Braces in names and keys are choices.
EXCEPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("ann_r101-d8_4xb4-40k_voc12aug-512x512", {"iterations": 20000}, "runs 20k iterations"),
    ("beit-large_upernet_8xb1-amp-160k_ade20k-640x640{,_ms}",
     {"iterations": 320000, "param_scheduler.1.end": 160000}, "runs 320k iterations; its schedule ends at 160k"),
    ("bisenetv1_r50-d32{,-in1k-pre}_4xb4-160k_cityscapes-1024x1024",
     {"model.auxiliary_head.{0,1}.{align_corners,loss_decode}": GONE}, "auxiliary heads keep the default loss"),
    ("bisenetv2_fcn_4xb4-ohem-160k_cityscapes-1024x1024", {"options": (), "model.data_preprocessor.size": GONE},
     "its OHEM samplers are written to `models`, so they are not applied"),
    ("cgnet_fcn_4xb4-60k_cityscapes-680x680", {"batch": 8}, "8 images a device"),
    ("cgnet_fcn_{4xb4-60k_cityscapes-680x680,4xb8-60k_cityscapes-512x1024}",
     {"default_hooks.{logger.log_metric_by_epoch,visualization}": GONE}, "replaces the default hooks"),
    ("{deeplabv3_r101-d8_4xb2-amp-80k_cityscapes-512x1024,deeplabv3_r101-d8_4xb4-80k_pascal-context-59-480x480,"
     "deeplabv3plus_r18b-d8_4xb2-80k_cityscapes-769x769,fcn_r101-d8_4xb4-80k_pascal-context-480x480}",
     {"iterations": 40000}, "runs 40k iterations"),
    (MAPILLARY, {"read_crop": (512, 1024)}, "crops 512x1024 in the pipeline; 1280x1280 is the padding"),
    (MAPILLARY, {"optim_wrapper": SLOW_BACKBONE, "param_scheduler.0.eta_min": 0}, "learns with AdamW"),
    (MAPILLARY, {"auto_scale_lr": {"enable": False, "base_batch_size": 8}}, "its own scaling rule"),
    (MAPILLARY, {"tta_pipeline.0": {"type": "LoadImageFromFile", "file_client_args": {"backend": "disk"}}},
     "an older argument in `tta_pipeline`"),
    ("dnl_{r50,r101}-d8_4xb2-80k_cityscapes-769x769", {"optim_wrapper.paramwise_cfg": POINTWISE},
     "theta and phi do not decay"),
    ("fpn_r101_4xb4-160k_ade20k-512x512", {"model": "fpn_r50"}, "is a ResNet-50"),
    ("knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-640x640", {"read_crop": (512, 512)}, "its pipeline crops 512x512"),
    ("mobilenet-v3-d8{,-s,-scratch,-scratch-s}_lraspp_4xb4-320k_cityscapes-512x1024", {"iterations": 160000},
     "runs 160k iterations"),
    ("ocrnet_r101-d8_8xb2-80k_cityscapes-512x1024", {"param_scheduler.0.end": 40000}, "its schedule ends at 40k"),
    ("san-vit-{b16,l14}_pascal_context-640x640", {"read_crop": (480, 480), f"model.{ALONE}": SAN_WEIGHTS},
     "inherits 172 class weights for 59 classes and crops of 480x480: cannot be trained as it is"),
    ("san-vit-{b16,l14}_voc12aug-640x640", {"read_crop": (512, 512), f"model.{ALONE}": SAN_WEIGHTS},
     "inherits 172 class weights for 20 classes and crops of 512x512: cannot be trained as it is"),
    ("segmenter_vit-l_mask_8xb1-160k_ade20k-512x512", {"crop": (640, 640)}, "crops 640x640"),
    ("swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256", {"batch": 4}, "4 images a device"),
    ("unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024", {"model.test_cfg.crop_size": 256, "model.test_cfg.stride": 170},
     "keeps a window that testing on whole images does not use"),
    ("upernet_r18_4xb4-{{80,160}k_ade20k,{20,40}k_voc12aug}-512x512", {"{,model.}data_preprocessor.size": GONE},
     "omits `data_preprocessor.size`"),
    ("vit_deit-s16_upernet_8xb2-160k_ade20k-512x512", {"iterations": 80000}, "runs 80k iterations"),
)  # fmt: skip


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The official names of 1.x."""
    return tuple(dict.fromkeys(name for grid in GRIDS for name in expand(grid)))  # nested choices repeat


@lru_cache(maxsize=1)
def exceptions() -> dict[str, tuple[dict[str, Any], str]]:
    """Name -> what differs in it, and why."""
    return by_name(EXCEPTIONS)


def by_name(table: tuple[tuple[str, dict[str, Any], str], ...]) -> dict[str, tuple[dict[str, Any], str]]:
    """A table of exceptions by name, with every brace expanded; several of a name are joined."""
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for pattern, changes, reason in table:
        spelled = {key: value for choices, value in changes.items() for key in expand(choices)}
        for name in expand(pattern):
            before, why = found.get(name, ({}, ""))
            found[name] = (before | spelled, f"{why}; {reason}" if why else reason)
    return found
