"""Findings on scenes whose windows are samples, beyond those that make them unusable (see data.scenes)."""

from __future__ import annotations

from collections.abc import Iterator

from terrazzo.data.checks.finding import Finding, percent, such_as
from terrazzo.data.checks.survey import SplitSurvey
from terrazzo.errors import some

LITTLE = 0.5  # of a scene that its label covers


def scene_findings(split: SplitSurvey) -> Iterator[Finding]:
    """Advice on labels and scenes in other coordinate reference systems, and on labels of a small part."""
    for part in split.parts:
        if part.dataset.scenes is None:
            continue
        facts = [one.facts for one in part.dataset.scenes.glances.values()]
        systems = dict.fromkeys(one.crs for one in facts)
        if len(systems) > 1:
            named = some(name or "none" for name in systems)
            text = (
                f"the scenes are in {len(systems)} coordinate reference systems ({named}): each is read in its own, "
                "at its own pixel size (`resolution` in the data section gives all the same)"
            )
            yield part.finding("other-crs", text, files=[one.image for one in facts])
        warped = [one for one in facts if one.form == "warped"]
        if warped:
            text = (
                f"{len(warped)} of {len(facts)} labels have another coordinate reference system, pixel size or extent "
                f"than their scene ({such_as([one.label for one in warped if one.label])}): they are warped to it by "
                "nearest neighbour"
            )
            yield part.finding("other-crs", text, files=[one.label for one in warped])
        assumed = [one for one in facts if one.form == "assumed"]
        if assumed:
            text = (
                f"{len(assumed)} of {len(facts)} labels have no coordinate reference system "
                f"({such_as([one.label for one in assumed if one.label])}): they have the size of their scenes, and "
                "are taken to lie on them pixel by pixel"
            )
            yield part.finding("other-crs", text, files=[one.label for one in assumed])
        partly = [one for one in facts if one.covered < LITTLE]
        if partly:
            rest = "has no polygon" if partly[0].form == "polygons" else "is ignored"
            text = (
                f"the label {partly[0].label} covers {percent(partly[0].covered, 1)} of its image {partly[0].image}; "
                f"the rest {rest}"
            )
            more = f" (and so do {len(partly) - 1} more)" if len(partly) > 1 else ""
            yield part.finding("partly-labelled", text + more, files=[one.image for one in partly])
