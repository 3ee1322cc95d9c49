"""Any backbone of the timm library."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers.norm import NORMS
from terrazzo.models.layers.resize import at_least, pad_to_multiple
from terrazzo.models.layers.tokens import as_map
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS
from terrazzo.system.extras import import_extra

# `features_only` joins the name and number of a part: stages_0 for stages.0
FLAT = (r"^([a-z]+)\.(\d+)\.", r"timm_model.\1_\2.")
STEM = ("stem*", "conv_stem", "conv1", "bn1", "patch_embed", "cls_token", "pos_embed")
OWN = (r"^(?!timm_model\.)", "timm_model.")


@MODELS.register
class TIMMBackbone(Backbone):
    """A timm model as a backbone -> its maps (`features_only`), or its last map; further arguments go to timm.

    Images are padded on the right and below to `least_size` and to a multiple of `size_divisor`. Raises UserError where
    timm is not installed or does not know the model, and for an unknown norm. Weights come from checkpoints: timm does
    not download any.
    """

    passes_on = True

    # in timm's models; the names of stages are joined with their numbers by `features_only`
    stem_parts = tuple(f"timm_model.{name}" for name in STEM)
    stage_parts = ("timm_model.layer{1}", *(f"timm_model.{name}[._]{{0}}" for name in ("stages", "layers", "blocks")))
    namings = tuple(Naming("timm", mark=r"(?!timm_model\.).+", rules=rules) for rules in ((OWN,), (FLAT, OWN)))

    def __init__(
        self,
        *,
        model_name: str,
        features_only: bool = True,
        checkpoint_path: str = "",
        in_channels: int = 3,
        norm_layer: str | None = None,
        frozen_stages: int = -1,
        size_divisor: int = 1,
        least_size: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(frozen_stages=frozen_stages)
        timm = import_timm()
        if not timm.is_model(model_name):
            raise UserError(f"TIMMBackbone: timm has no model '{model_name}'; see `timm.list_models()`")
        if norm_layer is not None:
            if norm_layer not in NORMS:
                raise UserError(f"TIMMBackbone: no norm_layer is called '{norm_layer}'{nearest(norm_layer, NORMS)}")
            options["norm_layer"] = NORMS[norm_layer][0]
        options |= {"features_only": True} if features_only else {"num_classes": 0, "global_pool": ""}
        self.features_only = features_only
        self.size_divisor, self.least_size = size_divisor, least_size
        self.timm_model = timm.create_model(
            model_name, pretrained=False, in_chans=in_channels, checkpoint_path=checkpoint_path, **options
        )
        self.channels_last = str(getattr(self.timm_model, "output_fmt", "")).endswith("NHWC")
        self.prefix_tokens = int(getattr(self.timm_model, "num_prefix_tokens", 0))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = pad_to_multiple(at_least(x, self.least_size), self.size_divisor)
        if self.features_only:
            return tuple(self.first_channels(one) for one in self.timm_model(x))
        tokens = self.timm_model.forward_features(x)
        if tokens.ndim == 3:  # of a plain transformer: N, prefix + h * w, C
            stride = self.timm_model.patch_embed.patch_size
            return (as_map(tokens[:, self.prefix_tokens :], (x.shape[2] // stride[0], x.shape[3] // stride[1])),)
        return (self.first_channels(tokens),)

    def first_channels(self, x: Tensor) -> Tensor:
        """A map as N, C, H, W."""
        return x.permute(0, 3, 1, 2) if self.channels_last else x


def import_timm() -> Any:
    """Import timm. Raises UserError where it is not installed."""
    return import_extra("timm", "timm", "backbones of timm (TIMMBackbone)")
