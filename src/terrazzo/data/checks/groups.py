"""Images that belong together, such as frames of a film or the eyes of a patient, by their names and their looks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from terrazzo.data.checks.overlap import ALIKE, BLOCK, look_features
from terrazzo.data.checks.survey import Entry

MEMBER = re.compile(r"[\W_]*(\d+|(?<=\d)[A-Za-z])$")  # what tells the members of a group apart: 0001TP_006690, eye_07L
LEAST_GROUPS = 3
LARGEST = 0.5  # share of the images: a split cannot keep a larger group together
GROUPED = 0.5  # share of the images that are not alone in their group, where names tell the groups


def groups_by_name(names: Sequence[str]) -> list[str] | None:
    """The group of each image by its name without its last number or letter; None where names tell no groups."""
    groups = [MEMBER.sub("", PurePosixPath(name).with_suffix("").as_posix()) for name in names]
    counts = Counter(groups)
    together = sum(count for count in counts.values() if count > 1)
    fits = len(counts) >= LEAST_GROUPS and max(counts.values()) <= LARGEST * len(names)
    return groups if fits and together >= GROUPED * len(names) else None


def alike(entries: Sequence[Entry]) -> np.ndarray:
    """Pairs (n, 2) of the numbers of different entries that look nearly the same."""
    seen = [index for index, entry in enumerate(entries) if entry.seen.look]
    if not seen:
        return np.zeros((0, 2), np.int64)
    features = look_features([entries[index] for index in seen])
    found = []
    for first in range(0, len(seen), BLOCK):
        rows, columns = np.nonzero(features[first : first + BLOCK] @ features.T > ALIKE)
        rows += first
        found.append(np.stack([rows, columns], axis=1)[rows < columns])
    return np.asarray(seen)[np.concatenate(found)]


def groups_of(names: Sequence[str], pairs: np.ndarray) -> tuple[list[str], str] | None:
    """The group of each image, named after its first one, by names and by pairs that look alike; and the reason.

    None where every image stands alone, or most would be in one group.
    """
    named = groups_by_name(names)
    links = [pairs]
    if named is not None:
        first = {group: named.index(group) for group in dict.fromkeys(named)}
        links.append(np.array([(first[group], index) for index, group in enumerate(named)]))
    together = np.concatenate(links)
    graph = coo_array((np.ones(len(together)), (together[:, 0], together[:, 1])), shape=(len(names), len(names)))
    count, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    if count == len(names) or sizes.max() > LARGEST * len(names):
        return None
    leaders = {int(label): name for name, label in reversed(list(zip(names, labels, strict=True)))}
    reason = f"{count} groups of {len(names)} images stay together: {len(pairs)} pairs look nearly the same"
    reason += ", and names begin alike" if named is not None else ""
    return [leaders[int(label)] for label in labels], reason
