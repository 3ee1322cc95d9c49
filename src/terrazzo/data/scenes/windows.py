"""Windows of scenes as samples: random ones in training, a grid in validation, both read as they are needed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from terrazzo.arguments import check_arguments
from terrazzo.data.cache import DecodedCache
from terrazzo.data.checks.facts import stamp
from terrazzo.data.pairs import Pair, PairingError
from terrazzo.data.scenes.blocks import Block, Blocks, blocks_of_fold, held_out_blocks, side_of_blocks
from terrazzo.data.scenes.labels import PolygonLabels, RasterLabels, SceneLabels, bounds_of, shifted
from terrazzo.errors import UserError, some
from terrazzo.hub.cache import home
from terrazzo.transforms.formats.vector import VectorLabels, scaled
from terrazzo.transforms.labels import IGNORED, LabelMapping
from terrazzo.transforms.parts import Window, window_of, window_path
from terrazzo.transforms.scenes import BandCountError, MissingCrsError, RasterScene, both
from terrazzo.transforms.slides import SlideScene, is_slide
from terrazzo.transforms.tiff import TIFF_SUFFIXES, check_is_whole

WINDOW_STREAM = 2  # keeps the place of a random window apart from the numbers that transforms draw
MARGIN = 0.125  # of a window, around the blocks held out for validation
TRIES = 10  # for a random window in which enough counts
ENOUGH = 0.5
CHUNK = 1024  # pixels of a side that are read at once to get to know a scene
SAMPLES = 64  # along a window's side, of labels at a glance
KINDS = {MissingCrsError: "no-crs", BandCountError: "band-count"}  # of findings on scenes that cannot be used
NO_DATA = -1  # among classes
OPEN_FILES = 16  # scenes, and labels, that a process keeps open


@dataclass(frozen=True)
class WindowSettings:
    """A data set's `windows`: their height and width, at random places or on a grid."""

    size: Sequence[int]
    random: bool = False


class OpenScene(NamedTuple):
    """A scene and its label, opened by one thread of one process."""

    image: RasterScene | SlideScene
    label: SceneLabels | None


class Glance(NamedTuple):
    """A scene as far as the choice of windows needs it: its size and place, and every `step`-th pixel's class."""

    size: tuple[int, int]
    place: Any
    step: int
    classes: np.ndarray  # 255 where nothing counts
    facts: SceneFacts


class SceneFacts(NamedTuple):
    """The properties of a scene that the check of data looks at."""

    image: Path
    label: Path | None
    bands: int
    crs: str
    form: str  # of its label: see SceneLabels
    covered: float  # share of the scene that its label covers


