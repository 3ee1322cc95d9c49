"""Choices that follow from a fingerprint alone: loss, class weights, sampling, scale and crop, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.data.discovery.draft import Draft
from terrazzo.data.discovery.propose import LARGEST_CROP, STEP, crop_length
from terrazzo.data.fingerprint import ClassShape, Fingerprint
from terrazzo.errors import some
from terrazzo.training.planning.networks import PYRAMID, UNET, Network

FEW = 0.2  # share of the foreground of two classes below which Dice is added ...
RARE = 0.001  # ... and of a class among several
SPARSE = 0.02  # share of the foreground of two classes below which it is weighted as well, up to ...
MOST_SPARSE = 20.0  # ... this
UNEVEN = 20  # the largest class has so many times the pixels of the smallest: classes are weighted
WEIGHTS = (0.5, 3.0)  # least and largest class weight
DOMINANT = 0.7  # share of a class of which most pixels are soon easy
SELDOM = 0.25  # share of the images that show a class, below which images with it are drawn more often
FEW_PIXELS = 0.01  # share of a class below which crops are taken around it ...
PART = 0.7  # ... where they are at most this part of an image
RESOLVED = 4  # pixels of the network's finest map across a small component
LARGE = 768  # the shorter side of images that may be shrunk to LARGEST_CROP
ENLARGED = 1.5  # scale of images whose small components the finest map does not resolve
THIN_CROP = 128  # of a UNet at full resolution, whose maps take much time and memory
WHOLE = 1536  # the longest side of images that are predicted in one piece


def choose_network(draft: Draft, facts: Fingerprint) -> Network:
    """A UNet at full resolution where most of the foreground is thin, else a feature pyramid."""
    thin = [one for one in facts.foreground if one.is_thin]
    share = sum(one.share for one in thin) / max(1e-12, sum(one.share for one in facts.foreground))
    small = facts.smallest
    if share > 0.5:
        shown = some(
            f"{one.name} ({one.width:.1f} px wide, {one.length / one.width:.0f} times as long)" for one in thin
        )
        network, why = UNET, f"a UNet keeps the full resolution: thin are {shown}, {share:.0%} of the foreground"
    else:
        network = PYRAMID
        why = f"a feature pyramid down to stride 4: {share:.0%} of the foreground is thin"
        why += f"; a quarter of the parts of '{small.name}' are below {small.side:.0f} px across"
    draft.set("recipe", network.recipe, why)
    return network


def scales(facts: Fingerprint, network: Network) -> list[tuple[float, str]]:
    """The factors by which images may be scaled, the better one first, with the reasons."""
    side, shorter, needed = facts.smallest.side, min(facts.size), RESOLVED * network.stride
    if np.isnan(side) or network is UNET:
        return [(1.0, "")]
    shrunk = LARGEST_CROP / shorter
    if shorter > LARGE and side * shrunk >= needed:
        text = f"the small parts of '{facts.smallest.name}' are {side:.0f} px across, and still {side * shrunk:.0f} px"
        return [(shrunk, f"images of {shorter} px are shrunk: {text}")]
    if side < needed and shorter * ENLARGED <= LARGE:
        text = f"the small parts of '{facts.smallest.name}' are {side:.0f} px across, {side / network.stride:.1f} px"
        return [(ENLARGED, f"{ENLARGED} times the size: {text} of the network's finest map"), (1.0, "")]
    return [(1.0, "")]


def choose_size(draft: Draft, facts: Fingerprint, network: Network, scale: float, why: str) -> None:
    """Set `resize` and `crop`."""
    draft.values.pop("resize", None)
    height, width = (round(side * scale) for side in facts.size)
    if scale != 1:
        draft.set("resize", f"{height}x{width}", why)
    if network is UNET:
        crop = [min(THIN_CROP, crop_length(side)) for side in (height, width)]
        reason = f"parts of images of {height}x{width}: thin structures need little around them"
    else:
        crop = [crop_length(0.75 * side if side >= LARGEST_CROP / 2 else side) for side in (height, width)]
        reason = f"of images of {height}x{width} (median): three quarters of a side from {LARGEST_CROP // 2} px on, "
        reason += f"at most {LARGEST_CROP}, a multiple of {STEP}"
    draft.set("crop", "x".join(map(str, crop)), reason)


def prediction(facts: Fingerprint, scale: float, crop: Sequence[int]) -> tuple[dict[str, Any], str]:
    """The `test_cfg`, and the reason: the mean with the mirror image where images are predicted in one piece."""
    if max(facts.size) * scale > WHOLE:
        window = [2 * side for side in crop]
        settings = {"mode": "slide", "crop_size": window, "stride": [side * 2 // 3 for side in window]}
        return settings, f"images of more than {WHOLE} px are predicted in windows"
    window = [WHOLE, WHOLE]
    reason = "the mean of each image's prediction and its mirror image's, for twice the time of mode slide"
    return {"mode": "slide_flip", "crop_size": window, "stride": window}, reason


def losses(facts: Fingerprint) -> tuple[Any, str]:
    """The terms of the decode head's loss, and the reason."""
    rare, largest = facts.rarest, max(facts.classes, key=lambda one: one.share)
    usual = {"type": "CrossEntropyLoss"}
    is_few = rare.share < (FEW if len(facts.classes) == 2 else RARE)
    if is_few:
        dice = {"type": "DiceLoss", "formula": "per_class", "loss_weight": 3.0}
        return [usual, dice], f"Dice beside cross-entropy: '{rare.name}' covers {rare.share:.2%} of the pixels"
    return usual, f"cross-entropy alone: the rarest class, '{rare.name}', covers {rare.share:.2%} of the pixels" + (
        f", and only the hard pixels count, as '{largest.name}' covers {largest.share:.0%}"
        if is_dominated(facts)
        else ""
    )


