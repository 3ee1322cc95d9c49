"""CLIP's text encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers import Spec
from terrazzo.models.layers.clip_tokens import CONTEXT_LENGTH, PROMPTS, tokenize
from terrazzo.models.layers.transformer import ClipLayer
from terrazzo.registry import MODELS, declared_dataset

BATCH = 256  # sentences encoded at once


def class_names(dataset_name: str) -> list[str]:
    """Return the classes of a data set, by type or short name, without the background. Raises UserError if unknown."""
    try:
        spec = declared_dataset(dataset_name)
    except UserError as problem:
        raise UserError(f"text_encoder.dataset_name: {problem}") from None
    return [label for label in spec.classes if label != "background"]


@MODELS.register
class CLIPTextEncoder(nn.Module):
    """CLIP's text encoder (Radford et al., ICML 2021) -> an embedding (K + 1, output_dims) of each class, times the
    logit scale; the last is a learned one for "no object" (`cat_bg`).

    The classes are those of `dataset_name`, or `vocabulary`; `templates` names the sentences around them (vild,
    imagenet) or lists them. With `cache_feature` the text is encoded once for given weights. Only the "no object"
    embedding is trained. Raises UserError for an unknown data set or unknown templates.
    """

    def __init__(
        self,
        *,
        dataset_name: str | None = None,
        vocabulary: Sequence[str] | None = None,
        templates: str | Sequence[str] = "vild",
        total_vocab_size: int = 49408,
        context_length: int = CONTEXT_LENGTH,
        embed_dims: int = 512,
        output_dims: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4,
        cache_feature: bool = True,
        cat_bg: bool = True,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "QuickGELU"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()

        # classes and the sentences around them
        if dataset_name is None and vocabulary is None:
            raise UserError("CLIPTextEncoder needs the class names: give dataset_name or vocabulary")
        if isinstance(templates, str):
            if templates not in PROMPTS:
                raise UserError(f"text_encoder.templates: '{templates}' is unknown: use {', '.join(PROMPTS)} or a list")
            templates = PROMPTS[templates]
        self.dataset_name, self.vocabulary, self.templates = dataset_name, vocabulary, templates
        self.context_length = context_length
        self.cache_feature = cache_feature

        # embeddings of the last weights
        self.cached: Tensor | None = None
        self.cached_for: Any = None

        # network
        self.positional_embedding = nn.Parameter(torch.empty(context_length, embed_dims))
        self.text_projection = nn.Parameter(torch.empty(embed_dims, output_dims))
        self.logit_scale = nn.Parameter(torch.full((), math.log(1 / 0.07)))
        if cat_bg:
            self.bg_embed = nn.Parameter(torch.empty(1, output_dims))
            nn.init.normal_(self.bg_embed, std=output_dims**-0.5)
        self.token_embedding = nn.Embedding(total_vocab_size, embed_dims)
        self.transformer = nn.ModuleList(
            ClipLayer(embed_dims, num_heads, mlp_ratio, act_cfg=act_cfg, norm_cfg=norm_cfg) for _ in range(num_layers)
        )
        self.ln_final = nn.LayerNorm(embed_dims, eps=norm_cfg.get("eps", 1e-5))

        # weights: only "no object" is trained
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=embed_dims**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name == "bg_embed"
        self.register_load_state_dict_post_hook(CLIPTextEncoder.forget)

    def forget(self, *_: Any) -> None:
        """Drop the cached embeddings after other weights are loaded."""
        self.cached = self.cached_for = None

    def class_names(self) -> Sequence[str]:
        """The vocabulary, or the classes of the data set."""
        if self.vocabulary is not None:
            return self.vocabulary
        assert self.dataset_name is not None  # as the constructor demands
        return class_names(self.dataset_name)

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, L) -> embeddings (N, output_dims), each read at the end token."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        for layer in self.transformer:
            x = layer(x, mask)
        ends = tokens.argmax(1)  # the end token has the largest number
        return self.ln_final(x[torch.arange(len(x), device=x.device), ends]) @ self.text_projection

    @torch.no_grad()
    def encode_classes(self) -> Tensor:
        """Return the mean embedding of each class over all sentences (K, output_dims), of length 1."""
        names = self.class_names()
        sentences = [template.format(name) for name in names for template in self.templates]
        batches = [sentences[first : first + BATCH] for first in range(0, len(sentences), BATCH)]
        # attention is causal: nothing after the end of the longest sentence is read
        tokens = [tokenize(batch, self.context_length).to(self.logit_scale.device) for batch in batches]
        embeddings = torch.cat([F.normalize(self.encode(batch), dim=-1) for batch in tokens])
        return F.normalize(embeddings.unflatten(0, (len(names), -1)).mean(1), dim=-1)

    def class_embeddings(self) -> Tensor:
        """The embeddings of the classes, cached until the weights change."""
        if not self.cache_feature:
            return self.encode_classes()
        if torch.compiler.is_compiling():  # a traced graph contains or computes them
            return self.encode_classes() if self.cached is None else self.cached
        frozen = [weight for name, weight in self.named_parameters() if name != "bg_embed"]
        weights = [(weight.data_ptr(), weight._version) for weight in frozen]
        if self.cached is None or weights != self.cached_for:
            with torch.inference_mode(False):  # they may be used in training later
                self.cached, self.cached_for = self.encode_classes(), weights
        return self.cached

    def forward(self) -> Tensor:
        embeddings = self.class_embeddings()
        if hasattr(self, "bg_embed"):
            embeddings = torch.cat([embeddings, F.normalize(self.bg_embed, dim=-1)])
        return embeddings * self.logit_scale.exp()
