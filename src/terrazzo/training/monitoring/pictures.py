"""Pictures of validations: the same samples each time, as image, label and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from terrazzo.evaluation.scoring import as_seen, own_maps
from terrazzo.sample import Batch, Sample
from terrazzo.system.painting import as_picture
from terrazzo.viz.grid import compared, picture_grid

CAPTIONS = ("image", "label", "prediction")


class ValidationPictures:
    """Pictures of `count` of a validation's samples, spread over all `length` of them.

    `read_image` is that of the validation set.
    """

    def __init__(self, count: int, length: int, read_image: Callable[[Sample], np.ndarray]) -> None:
        self.read_image = read_image
        self.wanted = {index * length // count for index in range(count)}
        self.seen = 0
        self.rows: list[list[np.ndarray]] = []
        self.colours: dict[str, Sequence[int]] = {}  # of the classes that may occur
        self.present: set[int] = set()

    def add(self, batch: Batch, maps: list[Tensor], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        """Keep the samples of a batch that are to be shown; predictions (H, W) are classes or depth."""
        numbers = range(self.seen, self.seen + len(maps))
        self.seen += len(maps)
        if self.wanted.isdisjoint(numbers):
            return
        is_depth = maps[0].is_floating_point()
        if not is_depth:
            self.colours = dict(zip(classes, palette, strict=True))
        own = own_maps(batch, "depth" if is_depth else "label")
        for number, sample, target, prediction in zip(numbers, batch.samples, own, maps, strict=True):
            if number not in self.wanted:
                continue
            pair = [as_seen(target, prediction.shape).cpu().numpy(), prediction.cpu().numpy()]
            if not is_depth:
                self.present.update(*(np.unique(labels).tolist() for labels in pair))
            self.rows.append(compared(as_picture(self.read_image(sample)), pair, palette))

    def draw(self) -> np.ndarray | None:
        """The grid as an RGB picture; None if nothing was predicted."""
        if not self.rows:
            return None
        shown = {name: colour for index, (name, colour) in enumerate(self.colours.items()) if index in self.present}
        return picture_grid(self.rows, CAPTIONS, shown)
