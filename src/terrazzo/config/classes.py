"""Adapt a model's config to other classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any


def set_classes(model: dict[str, Any], classes: Sequence[str]) -> None:
    """Set the classes of every head of a model, in place.

    Class weights are dropped with the classes that they were for; a text encoder reads the new names.
    """
    head = model["decode_head"]
    old = (head[-1] if isinstance(head, (list, tuple)) else head)["num_classes"]
    if not adapt(model, old, classes):
        warnings.warn(f"the class weights of the config are ignored: they are for its own {old} classes")


def adapt(spec: Any, old: int, classes: Sequence[str]) -> bool:
    """Set the classes of a part of a model; return whether its class weights could be kept."""
    new, kept = len(classes), True
    if isinstance(spec, dict):
        if spec.get("num_classes") == old:
            spec["num_classes"] = new
            if spec.get("out_channels") == old:
                spec["out_channels"] = new
        weights = spec.get("class_weight")
        if isinstance(weights, (list, tuple)) and old != new:
            if len(weights) == old + 1 and len(set(weights[:-1])) == 1:  # for masks: one per class, one for "no class"
                spec["class_weight"] = [weights[0]] * new + [weights[-1]]
            else:
                del spec["class_weight"]
                kept = False
        if "dataset_name" in spec and not all(name.isdecimal() for name in classes):
            del spec["dataset_name"]
            spec["vocabulary"] = [name for name in classes if name != "background"]
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, (list, tuple)) else ():
        kept = adapt(part, old, classes) and kept  # every part, whether or not an earlier one kept its weights
    return kept
