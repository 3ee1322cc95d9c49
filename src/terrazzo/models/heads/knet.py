"""K-Net: kernels that refine themselves with the masks that they find."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import (
    ConvBlock,
    FeedForward,
    MultiheadAttention,
    Spec,
    build_activation,
    build_norm,
    resize,
)
from terrazzo.registry import MODELS


@MODELS.register
class KernelUpdator(nn.Module):
    """A kernel and the feature of its mask, each gated by their product, become the new kernel.

    `gate_norm_act` puts a norm and an activation before the gates, `activate_out` an activation on what they scale.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        feat_channels: int = 64,
        out_channels: int | None = None,
        gate_sigmoid: bool = True,
        gate_norm_act: bool = False,
        activate_out: bool = False,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        self.in_channels, self.feat_channels = in_channels, feat_channels
        self.gate_sigmoid, self.gate_norm_act, self.activate_out = gate_sigmoid, gate_norm_act, activate_out
        self.dynamic_layer = nn.Linear(in_channels, 2 * feat_channels)
        self.input_layer = nn.Linear(in_channels, 2 * feat_channels)
        self.input_gate = nn.Linear(in_channels, feat_channels)
        self.update_gate = nn.Linear(in_channels, feat_channels)
        if gate_norm_act:
            self.gate_norm = build_norm(norm_cfg, feat_channels)
        self.norm_in = build_norm(norm_cfg, feat_channels)
        self.norm_out = build_norm(norm_cfg, feat_channels)
        self.input_norm_in = build_norm(norm_cfg, feat_channels)
        self.input_norm_out = build_norm(norm_cfg, feat_channels)
        self.activation = build_activation(act_cfg)
        self.fc_layer = nn.Linear(feat_channels, out_channels)
        self.fc_norm = build_norm(norm_cfg, out_channels)

    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Both (N, Q, C), read in pieces of `in_channels` -> (N, Q, C)."""
        shape = kernels.shape
        update, update_out = self.dynamic_layer(features.reshape(-1, self.in_channels)).chunk(2, dim=-1)
        kernel, kernel_out = self.input_layer(kernels.reshape(-1, self.in_channels)).chunk(2, dim=-1)
        gate = kernel * update
        if self.gate_norm_act:
            gate = self.activation(self.gate_norm(gate))
        kernel_gate = self.input_norm_in(self.input_gate(gate))
        update_gate = self.norm_in(self.update_gate(gate))
        if self.gate_sigmoid:
            kernel_gate, update_gate = kernel_gate.sigmoid(), update_gate.sigmoid()
        update_out, kernel_out = self.norm_out(update_out), self.input_norm_out(kernel_out)
        if self.activate_out:
            update_out, kernel_out = self.activation(update_out), self.activation(kernel_out)
        mixed = update_gate * update_out + kernel_gate * kernel_out
        return self.activation(self.fc_norm(self.fc_layer(mixed))).reshape(shape[0], shape[1], -1)


@MODELS.register
class KernelUpdateHead(nn.Module):
    """One stage: gather each mask's feature, update its kernel, let the kernels attend to each other, mask again.

    With `feat_gather_stride` the stage works on a coarser map, with `mask_transform_stride` its masks come from one.
    """

    def __init__(
        self,
        *,
        num_classes: int = 150,
        num_ffn_fcs: int = 2,
        num_heads: int = 8,
        num_mask_fcs: int = 3,
        feedforward_channels: int = 2048,
        in_channels: int = 256,
        out_channels: int = 256,
        dropout: float = 0.0,
        act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
        ffn_act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
        conv_kernel_size: int = 1,
        feat_transform_cfg: Spec | None = None,
        kernel_init: bool = False,
        with_ffn: bool = True,
        feat_gather_stride: int = 1,
        mask_transform_stride: int = 1,
        kernel_updator_cfg: Spec = {"type": "KernelUpdator"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        if conv_kernel_size != 1:
            raise UserError(f"KernelUpdateHead: conv_kernel_size must be 1, not {conv_kernel_size}")
        self.num_classes = num_classes
        self.mask_stride = mask_transform_stride // feat_gather_stride
        self.output_stride = mask_transform_stride

        # attention and update of the kernels
        self.attention = MultiheadAttention(in_channels, num_heads, attn_drop=dropout)
        self.attention_norm = build_norm({"type": "LN"}, in_channels)
        self.kernel_update_conv = MODELS.build(kernel_updator_cfg, "kernel_updator_cfg")
        self.feat_transform = None
        if feat_transform_cfg is not None:
            options: Spec = {"kernel_size": 1, "stride": feat_gather_stride, "padding": feat_gather_stride // 2}
            self.feat_transform = ConvBlock(in_channels, in_channels, **(options | feat_transform_cfg))

        # feed-forward network
        self.ffn = None
        if with_ffn:
            options = {"num_fcs": num_ffn_fcs, "act_cfg": ffn_act_cfg, "drop": dropout}
            self.ffn = FeedForward(in_channels, feedforward_channels, **options)
            self.ffn_norm = build_norm({"type": "LN"}, in_channels)

        # masks
        self.mask_fcs = nn.Sequential()
        for _ in range(num_mask_fcs):
            linear = nn.Linear(in_channels, in_channels, bias=False)
            self.mask_fcs.extend([linear, build_norm({"type": "LN"}, in_channels), build_activation(act_cfg)])
        self.fc_mask = nn.Linear(in_channels, out_channels)

        # weights
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if kernel_init:
            nn.init.normal_(self.fc_mask.weight, std=0.01)

    def forward(self, x: Tensor, kernels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W), kernels (N, K, C), logits (N, K, *, *) -> new logits and new kernels."""
        if self.feat_transform is not None:
            x = self.feat_transform(x)
        weights = resize(masks, like=x).softmax(1)  # N, K, H, W
        gathered = weights.flatten(2) @ x.flatten(2).transpose(1, 2)  # N, K, C
        kernels = self.kernel_update_conv(gathered, kernels)
        kernels = self.attention_norm(kernels + self.attention(kernels))
        if self.ffn is not None:
            kernels = self.ffn_norm(kernels + self.ffn(kernels))
        if self.mask_stride > 1:
            x = resize(x, scale_factor=1 / self.mask_stride)
        masks = (self.fc_mask(self.mask_fcs(kernels)) @ x.flatten(2)).unflatten(2, x.shape[2:])
        if self.output_stride > 1:
            masks = resize(masks, scale_factor=self.output_stride)
        return masks, kernels


