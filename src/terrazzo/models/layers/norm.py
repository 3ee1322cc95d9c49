"""Normalisation layers, built from a `norm_cfg` such as `{"type": "BN", "requires_grad": True}`."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.layers.spec import Spec, kind_of


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm; raises UserError for a single value per channel in training, which has no statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == self.num_features:
            raise UserError(
                f"batch norm cannot be trained on one image with a map of one pixel, {tuple(input.shape)}: give "
                "each device a batch of at least two images (batch_size; drop_last for the last batch of an "
                "epoch), or use another norm_cfg, such as {type: GN, num_groups: 32}"
            )
        return super().forward(input)


class SyncBatchNorm(BatchNorm2d):
    """Batch norm whose statistics span all processes in training; with one process it is plain batch norm.

    `torch.nn.SyncBatchNorm` has no CPU path; this one averages with a differentiable all-reduce on any backend.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        dims = (0, 2, 3)
        size = input.new_full((1,), input.numel() / input.shape[1])
        total, count = AllReduce.apply(torch.cat([input.sum(dims), size])).split([self.num_features, 1])
        mean = total / count
        variance = AllReduce.apply((input - mean.view(1, -1, 1, 1)).square().sum(dims)) / count
        self._update_running(mean.detach(), variance.detach() * (count / (count - 1)).detach())
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale + (self.bias if self.affine else 0)
        return input * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return  # without track_running_stats
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class AllReduce(torch.autograd.Function):
    """The sum over all processes; its gradient is summed likewise."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return AllReduce.forward(ctx, gradient)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of an (N, C, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# type name -> (layer, its attribute name in a conv block)
NORMS: dict[str, tuple[type[nn.Module], str]] = {
    "BN": (BatchNorm2d, "bn"),
    "BN1d": (nn.BatchNorm1d, "bn"),
    "BN2d": (BatchNorm2d, "bn"),
    "BatchNorm2d": (BatchNorm2d, "bn"),
    "SyncBN": (SyncBatchNorm, "bn"),
    "SyncBatchNorm": (SyncBatchNorm, "bn"),
    "MMSyncBN": (SyncBatchNorm, "bn"),
    "GN": (nn.GroupNorm, "gn"),
    "GroupNorm": (nn.GroupNorm, "gn"),
    "LN": (nn.LayerNorm, "ln"),
    "LayerNorm": (nn.LayerNorm, "ln"),
    "LN2d": (LayerNorm2d, "ln"),
    "IN": (nn.InstanceNorm2d, "in"),
    "IN2d": (nn.InstanceNorm2d, "in"),
    "InstanceNorm2d": (nn.InstanceNorm2d, "in"),
}


def norm_name(norm_cfg: Spec) -> str:
    """Return the attribute name of a norm of this type in published checkpoints: `bn`, `gn`, `ln` or `in`."""
    return _look_up(norm_cfg)[1]


def build_norm(norm_cfg: Spec, channels: int) -> nn.Module:
    """Build a norm for `channels`; `requires_grad: False` freezes its weights. Raises UserError for an unknown type."""
    layer, _ = _look_up(norm_cfg)
    options = {key: value for key, value in norm_cfg.items() if key not in ("type", "requires_grad", "num_groups")}
    options.setdefault("eps", 1e-5)
    if layer is nn.GroupNorm:
        norm: nn.Module = nn.GroupNorm(norm_cfg["num_groups"], channels, **options)
    else:
        norm = layer(channels, **options)
    for parameter in norm.parameters():
        parameter.requires_grad = norm_cfg.get("requires_grad", True)
    return norm


def _look_up(norm_cfg: Spec) -> tuple[type[nn.Module], str]:
    kind = kind_of(norm_cfg)
    if kind not in NORMS:
        raise UserError(f"norm_cfg: no normalisation is called '{kind}'{nearest(str(kind), NORMS)}")
    return NORMS[kind]
