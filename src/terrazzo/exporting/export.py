"""Exports of models, which are compared with the original before anything is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.errors import UserError, nearest
from terrazzo.exporting.formats import FOLDERS, SUFFIXES, format_named, tiled
from terrazzo.exporting.gate import Check, Comparison
from terrazzo.exporting.graph import OUTPUTS
from terrazzo.exporting.plan import Plan, make_plan
from terrazzo.inference.exported_model import ExportedModel
from terrazzo.inference.load import CARD, STREET, load
from terrazzo.inference.segmenter import Segmenter
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.files import make_folder, rename_durably, write_whole

SIZES = ((128, 192), (131, 97), (224, 224), (145, 259))  # of the images that every export is compared on
AGREEMENT = 0.999  # of labels, below which an export in single precision is refused
DISTANCE = 0.05  # of logits, in their deviations, above which it is refused: rounding makes less than 0.002 of it


@dataclass(frozen=True)
class ExportReport:
    """The files written, and their comparison with the original."""

    path: Path
    target: str
    precision: str
    bytes: int
    parity: dict[str, Any]
    comparison: Comparison | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.target}, {self.precision}, {self.bytes / 1e6:.1f} MB"]
        labels = min(row["labels"] for row in self.parity.values())
        lines.append(
            f"same labels as the original on {100 * labels:.3f}% of pixels or more, at {len(self.parity)} sizes"
        )
        if self.comparison is not None:
            before, after = self.comparison.original["mIoU"], self.comparison.exported["mIoU"]
            low, high = self.comparison.drop["mIoU"]
            lines.append(
                f"mIoU on {self.comparison.images} validation images: {before:.2f} -> {after:.2f} (95% interval of the "
                f"drop: {low:.2f} to {high:.2f})"
            )
        return "\n".join(lines + self.notes)


def export(
    model: Any = None,
    path: str | Path | None = None,
    *,
    config: Any = None,
    to: str | None = None,
    size: Sequence[int] | None = None,
    outputs: Sequence[str] = ("labels",),
    check: Any = None,
    max_drop: float = 0.5,
    ort_web: str | Path | None = None,
    reader: str | None = None,
    resolution: float | None = None,
    trust: bool = False,
    weights: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write a model as one file or folder that runs without terrazzo: images (N, H, W, C) in, class maps (N, H, W) out.

    `model` is anything that `tz.load` takes (None: the embedded one), `config` that of a checkpoint without one. `to`
    is "onnx", "openvino", "torch" or "html" (a page that runs the model in the browser, with the package
    onnxruntime-web at `ort_web` or in the cache), by default what the suffix of `path` says; or "bundle" (a folder that
    runs without terrazzo) or "triton" (a model repository), whose `path` is a folder. `size` (height, width) is that of
    all images, any if None. With `check`, a config, the result is scored on its validation set: a drop that may be
    above `max_drop` points of mIoU, or 2 of a class, is refused. Raises UserError for that and for whatever cannot be
    exported; then nothing is written.

    The `reader` "deepness" gets the ONNX file that Deepness and geodeep read, for maps of this `resolution` in
    centimetres per pixel, with tiles of `size`.
    """
    if path is None:
        path = FOLDERS.get(to or "") or f"model{SUFFIXES.get(to or '', '.onnx')}"
    path = Path(path).absolute() if to in FOLDERS else Path(path)
    target = format_of(path, to)
    if resolution is not None and reader is None:
        raise UserError("--resolution is for --for deepness, whose files state it")
    writer = format_named(target, ort_web) if reader is None else tiled(reader, target, resolution)
    for name in outputs:
        if name not in OUTPUTS:
            raise UserError(f"outputs: there is no '{name}'{nearest(name, OUTPUTS)}; they are {', '.join(OUTPUTS)}")
    say = on_step or (lambda text: None)

    # The model as it is
    say("loading the model")
    segmenter = model if isinstance(model, Segmenter) else loaded(model, config, trust, weights)
    licence = (
        CARD.read_text(encoding="utf-8").partition("**Licence**: ")[2].strip()
        if segmenter.source == STREET.name
        else ""
    )
    names = ["labels", *(name for name in outputs if name != "labels")]
    plan = writer.adapt(make_plan(segmenter, names, size, licence))
    gate = None
    if check is not None:
        say("scoring the original")
        gate = Check(check, plan.graph.model, segmenter.classes)

    # The file, in a folder beside its place until it has passed
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        trial = make_folder(Path(folder) / "trial")
        say(f"exporting to {target}")
        model = writer.make(plan, trial)
        exported = writer.open(model, plan.facts, trial)
        say("comparing with the original")
        parity = measure_parity(plan, exported)
        refuse_unlike(parity)
        comparison = None
        if gate is not None:
            say("scoring the export")
            comparison = gate.compare(exported)
            if failures := comparison.failures(max_drop):
                raise UserError("the export is worse than the original, so it was not written: " + "; ".join(failures))
        say("writing")
        whole = make_folder(Path(folder) / "whole")
        writer.save(model, replace(plan.facts, parity=parity), whole / path.name)
        # an .xml file comes after its .bin
        files = sorted((item for item in whole.rglob("*") if item.is_file()), reverse=True)
        size_of_all = sum(file.stat().st_size for file in files)
        report = ExportReport(
            path, target, plan.facts.precision, size_of_all, parity, comparison, writer.notes(plan.facts)
        )
        for file in files:
            place = path.parent / file.relative_to(whole)
            make_folder(place.parent)
            rename_durably(file, place)
    write_whole(path.with_name(f"{path.name}.report.json"), json.dumps(asdict(report), indent=1, default=str))
    return report


