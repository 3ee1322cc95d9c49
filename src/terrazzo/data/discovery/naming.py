"""The rule by which the names of labels follow from those of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from os.path import commonprefix
from pathlib import PurePosixPath

from terrazzo.system.walk import file_key

MOST_KINDS = 20  # label files compared with one image
SAMPLES = 5  # images compared with them
# of several kinds of label pictures for each image, those with the first word in their ending are taken
PREFERRED_ENDINGS = ("trainids", "labelids", "")
AVOIDED_ENDINGS = ("color", "colour", "instance", "overlay", "preview", "superpixel")
SURE = 5  # pairs by which a rule that cuts a word counts
FEW = 0.05  # share of the pairs below which a rule is that of a few odd files
SEPARATORS = "_-. "

Endings = tuple[str, ...]
Stem = tuple[str, str]  # what stands before and after the part that an image and its label share


@dataclass(frozen=True)
class Rule:
    """Endings of images and of labels, None for mere suffixes, and the number of pairs that they make."""

    image: str | list[str] | None
    label: str | list[str] | None
    count: int


def naming_rule(images: Sequence[str], labels: Sequence[str]) -> Rule | None:
    """The rule that pairs at least half of the images or of the labels, by their file names; None without one."""
    if not images or not labels:
        return None
    enough = min(len(images), len(labels)) / 2
    ours, theirs = ({file_key(PurePosixPath(name).stem) for name in names} for names in (images, labels))
    if len(ours & theirs) >= enough:
        return Rule(None, None, len(ours & theirs))
    counts: dict[tuple[Stem, Stem], int] = {}
    for image, label, is_cut in candidates(sorted(ours), sorted(theirs)):
        if (image, label) in counts:
            continue
        count = len(cores(ours, image) & cores(theirs, label))
        if count >= SURE or not is_cut:
            counts[image, label] = count
    most = max(counts.values(), default=0)
    if most < max(enough, 1):
        return None
    close = [rule for rule, count in counts.items() if count >= 0.9 * most]
    image, label = min(close, key=lambda rule: (*ending_rank("".join(rule[1])), len("".join(rule[0])), rule))
    return Rule(endings(images, image), endings(labels, label), counts[image, label])


def joined(rules: Sequence[Rule]) -> Rule:
    """The rule of several folders: the endings of those that make more than a few of the pairs."""
    counts: Counter[tuple[Endings, Endings]] = Counter()
    for rule in rules:
        counts[as_tuple(rule.image), as_tuple(rule.label)] += rule.count
    kept = [ends for ends, count in counts.items() if count >= FEW * counts.total()] or list(counts)[:1]
    images, labels = (sorted({end for ends in kept for end in ends[at]}) for at in (0, 1))
    return Rule(one_or_all(images), one_or_all(labels), counts.total())


def one_or_all(ends: list[str]) -> str | list[str] | None:
    """Endings as a config names them."""
    return ends[0] if len(ends) == 1 else ends or None


def as_tuple(ends: str | list[str] | None) -> Endings:
    """Endings as a tuple, empty for mere suffixes."""
    return (ends,) if isinstance(ends, str) else tuple(ends or ())


def candidates(images: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[Stem, Stem, bool]]:
    """Rules that pair one of a few images with one of the labels whose names are most like its own.

    They say whether they cut a word or a number.
    """
    for image in images[:: max(1, len(images) // SAMPLES)]:
        for label in sorted(labels, key=lambda label: (-len(shared(image, label)), label))[:MOST_KINDS]:
            block = SequenceMatcher(None, image, label, autojunk=False).find_longest_match()
            for core in (common_start(image, label), common_end(image, label), image[block.a : block.a + block.size]):
                core = core.strip(SEPARATORS)
                if core:
                    rules = around(image, core), around(label, core)
                    yield *rules, any(cuts_word(rule, core) for rule in rules)


def common_start(first: str, second: str) -> str:
    """The beginning that two names share."""
    return commonprefix([first, second])  # noqa: RUF071 - by characters


def common_end(first: str, second: str) -> str:
    """The end that two names share."""
    return common_start(first[::-1], second[::-1])[::-1]


def shared(first: str, second: str) -> str:
    """The longer one of the beginning and the end that two names share."""
    return max(common_start(first, second), common_end(first, second), key=len)


def cuts_word(rule: Stem, core: str) -> bool:
    """Report whether a rule cuts a name inside a word or a number."""
    edges = (rule[0][-1:] + core[0], core[-1] + rule[1][:1])
    return any(len(edge) == 2 and (edge.isalpha() or edge.isdecimal()) for edge in edges)


def around(stem: str, core: str) -> Stem:
    """The text before and after a part of a name."""
    before, _, after = stem.partition(core)
    return before, after


def cores(stems: set[str], rule: Stem) -> set[str]:
    """The parts of names that a rule leaves, of those that it fits."""
    before, after = rule
    length = len(before) + len(after)
    return {
        stem[len(before) : len(stem) - len(after)]
        for stem in stems
        if len(stem) > length and stem.startswith(before) and stem.endswith(after)
    }


def ending_rank(ending: str) -> tuple[bool, int, int, str]:
    """The order in which endings of labels are preferred, the best one first."""
    avoided = any(word in ending for word in AVOIDED_ENDINGS)
    preferred = next(index for index, word in enumerate(PREFERRED_ENDINGS) if word in ending)
    return avoided, preferred, len(ending), ending


def endings(names: Sequence[str], rule: Stem) -> str | list[str] | None:
    """The ends of file names that a rule fits, as they are written; with `*` where it sets their beginning too."""
    before, after = rule
    if not before and not after:
        return None
    found = set()
    for name in names:
        path = PurePosixPath(name)
        if cores({file_key(path.stem)}, rule):
            end = name[len(path.stem) - len(after) :]
            found.add(f"{name[: len(before)]}*{end}" if before else end)
    return found.pop() if len(found) == 1 else sorted(found)
