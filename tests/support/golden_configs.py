"""The official configs as resolved, and which 1.x recipe is the twin of which 0.x one."""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from typing import Any

from support.golden_models import untuple
from support.paths import shared

# Twins whose names say different things and that share no published weights: folder, 0.x name, 1.x name
TWINS = """
bisenetv1 bisenetv1_r101-d32_lr5e-3_4x4_512x512_160k_coco-stuff164k bisenetv1_r101-d32_4xb4-160k_coco-stuff164k-512x512
fastfcn fastfcn_r50-d32_jpu_aspp_4x4_512x1024_80k_cityscapes fastfcn_r50-d32_jpu_aspp_4xb4-80k_cityscapes-512x1024
fastfcn fastfcn_r50-d32_jpu_enc_4x4_512x1024_80k_cityscapes fastfcn_r50-d32_jpu_enc_4xb4-80k_cityscapes-512x1024
fastfcn fastfcn_r50-d32_jpu_psp_4x4_512x1024_80k_cityscapes fastfcn_r50-d32_jpu_psp_4xb4-80k_cityscapes-512x1024
mobilenet_v2 fcn_m-v2-d8_512x1024_80k_cityscapes mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024
segmenter segmenter_vit-l_mask_8x1_640x640_160k_ade20k segmenter_vit-l_mask_8xb1-160k_ade20k-512x512
swin upernet_swin_large_patch4_window12_512x512_pretrain_384x384_22K_160k_ade20k
    swin-large-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512
swin upernet_swin_large_patch4_window7_512x512_pretrain_224x224_22K_160k_ade20k
    swin-large-patch4-window7-in22k-pre_upernet_8xb2-160k_ade20k-512x512
"""
NIGHT = {"dark": "dark-zurich-1920x1080", "night_driving": "night-driving-1920x1080"}


@cache
def configs(version: int) -> dict[str, dict[str, Any]]:
    """Every official config of 0.x (0) or 1.x (1), by its path without `.py`."""
    with gzip.open(shared("golden", f"config_v{version}.jsonl.gz"), "rt") as lines:
        records = map(json.loads, lines)
        return {record["path"].removesuffix(".py"): untuple(record["cfg"]) for record in records}


def words(path: str) -> tuple[str, frozenset[str]]:
    """The family's folder and the parts of a name that both versions write, whatever their order."""
    folder, _, name = path.lower().partition("/")
    name = name.replace("fp16", "amp").replace("pascal_context", "pascal-context").replace("chase_db1", "chase-db1")
    name = re.sub(r"\d+xb\d+", "_", name)  # devices and batch
    name = re.sub(r"_\dx\d+_", "_", name)
    return re.sub("[_-]", "", folder), frozenset(part for part in re.split("[_-]+", name) if part)


def file_of(record: dict[str, Any]) -> str:
    """The file of a published checkpoint."""
    return (record.get("weights") or "").rpartition("/")[2]


@cache
def twins() -> dict[str, str]:
    """0.x config -> its 1.x twin: by the parts of the name, else by the published weights, else by the table above."""
    by_words: dict[Any, list[str]] = {}
    for path in configs(1):
        by_words.setdefault(words(path), []).append(path)
    found = {path: same[0] for path in configs(0) if len(same := by_words.get(words(path), [])) == 1}
    published = json.loads(shared("golden", "published.json").read_text())
    by_weights: dict[str, list[str]] = {}
    for record in published["1.2.2"]:
        by_weights.setdefault(file_of(record), []).append(record["config"].removesuffix(".py"))
    taken = set(found.values())
    for record in published["0.30.0"]:
        path = record["config"].removesuffix(".py")
        for other in by_weights.get(file_of(record), []):
            if file_of(record) and path in configs(0) and path not in found and other not in taken:
                found[path] = other
                taken.add(other)
    table = iter(TWINS.split())
    found |= {f"{folder}/{old}": f"{folder}/{new}" for folder, old, new in zip(table, table, table, strict=True)}
    for path in configs(0):
        backbone, _, rest = path.partition("_512x1024_")
        length, _, city = rest.partition("_")
        if city in NIGHT:
            found[path] = f"{backbone}_4xb2-{length}_cityscapes-512x1024_{NIGHT[city]}"
    return found
