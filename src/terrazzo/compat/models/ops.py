"""mmcv's operators in plain torch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.compat.models.module import BaseModule
from terrazzo.models.heads import psa
from terrazzo.models.layers import deform_conv, deformable_attention
from terrazzo.models.layers.points import sample_points
from terrazzo.models.losses.focal import sigmoid_focal


class DeformConv2d(deform_conv.DeformConv2d):
    """Deformable convolution of (x, offset)."""

    with_bias = False

    def __init__(self, *args: Any, deform_groups: int = 1, deformable_groups: int = 1, **kwargs: Any) -> None:
        named = dict(zip(("in_channels", "out_channels", "kernel_size", *DEFORM), args, strict=False))
        self_groups = max(deform_groups, deformable_groups, named.pop("deform_groups", 1))
        super().__init__(**{"bias": self.with_bias, **named, **kwargs}, deform_groups=self_groups)
        del self.conv_offset
        self.deform_groups = self_groups

    def forward(self, input: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        return self.convolve(self.sample(input, offset))


class ModulatedDeformConv2d(DeformConv2d):
    """Modulated deformable convolution of (x, offset, mask)."""

    with_bias = True

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        mask = mask.unflatten(1, (self.deform_groups, 1, self.taps))
        return self.convolve(self.sample(input, offset) * mask)


DEFORM = ("stride", "padding", "dilation", "groups", "deform_groups", "bias")


def point_sample(input: Tensor, points: Tensor, align_corners: bool = False, **kwargs: Any) -> Tensor:
    """Values of maps (N, C, H, W) at points (N, P, 2) or (N, h, w, 2), x and y in 0..1."""
    if points.ndim == 3:
        return sample_points(input, points, kwargs.get("mode", "bilinear"), align_corners)
    return F.grid_sample(input, 2 * points - 1, align_corners=align_corners, **kwargs)


def multi_scale_deformable_attn_pytorch(
    value: Tensor, value_spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Value (N, S, heads, C), locations (N, L, heads, levels, points, 2) in 0..1, weights without 2 -> (N, L, *)."""
    sizes = [(int(height), int(width)) for height, width in value_spatial_shapes]
    sampled = []
    for level, (part, size) in enumerate(zip(value.split([h * w for h, w in sizes], dim=1), sizes, strict=True)):
        x = part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, size)
        grid = 2 * sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        sampled.append(F.grid_sample(x, grid, align_corners=False))  # N * heads, C, L, points
    weights = attention_weights.transpose(1, 2).flatten(0, 1).flatten(2).unsqueeze(1)
    output = (torch.stack(sampled, -2).flatten(-2) * weights).sum(-1)
    return output.view(len(value), -1, output.shape[-1]).transpose(1, 2).contiguous()


class MultiScaleDeformableAttention(BaseModule, deformable_attention.MultiScaleDeformableAttention):
    """Attention of each query to a few points of every level (Deformable DETR, Zhu et al., ICLR 2021)."""

    def __init__(
        self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4,
        im2col_step: int = 64, dropout: float = 0.1, batch_first: bool = False, norm_cfg: Any = None,
        init_cfg: Any = None, value_proj_ratio: float = 1.0,
    ) -> None:  # fmt: skip
        sizes: dict[str, Any] = {"num_heads": num_heads, "num_levels": num_levels, "num_points": num_points}
        super(BaseModule, self).__init__(
            embed_dims=embed_dims, **sizes, dropout=dropout, value_proj_ratio=value_proj_ratio
        )
        facts = {"embed_dims": embed_dims, "im2col_step": im2col_step, "batch_first": batch_first, "norm_cfg": norm_cfg}
        vars(self).update(facts, _is_init=False, init_cfg=init_cfg)

    def init_weights(self) -> None:
        deformable_attention.MultiScaleDeformableAttention.init_weights(self)
        vars(self)["_is_init"] = True

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Any = None, value: Any = None, identity: Any = None, query_pos: Any = None,
        key_padding_mask: Any = None, reference_points: Any = None, spatial_shapes: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        places = reference_points[:, :, None, :, None, :]
        if reference_points.shape[-1] == 2:
            places = places + offsets / spatial_shapes.flip(-1).to(offsets)[None, None, None, :, None]
        else:
            places = places[..., :2] + offsets / self.num_points * places[..., 2:] * 0.5
        value = value.unflatten(-1, (self.num_heads, -1))
        output = self.output_proj(multi_scale_deformable_attn_pytorch(value, spatial_shapes, places, weights))
        return identity + self.dropout(output if self.batch_first else output.transpose(0, 1))


class PSAMask(nn.Module):
    """Masks over relative offsets (N, mask height * mask width, H, W) as masks over positions (N, H * W, H, W)."""

    def __init__(self, psa_type: str, mask_size: Any = None) -> None:
        super().__init__()
        self.psa_type, self.mask_size = psa_type, mask_size

    def forward(self, input: Tensor) -> Tensor:
        masks = psa.absolute_masks(input, self.mask_size)
        back = masks.flatten(2).transpose(1, 2)
        return masks if self.psa_type == "collect" else back.unflatten(2, masks.shape[2:])


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """Focal loss of logits (P, K) against labels (P,), a label of K for none (Lin et al., ICCV 2017)."""
    hot = F.one_hot(target.long(), input.shape[1] + 1)[:, :-1].to(input)
    values = sigmoid_focal(input, hot, gamma, alpha)  # type: ignore[arg-type]
    values = values if weight is None else values * weight[target.long()].unsqueeze(1)
    return values if reduction == "none" else values.sum() / (len(input) if reduction == "mean" else 1)


TABLE: dict[str, Any] = {
    "DeformConv2dPack": deform_conv.DeformConv2d, "ModulatedDeformConv2dPack": deform_conv.ModulatedDeformConv2d,
}  # fmt: skip
