"""Exports of models, which are compared with the original before anything is written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError, nearest
from terrazzo.exporting.calibration import training_images
from terrazzo.exporting.formats import FOLDERS, SUFFIXES, format_named, tiled
from terrazzo.exporting.gate import Check
from terrazzo.exporting.graph import OUTPUTS
from terrazzo.exporting.plan import make_plan
from terrazzo.exporting.precision import attempts
from terrazzo.exporting.report import ExportReport, write_reports
from terrazzo.exporting.trial import Candidate, Trial
from terrazzo.inference.load import CARD, STREET, load
from terrazzo.inference.segmenter import Segmenter
from terrazzo.system.files import make_folder, rename_durably

ROOM = 1 << 20  # bytes; with fewer a disk counts as full


def export(
    model: Any = None,
    path: str | Path | None = None,
    *,
    config: Any = None,
    to: str | None = None,
    size: Sequence[int] | None = None,
    outputs: Sequence[str] = ("labels",),
    precision: str = "f32",
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
    all images, any if None. The network's `precision` is "f32", "bf16", "int8" (calibrated on training images of
    `check` or `config`) or "auto", the fastest that passes. With `check`, a config, the result is scored on its
    validation set: a drop that may be above `max_drop` points of mIoU, or 2 of a class, is refused. Raises UserError
    for that and for whatever cannot be exported; then nothing is written.

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
    tries = attempts(precision, writer.precisions, check is not None)
    calibration = check if check is not None else config
    if any(attempt.precision == "int8" for attempt in tries) and calibration is None:
        raise UserError(
            f"--precision {precision} is calibrated on training images: give --check CONFIG, whose validation set also "
            "tells whether the result is as good, or --config CONFIG"
        )
    say = on_step or (lambda text: None)

    say("loading the model")
    segmenter = model if isinstance(model, Segmenter) else loaded(model, config, trust, weights)
    names = ["labels", *(name for name in outputs if name != "labels")]
    plan = writer.adapt(make_plan(segmenter, names, size, licence_of(segmenter)))
    images = training_images(calibration, plan.facts) if any(one.precision == "int8" for one in tries) else []
    gate = None
    if check is not None:
        say("scoring the original")
        gate = Check(check, segmenter)

    with writing(path) as folder:  # beside its place until it has passed
        trial = Trial(writer, plan, images, gate, max_drop, make_folder(folder / "trial"), say)
        chosen = trial.first_that_passes(tries)
        say("writing")
        return publish(trial, chosen, path, target, make_folder(folder / "whole"))


def publish(trial: Trial, chosen: Candidate, path: Path, target: str, folder: Path) -> ExportReport:
    """Write what passed and its reports into a folder of the same file system, and move all of it to its place."""
    trial.writer.save(chosen.model, replace(chosen.plan.facts, parity=chosen.stated()), folder / path.name)
    files = files_in(folder)
    facts = chosen.plan.facts
    report = ExportReport(
        path,
        target,
        facts.precision,
        sum(file.stat().st_size for file in files),
        chosen.parity,
        chosen.comparison,
        facts.quantization.get("left_out", []),
        trial.refused,
        trial.writer.notes(trial.plan.facts),
    )
    pictures = []
    if trial.gate is not None and chosen.comparison is not None:
        pictures = trial.gate.pictures(chosen.exported, chosen.comparison, facts.palette)
    write_reports(report, folder, pictures, facts.palette)
    for file in [*(file for file in files_in(folder) if file not in files), *files]:
        place = path.parent / file.relative_to(folder)
        make_folder(place.parent)
        rename_durably(file, place)
    return report


def licence_of(segmenter: Segmenter) -> str:
    """The terms of the embedded model's weights; of others none are known."""
    if segmenter.source != STREET.name:
        return ""
    return CARD.read_text(encoding="utf-8").partition("**Licence**: ")[2].strip()


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, an .xml file after its .bin."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A folder beside a file, which is gone at the end. Raises UserError where a disk cannot be written."""
    make_folder(path.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder)
    except UserError:
        raise
    except Exception as problem:
        free = shutil.disk_usage(path.parent).free
        if not isinstance(problem, OSError) and free > ROOM:  # libraries name a full disk in ways of their own
            raise
        reason = getattr(problem, "strerror", None) or str(problem).strip().splitlines()[0]
        raise UserError(
            f"cannot write {path}: {reason} ({free / 2**20:.0f} MiB free); free some space or choose another folder"
        ) from problem


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
