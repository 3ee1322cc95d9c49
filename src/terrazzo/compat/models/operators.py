"""Operators that are compiled there, in plain torch: mmcv's, and those that projects compile themselves."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.compat.engine.tools import unavailable
from terrazzo.models.heads import psa
from terrazzo.models.layers import deform_conv
from terrazzo.models.layers.deformable_attention import sample_levels
from terrazzo.models.layers.points import sample_points
from terrazzo.models.losses.focal import sigmoid_focal

OF_CONV = "in_channels out_channels kernel_size stride padding dilation groups deform_groups bias"


class DeformConv2d(deform_conv.DeformConv2d):
    """Deformable convolution of (x, offset), or of (x, offset, mask)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(**{"bias": False, **dict(zip(OF_CONV.split(), args, strict=False)), **kwargs})
        del self.conv_offset

    def forward(self, input: Tensor, offset: Tensor, mask: Any = None) -> Tensor:  # type: ignore[override]
        values = self.sample(input, offset)
        return self.convolve(values if mask is None else values * mask.unflatten(1, (self.deform_groups, 1, self.taps)))


class ModulatedDeformConv2d(DeformConv2d):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"bias": True, **kwargs})


def multi_scale_deformable_attn_pytorch(
    value: Tensor, value_spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Value (N, S, heads, C), locations (N, L, heads, levels, points, 2) in 0..1, weights without 2 -> (N, L, *)."""
    sizes = [(height, width) for height, width in value_spatial_shapes.tolist()]
    return sample_levels(value, sizes, sampling_locations.unbind(3), attention_weights).contiguous()


def dcnv3_forward(input: Tensor, offset: Tensor, mask: Tensor, *given: Any) -> Tensor:
    """`given` are height and width of kernel, stride, padding and dilation, the groups, a group's width, the scale."""
    pairs = zip(given[:8:2], given[1:8:2], strict=True)
    return deform_conv.deform_conv_v3(input, offset, mask, *pairs, groups=given[8], offset_scale=given[10])


def ms_deform_attn_forward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Any, locations: Tensor, weights: Tensor, *_: Any
) -> Tensor:
    own = (value.float(), spatial_shapes, locations.float(), weights.float())
    return multi_scale_deformable_attn_pytorch(*own).to(value.dtype)


def backward_of(forward: Callable[..., Tensor], learned: tuple[int, ...], output_at: int) -> Callable[..., Any]:
    """The gradients of an operator for its arguments at some places; that of its output is among the arguments."""

    def backward(*args: Any) -> tuple[Tensor, ...]:
        given = [*args[:output_at], *args[output_at + 1 :]]
        with torch.enable_grad():
            inputs = [given[place].detach().requires_grad_() for place in learned]
            for place, x in zip(learned, inputs, strict=True):
                given[place] = x
            out = forward(*given)
            return torch.autograd.grad(out, inputs, args[output_at].to(out.dtype))

    return backward


