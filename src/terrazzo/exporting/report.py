"""The report beside an exported file: JSON, and a page with pictures of the worst differences."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.exporting.gate import Comparison
from terrazzo.viz.report import Cell, write_report


@dataclass(frozen=True)
class ExportReport:
    """The files written, their comparison with the original, and the precisions that were refused before."""

    path: Path
    target: str
    precision: str
    bytes: int
    parity: dict[str, Any]
    comparison: Comparison | None = None
    left_out: list[str] = field(default_factory=list)  # layers of an int8 network that stay in f32
    refused: dict[str, list[str]] = field(default_factory=dict)  # precision: what was worse than allowed
    notes: list[str] = field(default_factory=list)  # what a user may miss

    def __str__(self) -> str:
        kept = f" ({len(self.left_out)} layers in f32)" if self.left_out else ""
        lines = [f"{precision} was refused: {'; '.join(reasons)}" for precision, reasons in self.refused.items()]
        lines.append(f"{self.path}: {self.target}, {self.precision}{kept}, {self.bytes / 1e6:.1f} MB")
        labels = 100 * min(row["labels"] for row in self.parity.values())
        where = "training images" if self.precision == "int8" else f"random images of {len(self.parity)} sizes"
        lines.append(f"same labels as the original on {labels:.3f}% of the pixels of {where}")
        if self.comparison is not None:
            lines.append(f"mIoU on {self.comparison.images} validation images: {self.comparison}")
        elif self.precision != "f32":
            lines.append("not scored: give --check CONFIG to refuse a file that is worse on labelled images")
        return "\n".join(lines + self.notes)


def write_reports(
    report: ExportReport, folder: Path, pictures: list[list[tuple[str, np.ndarray]]], palette: Any
) -> None:
    """Write the report into a folder: `NAME.report.json`, and `NAME.report.html` where images were scored."""
    name = report.path.name
    content = json.dumps(asdict(report), indent=1, default=str)
    (folder / f"{name}.report.json").write_text(content, encoding="utf-8")
    scored = report.comparison
    if scored is None:
        return
    low, high = scored.drop["mIoU"]
    summary = [
        ("mIoU of the original", f"{scored.original['mIoU']:.2f}"),
        (f"mIoU in {report.precision}", f"{scored.exported['mIoU']:.2f}"),
        ("drop, 95% interval", f"{low:+.2f} to {high:+.2f}"),
        ("validation images", str(scored.images)),
        ("file size", f"{report.bytes / 1e6:.1f} MB"),
    ]
    table: list[dict[str, Cell]] = [
        {
            "class": label,
            "original": scored.original[label],
            "exported": scored.exported[label],
            "drop, 95% interval": "{:+.2f} to {:+.2f}".format(*scored.drop[label]),
        }
        for label in scored.original
        if label != "mIoU"
    ]
    colours = dict(zip(scored.classes, palette, strict=True))
    subtitle = f"{report.target}, {report.precision}. " + " ".join(
        f"Refused before: {precision} ({'; '.join(reasons)})." for precision, reasons in report.refused.items()
    )
    write_report(
        folder / f"{name}.report.html",
        name,
        summary,
        table=table,
        pictures=pictures,
        subtitle=subtitle,
        palette=colours,
    )
