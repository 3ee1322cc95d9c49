"""Findings on images that are in two splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from terrazzo.data.checks.facts import LOOK
from terrazzo.data.checks.finding import Finding
from terrazzo.data.checks.survey import Entry, SplitSurvey

# How alike two images look, from 0 to 1. Among 468 CamVid frames and 40 retina photographs, frames in a row reach 0.97,
# different photographs of one kind at most 0.93; recompressed, rescaled and brighter copies 0.97 to 1.
ALIKE = 0.945
# Copies of small or noisy pictures come out lower, but clearly apart: none of the others is nearly as close.
STANDS_OUT = 0.6
CLOSER = 0.3  # the distance from 1, in that of the fourth in the row
FOURTH = 4
BLOCK = 1024  # images compared at once


def overlap_findings(train: SplitSurvey, other: SplitSurvey) -> Iterator[Finding]:
    """Images of `other` that are training images, exactly or nearly."""
    known = {entry.seen.digest: entry for entry in train.entries if entry.seen.digest}
    pairs = [(entry, known[entry.seen.digest]) for entry in other.entries if entry.seen.digest in known]
    if pairs:
        yield copies(train, other, pairs)
    copied = {id(entry) for entry, _ in pairs}
    nearly = near_duplicates(train.entries, [entry for entry in other.entries if id(entry) not in copied])
    if nearly:
        first, twin = nearly[0]
        text = (
            f"{len(nearly)} of {len(other.entries)} {other.name} images look nearly like training images: "
            f"{first.image} like {twin.image}"
        )
        yield other.parts[0].finding("near-duplicate", text, files=[entry.image for entry, _ in nearly])


def copies(train: SplitSurvey, other: SplitSurvey, pairs: Sequence[tuple[Entry, Entry]]) -> Finding:
    first, twin = pairs[0]
    is_same = first.image.resolve() == twin.image.resolve()
    how = f"{first.image} is in both" if is_same else f"{first.image} is {twin.image}"
    twins = {id(entry) for _, entry in pairs}
    digests = {entry.seen.digest for _, entry in pairs}
    part = next(part for part in train.parts if any(id(entry) in twins for entry in part.entries))
    doubled = [entry.image for entry in part.entries if entry.seen.digest in digests]
    text = (
        f"{len(pairs)} of {len(other.entries)} {other.name} images are exact copies of training images: {how}. Scores "
        "on them would mean nothing"
    )
    changes = {} if is_same else part.without(doubled)
    found = part.finding("train-val-copy", text, files=[entry.image for entry, _ in pairs], changes=changes)
    return replace(found, split=other.name)


def near_duplicates(train: Sequence[Entry], other: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Pairs of an entry of `other` and the training entry that looks most like it, the most alike first."""
    train, other = ([entry for entry in side if entry.seen.look] for side in (train, other))
    if not train or not other:
        return []
    features = look_features(train)
    found = []
    for first in range(0, len(other), BLOCK):
        block = other[first : first + BLOCK]
        alike = look_features(block) @ features.T  # block, train
        for entry, row in zip(block, alike, strict=True):
            if is_near(row):
                found.append((float(row.max()), entry, train[int(row.argmax())]))
    found.sort(key=lambda item: -item[0])
    return [(entry, twin) for _, entry, twin in found]


def is_near(row: np.ndarray) -> bool:
    """Return True if the most alike of several images is nearly the same one."""
    best = float(row.max())
    if best > ALIKE or best < STANDS_OUT or len(row) < FOURTH:
        return best > ALIKE
    return 1 - best < CLOSER * (1 - float(np.partition(row, -FOURTH)[-FOURTH]))


def look_features(entries: Sequence[Entry]) -> np.ndarray:
    """Unit vectors of local contrast (entries, LOOK * LOOK), whose products measure how alike images are.

    Brightness and contrast fall out; flat surfaces count for little.
    """
    features = np.empty((len(entries), LOOK * LOOK), np.float32)
    for row, entry in zip(features, entries, strict=True):
        look = np.frombuffer(entry.seen.look, np.uint8).reshape(LOOK, LOOK).astype(np.float32)
        detail = look - cv2.GaussianBlur(look, (0, 0), 2)
        detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 2) + 4)
        row[:] = detail.ravel() - detail.mean()
    return features / np.sqrt((features**2).sum(axis=1, keepdims=True) + 1)
