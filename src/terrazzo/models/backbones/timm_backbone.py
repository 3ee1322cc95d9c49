"""Any backbone of the timm library."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers.norm import NORMS
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

    Raises UserError where timm is not installed or does not know the model, and for an unknown norm. Weights come from
    checkpoints: timm does not download any.
    """

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
        self.timm_model = timm.create_model(
            model_name, pretrained=False, in_chans=in_channels, checkpoint_path=checkpoint_path, **options
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.timm_model(x)) if self.features_only else (self.timm_model.forward_features(x),)


def import_timm() -> Any:
    """Import timm. Raises UserError where it is not installed."""
    return import_extra("timm", "timm", "backbones of timm (TIMMBackbone)")
