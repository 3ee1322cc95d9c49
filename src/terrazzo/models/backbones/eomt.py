"""EoMT: a plain vision transformer that segments by queries inside its last blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.eomt_names import NAMINGS
from terrazzo.models.layers import resize, resize_learned
from terrazzo.models.layers.norm import LayerNorm2d
from terrazzo.models.layers.resize import pad_to_multiple
from terrazzo.models.layers.tokens import Grid, as_map, as_tokens, pair
from terrazzo.models.layers.transformer import DotProductAttention
from terrazzo.models.losses.set_criterion import Prediction
from terrazzo.registry import MODELS

T = TypeVar("T", bound="EoMT")

EPS = 1e-6  # of all norms
POWER = 0.9  # of the polynomial by which masking ends
MASKED = 0.5  # least probability with which a block still masks in evaluation


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al., ICCV 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class FeedForward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020), at two thirds of the hidden width, in multiples of 8."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.weights_in, self.weights_out = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.weights_in(x).chunk(2, dim=-1)
        return self.weights_out(F.silu(gate) * value)


class Block(nn.Module):
    """A pre-norm layer of DINOv2's vision transformer: attention and feed-forward network, each scaled."""

    def __init__(self, width: int, heads: int, hidden: int, *, layer_scale: bool, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attention = DotProductAttention(width, heads, batch_first=True)
        self.mlp = (GatedFeedForward if gated else FeedForward)(width, hidden)
        self.layer_scale1, self.layer_scale2 = (LayerScale(width) if layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (N, L, C); `mask` (N, 1, L, L) is True where a token may attend."""
        x = x + self.layer_scale1(self.attention(self.norm1(x), mask=mask))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Embeddings(nn.Module):
    """Patches with learned positions, behind a class token and registers -> tokens (N, 1 + R + h * w, C), grid."""

    def __init__(self, width: int, patch: int, registers: int, grid: Grid, in_channels: int) -> None:
        super().__init__()
        self.grid = grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.projection = nn.Conv2d(in_channels, width, patch, patch)
        self.position_embeddings = nn.Parameter(torch.zeros(1, grid[0] * grid[1], width))
        for tokens in (self.cls_token, self.register_tokens, self.position_embeddings):
            nn.init.trunc_normal_(tokens, std=0.02)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        return resize_learned(value, self.grid, extra_tokens=0) if name == "position_embeddings" else None

    def forward(self, images: Tensor) -> tuple[Tensor, Grid]:
        patches = self.projection(images)  # N, C, h, w
        positions = resize(as_map(self.position_embeddings, self.grid), like=patches, mode="bicubic")
        prefix = torch.cat([self.cls_token, self.register_tokens], dim=1).expand(images.shape[0], -1, -1)
        return torch.cat([prefix, as_tokens(patches + positions)], dim=1), patches.shape[2:]


class Upscale(nn.Sequential):
    """One doubling of a map's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(width, width, 2, 2)
        self.activation = nn.GELU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.layernorm2d = LayerNorm2d(width, EPS)


@MODELS.register
class EoMT(Backbone):
    """Encoder-only mask transformer (Kerssies et al., CVPR 2025) -> class scores and masks of queries.

    The last `num_blocks` blocks also attend to and from the queries. Each gives a prediction in training, in which a
    query attends only to the patches of its mask; `anneal` ends this block by block, so that the trained model has
    neither. Runs at any size: images are padded on the right and below to a multiple of the patch, and positions
    interpolated from the grid of `img_size`. The prediction after the last block comes last.
    """

    namings = NAMINGS
    own_parts = ("query", "upscale_block", "mask_head", "class_predictor")  # not of the encoder
    attn_mask_probs: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        patch_size: int = 16,
        img_size: int | Sequence[int] = 224,
        mlp_ratio: float = 4,
        num_registers: int = 0,
        layer_scale: bool = True,
        gated: bool = False,
        num_queries: int = 100,
        num_blocks: int = 4,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.patch_size, self.num_queries = patch_size, num_queries
        self.num_blocks = min(num_blocks, num_layers)
        height, width = pair(img_size)
        grid = (height // patch_size, width // patch_size)

        # the encoder
        self.embeddings = Embeddings(embed_dims, patch_size, num_registers, grid, in_channels)
        hidden = int(mlp_ratio * embed_dims)
        self.layers = nn.ModuleList(
            Block(embed_dims, num_heads, hidden, layer_scale=layer_scale, gated=gated) for _ in range(num_layers)
        )
        self.layernorm = nn.LayerNorm(embed_dims, EPS)

        # the queries, and what reads them
        self.query = nn.Embedding(num_queries, embed_dims)
        doublings = max(1, round(math.log2(patch_size)) - 2)
        self.upscale_block = nn.Sequential(*(Upscale(embed_dims) for _ in range(doublings)))
        self.mask_head = nn.Sequential(
            nn.Linear(embed_dims, embed_dims),
            nn.GELU(),
            nn.Linear(embed_dims, embed_dims),
            nn.GELU(),
            nn.Linear(embed_dims, embed_dims),
        )
        self.class_predictor = nn.Linear(embed_dims, num_classes + 1)
        self.register_buffer("attn_mask_probs", torch.ones(self.num_blocks))
        self.masked = [True] * self.num_blocks  # in evaluation
        self.register_load_state_dict_post_hook(lambda module, keys: module.read_masking())

    def train(self: T, mode: bool = True) -> T:
        super().train(mode)
        self.read_masking()
        return self

    def read_masking(self) -> None:
        """Note which blocks mask in evaluation."""
        if not self.attn_mask_probs.is_meta:
            self.masked = [probability >= MASKED for probability in self.attn_mask_probs.tolist()]

    def anneal(self, progress: float) -> None:
        """Set the probability of masking in each block for a share of the run from 0 to 1: the first ends first."""
        share = self.num_blocks + 2
        passed = (torch.arange(self.num_blocks) + 1).neg().add(progress * share).clamp(0, 1)
        self.attn_mask_probs.copy_((1 - passed) ** POWER)

    def forward(self, images: Tensor) -> list[Prediction]:
        x, grid = self.embeddings(pad_to_multiple(images, self.patch_size))
        first, predictions = len(self.layers) - self.num_blocks, []
        for index, block in enumerate(self.layers):
            mask = None
            if index == first:
                x = torch.cat([self.query.weight.expand(x.shape[0], -1, -1), x], dim=1)
            if index >= first and (self.training or self.masked[index - first]):
                predictions.append(self.predict(x, grid))
                mask = self.attention_mask(predictions[-1][1], x.shape[1], grid, index - first)
            x = block(x, mask)
        return [*predictions, self.predict(x, grid)]

    def predict(self, tokens: Tensor, grid: Grid) -> Prediction:
        """Scores (N, Q, K + 1) and masks (N, Q, H, W) of the queries, which are the first tokens."""
        tokens = self.layernorm(tokens)
        queries, patches = tokens[:, : self.num_queries], tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
        fine = self.upscale_block(as_map(patches, grid))  # N, C, H, W
        masks = (self.mask_head(queries) @ fine.flatten(2)).unflatten(2, fine.shape[2:])
        return self.class_predictor(queries), masks

    def attention_mask(self, masks: Tensor, length: int, grid: Grid, block: int) -> Tensor:
        """True where a token may attend (N, 1, L, L): queries to the patches of their masks, all else everywhere."""
        inside = resize(masks.detach(), grid).flatten(2) > 0  # N, Q, h * w
        if self.training:
            probability = self.attn_mask_probs[block]
            inside = inside | (torch.rand(inside.shape[:2], device=inside.device) >= probability).unsqueeze(2)
        of_queries = F.pad(inside, (length - inside.shape[2], 0), value=True)
        return F.pad(of_queries, (0, 0, 0, length - self.num_queries), value=True).unsqueeze(1)
