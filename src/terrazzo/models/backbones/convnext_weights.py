"""Names of ConvNeXt's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming

NAMINGS = (
    Naming(
        "Meta's release",
        mark=r"stages\.0\.0\.dwconv\.weight",
        rules=(
            (r"\.dwconv\.", ".depthwise_conv."),
            (r"\.pwconv([12])\.", r".pointwise_conv\1."),
            (r"^norm\.", "norm3."),
        ),
        drop=r"head\.",
    ),
    Naming(
        "timm",
        mark=r"stages\.0\.blocks\.0\.conv_dw\.weight",
        rules=(
            (r"^stem\.", "downsample_layers.0."),
            (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
            (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
            (r"\.conv_dw\.", ".depthwise_conv."),
            (r"\.mlp\.fc([12])\.", r".pointwise_conv\1."),
            (r"\.mlp\.grn\.weight$", ".grn.gamma"),
            (r"\.mlp\.grn\.bias$", ".grn.beta"),
            (r"^head\.norm\.", "norm3."),
        ),
        drop=r"head\.(fc|pre_logits)\.",
    ),
    Naming(
        "torchvision",
        mark=r"features\.1\.0\.block\.0\.weight",
        rules=(
            (r"^features\.([0246])\.(?=[01]\.)", lambda match: f"downsample_layers.{int(match[1]) // 2}."),
            (r"^features\.([1357])\.", lambda match: f"stages.{int(match[1]) // 2}."),
            (r"\.block\.0\.", ".depthwise_conv."),
            (r"\.block\.2\.", ".norm."),
            (r"\.block\.3\.", ".pointwise_conv1."),
            (r"\.block\.5\.", ".pointwise_conv2."),
            (r"\.layer_scale$", ".gamma"),
            (r"^classifier\.0\.", "norm3."),
        ),
        drop=r"classifier\.2\.",
    ),
)