@MODELS.register
class IterativeDecodeHead(nn.Module):
    """K-Net's head (Zhang et al., NeurIPS 2021): another head's logits and classifier, refined stage by stage.

    Losses are the first head's, named "loss_ce.s0" for its own logits, "loss_ce.s1" for the first stage's, and so on.
    Raises UserError where the number of stages and of `kernel_update_head` differ.
    """

    def __init__(
        self, *, num_stages: int, kernel_generate_head: DecodeHead, kernel_update_head: Sequence[KernelUpdateHead]
    ) -> None:
        super().__init__()
        if num_stages != len(kernel_update_head):
            raise UserError(
                f"IterativeDecodeHead: num_stages={num_stages}, but kernel_update_head has {len(kernel_update_head)}"
            )
        self.kernel_generate_head = kernel_generate_head
        self.kernel_update_head = nn.ModuleList(kernel_update_head)
        self.align_corners = kernel_generate_head.align_corners
        self.num_classes, self.out_channels = kernel_generate_head.num_classes, kernel_generate_head.out_channels
        self.threshold, self.ignore_index = kernel_generate_head.threshold, kernel_generate_head.ignore_index

    def stages(self, inputs: Features) -> list[Tensor]:
        """Logits of the first head, then of every stage."""
        x = self.kernel_generate_head.features(inputs)  # N, C, H, W
        outputs = [self.kernel_generate_head.classify(x)]
        kernels = self.kernel_generate_head.conv_seg.weight.flatten(1)  # K, C
        kernels = kernels.expand(x.shape[0], -1, -1)
        for stage in self.kernel_update_head:
            masks, kernels = stage(x, kernels, outputs[-1])
            outputs.append(masks)
        return outputs

    def forward(self, inputs: Features) -> Tensor:
        return self.stages(inputs)[-1]

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Logits (N, K, h, w) for an image of `size`, at the features' resolution."""
        return self(inputs)

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of every stage; labels (N, H, W)."""
        losses: dict[str, Tensor] = {}
        for index, logits in enumerate(self.stages(inputs)):
            stage = self.kernel_generate_head.losses(logits, labels)
            losses |= {f"{name}.s{index}": value for name, value in stage.items()}
        return losses
