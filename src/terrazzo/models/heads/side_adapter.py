"""SAN: a side network that finds masks and guides the attention of CLIP to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers import (
    ConvBlock,
    PatchEmbed,
    Spec,
    TransformerEncoderLayer,
    init_transformer,
    resize,
    resize_learned,
    resize_position_embedding,
    to_map,
)
from terrazzo.models.layers.norm import LayerNorm2d, build_norm
from terrazzo.models.layers.query_decoder import from_config
from terrazzo.models.layers.transformer import ClipLayer
from terrazzo.models.losses.set_criterion import PointSetCriterion, Prediction, build_criterion, semantic_logits
from terrazzo.registry import MODELS


class Perceptron(nn.Module):
    """Linear layers, or 1x1 convolutions, with ReLU between them."""

    def __init__(self, widths: Sequence[int], layer: type[nn.Module], *args: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(width, after, *args) for width, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


class MaskDecoder(nn.Module):
    """Queries and a map -> a mask for each query, and where each head of CLIP's attention is to look for it."""

    def __init__(
        self,
        in_channels: int,
        *,
        num_heads: int,
        num_layers: int = 1,
        embed_channels: int = 256,
        mlp_channels: int = 256,
        num_mlp: int = 3,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_layers = num_heads, num_layers
        hidden = [in_channels, *[mlp_channels] * (num_mlp - 1)]
        self.query_mlp = Perceptron([*hidden, embed_channels], nn.Linear)
        self.pix_mlp = Perceptron([*hidden, embed_channels], nn.Conv2d, 1)
        self.attn_mlp = Perceptron([*hidden, embed_channels * num_heads * num_layers], nn.Conv2d, 1)
        self.bias_scaling = nn.Linear(1, 1) if rescale else nn.Identity()

    def forward(self, query: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query (N, Q, C), x (N, C, h, w) -> masks (N, Q, h, w), biases (N, heads, Q, h, w)."""
        query = self.query_mlp(query)
        masks = (query @ self.pix_mlp(x).flatten(2)).unflatten(2, x.shape[2:])
        attention = self.attn_mlp(x).flatten(2).unflatten(1, (self.num_heads, -1))  # N, heads, D, h * w
        biases = (query.unsqueeze(1) @ attention).unflatten(3, x.shape[2:])
        return masks, self.bias_scaling(biases.unsqueeze(-1)).squeeze(-1)


class SideAdapterNetwork(nn.Module):
    """A small ViT with queries that adds CLIP's maps to its own before the first layers (Xu et al., CVPR 2023)."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        clip_channels: int = 768,
        embed_dims: int = 240,
        patch_size: int = 16,
        patch_bias: bool = True,
        num_queries: int = 100,
        fusion_index: Sequence[int] = (0, 1, 2, 3),
        cfg_encoder: Spec,
        cfg_decoder: Spec,
        norm_cfg: Spec = {"type": "LN", "eps": 1e-6},  # noqa: B006 - never written to
        img_size: int = 640,
    ) -> None:
        super().__init__()

        # positions and queries
        self.depth, self.fusion_index = cfg_encoder["num_encode_layer"], list(fusion_index)
        self.grid = (img_size // patch_size,) * 2
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], embed_dims))
        self.query_pos_embed = nn.Parameter(torch.zeros(1, num_queries, embed_dims))
        self.query_embed = nn.Parameter(torch.zeros(1, num_queries, embed_dims))

        # layers, and what adds the maps of CLIP
        self.patch_embed = PatchEmbed(in_channels, embed_dims, patch_size, padding=0, bias=patch_bias)
        hidden = int(cfg_encoder["mlp_ratio"] * embed_dims)
        self.encode_layers = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, cfg_encoder["num_heads"], hidden, norm_cfg=norm_cfg)
            for _ in range(self.depth)
        )
        self.conv_clips = nn.ModuleList(
            nn.Sequential(
                LayerNorm2d(clip_channels, eps=norm_cfg.get("eps", 1e-5)),
                ConvBlock(clip_channels, embed_dims, 1, norm_cfg=None, act_cfg=None),
            )
            for _ in self.fusion_index
        )

        # masks
        self.mask_decoder = MaskDecoder(embed_dims, **cfg_decoder)

        # weights
        init_transformer(self)
        for embedding in (self.pos_embed, self.query_embed, self.query_pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        return resize_learned(value, self.grid, extra_tokens=0) if name == "pos_embed" else None

    def fuse(self, index: int, x: Tensor, maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Add CLIP's map to the patches of tokens (N, Q + h * w, C), if it joins after layer `index`."""
        if index not in self.fusion_index:
            return x
        order = self.fusion_index.index(index)
        added = resize(self.conv_clips[order](maps[order]), grid).flatten(2).transpose(1, 2)
        queries = self.query_embed.shape[1]
        return torch.cat([x[:, :queries], x[:, queries:] + added], dim=1)

    def forward(self, images: Tensor, maps: Sequence[Tensor], layers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Masks and attention biases from the state after each of `layers`, ascending; counted from 1."""
        patches, grid = self.patch_embed(images)
        queries = self.query_embed.shape[1]
        pos_embed = resize_position_embedding(self.pos_embed, self.grid, grid, extra_tokens=0)
        positions = torch.cat([self.query_pos_embed, pos_embed], dim=1)
        x = torch.cat([self.query_embed.expand(images.shape[0], -1, -1), patches], dim=1) + positions
        x = self.fuse(0, x, maps, grid)
        outputs = []
        for index, layer in enumerate(self.encode_layers, start=1):
            x = self.fuse(index, layer(x), maps, grid)
            if index in layers:
                outputs.append(self.mask_decoder(x[:, :queries], to_map(x[:, queries:], grid)))
            x = x + positions
        return outputs


Inputs = tuple[Tensor, Sequence[tuple[Tensor, Tensor]], Tensor]  # images, (map, class token) pairs, class embeddings

HIDDEN = -100.0  # added to the score of a token that must not be read


class BiasedRecognition(nn.Module):
    """CLIP's last layers with a copy of the class token for each mask, which reads only its mask's patches.

    The map and class token of CLIP's layers before, and attention biases (N, heads, Q, h, w) -> embeddings (N, Q, D) of
    length 1. Only parameters whose names contain a word of `frozen_exclude` are trained.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_heads: int,
        num_layers: int,
        out_dims: int,
        sos_token_num: int,
        sos_token_format: str = "cls_token",
        cross_attn: bool = False,
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        final_norm: bool = True,
        act_cfg: Spec = {"type": "QuickGELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        frozen_exclude: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if sos_token_format != "cls_token" or cross_attn:
            raise UserError("maskgen_cfg: there is only sos_token_format='cls_token' with cross_attn=False")
        self.count = sos_token_num
        self.layers = nn.ModuleList(
            ClipLayer(embed_dims, num_heads, mlp_ratio, qkv_bias=qkv_bias, act_cfg=act_cfg, norm_cfg=norm_cfg)
            for _ in range(num_layers)
        )
        self.ln_post = build_norm(norm_cfg, embed_dims) if final_norm else nn.Identity()
        self.proj = nn.Linear(embed_dims, out_dims, bias=False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = "all" in frozen_exclude or any(word in name for word in frozen_exclude)

    def scores(self, bias: Tensor, grid: Sequence[int]) -> Tensor:
        """Return what is added to the attention scores (N, heads, L, L) of mask tokens, class token and patches."""
        count, patches = self.count, grid[0] * grid[1]
        bias = F.adaptive_max_pool2d(bias.flatten(1, 2), tuple(grid)).unflatten(1, bias.shape[1:3]).flatten(3)
        hidden = HIDDEN * (1 - torch.eye(count, dtype=bias.dtype, device=bias.device))
        others = bias.new_full((1 + patches, count), HIDDEN)  # nothing else reads a mask token
        own = torch.cat([hidden, bias.new_full((count, 1), HIDDEN)], dim=1).expand(*bias.shape[:2], -1, -1)
        rest = F.pad(others, (0, 1 + patches)).expand(*bias.shape[:2], -1, -1)
        return torch.cat([torch.cat([own, bias], dim=3), rest], dim=2)

    def forward(self, features: Tensor, class_token: Tensor, bias: Tensor) -> Tensor:
        """Map (N, C, h, w), class token (N, C)."""
        mask = self.scores(bias, features.shape[2:])
        patches = features.flatten(2).transpose(1, 2)
        copies = class_token.unsqueeze(1).expand(-1, self.count + 1, -1)
        x = torch.cat([copies, patches], dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        return F.normalize(self.proj(self.ln_post(x[:, : self.count])), dim=-1)


@MODELS.register
class SideAdapterCLIPHead(nn.Module):
    """Side adapter head (Xu et al., CVPR 2023): masks of the side network, each classified by CLIP within it.

    Also trained at the side network's layers `deep_supervision_idxs`, whose losses are named "d7.loss_mask_ce". Raises
    UserError where a class, mask or dice loss is missing in `loss_decode`.
    """

    keeps_specs = ("loss_decode",)
    threshold = None

    def __init__(
        self,
        *,
        num_classes: int,
        san_cfg: Spec,
        maskgen_cfg: Spec,
        loss_decode: Sequence[Spec],
        deep_supervision_idxs: Sequence[int] = (),
        train_cfg: Spec | None = None,
        align_corners: bool = False,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.num_classes = self.out_channels = num_classes
        self.align_corners, self.ignore_index = align_corners, ignore_index
        self.deep_supervision_idxs = deep_supervision_idxs
        self.side_adapter_network = from_config(SideAdapterNetwork, san_cfg, "san_cfg")
        self.rec_with_attnbias = from_config(BiasedRecognition, maskgen_cfg, "maskgen_cfg")
        self.criterion = build_criterion(
            PointSetCriterion,
            train_cfg or {},
            num_classes=num_classes,
            ignore_index=ignore_index,
            **set_losses(loss_decode),
        )

    def predictions(self, inputs: Inputs, layers: Sequence[int]) -> list[Prediction]:
        """Class scores and masks from the side network's state after each of `layers`."""
        images, clip, classes = inputs
        features, class_token = clip[-1]
        maps = [pair[0] for pair in clip]
        predictions = []
        for masks, bias in self.side_adapter_network(images, maps, layers):
            embeddings = self.rec_with_attnbias(features, class_token, bias)
            predictions.append((embeddings @ classes.T, masks))
        return predictions

    def forward(self, inputs: Inputs) -> Prediction:
        return self.predictions(inputs, [self.side_adapter_network.depth])[0]

    def predict(self, inputs: Inputs, size: Sequence[int]) -> Tensor:
        """Logits (N, K, H, W) at the image's `size`."""
        return semantic_logits(self(inputs), size, self.align_corners)

    def loss(self, inputs: Inputs, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of the last layer and of those under deep supervision; labels (N, H, W)."""
        if self.criterion is None:
            raise UserError("SideAdapterCLIPHead needs train_cfg.assigner to be trained")
        layers = [*self.deep_supervision_idxs, self.side_adapter_network.depth]
        return self.criterion.layer_losses(self.predictions(inputs, layers), labels, self.deep_supervision_idxs)


def set_losses(specs: Sequence[Spec]) -> dict[str, Any]:
    """`loss_decode` as arguments of a SetCriterion: its losses compare matched sets, not label maps."""
    chosen: dict[str, Any] = {}
    names: dict[str, str] = {}
    for spec in specs:
        kind = spec["type"].rpartition(".")[2]
        role = "loss_dice" if kind == "DiceLoss" else "loss_mask" if spec.get("use_sigmoid") else "loss_cls"
        names[role] = spec.get("loss_name", role)
        options = {key: value for key, value in spec.items() if key != "loss_name" and value is not None}
        chosen[role] = MODELS.build(options | {"type": f"mmdet.{kind}"}, "loss_decode")
    roles = ("loss_cls", "loss_mask", "loss_dice")
    if set(chosen) != set(roles):
        raise UserError(
            "SideAdapterCLIPHead: loss_decode needs a CrossEntropyLoss for the classes, one with use_sigmoid=True for "
            "the masks, and a DiceLoss"
        )
    return chosen | {"names": [names[role] for role in roles]}
