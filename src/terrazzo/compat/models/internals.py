"""Attributes and methods of official classes that subclasses read, call, or have their own of."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.compat.models import blocks
from terrazzo.compat.models.layers import nlc_to_nchw
from terrazzo.compat.models.module import overrides
from terrazzo.models.backbones import beit, hrnet, mscan, swin
from terrazzo.models.layers.tokens import as_tokens, resize_position_embedding


def _make_stem(self: Any, in_channels: int, channels: int) -> None:
    """The stem of a ResNet, by the method that a subclass has for it there."""
    own = overrides(self, "_make_stem_layer")
    self._make_stem_layer(in_channels, channels) if own else self._ours.add_stem(self, in_channels, channels)


def _make_stage(self: Any, width: int, channels: int, stride: int, dilations: Sequence[int], **options: Any) -> Any:
    """A stage of a ResNet, by the method that a subclass has for it there."""
    if not overrides(self, "make_res_layer"):
        return self._ours.make_stage(self, width, channels, stride, dilations, **options)
    one = len({*dilations}) == 1
    rates = {"dilation": dilations[0] if one else 1, "multi_grid": None if one else dilations}
    sizes = {"inplanes": width, "planes": channels, "num_blocks": len(dilations), "stride": stride}
    return self.make_res_layer(block=self.block, avg_down=self.avg_down, **sizes, **rates, **options, **self.options)


def _embedded(self: Any, patched_img: Tensor, hw_shape: Any, pos_embed: Tensor) -> Tensor:
    """Tokens of a vision transformer with their positions, which are resized to the grid of the patches."""
    positions = resize_position_embedding(pos_embed, self.grid, hw_shape, mode=self.interpolate_mode)
    return self.drop_after_pos(patched_img + positions)


def _alias(name: str) -> Any:
    return property(lambda self: getattr(self, name))


STAGES, LEVELS = {"layers": _alias("stages")}, {"backbone_end_level": property(lambda self: self.levels.stop)}
# class -> attributes that its subclasses read there, or have their own of
INTERNALS: dict[str, dict[str, Any]] = {
    "ResNet": {
        "res_layers": _alias("stages"),
        "norm1": property(lambda self: getattr(self, self.norm1_name)),
        "arch_settings": property(lambda self: self._ours.architectures),
        "architectures": _alias("arch_settings"),
        "make_res_layer": lambda self, **options: blocks.ResLayer(**options),
        "make_stage": _make_stage,
        "add_stem": _make_stem,
        "_freeze_stages": lambda self: None,  # terrazzo's `train` does it
    },
    "UPerHead": {
        "psp_forward": lambda self, inputs: self._ours.pool(self, inputs[-1]),
        "pool": lambda self, x: self.psp_forward([x]),
    },
    "VisionTransformer": {"norm1": _alias("ln1"), "pre_ln": _alias("ln_pre"), "_pos_embeding": _embedded},
    "BEiT": {"norm1": _alias("ln1")},
    "HRNet": {
        **blocks.NORMS,
        **{f"stage{n}_cfg": property(lambda self, n=n: self.extra[f"stage{n}"]) for n in (2, 3, 4)},  # type: ignore[misc]
    },
    "SwinTransformer": {
        "num_features": property(lambda self: [2**stage * self.embed_dims for stage in range(len(self.stages))])
    },
    "PCPVT": {"position_encoding_drops": property(lambda self: [nn.Identity()] * len(self.layers))},
    "UNet": {"_check_input_divisible": lambda self, x: None},  # any size will do
    "MobileNetV2": STAGES,
    "MobileNetV3": STAGES,
    "DDRNet": {"relu": staticmethod(F.relu)},
    "FPN": LEVELS,
    "JPU": LEVELS,
    "MultiLevelNeck": {"num_outs": property(lambda self: len(self.scales))},
    "DPTHead": {"num_reassemble_blocks": property(lambda self: len(self.convs))},
    "OCRHead": {"spatial_gather_module": _alias("regions")},
    "DAHead": {
        "pam_cls_seg": lambda self, feat: self.pam_conv_seg((self.dropout or nn.Identity())(feat)),
        "cam_cls_seg": lambda self, feat: self.cam_conv_seg((self.dropout or nn.Identity())(feat)),
    },
}


# Parts of backbones as they are called there


class Stage(swin.SwinStage):
    def forward(self, x: Tensor, hw_shape: Any) -> Any:
        out, after, size = super().forward(x, hw_shape)
        return after, size, out, hw_shape


class Layer(beit.BEiTLayer):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.attn.grid, self.attn.relative_position_index)


class Block(mscan.ScaledBlock):
    def forward(self, x: Tensor, *size: int) -> Tensor:
        return as_tokens(super().forward(nlc_to_nchw(x, size)))


class Embedding(nn.Sequential):
    def forward(self, x: Tensor) -> Any:
        x = super().forward(x)
        return as_tokens(x), *x.shape[2:]


CALLED: dict[type, dict[type, type]] = {
    swin.SwinTransformer: {swin.SwinStage: Stage},
    beit.BEiT: {beit.BEiTLayer: Layer},
    mscan.MSCAN: {mscan.ScaledBlock: Block, nn.Sequential: Embedding},
}


def call_as_there(module: nn.Module) -> None:
    """Let a backbone's parts be called with the arguments that a user's own `forward`, in place of ours, has there."""
    if overrides(module, "forward") and "super" not in type(module).forward.__code__.co_names:
        own = {part: new for kind, parts in CALLED.items() if isinstance(module, kind) for part, new in parts.items()}
        for child in module.children():
            for part in child if isinstance(child, nn.ModuleList) else [child]:
                part.__class__ = own.get(type(part), type(part))
                if isinstance(module, hrnet.HRNet) and isinstance(part, nn.Identity):
                    child[[*child].index(part)] = None  # type: ignore[index,operator,misc]