def deform_conv2d(
    input: Tensor, offset: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1, deform_groups: int = 1, bias: bool = False, im2col_step: int = 32,
) -> Tensor:  # fmt: skip
    """Deformable convolution with a weight (out, in / groups, height, width)."""
    sizes = (input.shape[1], len(weight), tuple(weight.shape[2:]), stride, padding, dilation, groups, deform_groups)
    return torch.func.functional_call(DeformConv2d(*sizes).to(weight), {"weight": weight}, (input, offset))


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int = 1, scale_factor: int = 1) -> Tensor:
    """Enlarge maps (N, C, H, W) by weights of each place's neighbours (N, groups * k * k, sH, sW): CARAFE."""
    near = F.unfold(features, kernel_size, padding=kernel_size // 2)
    near = near.view(len(features), -1, *features.shape[2:])
    near = F.interpolate(near, scale_factor=scale_factor, mode="nearest")
    near = near.unflatten(1, (group_size, features.shape[1] // group_size, kernel_size**2))
    return (near * masks.unflatten(1, (group_size, 1, kernel_size**2))).sum(3).flatten(1, 2)


class CARAFEPack(nn.Module):
    """Upsampling whose kernels the map itself predicts (Wang et al., ICCV 2019)."""

    def __init__(
        self, channels: int, scale_factor: int, up_kernel: int = 5, up_group: int = 1, encoder_kernel: int = 3,
        encoder_dilation: int = 1, compressed_channels: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale_factor, self.up_kernel, self.up_group = scale_factor, up_kernel, up_group
        self.channel_compressor = nn.Conv2d(channels, compressed_channels, 1)
        padding, count = (encoder_kernel - 1) * encoder_dilation // 2, up_group * (up_kernel * scale_factor) ** 2
        options: Any = {"padding": padding, "dilation": encoder_dilation}
        self.content_encoder = nn.Conv2d(compressed_channels, count, encoder_kernel, **options)
        self.init_weights()

    def init_weights(self) -> None:
        for conv, start in ((self.channel_compressor, nn.init.xavier_uniform_), (self.content_encoder, None)):
            start(conv.weight) if start is not None else nn.init.normal_(conv.weight, std=0.001)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        masks = F.pixel_shuffle(self.content_encoder(self.channel_compressor(x)), self.scale_factor)
        masks = masks.unflatten(1, (self.up_group, -1)).softmax(2).flatten(1, 2)
        return carafe(x, masks, self.up_kernel, self.up_group, self.scale_factor)


class PSAMask(nn.Module):
    """Masks over relative offsets (N, mask height * mask width, H, W) as masks over positions (N, H * W, H, W)."""

    def __init__(self, psa_type: str, mask_size: Any = None) -> None:
        super().__init__()
        self.psa_type, self.mask_size = psa_type, mask_size

    def forward(self, input: Tensor) -> Tensor:
        masks, collects = psa.absolute_masks(input, self.mask_size), self.psa_type == "collect"
        return masks if collects else masks.flatten(2).transpose(1, 2).unflatten(2, masks.shape[2:])


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """Focal loss of logits (P, K) against labels (P,), a label of K for none (Lin et al., ICCV 2017)."""
    hot = F.one_hot(target.long(), input.shape[1] + 1)[:, :-1].to(input)
    values = sigmoid_focal(input, hot, gamma, alpha)  # type: ignore[arg-type]
    values = values if weight is None else values * weight[target.long()].unsqueeze(1)
    return values if reduction == "none" else values.sum() / (len(input) if reduction == "mean" else 1)


DETECTION = (
    "batched_nms nms nms_match soft_nms RoIAlign RoIPool roi_align roi_pool MaskedConv2d CornerPool "
    "rel_roi_point_to_rel_img_point SimpleRoIAlign BaseMergeCell ConcatCell SumCell GlobalPoolingCell"
)
TABLE: dict[str, Any] = {
    **unavailable(DETECTION, "it is an operator of detection, for which mmcv has to be installed"),
    **unavailable("VGG", "give the model another backbone, such as a ResNet"),
    "NewEmptyTensorOp": type("NewEmptyTensorOp", (), {"apply": staticmethod(lambda x, shape: x.new_empty(shape))}),
    "dcnv3_backward": backward_of(dcnv3_forward, (0, 1, 2), 14),
    "ms_deform_attn_backward": backward_of(ms_deform_attn_forward, (0, 3, 4), 5),
    "DeformConv2dPack": deform_conv.DeformConv2d, "ModulatedDeformConv2dPack": deform_conv.ModulatedDeformConv2d,
    "point_sample": lambda input, points, align_corners=False, **options: (
        sample_points(input, points, options.get("mode", "bilinear"), align_corners) if points.ndim == 3
        else F.grid_sample(input, 2 * points - 1, align_corners=align_corners, **options)),
}  # fmt: skip
