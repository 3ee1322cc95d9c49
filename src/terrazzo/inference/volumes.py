"""Predictions of NIfTI volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.system.files import write_atomically
from terrazzo.system.painting import as_picture, overlay, save_picture
from terrazzo.transforms.parts import stem_of
from terrazzo.transforms.planes import MODALITY, NIFTI_SUFFIXES, is_nifti, open_nifti, plane_paths

SHOWN = 12  # slices of an overlay
Turn = Callable[[int, int], AbstractContextManager[None]]  # with a height and width, for running the model


def no_turns(height: int, width: int) -> AbstractContextManager[None]:
    """For one image at a time."""
    return nullcontext()


class VolumePrediction:
    """The result for a volume: `labels` (Z, Y, X), and with `layers` the `confidence` or `probs` (K, Z, Y, X) too.

    Raises UserError for a volume that cannot be read.
    """

    def __init__(
        self,
        segmenter: Any,
        path: Path,
        layers: Sequence[str] = (),
        turn: Turn = no_turns,
    ) -> None:
        self.path, self.classes, self.palette = path, segmenter.classes, segmenter.palette
        self.source = open_nifti(path)
        slices = plane_paths(path)
        self.shown = set(np.linspace(0, len(slices) - 1, min(SHOWN, len(slices))).round().astype(int).tolist())
        self.pictures: dict[int, np.ndarray] = {}
        found: dict[str, list[np.ndarray]] = {name: [] for name in ("labels", *layers)}
        for number, one in enumerate(slices):
            image, place = segmenter.read(one)
            with turn(*image.shape[:2]):
                prediction = segmenter.predict_whole(image, place, str(one))
            found["labels"].append(prediction.labels)
            for name in layers:
                values = prediction.confidence if name == "confidence" else prediction.probs
                found[name].append(values.astype(np.float32))
            if number in self.shown:
                self.pictures[number] = as_picture(prediction.image)
        self.labels = np.stack(found["labels"])
        self.layers = {name: np.stack(found[name], axis=-3) for name in layers}  # ([K,] Z, Y, X)

    def overlay(self, opacity: float = 0.5, legend: bool = False) -> np.ndarray:
        """Some slices side by side under their classes, RGB (H, W, 3) uint8, with a `legend` beside them."""
        painted = [overlay(self.pictures[one], self.labels[one], self.palette, opacity) for one in sorted(self.shown)]
        across = round(len(painted) ** 0.5 + 0.49)
        painted += [np.zeros_like(painted[0])] * (-len(painted) % across)
        rows = [np.concatenate(painted[first : first + across], 1) for first in range(0, len(painted), across)]
        picture = np.concatenate(rows)
        if legend:
            from terrazzo.viz.layout import add_legend

            picture = add_legend(picture, self.labels, self.classes, self.palette)
        return picture

    def save(self, path: str | Path, opacity: float | None = None) -> Path:
        """Write the class map as NIfTI with the affine of the volume, or with `opacity` some slices as a picture.

        Raises UserError where the file cannot be written.
        """
        path = Path(path)
        if opacity is not None:
            save_picture(path, self.overlay(opacity))
        else:
            count = len(self.classes)
            self.save_values(path, self.labels.astype(np.uint8 if count <= 255 else np.uint16))
        return path

    def save_values(self, path: Path, values: np.ndarray) -> None:
        """Write values ([K,] Z, Y, X) as NIfTI (X, Y, Z [, K]) where the volume is in space."""
        import nibabel

        if not is_nifti(path):
            raise UserError(f"cannot save a volume as {path}: its name ends in {' or '.join(NIFTI_SUFFIXES)}")
        stored = np.ascontiguousarray(values.T if values.ndim == 3 else values.transpose(3, 2, 1, 0))
        image = nibabel.Nifti1Image(stored, self.source.affine)
        image.header.set_zooms((*self.source.header.get_zooms()[:3], *[1.0] * (stored.ndim - 3)))
        image.header.set_xyzt_units(*self.source.header.get_xyzt_units())
        image.set_qform(self.source.affine, int(self.source.header["qform_code"]))
        image.set_sform(self.source.affine, int(self.source.header["sform_code"]) or 1)
        suffix = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"

        def write(temporary: Path) -> None:
            named = temporary.with_name(f"{temporary.name}{suffix}")  # nibabel goes by the suffix
            try:
                nibabel.save(image, named)
                named.replace(temporary)
            finally:
                named.unlink(missing_ok=True)

        write_atomically(path, write)

    def __repr__(self) -> str:
        size = "x".join(map(str, reversed(self.labels.shape)))
        return f"VolumePrediction({size}: {', '.join(self.classes)})"


def predict_volume_to_files(segmenter: Any, path: Path, target: Path, wanted: Any, turn: Turn) -> list[Path]:
    """Write `NAME.nii.gz`, the overlay of some slices, and the layers that are wanted, beside `target`; return them."""
    if wanted.polygons is not None:
        raise UserError(f"{path} is a volume without a place on the ground: leave out --polygons")
    names = {"confidence": wanted.confidence, "probs": wanted.probabilities}
    layers = [name for name, is_wanted in names.items() if is_wanted]
    prediction = VolumePrediction(segmenter, path, layers, turn=turn)
    name = MODALITY.sub("", path.name) if MODALITY.search(path.name) else stem_of(path)
    files = []
    if wanted.overlay:
        files.append(target.with_name(f"{name}_overlay.png"))
        save_picture(files[-1], prediction.overlay(wanted.opacity, legend=True))
    for layer, values in prediction.layers.items():
        ending = "confidence" if layer == "confidence" else "probabilities"
        files.append(target.with_name(f"{name}_{ending}.nii.gz"))
        prediction.save_values(files[-1], values)
    return [*files, prediction.save(target.with_name(f"{name}.nii.gz"))]
