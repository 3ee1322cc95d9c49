"""Names of DDRNet's and PIDNet's weights in their own releases, which share most of them."""

from __future__ import annotations

from terrazzo.models.naming import Naming, Rule, Weights, shifted

KINDS = ("conv", "bn")


def absorb_bias(weights: Weights, original: Weights) -> Weights:
    """Subtract the bias before a batch norm, which our convolution lacks, from the running mean."""
    for name in [name for name in weights if name.startswith("stem.") and name.endswith(".conv.bias")]:
        mean = name.replace(".conv.bias", ".bn.running_mean")
        weights[mean] = weights[mean] - weights.pop(name)
    return weights


def pair(pattern: str, replacement: str) -> Rule:
    """Rename a convolution and its norm, numbered 0 and 1 by the last group of the pattern."""
    return pattern, lambda match: match.expand(replacement).format(KINDS[int(match[match.lastindex])])


STEM = (
    (r"^conv1\.([0134])\.", lambda match: f"stem.{int(match[1]) // 3}.{KINDS[int(match[1]) % 3]}."),
    (r"^layer1\.", "stem.2."),
    (r"^layer2\.", "stem.4."),
)
BLOCKS = (
    (r"(?<=\.)conv([123])\.weight$", r"conv\1.conv.weight"),
    (r"(?<=\.)bn([123])\.", r"conv\1.bn."),
)
POOLING = (
    (r"^spp\.(scale0|compression|shortcut|scale_process)\.0\.", r"spp.\1.bn."),
    (r"^spp\.(scale0|compression|shortcut|scale_process)\.2\.", r"spp.\1.conv."),
    (r"^spp\.scale0\.", "spp.scales.0."),
    (r"^spp\.scale([1-4])\.1\.", r"spp.scales.\1.1.bn."),
    (r"^spp\.scale([1-4])\.3\.", r"spp.scales.\1.1.conv."),
    (r"^spp\.scale_process\.", "spp.processes."),
    shifted(r"^spp\.process([1-4])\.0\.", "spp.processes.{}.bn.", -1),
    shifted(r"^spp\.process([1-4])\.2\.", "spp.processes.{}.conv.", -1),
)
COMPRESSION = (
    pair(r"^compression3\.([01])\.", "compression_1.{}."),
    pair(r"^compression4\.([01])\.", "compression_2.{}."),
)
HEADS = r"seghead_|final_layer\.|fc\.|linear\.|last_layer\.|loss\."

DDRNET_NAMINGS = (
    Naming(
        "the DDRNet release",
        mark=r"down3\.0\.weight",
        rules=(
            *STEM,
            shifted(r"^layer([345])\.", "context_branch_layers.{}.", -3),
            shifted(r"^layer([345])_\.", "spatial_branch_layers.{}.", -3),
            *COMPRESSION,
            pair(r"^down3\.([01])\.", "down_1.{}."),
            (r"^down4\.([0134])\.", lambda match: f"down_2.{int(match[1]) // 3}.{KINDS[int(match[1]) % 3]}."),
            *BLOCKS,
            *POOLING,
        ),
        drop=HEADS,
        finish=absorb_bias,
    ),
)
PIDNET_NAMINGS = (
    Naming(
        "the PIDNet release",
        mark=r"pag3\.f_x\.0\.weight",
        rules=(
            *STEM,
            shifted(r"^layer([345])\.", "i_branch_layers.{}.", -3),
            shifted(r"^layer([345])_\.", "p_branch_layers.{}.", -3),
            shifted(r"^layer([345])_d\.", "d_branch_layers.{}.", -3),
            *COMPRESSION,
            shifted(r"^pag([34])\.", "pag_{}.", -2),
            pair(r"^(pag_[12])\.f_x\.([01])\.", r"\1.f_p.{}."),
            pair(r"^(pag_[12])\.f_y\.([01])\.", r"\1.f_i.{}."),
            shifted(r"^diff([34])\.", "diff_{}.", -2),
            pair(r"^(diff_[12])\.([01])\.", r"\1.{}."),
            pair(r"^dfm\.conv_p\.([01])\.", "dfm.f_p.{}."),
            pair(r"^dfm\.conv_i\.([01])\.", "dfm.f_i.{}."),
            (r"^dfm\.conv\.0\.", "dfm.conv.bn."),
            (r"^dfm\.conv\.2\.", "dfm.conv.conv."),
            pair(r"\.downsample\.([01])\.", ".downsample.{}."),
            *BLOCKS,
            *POOLING,
        ),
        drop=HEADS,
        finish=absorb_bias,
    ),
)