def loaded(model: Any, config: Any, trust: bool, weights: str | None) -> Segmenter:
    """The Segmenter of a file, or of a config with a checkpoint."""
    if config is not None:
        return load(config, model, "cpu", trust=trust, weights=weights)
    return load(model, device="cpu", trust=trust, weights=weights)


def format_of(path: Path, to: str | None) -> str:
    """The format to write: as asked for, or as the suffix of a path says. Raises UserError where they differ."""
    suffixes = {suffix: name for name, suffix in SUFFIXES.items()}
    suffix = path.suffix.lower()
    if to is None:
        if suffix not in suffixes:
            raise UserError(
                f"{path}: the suffix names no format: use {', '.join(suffixes)}, or --to {' or '.join(FOLDERS)}"
            )
        return suffixes[suffix]
    if to not in (*SUFFIXES, *FOLDERS):
        known = (*SUFFIXES, *FOLDERS)
        raise UserError(f"--to: '{to}' is unknown{nearest(to, known)}; give one of {', '.join(known)}")
    if to in FOLDERS and (suffix in suffixes or path.is_file()):
        raise UserError(f"--to {to} writes a folder, not {path}")
    if to in SUFFIXES and suffix != SUFFIXES[to]:
        raise UserError(f"--to {to} writes a {SUFFIXES[to]} file, not {path}")
    return to


def measure_parity(plan: Plan, exported: ExportedModel) -> dict[str, Any]:
    """The share of equal labels, and the largest difference of logits in deviations of the original's, at each size."""
    found = {}
    graph = plan.graph.with_logits()
    for number, (height, width) in enumerate([plan.facts.size] if plan.facts.size else SIZES):
        images = blocks(1 + number % 2, height, width, plan.facts.bands).astype(plan.facts.image_type)
        with torch.inference_mode():
            values = graph(torch.from_numpy(images))
            labels, logits = (values[graph.outputs.index(name)].numpy() for name in ("labels", "logits"))
        session = exported.runtime.session
        same = float((session.run(images, "labels") == labels).mean())
        distance = float(np.abs(session.run(images, "logits") - logits).max() / max(float(logits.std()), 1e-12))
        found[f"{height}x{width}"] = {"images": len(images), "labels": same, "logits": distance}
    return found


def blocks(count: int, height: int, width: int, bands: int) -> np.ndarray:
    """Images (count, height, width, bands) of random blocks of 8 x 8 pixels."""
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (count, ceil_div(height, 8), ceil_div(width, 8), bands), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(8, 1).repeat(8, 2)[:, :height, :width])


def refuse_unlike(parity: dict[str, Any]) -> None:
    """Raise UserError where a file in single precision gives other results than the original."""
    for size, row in parity.items():
        if row["labels"] < AGREEMENT or not row["logits"] <= DISTANCE:
            raise UserError(
                f"at {size} the export gives the original's labels on {100 * row['labels']:.2f}% of pixels, and logits "
                f"{row['logits']:.2g} deviations away, so it was not written; please report this with the config"
            )
