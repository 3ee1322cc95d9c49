"""The 0.x vocabulary, upgraded to that of 1.x; nothing else in terrazzo knows that 0.x exists."""

from __future__ import annotations

from typing import Any

# What a type meant in 0.x, as arguments that our class has for it: (type, needed argument or None) -> arguments
MODEL_MEANINGS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "VisionTransformer": (None, {"patch_bias": True}),
    "DiceLoss": (None, {"formula": "per_class"}),
    "CrossEntropyLoss": ("class_weight", {"weight_average": "pixels"}),
}
SCOPES = {"mmcls.": "mmpretrain."}


def upgrade_model(spec: Any) -> Any:
    """A 0.x model section in the 1.x vocabulary, with what differs in meaning written out; the argument stays as it is."""
    if isinstance(spec, (list, tuple)):
        return type(spec)(upgrade_model(item) for item in spec)
    if not isinstance(spec, dict):
        return spec
    upgraded = {key: upgrade_model(value) for key, value in spec.items()}
    kind = upgraded.get("type")
    if isinstance(kind, str):
        for old, new in SCOPES.items():
            if kind.startswith(old):
                upgraded["type"] = new + kind.removeprefix(old)
        needed, meaning = MODEL_MEANINGS.get(kind, (None, {}))
        if needed is None or upgraded.get(needed) is not None:
            upgraded = meaning | upgraded
    return upgraded
