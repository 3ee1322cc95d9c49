"""The files that an evaluation writes besides its scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.evaluation.gallery import Gallery
from terrazzo.evaluation.submission import SubmissionWriter
from terrazzo.metrics import Seen
from terrazzo.sample import Batch, Sample
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.painting import save_picture
from terrazzo.viz.chart import line_chart
from terrazzo.viz.matrix import matrix_csv, matrix_picture


class Outputs:
    """Files of one evaluation: metrics and reliability plot, confusion matrix, gallery, or a server's submission.

    `evaluate` calls `start`, `write` and `see`; `finish` reports where everything is.
    """

    def __init__(
        self, out: str | Path | None = None, confusion: str | Path | None = None, gallery: str | Path | None = None
    ) -> None:
        self.out = make_folder(Path(out)) if out else None
        self.confusion = Path(confusion) if confusion else None
        if self.confusion is not None:
            make_folder(self.confusion.parent)
        self.gallery_folder = make_folder(Path(gallery)) if gallery else None
        self.gallery: Gallery | None = None
        self.submission: SubmissionWriter | None = None
        self.evaluator: Any = None

    def start(self, dataset: Any, evaluator: Any, output_dir: str | None) -> None:
        """Prepare for the first image; without an evaluator, predictions are for a server."""
        self.evaluator = evaluator
        if evaluator is None:
            folder = self.out or (make_folder(Path(output_dir)) if output_dir else None)
            if folder is None:
                raise UserError("a submission needs a folder to be written to: --out D, or test_evaluator.output_dir")
            images = [leaf.pairs[index][0] for leaf, index in dataset.origins()]
            self.submission = SubmissionWriter(dataset.leaves()[0].spec.name, folder, images)
        elif evaluator.target == "label" and self.gallery_folder is not None:
            self.gallery = Gallery(self.gallery_folder, dataset.classes, dataset.palette, dataset.read_image)
        if (self.confusion or self.gallery_folder) and getattr(evaluator, "target", "") != "label":
            raise UserError("a confusion matrix and a gallery need class maps that are scored")

    def write(self, batch: Batch, maps: list[Tensor], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        """Add the predictions of one batch to a submission."""
        if self.submission is not None:
            self.submission.write(batch, maps, classes, palette)

    def see(self, sample: Sample, seen: Seen) -> None:
        """Add a scored image to the gallery."""
        if self.gallery is not None:
            self.gallery.add(sample, seen)

    def finish(self, result: dict[str, Any]) -> list[str]:
        """Write what needs all images, and return lines that name every output."""
        lines = []
        if self.submission is not None:
            form, folder = self.submission.form, self.submission.folder
            lines.append(f"{len(self.submission.names)} files ({form.about}): {folder}")
        elif self.out is not None:
            write_whole(self.out / "metrics.json", json.dumps(result, indent=1))
            lines.append(f"class maps and metrics: {self.out}")
            if "reliability" in result:
                lines.append(f"reliability plot: {write_reliability(self.out / 'reliability.svg', result)}")
        if self.confusion is not None:
            lines.append(f"confusion matrix: {', '.join(map(str, self.write_confusion(self.confusion)))}")
        if self.gallery is not None:
            lines.append(f"worst images: {self.gallery.write()}")
        return lines

    def write_confusion(self, path: Path) -> tuple[Path, Path]:
        """Write the matrix as a table and as a picture."""
        counts, classes = self.evaluator.confusion.counts.cpu().numpy(), self.evaluator.classes
        write_whole(path, matrix_csv(counts, classes))
        save_picture(path.with_suffix(".png"), matrix_picture(counts, classes))
        return path, path.with_suffix(".png")


def write_reliability(path: Path, result: dict[str, Any]) -> Path:
    """Plot the accuracy of pixels by their confidence, and that of a calibrated model."""
    points = [(row["confidence"], row["accuracy"]) for row in result["reliability"]]
    title = f"Reliability: ECE {result['ECE']:.2f}%"
    chart = line_chart({"model": points, "calibrated": [(0, 0), (100, 100)]}, title, "confidence, %", "accuracy, %")
    write_whole(path, chart)
    return path