def is_dominated(facts: Fingerprint) -> bool:
    """Return True if most pixels are of one among several classes, none of which is rare."""
    shares = [one.share for one in facts.classes]
    return len(shares) > 2 and max(shares) > DOMINANT and min(shares) >= RARE


def choose_balance(draft: Draft, facts: Fingerprint) -> None:
    """Set `class_weight` and `rare_class_sampling` where classes need them."""
    shares = [one.share for one in facts.classes]
    present = [share for share in shares if share > 0]
    ratio = max(present) / min(present)
    if len(shares) == 2 and min(shares) < SPARSE:
        raised = round(min(MOST_SPARSE, math.sqrt(ratio)), 1)
        both = [1.0 if one is not facts.rarest else raised for one in facts.classes]
        draft.set("class_weight", both, f"else all would be background: {class_shares(facts)}")
    if len(shares) > 2 and ratio > UNEVEN and not is_dominated(facts):
        draft.set("class_weight", weights(facts.classes), f"{class_shares(facts)}: the largest has {ratio:.0f} times")
    seldom = [one for one in facts.foreground if one.shown < SELDOM]
    if seldom:
        shown = some(f"'{one.name}' in {one.shown:.0%}" for one in seldom)
        draft.set("rare_class_sampling", True, f"images with rare classes are drawn more often: {shown} of the images")


def choose_crops(draft: Draft, facts: Fingerprint, scaled: float) -> None:
    """Set `rare_class_crops` where crops would often have none of a rare class; `scaled` is the area of the images."""
    height, width = map(int, draft.values["crop"].split("x"))
    if height * width > PART * scaled * math.prod(facts.size):
        return
    rare = [one for one in facts.foreground if 0 < one.share < FEW_PIXELS]
    if rare:
        shown = some(f"'{one.name}' covers {one.share:.2%}" for one in rare)
        names = [one.name for one in rare]
        draft.set("rare_class_crops", names, f"every other crop is taken around one of them: {shown} of the pixels")


def weights(classes: Sequence[ClassShape]) -> list[float]:
    """The square root of the median of the classes' shares over each one's own, within bounds."""
    shares = np.array([one.share for one in classes])
    roots = np.sqrt(np.median(shares[shares > 0]) / np.maximum(shares, 1e-12))
    return [round(float(root), 2) for root in np.where(shares > 0, np.clip(roots, *WEIGHTS), 1.0)]


def class_shares(facts: Fingerprint) -> str:
    """The shares of the smallest and the largest class: `bicyclist 0.29%, road 31.66%`."""
    ordered = sorted((one for one in facts.classes if one.share > 0), key=lambda one: one.share)
    return ", ".join(f"{one.name} {one.share:.2%}" for one in (ordered[0], ordered[-1]))
