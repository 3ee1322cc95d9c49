"""An image encoder, a text encoder, and a head that reads both."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.clip_text import CLIPTextEncoder
from terrazzo.models.backbones.vit import VisionTransformer
from terrazzo.models.checks import checked_test_cfg
from terrazzo.models.heads.base import Head
from terrazzo.models.layers import Spec, resize
from terrazzo.models.naming import Finish, Naming, Rule
from terrazzo.models.preprocess import Preprocess
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder
from terrazzo.registry import MODELS

HEAD = "decode_head.rec_with_attnbias"
# parts of a layer in our ViT, and in CLIP's separate layers
PLAIN = {"norm1": "ln1", "norm2": "ln2", "attn": "attn.attn", "fc1": "ffn.layers.0.0", "fc2": "ffn.layers.1"}
OWN = {
    "norm1": "norms.0",
    "norm2": "norms.1",
    "attn": "attentions.0.attn",
    "fc1": "ffns.0.layers.0.0",
    "fc2": "ffns.0.layers.1",
}
# parts of a layer in the two releases
OPENAI = {"ln_1": "norm1", "ln_2": "norm2", "attn": "attn", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
TRANSFORMERS = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn": "attn", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}


def layer_rule(pattern: str, parts: dict[str, str], image_layers: int | None) -> Rule:
    """Rename layers numbered after `pattern`; the first `image_layers` are the image encoder's, the rest the head's."""
    leaves = "|".join(map(re.escape, parts))

    def new_name(match: re.Match[str]) -> str:
        number, part = int(match[1]), parts[match[2]]
        if image_layers is None:
            return f"text_encoder.transformer.{number}.{OWN[part]}."
        if number < image_layers:
            return f"image_encoder.layers.{number}.{PLAIN[part]}."
        return f"{HEAD}.layers.{number - image_layers}.{OWN[part]}."

    return rf"^{pattern}\.(\d+)\.({leaves})\.", new_name


def transpose(name: str) -> Finish:
    """Transpose a projection, which is a matrix in one release and a linear layer in the other."""
    return lambda weights, original: weights | {name: weights[name].T.contiguous()}


IMAGE: tuple[Rule, ...] = (
    (r"^visual\.class_embedding$", "image_encoder.cls_token"),
    (r"^visual\.positional_embedding$", "image_encoder.pos_embed"),
    (r"^visual\.conv1\.", "image_encoder.patch_embed.projection."),
    (r"^visual\.ln_pre\.", "image_encoder.ln_pre."),
    (r"^visual\.ln_post\.", f"{HEAD}.ln_post."),
    (r"^visual\.proj$", f"{HEAD}.proj.weight"),
)
TEXT: Rule = (
    r"^(positional_embedding$|text_projection$|logit_scale$|token_embedding\.|ln_final\.)",
    r"text_encoder.\1",
)
TRANSFORMERS_NAMES: tuple[Rule, ...] = (
    (r"^vision_model\.embeddings\.class_embedding$", "image_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "image_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "image_encoder.patch_embed.projection."),
    (r"^vision_model\.pre_layrnorm\.", "image_encoder.ln_pre."),  # so spelt in the files
    (r"^vision_model\.post_layernorm\.", f"{HEAD}.ln_post."),
    (r"^visual_projection\.", f"{HEAD}.proj."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text_encoder.positional_embedding"),
    (r"^text_model\.embeddings\.token_embedding\.", "text_encoder.token_embedding."),
    (r"^text_model\.final_layer_norm\.", "text_encoder.ln_final."),
    (r"^text_projection\.weight$", "text_encoder.text_projection"),
    (r"^logit_scale$", "text_encoder.logit_scale"),
    (r"\.attn\.([qkv])_proj\.(\w+)$", lambda match: f".attn.in_proj_{match[2]}#{'qkv'.index(match[1])}"),
)


def clip_namings(image_layers: int) -> tuple[Naming, ...]:
    """Names of OpenAI's release (and open_clip) and of transformers, for an image encoder of `image_layers`."""
    return (
        Naming(
            "OpenAI's CLIP",
            mark=r"visual\.class_embedding",
            rules=(
                *IMAGE,
                layer_rule(r"visual\.transformer\.resblocks", OPENAI, image_layers),
                layer_rule(r"transformer\.resblocks", OPENAI, None),
                TEXT,
            ),
            drop=r"(input_resolution|context_length|vocab_size|attn_mask)$",
            finish=transpose(f"{HEAD}.proj.weight"),
        ),
        Naming(
            "CLIP of transformers",
            mark=r"vision_model\.embeddings\.class_embedding",
            rules=(
                layer_rule(r"vision_model\.encoder\.layers", TRANSFORMERS, image_layers),
                layer_rule(r"text_model\.encoder\.layers", TRANSFORMERS, None),
                *TRANSFORMERS_NAMES,
            ),
            drop=r".*\.position_ids$",
            finish=transpose("text_encoder.text_projection"),
        ),
    )


@MODELS.register
class MultimodalEncoderDecoder(EncoderDecoder):
    """Open-vocabulary segmentation (SAN, Xu et al., CVPR 2023): images (N, C, H, W), normalised -> logits (N, K, H, W).

    The head gets the images, the image encoder's maps and the classes' embeddings; with `asymetric_input` the image
    encoder sees the images at `encoder_resolution` times their size. Raises UserError where the head has another number
    of classes than the text encoder.
    """

    def __init__(
        self,
        *,
        image_encoder: VisionTransformer,
        text_encoder: CLIPTextEncoder,
        decode_head: Head,
        asymetric_input: bool = True,
        encoder_resolution: float | None = None,
        data_preprocessor: Preprocess | None = None,
        test_cfg: Spec | None = None,
    ) -> None:
        nn.Module.__init__(self)  # its parts have other names than a backbone's
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.decode_head = decode_head
        self.scale = encoder_resolution if asymetric_input and encoder_resolution is not None else 1.0
        self.preprocess = data_preprocessor if data_preprocessor is not None else Preprocess()
        self.test_cfg = checked_test_cfg(test_cfg)

    @property
    def namings(self) -> tuple[Naming, ...]:
        return clip_namings(len(self.image_encoder.layers))

    def encode(self, images: Tensor) -> Any:
        small = images if self.scale == 1.0 else resize(images, scale_factor=self.scale)
        classes = self.text_encoder()  # K + 1, D
        if len(classes) != self.decode_head.num_classes + 1:
            raise UserError(
                f"the text encoder has {len(classes) - 1} classes, but model.decode_head.num_classes is "
                f"{self.decode_head.num_classes}; make them equal, or name the classes in model.text_encoder.vocabulary"
            )
        return images, self.image_encoder(small), classes
