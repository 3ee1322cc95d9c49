"""Vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import (
    PatchEmbed,
    Spec,
    TransformerEncoderLayer,
    build_norm,
    drop_path_rates,
    init_transformer,
    resize_learned,
    resize_position_embedding,
    to_map,
)
from terrazzo.models.layers.tokens import pair
from terrazzo.models.naming import Naming, Weights
from terrazzo.registry import MODELS

BLOCKS = (
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^norm1?\.", "ln1."),
)
# parts of classifiers, of DeiT's distillation and of MAE's and BEiT's pretraining
UNUSED = r"head\.|head_dist\.|heads\.|fc_norm\.|pre_logits\.|dist_token$|mask_token$|decoder_|neck\.|lm_head\."


def without_distillation(weights: Weights, original: Weights) -> Weights:
    """Drop the position of DeiT's distillation token, which follows the class token's."""
    if "dist_token" in original:
        positions = weights["pos_embed"]
        weights["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
    return weights


NAMINGS = (
    Naming(
        "timm, DeiT's or MAE's release",
        mark=r"blocks\.0\.attn\.qkv\.weight",
        rules=((r"^patch_embed\.proj\.", "patch_embed.projection."), *BLOCKS, (r"^norm_pre\.", "ln_pre.")),
        drop=UNUSED,
        finish=without_distillation,
    ),
    Naming(
        "MMPretrain",
        mark=r"layers\.0\.attn\.qkv\.weight",
        rules=(*BLOCKS, (r"^pre_norm\.", "ln_pre.")),
        drop=UNUSED,
        finish=without_distillation,
    ),
    Naming(
        "torchvision",
        mark=r"conv_proj\.weight",
        rules=(
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.projection."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"layers.\1."),
            (r"\.ln_([12])\.", r".ln\1."),
            (r"\.self_attention\.", ".attn.attn."),
            (r"\.mlp\.(linear_1|0)\.", ".ffn.layers.0.0."),
            (r"\.mlp\.(linear_2|3)\.", ".ffn.layers.1."),
            (r"^encoder\.ln\.", "ln1."),
        ),
        drop=UNUSED,
    ),
    Naming(
        "OpenAI's CLIP",
        mark=r"class_embedding",
        rules=(
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^conv1\.", "patch_embed.projection."),
            (r"^transformer\.resblocks\.", "layers."),
            (r"\.ln_([12])\.", r".ln\1."),
            (r"\.attn\.", ".attn.attn."),
            (r"\.mlp\.c_fc\.", ".ffn.layers.0.0."),
            (r"\.mlp\.c_proj\.", ".ffn.layers.1."),
            (r"^ln_post\.", "ln1."),
        ),
        drop=r"proj$",
    ),
)


Output = Tensor | list[Tensor]  # with a class token: the map and the token


@MODELS.register
class VisionTransformer(Backbone):
    """ViT (Dosovitskiy et al., ICLR 2021) -> maps (N, embed_dims, h, w) of the layers in `out_indices`, -1 the last.

    Runs at any size: position embeddings are interpolated from the grid of `img_size`. `with_cls_token=False` drops the
    class token before the first layer; with `output_cls_token` each output is the pair (map, class token).
    `out_origin` puts the layers' input first, `pre_norm` normalises it (CLIP). Only parameters whose names contain a
    word of `frozen_exclude` are trained, unless it is ["all"]. Raises UserError where a class token is asked for and
    there is none.
    """

    stem_parts = ("cls_token", "pos_embed", "patch_embed", "drop_after_pos", "ln_pre")
    stage_parts = ("layers.{0}",)
    namings = NAMINGS

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        patch_pad: str | int = "corner",
        in_channels: int = 3,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        out_origin: bool = False,
        out_indices: int | Sequence[int] = -1,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cls_token: bool = True,
        output_cls_token: bool = False,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        patch_norm: bool = False,
        patch_bias: bool = False,
        pre_norm: bool = False,
        final_norm: bool = False,
        interpolate_mode: str = "bicubic",
        num_fcs: int = 2,
        with_cp: bool = False,
        frozen_exclude: Sequence[str] = ("all",),
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)

        # grid of patches and outputs
        if output_cls_token and not with_cls_token:
            raise UserError("VisionTransformer: output_cls_token=True needs with_cls_token=True")
        height, width = pair(img_size)
        self.grid = (height // patch_size, width // patch_size)
        self.interpolate_mode = interpolate_mode
        self.with_cls_token, self.output_cls_token = with_cls_token, output_cls_token
        self.out_origin = out_origin
        chosen = [out_indices] if isinstance(out_indices, int) else out_indices
        self.out_indices = [index % num_layers for index in chosen]

        # embedding
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, embed_dims))
        patch_norm_cfg = norm_cfg if patch_norm else None
        self.patch_embed = PatchEmbed(
            in_channels, embed_dims, patch_size, padding=patch_pad, bias=patch_bias, norm_cfg=patch_norm_cfg
        )
        self.drop_after_pos = nn.Dropout(drop_rate)

        # layers
        self.ln_pre = build_norm(norm_cfg, embed_dims) if pre_norm else None
        options: Spec = {"drop_rate": drop_rate, "attn_drop_rate": attn_drop_rate, "num_fcs": num_fcs}
        options |= {"qkv_bias": qkv_bias, "act_cfg": act_cfg, "norm_cfg": norm_cfg, "with_cp": with_cp}
        hidden = int(mlp_ratio * embed_dims)
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, hidden, drop_path_rate=rate, **options)
            for rate in drop_path_rates(drop_path_rate, num_layers)
        )
        self.ln1 = build_norm(norm_cfg, embed_dims) if final_norm else None

        # weights
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        init_transformer(self)
        self.freeze_except(frozen_exclude)

    def freeze_except(self, words: Sequence[str]) -> None:
        """Train only parameters whose names contain one of `words`; "all" trains everything."""
        if "all" in words:
            return
        for name, parameter in self.named_parameters():
            parameter.requires_grad = any(word in name for word in words)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        if name != "pos_embed":
            return None
        return resize_learned(value, self.grid, extra_tokens=1, mode=self.interpolate_mode)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Class token and patches with their positions (N, 1 + h * w, C), and the patches' grid (h, w)."""
        patches, grid = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        positions = resize_position_embedding(self.pos_embed, self.grid, grid, mode=self.interpolate_mode)
        return self.drop_after_pos(tokens + positions), grid

    def output(self, tokens: Tensor, grid: tuple[int, int]) -> Output:
        """The patches as a map, with the class token if `output_cls_token`."""
        if not self.with_cls_token:
            return to_map(tokens, grid)
        features = to_map(tokens[:, 1:], grid)
        return [features, tokens[:, 0]] if self.output_cls_token else features

    def forward(self, images: Tensor) -> tuple[Output, ...]:
        x, grid = self.embed(images)
        if not self.with_cls_token:
            x = x[:, 1:]
        if self.ln_pre is not None:
            x = self.ln_pre(x)
        outputs = [self.output(x, grid)] if self.out_origin else []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if self.ln1 is not None and index == len(self.layers) - 1:
                x = self.ln1(x)
            if index in self.out_indices:
                outputs.append(self.output(x, grid))
        return tuple(outputs)
