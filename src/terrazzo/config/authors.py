"""Backbones as their authors' releases have them: SegFormer's encoders by size, and BEiT's and ConvNeXt's arguments.

They become the classes and arguments of MMSegmentation, which came later and computes the same.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from terrazzo.arguments import leftovers, located, origin_of
from terrazzo.config.reading.section import Section
from terrazzo.errors import UserError
from terrazzo.recipes.backbones import MIT, backbone

# type -> its arguments there -> ours
RENAMED = {
    "BEiT": {"embed_dim": "embed_dims", "depth": "num_layers", "in_chans": "in_channels", "qkv_bias": "qv_bias",
             "use_checkpoint": "with_cp"},
    "ConvNeXt": {"dims": "arch.channels", "depths": "arch.depths", "in_chans": "in_channels"},
}  # fmt: skip
# type -> arguments there that have one value here
FIXED: dict[str, dict[str, Any]] = {
    "BEiT": {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "use_shared_rel_pos_bias": False, "qk_scale": None},
    "MixVisionTransformer": {"style": "pytorch"},
}
# type -> what it means there where an argument is not given
MEANING: dict[str, dict[str, Any]] = {
    "BEiT": {"norm_cfg": {"type": "LN", "eps": 1e-6}},
    "ConvNeXt": {"arch": {"depths": [3, 3, 9, 3]}, "out_indices": [0, 1, 2, 3], "gap_before_final_norm": False},
}
ONLY_THERE = {"BEiT": "embed_dim", "ConvNeXt": "dims"}  # type -> an argument that no other class of the name has


def is_by_authors(spec: Section) -> bool:
    """Report whether a backbone is written as its authors' code takes it."""
    kind = str(spec.get("type"))
    return (kind.startswith("mit_") and kind.removeprefix("mit_") in MIT) or ONLY_THERE.get(kind) in spec


def without_replaced_base(model: Any) -> Any:
    """A model section without what the book's own base says, in MMSegmentation's words, of an authors' backbone.

    It stands for a base file of the authors' that is missing, and says the same of other arguments.
    """
    spec = model.get("backbone") if isinstance(model, Section) else None
    if not isinstance(spec, Section) or not is_by_authors(spec):
        return model
    whole, new = model.copy(), Section()
    for key in spec:
        if not is_of_book(spec, key):
            new.take(spec, key)
    whole.put("backbone", new, model.origin_of("backbone"))
    if spec["type"] == "BEiT" and is_of_book(model, "neck"):  # its authors' backbone has the pyramid inside
        del whole["neck"]
    return whole


def is_of_book(section: Section, key: str) -> bool:
    """Report whether a key was set by a base file from the recipe book."""
    return (origin_of(section, key) or "").startswith("mmseg::")


def by_authors(model: dict[str, Any], defined: Container[str] = ()) -> dict[str, Any]:
    """A model section with its backbone, if that is written as its authors' code takes it, in terrazzo's words.

    Types `defined` by the user are the user's own classes and stay. The argument stays as it is. Raises UserError for
    an argument that is given in both words.
    """
    model = without_replaced_base(model)
    spec = model.get("backbone")
    if not isinstance(model, Section) or not isinstance(spec, Section) or not is_by_authors(spec):
        return model
    kind = spec["type"]
    if kind in defined:
        return model
    size = kind.removeprefix("mit_")
    new = Section()
    usual = backbone(f"mit-{size}").spec if size in MIT else {"type": kind, **MEANING[kind]}
    usual.pop("init_cfg", None)
    new.absorb(usual, spec.origin_of("type"))
    fixed, names = FIXED.get(usual["type"], {}), RENAMED.get(kind, {})
    for key in spec:
        ours = names.get(key, "").partition(".")[0]
        if ours in spec:
            both = f"{kind} at model.backbone has '{key}' of its authors' code beside '{ours}': leave one out"
            raise UserError(located(spec, key, both + leftovers(spec, [ours])))
        if key != "type" and not (key in fixed and spec[key] == fixed[key]):
            new.take(spec, key, names.get(key))
    whole = model.copy()
    whole.put("backbone", new, model.origin_of("backbone"))
    if kind == "BEiT" and not model.get("neck"):
        pyramid = {"type": "Feature2Pyramid", "embed_dim": spec["embed_dim"], "rescales": [4, 2, 1, 0.5]}
        whole.put("neck", pyramid, spec.origin_of("type"))
    return whole
