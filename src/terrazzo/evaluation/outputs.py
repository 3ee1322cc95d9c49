"""What an evaluation leaves behind besides its scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.evaluation.gallery import Gallery
from terrazzo.evaluation.submission import SubmissionWriter
from terrazzo.metrics import Seen
from terrazzo.sample import Sample
from terrazzo.system.files import make_folder, write_whole
from terrazzo.viz.chart import line_chart
from terrazzo.viz.matrix import matrix_csv, matrix_picture


class Outputs:
    """Files of one evaluation: metrics and reliability plot, confusion matrix, gallery, or what a server wants.

    `start`, `write` and `see` are called by `evaluate`; `finish` says where everything went.
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
        """What is known before the first image: without an evaluator, predictions are for a server."""
        self.evaluator = evaluator
        if evaluator is None:
            folder = self.out or (make_folder(Path(output_dir)) if output_dir else None)
            if folder is None:
                raise UserError("to write what a server wants, say where: --out D, or test_evaluator.output_dir")
            self.submission = SubmissionWriter(dataset.leaves()[0].spec.name, folder)
        elif evaluator.target == "label" and self.gallery_folder is not None:
            self.gallery = Gallery(self.gallery_folder, dataset.classes, dataset.palette, dataset.read_image)
        if (self.confusion or self.gallery_folder) and getattr(evaluator, "target", "") != "label":
            raise UserError("a confusion matrix and a gallery are of class maps that are scored")

    def write(self, batch: Any, maps: list[Any], classes: Any, palette: Any) -> None:
        if self.submission is not None:
            self.submission.write(batch, maps, classes, palette)

    def see(self, sample: Sample, seen: Seen) -> None:
        if self.gallery is not None:
            self.gallery.add(sample, seen)

    def finish(self, result: dict[str, Any]) -> list[str]:
        """Write what is written at the end; lines that say what is where."""
        lines = []
        if self.submission is not None:
            form, folder = self.submission.form, self.submission.folder
            lines.append(f"{len(self.submission.written)} files ({form.about}): {folder}")
        elif self.out is not None:
            text = json.dumps(result, indent=1)
            write_whole(self.out / "metrics.json", text)
            lines.append(f"class maps and metrics: {self.out}")
            if "reliability" in result:
                lines.append(f"reliability plot: {write_reliability(self.out / 'reliability.svg', result)}")
        if self.confusion is not None:
            lines.append(f"confusion matrix: {', '.join(map(str, self.write_confusion(self.confusion)))}")
        if self.gallery is not None:
            lines.append(f"worst images: {self.gallery.write()}")
        return lines

    def write_confusion(self, path: Path) -> tuple[Path, Path]:
        """The matrix as a table and as a picture."""
        counts, classes = self.evaluator.confusion.counts.cpu().numpy(), self.evaluator.classes
        table = matrix_csv(counts, classes)
        write_whole(path, table)
        picture = path.with_suffix(".png")
        data = cv2.imencode(".png", np.ascontiguousarray(matrix_picture(counts, classes)[..., ::-1]))[1].tobytes()
        write_whole(picture, data)
        return path, picture


def write_reliability(path: Path, result: dict[str, Any]) -> Path:
    """The accuracy of pixels by their confidence, beside what a calibrated model would show."""
    points = [(row["confidence"], row["accuracy"]) for row in result["reliability"]]
    title = f"Reliability: ECE {result['ECE']:.2f}%"
    chart = line_chart({"model": points, "calibrated": [(0, 0), (100, 100)]}, title, "confidence, %", "accuracy, %")
    write_whole(path, chart)
    return path
