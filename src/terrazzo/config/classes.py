"""A model for other classes than its config's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any


def set_classes(model: dict[str, Any], classes: Sequence[str]) -> None:
    """Give every head of a model, in place, the number of these classes in place of its own.

    Class weights go with the classes that they were for; a text encoder reads the new names.
    """
    head = model["decode_head"]
    old = (head[-1] if isinstance(head, (list, tuple)) else head)["num_classes"]
    if not all(fit(model[part], old, classes) for part in model):
        warnings.warn(f"class weights of the config are left out: they are for its own {old} classes")


def fit(spec: Any, old: int, classes: Sequence[str]) -> bool:
    """Change a part of a model; whether nothing of it had to be left out."""
    if isinstance(spec, (list, tuple)):
        return all(fit(item, old, classes) for item in spec)
    if not isinstance(spec, dict):
        return True
    weights, new, whole = spec.get("class_weight"), len(classes), True
    if spec.get("num_classes") == old:
        spec["num_classes"] = new
        if spec.get("out_channels") == old:
            spec["out_channels"] = new
    if isinstance(weights, (list, tuple)) and old != new:
        if len(weights) == old + 1 and len(set(weights[:-1])) == 1:  # of masks: one for each class, one for no class
            spec["class_weight"] = [weights[0]] * new + [weights[-1]]
        else:
            del spec["class_weight"]
            whole = False
    if "dataset_name" in spec and not all(name.isdecimal() for name in classes):
        del spec["dataset_name"]
        spec["vocabulary"] = [name for name in classes if name != "background"]
    return all(fit(value, old, classes) for value in spec.values()) and whole
