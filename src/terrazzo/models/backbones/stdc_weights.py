"""Names of STDC's weights in other releases."""

from __future__ import annotations

import re

from terrazzo.models.naming import Naming, Weights


def into_stages(weights: Weights, original: Weights) -> Weights:
    """Group `features.N` into stages, each of which begins with a strided block."""
    begins = {int(match[1]) for name in weights if (match := re.match(r"features\.(\d+)\.downsample\.", name))}

    def stage_name(match: re.Match[str]) -> str:
        index = int(match[1])
        if index < min(begins):
            return f"stages.{index}."
        begin = max(start for start in begins if start <= index)
        return f"stages.{min(begins) + sorted(begins).index(begin)}.{index - begin}."

    return {re.sub(r"^features\.(\d+)\.", stage_name, name): value for name, value in weights.items()}


NAMINGS = (
    Naming(
        "the STDC release",
        mark=r"features\.2\.conv_list\.0\.conv\.weight",
        rules=(
            (r"\.conv_list\.", ".layers."),
            (r"\.avd_layer\.0\.", ".downsample.conv."),
            (r"\.avd_layer\.1\.", ".downsample.bn."),
            (r"^conv_last\.", "final_conv."),
        ),
        drop=r"(fc|bn|linear|x2|x4|x8|x16|x32)\.",
        finish=into_stages,
    ),
)
