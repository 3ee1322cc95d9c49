"""A diffusion model's U-Net as a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec
from terrazzo.models.layers.sizes import larger
from terrazzo.models.safe_pickle import load_pickle
from terrazzo.registry import MODELS
from terrazzo.system.extras import import_extra


@MODELS.register
class VPD(Backbone):
    """VPD (Zhao et al., ICCV 2023): images (N, 3, H, W) in -1..1 -> the U-Net's maps at strides 8, 16, 32 and 64.

    The networks are those of the package `diffusers`, of the sizes in `diffusion_cfg`; the autoencoder is frozen.
    `class_embed_path` is a file with text embeddings (classes, width) that the U-Net attends to, all of them or, with
    `class_embed_select`, one for each image: the mean where no category is given. Images smaller than `pad_shape` are
    padded on the right and below. Raises UserError without `diffusers` or without the file.
    """

    stem_parts = ("encoder_vq", "unet.conv_in", "unet.time_embedding")
    stage_parts = ("unet.down_blocks.{0}",)

    def __init__(
        self,
        *,
        diffusion_cfg: Spec,
        class_embed_path: str,
        unet_cfg: Spec | None = None,
        gamma: float = 1e-4,
        class_embed_select: bool = False,
        pad_shape: int | Sequence[int] | None = None,
        pad_val: float = 0,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        if (unet_cfg or {}).get("use_attn"):
            raise UserError("VPD: it does not output attention maps; set unet_cfg.use_attn=False")
        params = diffusion_cfg["params"]
        self.scale_factor = params["scale_factor"]
        self.pad_shape = (pad_shape, pad_shape) if isinstance(pad_shape, int) else pad_shape
        self.pad_val = pad_val
        self.select = class_embed_select
        self.encoder_vq = build_autoencoder(params["first_stage_config"]["params"])
        self.unet = build_unet(params["unet_config"]["params"])
        embeddings = read_embeddings(class_embed_path)
        if class_embed_select:
            embeddings = torch.cat([embeddings, embeddings.mean(0, keepdim=True)])
        self.register_buffer("class_embeddings", embeddings)
        width = embeddings.shape[1]
        self.text_adapter = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), gamma))
        self.encoder_vq.requires_grad_(False)

    class_embeddings: Tensor

    def context(self, count: int, category: Tensor | None) -> Tensor:
        """Return what the U-Net attends to (N, tokens, width); `category` (N,) selects an embedding for each image."""
        chosen = self.class_embeddings
        if self.select:
            index = torch.full((count,), -1, device=chosen.device) if category is None else category
            chosen = chosen[index].unsqueeze(1)
        else:
            chosen = chosen.expand(count, -1, -1)
        return chosen + self.gamma * self.text_adapter(chosen)

    def pad(self, images: Tensor) -> Tensor:
        if self.pad_shape is None:
            return images
        bottom, right = (larger(side - size, 0) for side, size in zip(self.pad_shape, images.shape[2:], strict=True))
        return F.pad(images, (0, right, 0, bottom), value=self.pad_val)

    def forward(self, images: Tensor, category: Tensor | None = None) -> tuple[Tensor, ...]:
        with torch.no_grad():
            latents = self.encoder_vq.encode(self.pad(images)).latent_dist.mode() * self.scale_factor
        maps: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _module, _inputs, output: maps.append(first_tensor(output)))
            for block in map_sources(self.unet)
        ]
        step = torch.ones(images.shape[0], dtype=torch.long, device=images.device)
        self.unet(latents, step, self.context(images.shape[0], category))
        for hook in hooks:
            hook.remove()
        return tuple(reversed(maps))  # from fine to coarse


def first_tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def map_sources(unet: Any) -> list[nn.Module]:
    """Return the U-Net's layers whose outputs are the maps, from coarse to fine: the second of each, the last level."""
    *coarser, finest = unet.up_blocks
    return [*[block.attentions[1] if hasattr(block, "attentions") else block.resnets[1] for block in coarser], finest]


def build_unet(options: Spec) -> Any:
    """Build the U-Net that an `unet_config` describes, with attention at the levels of `attention_resolutions`."""
    levels = range(len(options["channel_mult"]))
    crossed = [2**level in options["attention_resolutions"] for level in levels]
    return diffusers().UNet2DConditionModel(
        in_channels=options["in_channels"],
        out_channels=options["out_channels"],
        block_out_channels=[options["model_channels"] * factor for factor in options["channel_mult"]],
        layers_per_block=options["num_res_blocks"],
        attention_head_dim=options["num_heads"],  # despite its name, the number of heads
        cross_attention_dim=options["context_dim"],
        down_block_types=["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossed],
        up_block_types=["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossed)],
    )


def build_autoencoder(options: Spec) -> Any:
    """Build the encoder that a `first_stage_config` describes."""
    shape = options["ddconfig"]
    count = len(shape["ch_mult"])
    autoencoder = diffusers().AutoencoderKL(
        in_channels=shape["in_channels"],
        out_channels=shape["out_ch"],
        latent_channels=shape["z_channels"],
        block_out_channels=[shape["ch"] * factor for factor in shape["ch_mult"]],
        layers_per_block=shape["num_res_blocks"],
        down_block_types=["DownEncoderBlock2D"] * count,
        up_block_types=["UpDecoderBlock2D"] * count,
    )
    del autoencoder.decoder, autoencoder.post_quant_conv  # nothing is decoded
    return autoencoder


def diffusers() -> Any:
    """Import the package. Raises UserError where it is not installed."""
    return import_extra("diffusers", "diffusion", "backbones VPD")


def read_embeddings(path: str) -> Tensor:
    """Read text embeddings (classes, width) from a file."""
    if not Path(path).is_file():
        raise UserError(
            f"model.backbone.class_embed_path: '{path}' is not a file; download the text embeddings and give their path"
        )
    found = load_pickle(Path(path))
    if not isinstance(found, Tensor):
        raise UserError(f"model.backbone.class_embed_path: {path} holds a {type(found).__name__}, not one tensor")
    return found
