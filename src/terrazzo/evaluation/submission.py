"""Predictions in the formats of evaluation servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.metrics.cityscapes import IDS
from terrazzo.system.painting import save_picture


@dataclass(frozen=True)
class Form:
    """The format of a class map's file: a value for each class, or colours; the end of its name."""

    about: str
    values: Sequence[int] | None = None  # None: the class's index
    offset: int = 0
    colours: bool = False
    ending: str = ".png"
    dropped: str = ""  # removed from the image's stem


ISPRS = Form("RGB in the colours of the reference", colours=True, ending=".tif")

FORMS = {
    "ADE20KDataset": Form("class numbers from 1 to 150", offset=1),
    "CityscapesDataset": Form("label ids as in *_labelIds.png", values=IDS, dropped="_leftImg8bit"),
    "LoveDADataset": Form("class numbers from 0 to 6; zip the files, not their folder"),
    "PotsdamDataset": ISPRS,
    "ISPRSDataset": ISPRS,
    "iSAIDDataset": Form("RGB in the colours of the data set", colours=True, ending="_instance_color_RGB.png"),
}


class SubmissionWriter:
    """Writes each image's prediction in the format of a data set's server, under the image's name.

    Data sets without a server get class numbers from 0. Raises UserError if a file cannot be written, or two of the
    `images` would share a name.
    """

    def __init__(self, dataset: str, folder: Path, images: Iterable[Path]) -> None:
        self.form = FORMS.get(dataset, Form("class numbers from 0"))
        self.folder = folder
        self.names: dict[str, Path] = {}
        for image in images:
            name = self.name_of(image)
            if self.names.setdefault(name, image) != image:
                raise UserError(f"{image} and {self.names[name]} would both be written as {name}")

    def name_of(self, image: Path) -> str:
        """The name of an image's file."""
        return image.stem.removesuffix(self.form.dropped) + self.form.ending

    def write(self, batch: Any, maps: list[Any], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        """Write the predictions of one batch."""
        for sample, prediction in zip(batch.samples, maps, strict=True):
            path = self.folder / self.name_of(sample.image_path)
            save_picture(path, self.encode(prediction.cpu().numpy(), palette))

    def encode(self, labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
        """The class map as stored."""
        if self.form.colours:
            return np.array(palette, np.uint8)[labels]
        if self.form.values is not None:
            return np.array(self.form.values, np.uint8)[labels]
        values = labels.astype(np.int32) + self.form.offset
        return values.astype(np.uint8 if values.max() <= 255 else np.uint16)
