"""The scores of Cityscapes' own evaluation script."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.data.converters.cityscapes import CLASS_IDS as IDS
from terrazzo.errors import UserError
from terrazzo.metrics.base import Metric, Seen, percent
from terrazzo.registry import METRICS
from terrazzo.system.extras import import_extra

SHOWN = {
    "averageScoreClasses": "official_IoU",
    "averageScoreInstClasses": "official_iIoU",
    "averageScoreCategories": "official_category_IoU",
    "averageScoreInstCategories": "official_category_iIoU",
}


@METRICS.register(name="cityscapes")
class CityscapesScript(Metric):
    """The scores of the package `cityscapesscripts`, computed from prediction files in a temporary folder.

    It reads `*_gtFine_labelIds.png` beside the labels, and `*_instanceIds.png` for the iIoU. Raises UserError where the
    package or these files are missing, and for other classes than the 19.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        if len(classes) != len(IDS):
            raise UserError(f"the metric cityscapes needs its {len(IDS)} classes, but there are {len(classes)}")
        script()
        self.folder = tempfile.TemporaryDirectory(prefix="terrazzo-")
        self.pairs: list[tuple[str, str]] = []  # files of predictions and of labels

    def update(self, seen: Seen) -> None:
        truth = label_ids(seen.label_path)
        path = Path(self.folder.name) / f"{len(self.pairs):06d}.png"
        ids = np.array(IDS, np.uint8)[seen.prediction.cpu().numpy()]
        path.write_bytes(cv2.imencode(".png", ids)[1].tobytes())
        self.pairs.append((str(path), str(truth)))

    def compute(self) -> dict[str, Any]:
        official = script()
        possible = hasattr(np, "in1d")  # the script calls it, but newer NumPy lacks it
        instances = possible and all(
            Path(truth.replace("_labelIds", "_instanceIds")).exists() for _, truth in self.pairs
        )
        official.args.evalInstLevelScore, official.args.quiet, official.args.JSONOutput = instances, True, False
        predictions, truths = zip(*self.pairs, strict=True)
        scores = official.evaluateImgLists(list(predictions), list(truths), official.args)
        self.folder.cleanup()
        return {name: percent(scores[key]) for key, name in SHOWN.items() if instances or "Inst" not in key}


def script() -> Any:
    """Import the official script. Raises UserError where it is not installed."""
    module = "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
    return import_extra(module, "eval", "scores of the metric cityscapes")


def label_ids(path: Path | None) -> Path:
    """Return the file of ids for a label file of train ids."""
    name = "" if path is None else path.name
    found = None if path is None else path.with_name(name.replace("_labelTrainIds", "_labelIds"))
    if found is None or not name.endswith(("_labelTrainIds.png", "_labelIds.png")) or not found.exists():
        raise UserError(f"the metric cityscapes reads *_gtFine_labelIds.png; there is none beside {path}")
    return found
