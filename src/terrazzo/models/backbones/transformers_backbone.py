"""Any image encoder of the transformers library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from terrazzo.errors import some
from terrazzo.hub.encoders import options_of, transformers_model
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.checkpoint import read_checkpoint
from terrazzo.models.layers.resize import at_least, pad_to_multiple
from terrazzo.models.layers.tokens import as_map
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

UNUSED = r"(classifier|decode_head|pooler|lm_head|head)\."


@MODELS.register
class TransformersBackbone(Backbone):
    """A model of transformers as a backbone -> the maps of its hidden states in `out_indices`, at `strides`.

    `options` are the keys of its configuration. Images are padded on the right and below to `least_size` and to a
    multiple of the largest stride. Raises UserError where transformers is not installed or does not know the type.
    Published weights are loaded by transformers itself, which knows the names of older releases.
    """

    stem_parts = ("model.embeddings", "model.patch_embed*")
    stage_parts = tuple(
        f"model.{name}.{{0}}" for name in ("encoder.layer", "layer", "layers", "encoder.layers", "stages")
    )
    namings = (Naming("transformers", mark=r"(?!model\.).+", rules=((r"^(?!model\.)", "model."),), drop=UNUSED),)

    def __init__(
        self,
        *,
        model_type: str,
        strides: Sequence[int],
        out_indices: Sequence[int],
        options: Mapping[str, Any] | None = None,
        least_size: int = 1,
        in_channels: int = 3,
        frozen_stages: int = -1,
    ) -> None:
        super().__init__(frozen_stages=frozen_stages)
        self.model = transformers_model(model_type, options or {}, num_channels=in_channels)
        self.strides, self.out_indices, self.least_size = strides, out_indices, least_size
        self.options = options_of(self.model)

    def start_from(self, path: str) -> str:
        """Load published weights from a file; return a report."""
        weights = read_checkpoint(path).weights
        options = {"config": self.model.config, "state_dict": weights, "output_loading_info": True}
        model, found = type(self.model).from_pretrained(None, **options)
        self.model.load_state_dict(model.state_dict())
        missing = sorted(found["missing_keys"])
        total = len(self.model.state_dict())
        return f"loaded {total - len(missing)} of {total} tensors from {path}" + (
            f"\n  {len(missing)} missing in the checkpoint: {some(missing, 5)}" if missing else ""
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = pad_to_multiple(at_least(images, self.least_size), max(self.strides))
        outputs = self.model(images, output_hidden_states=True, **self.options)
        maps = [*(outputs.get("feature_maps") or outputs["hidden_states"])]
        if "last_hidden_state" in outputs and maps[-1].ndim == 3:
            maps[-1] = outputs["last_hidden_state"]  # normed, where the model ends with a norm
        height, width = images.shape[-2:]
        return tuple(
            to_map(maps[index], (height // stride, width // stride))
            for index, stride in zip(self.out_indices, self.strides, strict=True)
        )


def to_map(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map as it is; tokens (N, prefix + h * w, C) without those before the patches as a map (N, C, h, w)."""
    return x if x.ndim == 4 else as_map(x[:, x.shape[1] - grid[0] * grid[1] :], grid)
