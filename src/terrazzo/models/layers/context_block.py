"""Global context block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers.init import init_zeros


class ContextBlock(nn.Module):
    """One context vector for all positions, which scales the channels ("channel_mul") or is added ("channel_add").

    The block of GCNet (Cao et al., ICCVW 2019). Raises UserError for another way to pool or to fuse.
    """

    def __init__(
        self, channels: int, *, ratio: float, pooling_type: str = "att", fusion_types: Sequence[str] = ("channel_add",)
    ) -> None:
        super().__init__()
        if pooling_type not in ("att", "avg"):
            raise UserError(f"pooling_type='{pooling_type}' is unknown: use 'att' (attention) or 'avg' (the mean)")
        if not fusion_types or not set(fusion_types) <= {"channel_add", "channel_mul"}:
            raise UserError(f"fusion_types={fusion_types!r}: name 'channel_add', 'channel_mul' or both")
        width = int(channels * ratio)
        self.conv_mask = nn.Conv2d(channels, 1, 1) if pooling_type == "att" else None
        self.channel_add_conv = self.transform(channels, width) if "channel_add" in fusion_types else None
        self.channel_mul_conv = self.transform(channels, width) if "channel_mul" in fusion_types else None

    def transform(self, channels: int, width: int) -> nn.Sequential:
        """A bottleneck on the context vector, which starts at zero."""
        last = nn.Conv2d(width, channels, 1)
        init_zeros(last)
        return nn.Sequential(nn.Conv2d(channels, width, 1), nn.LayerNorm([width, 1, 1]), nn.ReLU(inplace=True), last)

    def pool(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        if self.conv_mask is None:
            return x.mean(dim=(2, 3), keepdim=True)
        weights = self.conv_mask(x).flatten(2).softmax(2)  # N, 1, H * W
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)

    def forward(self, x: Tensor) -> Tensor:
        context = self.pool(x)
        if self.channel_mul_conv is not None:
            x = x * self.channel_mul_conv(context).sigmoid()
        if self.channel_add_conv is not None:
            x = x + self.channel_add_conv(context)
        return x
