"""Methods that put a head on the last stage of a dilated backbone, with an FCN head beside it."""

from __future__ import annotations

from collections.abc import Callable

from terrazzo.recipes.backbones import Backbone, backbone
from terrazzo.recipes.methods import family
from terrazzo.recipes.parts import Spec, ohem
from terrazzo.recipes.plan import Plan

Head = Callable[[Plan, Backbone], Spec]


def dilated(method: str, folder: str | None = None) -> Callable[[Head], Head]:
    """Decorator: a head, and with it the family of `{method}_{backbone}`."""

    def add(decode: Head) -> Head:
        def build(plan: Plan, word: str) -> None:
            body = backbone(word)
            aside = plan.auxiliary(body.channels[2], 2, body.auxiliary_width)
            plan.segmentor(body, decode(plan, body), aside)

        family(folder or method, f"{method}_(?P<word>.+)", f"{method}_r50-d8")(build)
        return decode

    return add


@family("fcn", r"fcn-d6_(?P<word>.+)", "fcn-d6_r50-d16")
def fcn_d6(plan: Plan, word: str) -> None:
    """FCN whose convolutions are dilated by 6, on a backbone of stride 16."""
    body = backbone(word)
    decode = plan.fcn_head(body.channels[3], width=body.width, dilation=6)
    plan.segmentor(body, decode, plan.auxiliary(body.channels[2], 2, body.auxiliary_width, dilation=6))


def stride_sixteen(body: Backbone) -> Spec:
    """DeepLab on a multi-grid backbone of stride 16: half the dilations, and hard pixels only."""
    return {"dilations": [1, 6, 12, 18], "sampler": ohem(min_kept=100000)} if "multi_grid" in body.spec else {}


def separable_head(plan: Plan, body: Backbone) -> Spec:
    """Chen et al., ECCV 2018; the first stage is reduced to `low_width` channels."""
    options = {"dilations": [1, 12, 24, 36], "c1_in_channels": body.channels[0], "c1_channels": body.low_width}
    options |= stride_sixteen(body)
    return plan.head("DepthwiseSeparableASPPHead", body.channels[3], 3, body.width, **options)


HEADS: dict[str, Head] = {
    "fcn": lambda plan, body: plan.fcn_head(body.channels[3], width=body.width),
    "pspnet": lambda plan, body: plan.psp_head(body.channels[3], width=body.width),
    "deeplabv3": lambda plan, body: plan.aspp_head(body.channels[3], width=body.width, **stride_sixteen(body)),
    "deeplabv3plus": separable_head,
    "encnet": lambda plan, body: plan.encoding_head(body.channels[1:], [1, 2, 3]),
}
NON_LOCAL = {"reduction": 2, "use_scale": True, "mode": "embedded_gaussian"}
EXPECTATION = {"channels": 256, "ema_channels": 512, "num_bases": 64, "num_stages": 3, "momentum": 0.1}
# word of names -> folder, type and options of a head on the last stage
HEADS_OF_ONE_STAGE: dict[str, tuple[str, str, Spec]] = {
    "apcnet": ("apcnet", "APCHead", {"pool_scales": [1, 2, 3, 6]}),  # He et al., CVPR 2019
    "ccnet": ("ccnet", "CCHead", {"recurrence": 2}),  # Huang et al., ICCV 2019
    "danet": ("danet", "DAHead", {"pam_channels": 64}),  # Fu et al., CVPR 2019
    "dmnet": ("dmnet", "DMHead", {"filter_sizes": [1, 3, 5, 7]}),  # He et al., ICCV 2019
    "dnl": ("dnlnet", "DNLHead", NON_LOCAL),  # Yin et al., ECCV 2020
    "emanet": ("emanet", "EMAHead", EXPECTATION),  # Li et al., ICCV 2019
    "gcnet": ("gcnet", "GCHead", {"ratio": 0.25, "pooling_type": "att", "fusion_types": ["channel_add"]}),  # Cao, 2019
    "isanet": ("isanet", "ISAHead", {"isa_channels": 256, "down_factor": [8, 8]}),  # Huang et al., arXiv 1907.12273
    "nonlocal": ("nonlocal_net", "NLHead", NON_LOCAL),  # Wang et al., CVPR 2018
}


def one_stage(kind: str, options: Spec) -> Head:
    return lambda plan, body: plan.head(kind, body.channels[3], 3, **({"channels": body.width} | options))


for method, (folder, kind, options) in HEADS_OF_ONE_STAGE.items():
    dilated(method, folder)(one_stage(kind, options))
for method, decode_head in HEADS.items():
    dilated(method)(decode_head)


@dilated("ann")
def ann(plan: Plan, body: Backbone) -> Spec:
    """Zhu et al., ICCV 2019."""
    options = {"project_channels": 256, "query_scales": [1], "key_pool_scales": [1, 3, 6, 8]}
    return plan.head("ANNHead", body.channels[2:], [2, 3], body.width, **options)


@dilated("psanet")
def psanet(plan: Plan, body: Backbone) -> Spec:
    """Zhao et al., ECCV 2018."""
    size = 66 if plan.words.dataset == "ade20k" else 97  # of the attention map
    options = {"psa_type": "bi-direction", "compact": False, "shrink_factor": 2, "normalization_factor": 1.0}
    return plan.head("PSAHead", body.channels[3], 3, body.width, mask_size=[size] * 2, psa_softmax=True, **options)


METHOD = "(?P<method>fcn|pspnet|deeplabv3|deeplabv3plus)"


@family("mobilenet_v2", rf"(?P<word>mobilenet-v2-d8)_{METHOD}", "mobilenet-v2-d8_fcn")
@family("resnest", rf"resnest_(?P<word>s\d+-d8)_{METHOD}", "resnest_s101-d8_fcn")
def backbone_first(plan: Plan, word: str, method: str) -> None:
    """Recipes that are named by their backbone."""
    body = backbone(word)
    plan.segmentor(body, HEADS[method](plan, body), plan.auxiliary(body.channels[2]))
