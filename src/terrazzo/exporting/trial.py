"""Files on trial: each precision is made, run and compared with the original until one passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.errors import UserError
from terrazzo.exporting.formats import Format
from terrazzo.exporting.gate import Check, Comparison
from terrazzo.exporting.plan import Plan, one_size
from terrazzo.exporting.precision import Attempt
from terrazzo.exporting.sensitivity import layer_errors
from terrazzo.inference.exported_model import ExportedModel
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.files import make_folder

SIZES = ((128, 192), (131, 97), (224, 224), (145, 259))  # of the images that every export is compared on
AGREEMENT = 0.999  # of labels, below which an export in single precision is refused
DISTANCE = 0.05  # of logits, in their deviations, above which it is refused: rounding makes less than 0.002 of it
UNSCORED = 0.95  # of labels, below which another precision is refused where there is no labelled image
COMPARED = 8  # training images


@dataclass(frozen=True)
class Candidate:
    """A made model that passed, as its users will run it."""

    plan: Plan
    model: Any
    exported: ExportedModel
    parity: dict[str, Any]
    comparison: Comparison | None

    def stated(self) -> dict[str, Any]:
        """The agreement with the original, as the file states it."""
        scored = self.comparison
        if scored is None:
            return self.parity
        one = {"images": scored.images, "mIoU": [scored.original["mIoU"], scored.exported["mIoU"]]}
        return self.parity | {"validation": one | {"drop": list(scored.drop["mIoU"])}}


@dataclass
class Trial:
    """The original, and what files made of it are compared on; `refused` collects the reasons of those that failed."""

    writer: Format
    plan: Plan
    images: Sequence[np.ndarray]  # for calibration
    gate: Check | None
    max_drop: float
    folder: Path
    say: Callable[[str], None]
    refused: dict[str, list[str]] = field(default_factory=dict)

    def first_that_passes(self, attempts: Sequence[Attempt]) -> Candidate:
        """The first candidate that is as good as the original. Raises UserError where there is none."""
        for number, attempt in enumerate(attempts):
            self.say(f"exporting in {attempt}")
            folder = make_folder(self.folder / str(number))
            try:
                plan, model = self.make(attempt, folder)
                exported = self.writer.open(model, plan.facts, folder)
                candidate = self.compared(plan, model, exported)
            except UserError as problem:
                if len(attempts) == 1:
                    raise
                self.refused[str(attempt)] = [str(problem)]
                continue
            if candidate.comparison is None or not (failures := candidate.comparison.failures(self.max_drop)):
                return candidate
            self.refused[str(attempt)] = failures
        raise UserError(
            "the export is worse than the original, so it was not written: "
            + "; ".join(f"in {name}: {'; '.join(reasons)}" for name, reasons in self.refused.items())
            + ("" if len(attempts) > 1 else "; --precision auto takes the first precision that passes")
        )

    def make(self, attempt: Attempt, folder: Path) -> tuple[Plan, Any]:
        """The model at a precision, with the plan that describes it."""
        if attempt.precision != "int8":
            plan = self.plan.at(attempt.precision)
            return plan, self.writer.make(plan, folder)
        assert self.writer.quantize is not None
        left_out = []
        if attempt.left_out:
            errors = layer_errors(self.plan.graph, self.images[:COMPARED])
            left_out = list(errors)[: ceil_div(round(100 * attempt.left_out) * len(errors), 100)]
        made_of = {"calibration_images": len(self.images), "left_out": left_out}
        plan = self.plan.at("int8", **made_of)
        return plan, self.writer.quantize(plan, self.images, left_out, folder)

    def compared(self, plan: Plan, model: Any, exported: ExportedModel) -> Candidate:
        """The candidate beside the original. Raises UserError for one that is plainly another model."""
        self.say("comparing with the original")
        precision = plan.facts.precision
        if precision == "int8":
            parity = {"training images": agreement(self.plan, exported, self.images[:COMPARED])}
        else:
            parity = {
                f"{height}x{width}": agreement(self.plan, exported, [images])
                for (height, width), images in random_images(self.plan)
            }
        refuse_unlike(parity, precision, self.gate is not None, one_size(plan.facts.size))
        if self.gate is None:
            return Candidate(plan, model, exported, parity, None)
        self.say(f"scoring the export in {precision}")
        return Candidate(plan, model, exported, parity, self.gate.compare(exported))


def agreement(plan: Plan, exported: ExportedModel, groups: Sequence[np.ndarray]) -> dict[str, Any]:
    """The share of equal labels on images (N, H, W, C), and the largest difference of logits in deviations."""
    graph, session = plan.graph.with_logits(), exported.runtime.session
    same, distance = [], []
    for images in groups:
        with torch.inference_mode():
            values = graph(torch.from_numpy(images))
            labels, logits = (values[graph.outputs.index(name)].numpy() for name in ("labels", "logits"))
        same.append(float((session.run(images, "labels") == labels).mean()))
        distance.append(float(np.abs(session.run(images, "logits") - logits).max() / max(float(logits.std()), 1e-12)))
    return {"images": sum(map(len, groups)), "labels": float(np.mean(same)), "logits": float(np.max(distance))}


def random_images(plan: Plan) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Images of random blocks at the sizes of every comparison, or at the only size that a graph takes."""
    sizes = [(plan.facts.size[0], plan.facts.size[1])] if plan.facts.size else SIZES
    return [
        ((height, width), blocks(1 + number % 2, height, width, plan.facts.bands).astype(plan.facts.image_type))
        for number, (height, width) in enumerate(sizes)
    ]


def blocks(count: int, height: int, width: int, bands: int) -> np.ndarray:
    """Images (count, height, width, bands) of random blocks of 8 x 8 pixels."""
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (count, ceil_div(height, 8), ceil_div(width, 8), bands), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(8, 1).repeat(8, 2)[:, :height, :width])


def refuse_unlike(parity: dict[str, Any], precision: str, scored: bool, advice: str = "") -> None:
    """Raise UserError, with advice, where a file in single precision gives other results than the original.

    In another precision, where a file is not scored, few equal labels are refused.
    """
    for place, row in parity.items():
        if precision == "f32" and (row["labels"] < AGREEMENT or not row["logits"] <= DISTANCE):
            raise UserError(
                f"at {place} the export gives the original's labels on {100 * row['labels']:.2f}% of pixels, and "
                f"logits {row['logits']:.2g} deviations away, so it was not written{advice}; "
                "please report this with the config"
            )
        if precision != "f32" and not scored and row["labels"] < UNSCORED:
            raise UserError(
                f"in {precision} the export gives the original's labels on {100 * row['labels']:.2f}% of the pixels of "
                f"{place}, so it was not written; --check CONFIG with --precision auto takes the first that is as good"
            )
