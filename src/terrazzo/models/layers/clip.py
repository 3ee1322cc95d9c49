"""A layer of CLIP's transformers, with the parameter names of published checkpoints outside a ViT."""

from __future__ import annotations

from torch import Tensor, nn

from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.spec import Spec
from terrazzo.models.layers.transformer import FeedForward, MultiheadAttention


class ClipLayer(nn.Module):
    """Attention and a feed-forward network, each after a norm (Radford et al., ICML 2021)."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4,
        *,
        qkv_bias: bool = True,
        act_cfg: Spec = {"type": "QuickGELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        width = int(mlp_ratio * embed_dims)
        self.attentions = nn.ModuleList([MultiheadAttention(embed_dims, num_heads, qkv_bias=qkv_bias)])
        self.ffns = nn.ModuleList([FeedForward(embed_dims, width, act_cfg=act_cfg)])
        self.norms = nn.ModuleList(build_norm(norm_cfg, embed_dims) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (N, L, C); `mask` as in `scaled_dot_product_attention`."""
        x = x + self.attentions[0](self.norms[0](x), mask=mask)
        return x + self.ffns[0](self.norms[1](x))