class SceneWindows:
    """The windows of a split's scenes; the path of each names its scene and its place (see transforms.parts).

    Raises PairingError for scenes and labels that do not belong together.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        settings: dict[str, Any],
        reader: Any,
        mapping: LabelMapping,
        label_format: Any,
        holdout: dict[str, Any] | None,
    ) -> None:
        check_arguments(WindowSettings, settings, "windows", "")
        self.settings = WindowSettings(**settings)
        if label_format is not None and not isinstance(label_format, VectorLabels):
            raise UserError("`windows` reads labels that are rasters of class numbers, or `label_format: vector`")
        self.reader, self.mapping, self.label_format = reader, mapping, label_format
        self.labels = dict(pairs)
        self.opened = threading.local()
        self.glances = {image: self.look(image) for image in self.checked(pairs)}
        self.numbers = {image: number for number, image in enumerate(self.glances)}
        self.is_validation = holdout is not None and holdout.get("part") == "val"
        self.blocks = self.choose_blocks(holdout) if holdout is not None else None
        self.outlines = {image: self.outlines_in(image) for image in self.glances}
        self.counts = {image: self.counted_at_a_glance(image) for image in self.glances}
        self.cells = [(image, cell) for image in self.glances for cell in self.cells_of(image)]
        files = [(path, stamp(path)) for pair in pairs for path in pair if path is not None]
        self.key = f"windows {self.settings} {holdout} {files} {label_format and vars(label_format)} {reader}"
        if not self.cells:
            raise PairingError(f"no window of {some(self.labels, 2)} has a label that counts", "all-ignored")

    # The files

    def open(self, image: Path) -> OpenScene:
        """A scene and its label; GDAL's data sets are neither for several threads nor for forked processes."""
        files = getattr(self.opened, "files", None)
        if files is None or self.opened.process != os.getpid():
            files = self.opened.files = OrderedDict()
            self.opened.process = os.getpid()
        if image not in files:
            files[image] = self.open_anew(image)
            while len(files) > OPEN_FILES:
                files.popitem(last=False)[1].image.close()
        files.move_to_end(image)
        return files[image]

    def open_anew(self, image: Path) -> OpenScene:
        scene = (SlideScene if is_slide(image) else RasterScene)(image, self.reader, None)
        label = self.labels[image]
        if label is None:
            return OpenScene(scene, None)
        if self.label_format is not None:
            return OpenScene(scene, PolygonLabels(label, scene, self.label_format))
        return OpenScene(scene, RasterLabels(label, scene))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.opened = threading.local()

    def checked(self, pairs: Sequence[Pair]) -> list[Path]:
        """The scenes. Raises PairingError for those that cannot be used, all of one kind at once."""
        problems: dict[str, list[tuple[Path, str]]] = {}
        for image, _ in pairs:
            try:
                scene = self.open(image)
                if image.suffix.lower() in TIFF_SUFFIXES:
                    check_is_whole(image)
            except UserError as problem:
                kind = KINDS.get(type(problem), "unreadable")
                problems.setdefault(kind, []).append((image, str(problem)))
                continue
            if scene.label is not None and scene.label.share() == 0:
                own = extent(scene.image)
                text = (
                    f"the label {self.labels[image]} lies beside its image {image}: they do not overlap; the image "
                    f"covers {own} in its coordinate reference system ({crs_text(scene.image)})"
                )
                problems.setdefault("no-overlap", []).append((image, text))
        for kind, found in problems.items():
            more = f"; so do {len(found) - 1} more of {len(pairs)} scenes" if len(found) > 1 else ""
            raise PairingError(found[0][1] + more, kind, [image for image, _ in found])
        return [image for image, _ in pairs]

    def look(self, image: Path) -> Glance:
        """A scene at a glance, which is kept for later runs."""
        scene, label = self.open(image)
        step, path = max(1, min(self.settings.size) // SAMPLES), self.labels[image]
        form = self.label_format and (self.label_format.attribute, self.label_format.layer, self.label_format.names)
        how = f"glance {step} {self.reader} {path} {path and stamp(path)} {self.mapping} {form}"

        def read() -> np.ndarray:
            parts = [[Window(top, left, height, width) for left, width in across] for top, height in down]
            return np.block([[self.look_at(image, part, step) for part in row] for row in parts])

        down, across = (chunks(length, step) for length in scene.size)
        try:
            classes = DecodedCache(home() / "decoded").get(image, how, read)
        except UserError as problem:
            raise PairingError(str(problem), "unreadable", [image]) from None
        if (classes == NO_DATA).all():
            raise PairingError(f"{image} has no data: every pixel is declared as such", "no-data", [image])
        classes = np.where(classes == NO_DATA, IGNORED, classes)
        kind, covered = (label.form, label.share()) if label is not None else ("", 1.0)
        facts = SceneFacts(image, path, len(scene.indexes), crs_text(scene), kind, covered)
        return Glance(scene.size, scene.georeference, step, classes, facts)

    def look_at(self, image: Path, window: Window, step: int) -> np.ndarray:
        """Every `step`-th class of a window, NO_DATA where the scene has none."""
        scene, label = self.open(image)
        top, left, height, width = window
        classes = np.zeros((height, width), np.int16)
        if label is not None:
            stored, covered = label.read(window)
            classes = np.where(covered, self.mapping.apply(stored), IGNORED).astype(np.int16)
        valid = scene.valid(top, top + height, left, left + width)
        return np.where(True if valid is None else valid, classes, NO_DATA)[::step, ::step]

    # The choice of windows

    def choose_blocks(self, holdout: dict[str, Any]) -> Blocks:
        """The blocks of the ground that are held out."""
        first = next((one for one in self.glances.values() if one.place is not None and one.place.crs), None)
        pixels = side_of_blocks(
            sum(float((one.classes != IGNORED).sum()) * one.step**2 for one in self.glances.values()),
            self.settings.size,
        )
        unit = 1.0 if first is None else float(np.hypot(*tuple(first.place.transform)[0:4:3]))
        blocks = Blocks(first.place if first else None, pixels * unit, pixels)
        counts: dict[Block, np.ndarray] = {}
        size = 1 + max(int(one.classes[one.classes != IGNORED].max(initial=0)) for one in self.glances.values())
        for image, one in self.glances.items():
            rows, columns = np.nonzero(one.classes != IGNORED)
            middle = one.step // 2
            numbers = blocks.numbers(
                self.numbers[image], one.place, rows * one.step + middle, columns * one.step + middle
            )
            space = blocks.space(self.numbers[image], one.place)
            found, index = np.unique(numbers, axis=0, return_inverse=True)
            table = np.zeros((len(found), size))
            np.add.at(table, (index.reshape(-1), one.classes[rows, columns]), float(one.step**2))
            for (row, column), pixels_of_classes in zip(found.tolist(), table, strict=True):
                block = Block(space, row, column)
                counts[block] = counts.get(block, 0) + pixels_of_classes
        if "folds" in holdout:
            return replace(blocks, held=blocks_of_fold(counts, holdout["folds"], holdout.get("fold", 1)))
        return replace(blocks, held=held_out_blocks(counts, holdout["share"]))

    def counted(self, image: Path, window: Window, shape: tuple[int, int]) -> np.ndarray | None:
        """Which pixels of a window are of this split, at a resolution of `shape`; None: all of them."""
        if self.blocks is None:
            return None
        from rasterio.features import geometry_mask

        one = self.glances[image]
        transform = one.place.transform if one.place is not None else identity()
        transform = scaled(
            shifted(transform, window.top, window.left), window.height / shape[0], window.width / shape[1]
        )
        left, bottom, right, top = bounds_of(transform, shape)
        near = [
            outline
            for outline, (west, south, east, north) in self.outlines[image]
            if west < right and east > left and south < top and north > bottom
        ]
        if not near:
            return np.zeros(shape, bool) if self.is_validation else None
        return geometry_mask(near, shape, transform, invert=self.is_validation)

    def outlines_in(self, image: Path) -> list[tuple[Any, tuple[float, ...]]]:
        """The blocks held out (in training with their margin) in a scene's coordinates, each with its extent."""
        if self.blocks is None:
            return []
        margin = 0.0 if self.is_validation else MARGIN * min(self.settings.size)
        found = self.blocks.outlines(self.numbers[image], self.glances[image].place, margin)
        points = [np.array(outline["coordinates"][0]) for outline in found]
        extents = [(*one.min(axis=0).tolist(), *one.max(axis=0).tolist()) for one in points]
        return list(zip(found, extents, strict=True))

    def counted_at_a_glance(self, image: Path) -> np.ndarray:
        """Which pixels of a glance have a class and are of this split."""
        one = self.glances[image]
        area = self.counted(image, Window(0, 0, *one.size), one.classes.shape)
        return one.classes != IGNORED if area is None else (one.classes != IGNORED) & area

    def share(self, image: Path, window: Window) -> float:
        """The share of a window that counts, about."""
        top, left, height, width = window
        step = self.glances[image].step
        part = self.counts[image][top // step : -(-(top + height) // step), left // step : -(-(left + width) // step)]
        return float(part.mean())

    def cells_of(self, image: Path) -> list[Window]:
        """The windows of a scene on a grid, without those in which nothing counts."""
        one = self.glances[image]
        row, column = self.blocks.offset(self.numbers[image], one.place) if self.blocks is not None else (0, 0)
        cells = []
        for top, bottom in cuts(one.size[0], self.settings.size[0], row):
            for left, right in cuts(one.size[1], self.settings.size[1], column):
                if self.share(image, Window(top, left, bottom - top, right - left)):
                    cells.append(Window(top, left, bottom - top, right - left))
        return cells

    def pairs(self) -> list[Pair]:
        """The paths of the windows on the grid, and of their labels."""
        return [self.pair(image, cell) for image, cell in self.cells]

    def pair(self, image: Path, window: Window) -> Pair:
        label = self.labels[image]
        return window_path(image, window), None if label is None else label / window_path(image, window).name

    def draw(self, index: int, seeds: Sequence[int]) -> Pair:
        """A window of the full size whose middle is in a cell of the grid, the same for the same seeds.

        Of several, the first in which half of the pixels count, or else the one with the most.
        """
        image, cell = self.cells[index]
        rng = np.random.default_rng([*seeds, WINDOW_STREAM])
        size = self.glances[image].size
        best, most = cell, -1.0
        for _ in range(TRIES):
            top, height = around(cell.top + int(rng.integers(cell.height)), self.settings.size[0], size[0])
            left, width = around(cell.left + int(rng.integers(cell.width)), self.settings.size[1], size[1])
            window = Window(top, left, height, width)
            share = self.share(image, window)
            if share > most:
                best, most = window, share
            if most >= ENOUGH:
                break
        return self.pair(image, best)

    # Reading

    def image(self, path: Path) -> np.ndarray:
        """A window (h, w, C): NaN (in pictures black) in training where the ground is held out for validation."""
        window = window_of(path)
        top, left, height, width = window
        values, _ = self.open(path.parent).image.read(top, top + height, left, left + width)
        area = None if self.is_validation else self.counted(path.parent, window, (height, width))
        if area is None or area.all():
            return values
        if getattr(self.reader, "bands", None) is None:
            return np.where(area[..., None], values, values.dtype.type(0))
        return np.where(area[..., None], values, np.float32(np.nan)).astype(np.float32)

    def label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The stored values (h, w) of the label of a window, by the image's path, and which pixels count."""
        window = window_of(path)
        scene, label = self.open(path.parent)
        assert label is not None
        stored, counts = label.read(window)
        top, left, height, width = window
        valid = scene.valid(top, top + height, left, left + width)
        return stored, both(both(counts, valid), self.counted(path.parent, window, (height, width)))  # type: ignore[return-value]


def around(middle: int, wanted: int, length: int) -> tuple[int, int]:
    """Beginning and length of a part around a point of a side, which is all of it where it is no longer than wanted."""
    wanted = min(wanted, length)
    return min(max(0, middle - wanted // 2), length - wanted), wanted


def chunks(length: int, step: int) -> list[tuple[int, int]]:
    """Beginnings and lengths of the parts of a side that are read at once, multiples of `step`."""
    size = max(step, CHUNK // step * step)
    return [(first, min(size, length - first)) for first in range(0, length, size)]


def cuts(length: int, size: int, offset: int) -> list[tuple[int, int]]:
    """Beginnings and ends of cells of about `size` along a side, one of them at `offset`; none is below half of it."""
    first = offset % size
    borders = [*range(first, length, size)]
    borders = [border for border in borders if size // 2 <= border <= length - size // 2]
    return list(zip([0, *borders], [*borders, length], strict=True))


def extent(scene: RasterScene | SlideScene) -> str:
    """The extent of a scene in its coordinates, as text."""
    assert scene.georeference is not None
    left, bottom, right, top = bounds_of(scene.georeference.transform, scene.size)
    return f"{left:.7g} to {right:.7g} and {bottom:.7g} to {top:.7g}"


def crs_text(scene: RasterScene | SlideScene) -> str:
    """The name of a scene's coordinate reference system; empty without one."""
    place = scene.georeference
    return "" if place is None or not place.crs else place.crs.to_string()[:60]


def identity() -> Any:
    """The transform of a raster without coordinates."""
    from rasterio import Affine

    return Affine.identity()
