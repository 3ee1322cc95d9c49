"""Segmenters from files: checkpoints, configs with weights, exported models. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrazzo.errors import UserError
from terrazzo.hub.cache import BUNDLED
from terrazzo.inference.exported import ExportedRuntime
from terrazzo.inference.likeness import Fingerprint
from terrazzo.inference.segmenter import Segmenter

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pth", ".pt")
STREET = BUNDLED["street"]
CARD = STREET.with_suffix(".md")
NOTE = f"model: street scenes, the 11 classes of CamVid; for non-commercial use: {CARD}"


def load(
    source: Any = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    trust: bool = False,
    weights: str | None = None,
) -> Segmenter:
    """A Segmenter from one self-contained file, ours or MMSegmentation's with its config, or a config and weights.

    `source` may also be the folder of a run, or the name of a bundled model. Files that `tz.export` wrote are run by
    their own libraries, `.onnx` and `.xml` without torch. Without a source it is the embedded model, for street scenes;
    `terrazzo/weights` contains its licence.

    `trust` imports the modules of `custom_imports`, and runs the programs (`.pt2`) of others; `weights` is "model" or
    "ema" (the average) where a checkpoint has both. Raises UserError where the file does not specify its model.
    """
    if source is None:
        if checkpoint is not None:
            raise UserError(f"give {checkpoint} alone, tz.load('{checkpoint}'), or after its config")
        source = STREET
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() in EXPORTED:
        if device is not None and str(device) != "cpu":
            raise UserError(f"{source} is an exported model, which runs on the CPU, not on '{device}'")
        runtime = open_exported(Path(source), trust)
        segmenter = Segmenter(runtime, runtime.facts.pipeline, runtime.facts.suffixes, source=Path(source).name)
        segmenter.fingerprint = Fingerprint.read(runtime.facts.training_images)
        return segmenter
    from terrazzo.inference.checkpoints import load_torch

    return load_torch(source, checkpoint, device, trust=trust, weights=weights)


def open_exported(path: Path, trust: bool = False) -> ExportedRuntime:
    """The runtime of an exported file. Raises UserError for one that cannot be run, or that is not trusted to run."""
    return EXPORTED[path.suffix.lower()](path, trust)


def open_onnx(path: Path, _: bool) -> ExportedRuntime:
    from terrazzo.inference.onnx_runtime import OnnxSession

    session = OnnxSession(path)
    return ExportedRuntime(session, session.facts)


def open_openvino(path: Path, _: bool) -> ExportedRuntime:
    from terrazzo.inference.openvino_runtime import OpenVINOSession

    session = OpenVINOSession(path)
    return ExportedRuntime(session, session.facts)


def open_program(path: Path, trust: bool) -> ExportedRuntime:
    from terrazzo.inference.program_runtime import ProgramSession

    session = ProgramSession.read(path, trust)
    return ExportedRuntime(session, session.facts)


EXPORTED: dict[str, Callable[[Path, bool], ExportedRuntime]] = {
    ".onnx": open_onnx,
    ".xml": open_openvino,
    ".pt2": open_program,
}
