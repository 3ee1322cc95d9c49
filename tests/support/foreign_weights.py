"""State dicts as other releases publish them, in small: their names and shapes, with random values."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def filled(shapes: Shapes) -> dict[str, Tensor]:
    """Values that depend on the name alone, and differ between names."""
    return {
        name: torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) + 0.5
        for name, shape in shapes.items()
    }


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def conv(name: str, inputs: int, outputs: int, size: int | tuple[int, int] = 1, bias: bool = False) -> Shapes:
    kernel = (size, size) if isinstance(size, int) else size
    return {f"{name}.weight": (outputs, inputs, *kernel)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def batch_norm(name: str, channels: int) -> Shapes:
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return norm(name, channels) | statistics


def conv_bn(first: str, second: str, inputs: int, outputs: int, size: int = 1) -> Shapes:
    return conv(first, inputs, outputs, size) | batch_norm(second, outputs)


# ResNet and kin


def resnet_blocks(width: int = 64, groups: int = 1, bottleneck: int = 1, counts=(3, 4, 6, 3), pooled: bool = False):
    """Bottleneck layers; in a `pooled` shortcut the convolution comes after a pooling."""
    shapes: Shapes = {}
    inputs = width
    for stage, count in enumerate(counts):
        inner = 64 * 2**stage * bottleneck
        for index in range(count):
            place, outputs = f"layer{stage + 1}.{index}", 256 * 2**stage
            shapes |= conv_bn(f"{place}.conv1", f"{place}.bn1", inputs, inner)
            shapes |= conv_bn(f"{place}.conv2", f"{place}.bn2", inner // groups, inner, 3)
            shapes |= conv_bn(f"{place}.conv3", f"{place}.bn3", inner, outputs)
            if index == 0:
                first = 1 if pooled else 0
                shapes |= conv_bn(f"{place}.downsample.{first}", f"{place}.downsample.{first + 1}", inputs, outputs)
            inputs = outputs
    return shapes


def resnet_torchvision() -> Shapes:
    return conv_bn("conv1", "bn1", 3, 64, 7) | resnet_blocks() | linear("fc", 2048, 1000)


def resnext_torchvision() -> Shapes:
    blocks = resnet_blocks(groups=32, bottleneck=2)
    return conv_bn("conv1", "bn1", 3, 64, 7) | blocks | linear("fc", 2048, 1000)


def deep_stem(width: int) -> Shapes:
    shapes = conv_bn("conv1.0", "conv1.1", 3, width, 3) | conv_bn("conv1.3", "conv1.4", width, width, 3)
    return shapes | conv("conv1.6", width, 2 * width, 3) | batch_norm("bn1", 2 * width)


def resnet_d_timm() -> Shapes:
    return deep_stem(32) | resnet_blocks(pooled=True) | linear("fc", 2048, 1000)


def resnet_c_mmpretrain() -> Shapes:
    shapes: Shapes = {}
    for index, (inputs, outputs) in enumerate([(3, 32), (32, 32), (32, 64)]):
        shapes |= conv_bn(f"stem.{index}.conv", f"stem.{index}.bn", inputs, outputs, 3)
    shapes |= resnet_blocks()
    return {f"backbone.{name}": shape for name, shape in shapes.items()} | linear("head.fc", 2048, 1000)


def resnest() -> Shapes:
    """Of the release, and of timm."""
    shapes = deep_stem(64)
    for name, shape in resnet_blocks(width=128, pooled=True).items():
        if ".conv2.weight" in name:
            width, place = shape[0], name.removesuffix(".weight")
            inner = max(width * 2 // 4, 32)
            shapes |= conv(f"{place}.conv", width // 2, 2 * width, 3) | batch_norm(f"{place}.bn0", 2 * width)
            shapes |= conv(f"{place}.fc1", width, inner, bias=True) | batch_norm(f"{place}.bn1", inner)
            shapes |= conv(f"{place}.fc2", inner, 2 * width, bias=True)
        elif ".bn2." not in name:
            shapes[name] = shape
    return shapes | linear("fc", 2048, 1000)


def mobilenet_v2_torchvision() -> Shapes:
    shapes = conv_bn("features.0.0", "features.0.1", 3, 32, 3)
    stages = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    inputs, number = 32, 1
    for expansion, outputs, count in stages:
        for _ in range(count):
            place, hidden = f"features.{number}.conv", inputs * expansion
            first = 0
            if expansion > 1:
                shapes |= conv_bn(f"{place}.0.0", f"{place}.0.1", inputs, hidden)
                first = 1
            shapes |= conv_bn(f"{place}.{first}.0", f"{place}.{first}.1", 1, hidden, 3)
            shapes |= conv_bn(f"{place}.{first + 1}", f"{place}.{first + 2}", hidden, outputs)
            inputs, number = outputs, number + 1
    return shapes | conv_bn("features.18.0", "features.18.1", 320, 1280) | linear("classifier.1", 1280, 1000)


# kernel, hidden channels, channels, squeeze and excitation
SMALL = ((3, 16, 16, 8), (3, 72, 24, 0), (3, 88, 24, 0), (5, 96, 40, 24), (5, 240, 40, 64), (5, 240, 40, 64),
    (5, 120, 48, 32), (5, 144, 48, 40), (5, 288, 96, 72), (5, 576, 96, 144), (5, 576, 96, 144))  # fmt: skip


def mobilenet_v3_torchvision() -> Shapes:
    shapes, inputs = conv_bn("features.0.0", "features.0.1", 3, 16, 3), 16
    for number, (kernel, hidden, outputs, squeezed) in enumerate(SMALL, 1):
        place, part = f"features.{number}.block", 0
        if hidden != inputs:
            shapes |= conv_bn(f"{place}.0.0", f"{place}.0.1", inputs, hidden)
            part = 1
        shapes |= conv_bn(f"{place}.{part}.0", f"{place}.{part}.1", 1, hidden, kernel)
        if squeezed:
            part += 1
            shapes |= conv(f"{place}.{part}.fc1", hidden, squeezed, bias=True)
            shapes |= conv(f"{place}.{part}.fc2", squeezed, hidden, bias=True)
        shapes |= conv_bn(f"{place}.{part + 1}.0", f"{place}.{part + 1}.1", hidden, outputs)
        inputs = outputs
    shapes |= conv_bn("features.12.0", "features.12.1", 96, 576)
    return shapes | linear("classifier.0", 576, 1024) | linear("classifier.3", 1024, 1000)


# Vision transformers: width 32, 2 layers, patches of 16, images of 64


def timm_block(place: str, width: int, hidden: int, bias: bool = True) -> Shapes:
    shapes = norm(f"{place}.norm1", width) | linear(f"{place}.attn.qkv", width, 3 * width, bias)
    shapes |= linear(f"{place}.attn.proj", width, width) | norm(f"{place}.norm2", width)
    return shapes | linear(f"{place}.mlp.fc1", width, hidden) | linear(f"{place}.mlp.fc2", hidden, width)


def vit_timm(tokens: int = 17) -> Shapes:
    shapes: Shapes = {"cls_token": (1, 1, 32), "pos_embed": (1, tokens, 32)}
    shapes |= conv("patch_embed.proj", 3, 32, 16, bias=True)
    for index in range(2):
        shapes |= timm_block(f"blocks.{index}", 32, 128)
    return shapes | norm("norm", 32) | linear("head", 32, 1000)


def deit_distilled() -> Shapes:
    return vit_timm(18) | {"dist_token": (1, 1, 32)} | linear("head_dist", 32, 1000)


def vit_torchvision() -> Shapes:
    shapes: Shapes = {"class_token": (1, 1, 32), "encoder.pos_embedding": (1, 17, 32)}
    shapes |= conv("conv_proj", 3, 32, 16, bias=True)
    for index in range(2):
        place = f"encoder.layers.encoder_layer_{index}"
        shapes |= norm(f"{place}.ln_1", 32) | norm(f"{place}.ln_2", 32)
        shapes |= {f"{place}.self_attention.in_proj_weight": (96, 32), f"{place}.self_attention.in_proj_bias": (96,)}
        shapes |= linear(f"{place}.self_attention.out_proj", 32, 32)
        shapes |= linear(f"{place}.mlp.linear_1", 32, 128) | linear(f"{place}.mlp.linear_2", 128, 32)
    return shapes | norm("encoder.ln", 32) | linear("heads.head", 32, 1000)


def vit_torchvision_new() -> Shapes:
    names = {"mlp.linear_1": "mlp.0", "mlp.linear_2": "mlp.3"}
    shapes = vit_torchvision()
    for old, new in names.items():
        shapes = {name.replace(old, new): shape for name, shape in shapes.items()}
    return shapes


def vit_mmpretrain(final: str = "ln1") -> Shapes:
    shapes: Shapes = {"cls_token": (1, 1, 32), "pos_embed": (1, 17, 32)}
    shapes |= conv("patch_embed.projection", 3, 32, 16, bias=True)
    for index in range(2):
        place = f"layers.{index}"
        shapes |= norm(f"{place}.ln1", 32) | norm(f"{place}.ln2", 32) | linear(f"{place}.attn.qkv", 32, 96)
        shapes |= linear(f"{place}.attn.proj", 32, 32) | linear(f"{place}.ffn.layers.0.0", 32, 128)
        shapes |= linear(f"{place}.ffn.layers.1", 128, 32)
    shapes |= norm(final, 32)
    return {f"backbone.{name}": shape for name, shape in shapes.items()} | linear("head.layers.head", 32, 1000)


def mae_release() -> Shapes:
    """As pretraining leaves it: with a decoder."""
    shapes = {name: shape for name, shape in vit_timm().items() if not name.startswith("head.")}
    shapes |= {"mask_token": (1, 1, 16), "decoder_pos_embed": (1, 17, 16)}
    return shapes | linear("decoder_embed", 32, 16) | timm_block("decoder_blocks.0", 16, 64) | norm("decoder_norm", 16)


def beit_release(shared: bool = False) -> Shapes:
    """Fine-tuned, or with one table of positions for all layers, as pretraining leaves it."""
    shapes: Shapes = {"cls_token": (1, 1, 32)} | conv("patch_embed.proj", 3, 32, 16, bias=True)
    for index in range(2):
        place = f"blocks.{index}"
        shapes |= timm_block(place, 32, 128, bias=False)
        del shapes[f"{place}.attn.qkv.weight"]
        shapes |= {f"{place}.attn.qkv.weight": (96, 32), f"{place}.attn.q_bias": (32,), f"{place}.attn.v_bias": (32,)}
        shapes |= {f"{place}.gamma_1": (32,), f"{place}.gamma_2": (32,)}
        if not shared:
            shapes[f"{place}.attn.relative_position_bias_table"] = (52, 2)
            shapes[f"{place}.attn.relative_position_index"] = (17, 17)
    if shared:
        shapes |= {"rel_pos_bias.relative_position_bias_table": (52, 2), "mask_token": (1, 1, 32)}
        shapes |= {"rel_pos_bias.relative_position_index": (17, 17)}
        return shapes | norm("norm", 32) | linear("lm_head", 32, 8192)
    return shapes | norm("fc_norm", 32) | linear("head", 32, 1000)


# Swin Transformer: width 16, two blocks a stage, windows of 7


def swin_block(place: str, width: int, heads: int, mlp: tuple[str, str]) -> Shapes:
    shapes = (
        norm(f"{place}.norm1", width) | norm(f"{place}.norm2", width) | linear(f"{place}.attn.qkv", width, 3 * width)
    )
    shapes |= linear(f"{place}.attn.proj", width, width) | {f"{place}.attn.relative_position_bias_table": (169, heads)}
    shapes |= linear(f"{place}.mlp.{mlp[0]}", width, 4 * width) | linear(f"{place}.mlp.{mlp[1]}", 4 * width, width)
    return shapes | {f"{place}.attn.relative_position_index": (49, 49)}


def swin_merging(place: str, width: int) -> Shapes:
    return linear(f"{place}.reduction", 4 * width, 2 * width, bias=False) | norm(f"{place}.norm", 4 * width)


def swin_microsoft(first: int = 0, head: str = "head") -> Shapes:
    shapes = conv("patch_embed.proj", 3, 16, 4, bias=True) | norm("patch_embed.norm", 16)
    for stage in range(4):
        width = 16 * 2**stage
        for index in range(2):
            shapes |= swin_block(f"layers.{stage}.blocks.{index}", width, 2**stage, ("fc1", "fc2"))
        shapes |= {f"layers.{stage}.blocks.1.attn_mask": (64, 49, 49)}
        if stage < 3:
            shapes |= swin_merging(f"layers.{stage + first}.downsample", width)
    return shapes | norm("norm", 128) | linear(head, 128, 1000)


def swin_timm() -> Shapes:
    """Where merging opens a stage instead of closing the one before."""
    return swin_microsoft(first=1, head="head.fc")


def swin_torchvision() -> Shapes:
    shapes = conv("features.0.0", 3, 16, 4, bias=True) | norm("features.0.2", 16)
    for stage in range(4):
        width = 16 * 2**stage
        for index in range(2):
            shapes |= swin_block(f"features.{2 * stage + 1}.{index}", width, 2**stage, ("0", "3"))
        if stage < 3:
            shapes |= swin_merging(f"features.{2 * stage + 2}", width)
    return shapes | norm("norm", 128) | linear("head", 128, 1000)


# Pyramids of transformers: widths 16, 32, 64, 128

WIDTHS = (16, 32, 64, 128)
RATIOS = (8, 4, 2, 1)


def reduced_attention(place: str, width: int, ratio: int) -> Shapes:
    shapes = linear(f"{place}.q", width, width) | linear(f"{place}.kv", width, 2 * width)
    shapes |= linear(f"{place}.proj", width, width)
    return shapes | (
        conv(f"{place}.sr", width, width, ratio, bias=True) | norm(f"{place}.norm", width) if ratio > 1 else {}
    )


def mit_nvidia() -> Shapes:
    shapes: Shapes = {}
    for stage, (width, ratio) in enumerate(zip(WIDTHS, RATIOS, strict=True)):
        inputs, kernel = (3, 7) if stage == 0 else (WIDTHS[stage - 1], 3)
        shapes |= conv(f"patch_embed{stage + 1}.proj", inputs, width, kernel, bias=True)
        shapes |= norm(f"patch_embed{stage + 1}.norm", width) | norm(f"norm{stage + 1}", width)
        for index in range(2):
            place = f"block{stage + 1}.{index}"
            shapes |= norm(f"{place}.norm1", width) | norm(f"{place}.norm2", width)
            shapes |= reduced_attention(f"{place}.attn", width, ratio)
            shapes |= linear(f"{place}.mlp.fc1", width, 4 * width) | linear(f"{place}.mlp.fc2", 4 * width, width)
            shapes |= conv(f"{place}.mlp.dwconv.dwconv", 1, 4 * width, 3, bias=True)
    return shapes | linear("head", 128, 1000)


def mit_transformers(lead: str = "segformer.encoder.") -> Shapes:
    shapes: Shapes = {}
    for stage, (width, ratio) in enumerate(zip(WIDTHS, RATIOS, strict=True)):
        inputs, kernel = (3, 7) if stage == 0 else (WIDTHS[stage - 1], 3)
        shapes |= conv(f"{lead}patch_embeddings.{stage}.proj", inputs, width, kernel, bias=True)
        shapes |= norm(f"{lead}patch_embeddings.{stage}.layer_norm", width) | norm(f"{lead}layer_norm.{stage}", width)
        for index in range(2):
            place = f"{lead}block.{stage}.{index}"
            shapes |= norm(f"{place}.layer_norm_1", width) | norm(f"{place}.layer_norm_2", width)
            for part in ("query", "key", "value"):
                shapes |= linear(f"{place}.attention.self.{part}", width, width)
            if ratio > 1:
                shapes |= conv(f"{place}.attention.self.sr", width, width, ratio, bias=True)
                shapes |= norm(f"{place}.attention.self.layer_norm", width)
            shapes |= linear(f"{place}.attention.output.dense", width, width)
            shapes |= linear(f"{place}.mlp.dense1", width, 4 * width) | linear(f"{place}.mlp.dense2", 4 * width, width)
            shapes |= conv(f"{place}.mlp.dwconv.dwconv", 1, 4 * width, 3, bias=True)
    return shapes | linear("decode_head.linear_c.0.proj", 16, 256) | conv("decode_head.classifier", 256, 150, bias=True)


def twins_release(windows: bool) -> Shapes:
    """PCPVT, or SVT with attention within windows in every second layer."""
    shapes: Shapes = {}
    for stage, (width, ratio) in enumerate(zip(WIDTHS, RATIOS, strict=True)):
        inputs, patch = (3, 4) if stage == 0 else (WIDTHS[stage - 1], 2)
        shapes |= conv(f"patch_embeds.{stage}.proj", inputs, width, patch, bias=True)
        shapes |= norm(f"patch_embeds.{stage}.norm", width)
        shapes |= conv(f"pos_block.{stage}.proj.0", 1, width, 3, bias=True)
        for index in range(2):
            place = f"blocks.{stage}.{index}"
            shapes |= norm(f"{place}.norm1", width) | norm(f"{place}.norm2", width)
            if windows and index == 0:
                shapes |= linear(f"{place}.attn.qkv", width, 3 * width) | linear(f"{place}.attn.proj", width, width)
            else:
                shapes |= reduced_attention(f"{place}.attn", width, ratio)
            shapes |= linear(f"{place}.mlp.fc1", width, 4 * width) | linear(f"{place}.mlp.fc2", 4 * width, width)
    return shapes | norm("norm", 128) | linear("head", 128, 1000)


def twins_mmpretrain(windows: bool) -> Shapes:
    names = {"blocks.": "stages.", ".mlp.fc1.": ".ffn.layers.0.0.", ".mlp.fc2.": ".ffn.layers.1."}
    names |= {f"patch_embeds.{stage}.proj.": f"patch_embeds.{stage}.projection." for stage in range(4)}
    names |= {f"pos_block.{stage}.proj.0.": f"position_encodings.{stage}.proj." for stage in range(4)}
    shapes: Shapes = {}
    for name, shape in twins_release(windows).items():
        if name.startswith(("norm.", "head.")):
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        shapes[f"backbone.{name}"] = shape
    return shapes | linear("head.fc", 128, 1000)


# Convolutional networks that look like transformers


def mscan_release() -> Shapes:
    shapes: Shapes = {}
    for stage, width in enumerate(WIDTHS):
        number = stage + 1
        if stage == 0:
            shapes |= conv("patch_embed1.proj.0", 3, 8, 3, bias=True) | batch_norm("patch_embed1.proj.1", 8)
            shapes |= conv("patch_embed1.proj.3", 8, 16, 3, bias=True) | batch_norm("patch_embed1.proj.4", 16)
        else:
            shapes |= conv(f"patch_embed{number}.proj", WIDTHS[stage - 1], width, 3, bias=True)
            shapes |= batch_norm(f"patch_embed{number}.norm", width)
        place = f"block{number}.0"
        shapes |= {f"{place}.layer_scale_1": (width,), f"{place}.layer_scale_2": (width,)}
        shapes |= batch_norm(f"{place}.norm1", width) | batch_norm(f"{place}.norm2", width)
        for part in ("proj_1", "proj_2", "spatial_gating_unit.conv3"):
            shapes |= conv(f"{place}.attn.{part}", width, width, bias=True)
        unit = f"{place}.attn.spatial_gating_unit"
        shapes |= conv(f"{unit}.conv0", 1, width, 5, bias=True)
        for index, length in enumerate((7, 11, 21)):
            shapes |= conv(f"{unit}.conv{index}_1", 1, width, (1, length), bias=True)
            shapes |= conv(f"{unit}.conv{index}_2", 1, width, (length, 1), bias=True)
        shapes |= conv(f"{place}.mlp.fc1", width, 4 * width, bias=True)
        shapes |= conv(f"{place}.mlp.dwconv.dwconv", 1, 4 * width, 3, bias=True)
        shapes |= conv(f"{place}.mlp.fc2", 4 * width, width, bias=True) | norm(f"norm{number}", width)
    return shapes | linear("head", 128, 1000)


def poolformer_release() -> Shapes:
    shapes = conv("patch_embed.proj", 3, 16, 7, bias=True)
    for stage, width in enumerate(WIDTHS):
        if stage:
            shapes |= conv(f"network.{2 * stage - 1}.proj", WIDTHS[stage - 1], width, 3, bias=True)
        place = f"network.{2 * stage}.0"
        shapes |= {f"{place}.layer_scale_1": (width,), f"{place}.layer_scale_2": (width,)}
        shapes |= norm(f"{place}.norm1", width) | norm(f"{place}.norm2", width)
        shapes |= conv(f"{place}.mlp.fc1", width, 4 * width, bias=True)
        shapes |= conv(f"{place}.mlp.fc2", 4 * width, width, bias=True)
    return shapes | norm("norm", 128) | linear("head", 128, 1000)


def poolformer_timm() -> Shapes:
    shapes = conv("stem.conv", 3, 16, 7, bias=True)
    for stage, width in enumerate(WIDTHS):
        if stage:
            shapes |= conv(f"stages.{stage}.downsample.conv", WIDTHS[stage - 1], width, 3, bias=True)
        place = f"stages.{stage}.blocks.0"
        shapes |= {f"{place}.layer_scale1.scale": (width,), f"{place}.layer_scale2.scale": (width,)}
        shapes |= norm(f"{place}.norm1", width) | norm(f"{place}.norm2", width)
        shapes |= conv(f"{place}.mlp.fc1", width, 4 * width, bias=True)
        shapes |= conv(f"{place}.mlp.fc2", 4 * width, width, bias=True)
    return shapes | norm("head.norm", 128) | linear("head.fc", 128, 1000)


def convnext_meta(version: int = 1) -> Shapes:
    shapes: Shapes = {}
    for stage, width in enumerate(WIDTHS):
        if stage == 0:
            shapes |= conv("downsample_layers.0.0", 3, width, 4, bias=True) | norm("downsample_layers.0.1", width)
        else:
            shapes |= norm(f"downsample_layers.{stage}.0", WIDTHS[stage - 1])
            shapes |= conv(f"downsample_layers.{stage}.1", WIDTHS[stage - 1], width, 2, bias=True)
        place = f"stages.{stage}.0"
        shapes |= conv(f"{place}.dwconv", 1, width, 7, bias=True) | norm(f"{place}.norm", width)
        shapes |= linear(f"{place}.pwconv1", width, 4 * width) | linear(f"{place}.pwconv2", 4 * width, width)
        if version == 1:
            shapes |= {f"{place}.gamma": (width,)}
        else:
            shapes |= {f"{place}.grn.gamma": (1, 1, 1, 4 * width), f"{place}.grn.beta": (1, 1, 1, 4 * width)}
    return shapes | norm("norm", 128) | linear("head", 128, 1000)


def convnext_timm(version: int = 1) -> Shapes:
    shapes = conv("stem.0", 3, 16, 4, bias=True) | norm("stem.1", 16)
    for stage, width in enumerate(WIDTHS):
        if stage:
            shapes |= norm(f"stages.{stage}.downsample.0", WIDTHS[stage - 1])
            shapes |= conv(f"stages.{stage}.downsample.1", WIDTHS[stage - 1], width, 2, bias=True)
        place = f"stages.{stage}.blocks.0"
        shapes |= conv(f"{place}.conv_dw", 1, width, 7, bias=True) | norm(f"{place}.norm", width)
        shapes |= linear(f"{place}.mlp.fc1", width, 4 * width) | linear(f"{place}.mlp.fc2", 4 * width, width)
        shapes |= {f"{place}.gamma": (width,)} if version == 1 else norm(f"{place}.mlp.grn", 4 * width)
    return shapes | norm("head.norm", 128) | linear("head.fc", 128, 1000)


def convnext_torchvision() -> Shapes:
    shapes: Shapes = {}
    for stage, width in enumerate(WIDTHS):
        if stage == 0:
            shapes |= conv("features.0.0", 3, width, 4, bias=True) | norm("features.0.1", width)
        else:
            shapes |= norm(f"features.{2 * stage}.0", WIDTHS[stage - 1])
            shapes |= conv(f"features.{2 * stage}.1", WIDTHS[stage - 1], width, 2, bias=True)
        place = f"features.{2 * stage + 1}.0"
        shapes |= {f"{place}.layer_scale": (width, 1, 1)} | conv(f"{place}.block.0", 1, width, 7, bias=True)
        shapes |= norm(f"{place}.block.2", width) | linear(f"{place}.block.3", width, 4 * width)
        shapes |= linear(f"{place}.block.5", 4 * width, width)
    return shapes | norm("classifier.0", 128) | linear("classifier.2", 128, 1000)


# Real-time networks


def stdc_release(layers=(2, 2, 2)) -> Shapes:
    base, number = 64, 2
    shapes = conv_bn("features.0.conv", "features.0.bn", 3, 32, 3) | conv_bn(
        "features.1.conv", "features.1.bn", 32, 64, 3
    )
    for stage, count in enumerate(layers):
        outputs = base * 2 ** (stage + 2)
        for index in range(count):
            inputs = outputs if index else (base if stage == 0 else outputs // 2)
            place = f"features.{number}"
            parts = [(inputs, outputs // 2, 1), (outputs // 2, outputs // 4, 3), (outputs // 4, outputs // 8, 3)]
            for part, (narrow, wide, kernel) in enumerate([*parts, (outputs // 8, outputs // 8, 3)]):
                shapes |= conv_bn(
                    f"{place}.conv_list.{part}.conv", f"{place}.conv_list.{part}.bn", narrow, wide, kernel
                )
            if index == 0:
                shapes |= conv_bn(f"{place}.avd_layer.0", f"{place}.avd_layer.1", 1, outputs // 2, 3)
            number += 1
    shapes |= conv_bn("conv_last.conv", "conv_last.bn", 1024, 1024) | linear("fc", 1024, 1024, bias=False)
    return shapes | batch_norm("bn", 1024) | linear("linear", 1024, 1000, bias=False)


def residual_layer(
    place: str, inputs: int, width: int, count: int, bottleneck: bool = False, stride: int = 1
) -> Shapes:
    """A row of basic blocks, or of bottlenecks of twice the width."""
    shapes: Shapes = {}
    outputs = width * 2 if bottleneck else width
    for index in range(count):
        block = f"{place}.{index}"
        source = outputs if index else inputs
        if bottleneck:
            parts = [(source, width, 1), (width, width, 3), (width, outputs, 1)]
        else:
            parts = [(source, width, 3), (width, width, 3)]
        for part, (narrow, wide, kernel) in enumerate(parts, 1):
            shapes |= conv_bn(f"{block}.conv{part}", f"{block}.bn{part}", narrow, wide, kernel)
        if index == 0 and (stride > 1 or inputs != outputs):
            shapes |= conv_bn(f"{block}.downsample.0", f"{block}.downsample.1", inputs, outputs)
    return shapes


def two_convolutions(width: int) -> Shapes:
    """A stem whose convolutions have a bias before their norms."""
    shapes: Shapes = {}
    for index, inputs in ((0, 3), (3, width)):
        shapes |= conv(f"conv1.{index}", inputs, width, 3, bias=True) | batch_norm(f"conv1.{index + 1}", width)
    return shapes


def norm_conv(place: str, inputs: int, outputs: int, size: int = 1, first: int = 0, groups: int = 1) -> Shapes:
    """A norm, an activation, a convolution."""
    return batch_norm(f"{place}.{first}", inputs) | conv(f"{place}.{first + 2}", inputs // groups, outputs, size)


def pooling(width: int, branch: int, parallel: bool) -> Shapes:
    inputs = width * 16
    shapes = norm_conv("spp.scale0", inputs, branch)
    for scale in range(1, 5):
        shapes |= norm_conv(f"spp.scale{scale}", inputs, branch, first=1)
        if not parallel:
            shapes |= norm_conv(f"spp.process{scale}", branch, branch, 3)
    if parallel:
        shapes |= norm_conv("spp.scale_process", 4 * branch, 4 * branch, 3, groups=4)
    shapes |= norm_conv("spp.compression", 5 * branch, 4 * width)
    return shapes | norm_conv("spp.shortcut", inputs, 4 * width)


def ddrnet_release(width: int = 8, branch: int = 16) -> Shapes:
    shapes = two_convolutions(width) | residual_layer("layer1", width, width, 2)
    shapes |= residual_layer("layer2", width, 2 * width, 2, stride=2)
    shapes |= residual_layer("layer3", 2 * width, 4 * width, 2, stride=2)
    shapes |= residual_layer("layer4", 4 * width, 8 * width, 2, stride=2)
    shapes |= residual_layer("layer5", 8 * width, 8 * width, 1, bottleneck=True, stride=2)
    for number in (3, 4):
        shapes |= residual_layer(f"layer{number}_", 2 * width, 2 * width, 2)
    shapes |= residual_layer("layer5_", 2 * width, 2 * width, 1, bottleneck=True)
    shapes |= conv_bn("compression3.0", "compression3.1", 4 * width, 2 * width)
    shapes |= conv_bn("compression4.0", "compression4.1", 8 * width, 2 * width)
    shapes |= conv_bn("down3.0", "down3.1", 2 * width, 4 * width, 3)
    shapes |= conv_bn("down4.0", "down4.1", 2 * width, 4 * width, 3)
    shapes |= conv_bn("down4.3", "down4.4", 4 * width, 8 * width, 3) | pooling(width, branch, parallel=False)
    shapes |= batch_norm("final_layer.bn1", 4 * width) | conv("final_layer.conv2", 64, 19, bias=True)
    return {f"model.{name}": shape for name, shape in shapes.items()}


def pidnet_release(large: bool = False, width: int = 8, branch: int = 12) -> Shapes:
    blocks, deep = (3, 4) if large else (2, 3)
    edge = 2 * width if large else width
    shapes = two_convolutions(width) | residual_layer("layer1", width, width, blocks)
    shapes |= residual_layer("layer2", width, 2 * width, blocks, stride=2)
    shapes |= residual_layer("layer3", 2 * width, 4 * width, deep, stride=2)
    shapes |= residual_layer("layer4", 4 * width, 8 * width, deep, stride=2)
    shapes |= residual_layer("layer5", 8 * width, 8 * width, 2, bottleneck=True, stride=2)
    for number in (3, 4):
        shapes |= residual_layer(f"layer{number}_", 2 * width, 2 * width, blocks)
        for part in ("f_x", "f_y"):
            shapes |= conv_bn(f"pag{number}.{part}.0", f"pag{number}.{part}.1", 2 * width, width)
    shapes |= residual_layer("layer5_", 2 * width, 2 * width, 1, bottleneck=True)
    single = residual_layer("layer3_d", 2 * width, edge, 1)
    if large:
        single |= residual_layer("layer4_d", edge, edge, 1)
    else:
        shapes |= residual_layer("layer4_d", width, width, 1, bottleneck=True)
    shapes |= {name.replace("_d.0.", "_d."): shape for name, shape in single.items()}
    shapes |= residual_layer("layer5_d", 2 * width, 2 * width, 1, bottleneck=True)
    shapes |= conv_bn("compression3.0", "compression3.1", 4 * width, 2 * width)
    shapes |= conv_bn("compression4.0", "compression4.1", 8 * width, 2 * width)
    shapes |= conv_bn("diff3.0", "diff3.1", 4 * width, edge, 3) | conv_bn("diff4.0", "diff4.1", 8 * width, 2 * width, 3)
    shapes |= pooling(width, branch, parallel=not large)
    if large:
        shapes |= norm_conv("dfm.conv", 4 * width, 4 * width, 3)
    else:
        for part in ("conv_p", "conv_i"):
            shapes |= conv_bn(f"dfm.{part}.0", f"dfm.{part}.1", 4 * width, 4 * width)
    return shapes | batch_norm("seghead_p.bn1", 2 * width) | conv("final_layer.conv2", 64, 19, bias=True)


# CLIP: image encoder of width 16 and 3 layers, text encoder of width 8 and 2 layers, embeddings of 8


def clip_layer(place: str, width: int) -> Shapes:
    shapes = (
        norm(f"{place}.ln_1", width) | norm(f"{place}.ln_2", width) | linear(f"{place}.attn.out_proj", width, width)
    )
    shapes |= {f"{place}.attn.in_proj_weight": (3 * width, width), f"{place}.attn.in_proj_bias": (3 * width,)}
    return shapes | linear(f"{place}.mlp.c_fc", width, 4 * width) | linear(f"{place}.mlp.c_proj", 4 * width, width)


def clip_openai() -> Shapes:
    shapes: Shapes = {"visual.class_embedding": (16,), "visual.positional_embedding": (17, 16), "visual.proj": (16, 8)}
    shapes |= conv("visual.conv1", 3, 16, 16) | norm("visual.ln_pre", 16) | norm("visual.ln_post", 16)
    for index in range(3):
        shapes |= clip_layer(f"visual.transformer.resblocks.{index}", 16)
    shapes |= {"positional_embedding": (77, 8), "text_projection": (8, 8), "logit_scale": ()}
    shapes |= {"token_embedding.weight": (49408, 8)} | norm("ln_final", 8)
    for index in range(2):
        shapes |= clip_layer(f"transformer.resblocks.{index}", 8)
    return shapes | {"input_resolution": (), "context_length": (), "vocab_size": ()}


def clip_transformers() -> Shapes:
    shapes: Shapes = {"logit_scale": ()}
    for model, width, count, final in (
        ("vision_model", 16, 3, "post_layernorm"),
        ("text_model", 8, 2, "final_layer_norm"),
    ):
        shapes |= norm(f"{model}.{final}", width)
        for index in range(count):
            place = f"{model}.encoder.layers.{index}"
            shapes |= norm(f"{place}.layer_norm1", width) | norm(f"{place}.layer_norm2", width)
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes |= linear(f"{place}.self_attn.{part}", width, width)
            shapes |= linear(f"{place}.mlp.fc1", width, 4 * width) | linear(f"{place}.mlp.fc2", 4 * width, width)
    vision, text = "vision_model.embeddings", "text_model.embeddings"
    shapes |= {f"{vision}.class_embedding": (16,), f"{vision}.position_embedding.weight": (17, 16)}
    shapes |= conv(f"{vision}.patch_embedding", 3, 16, 16) | norm("vision_model.pre_layrnorm", 16)
    shapes |= {f"{text}.token_embedding.weight": (49408, 8), f"{text}.position_embedding.weight": (77, 8)}
    shapes |= {f"{text}.position_ids": (1, 77), f"{vision}.position_ids": (1, 17)}
    return shapes | linear("visual_projection", 16, 8, bias=False) | linear("text_projection", 8, 8, bias=False)
