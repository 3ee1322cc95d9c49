"""Labels made of objects with outlines or masks: what such formats have in common."""

from __future__ import annotations

import csv
import multiprocessing
import re
import struct
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from terrazzo.errors import UserError, some
from terrazzo.system.text import read_json, read_text, readable_name
from terrazzo.transforms.decode import decode_image, read_size
from terrazzo.transforms.formats.base import LabelFormat
from terrazzo.transforms.formats.raster import Patch, Shape, check_order, paint
from terrazzo.transforms.opening import PNG

# what files of another form than expected raise
BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
MOST_PIXELS = 2**26  # of a label whose size is not that of its image: beyond, no memory is taken for it
WIDEST_LINE = 1000  # pixels
UPLOAD_MARK = re.compile(r"^[0-9a-f]{8}-")  # that Label Studio puts before the names of uploaded files
IGNORED_NAME = "__ignore__"  # of objects whose pixels do not count
NAMELESS = "object"  # the class of objects that name none


class ShapeLabels(LabelFormat):
    """A label file for each image, of objects that are painted one over the other.

    A format says what the objects of a file are, and the name and the pixels of each. `order` is `file` (later ones
    over earlier ones) or `area` (smaller ones over larger ones). Lines cover nothing, or `line_width` pixels.
    """

    noun: ClassVar[str] = "shape"
    usual_order: ClassVar[str] = "file"

    def __init__(self, root: Path, order: str = "", line_width: int = 0) -> None:
        self.order, self.line_width = order or self.usual_order, line_width
        check_order(self.order)
        if type(line_width) is not int or not 0 <= line_width <= WIDEST_LINE:
            raise UserError(f"label_format: line_width is a number of pixels up to {WIDEST_LINE}, not {line_width!r}")

    # for a format to define

    @staticmethod
    def content(path: Path) -> Any:
        """The content of a label file."""
        return read_content(path)

    def size_of(self, content: Any) -> tuple[Any, Any] | None:
        """The (height, width) that a label states, None where it leaves that to the image."""
        return None

    def objects(self, content: Any) -> Iterable[Any]:
        """The objects of a label."""
        raise NotImplementedError

    def name_of(self, item: Any) -> str:
        """The class of an object."""
        raise NotImplementedError

    def covers(self, item: Any) -> bool:
        """Report whether an object has an area, as a point has not."""
        return True

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        """The pixels of an object in an image of (height, width)."""
        raise NotImplementedError

    def place(self, item: Any, number: int) -> str:
        """The place of an object in its file, for messages."""
        return f"{self.noun} {number}"

    # what they share

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        content = self.existing(path)
        with blaming(path):
            canvas = judged(None if content is None else self.size_of(content), path, image, size)
        shapes, outside = [], []
        for where, item in self.each_of(path, content):
            with blaming(path, where):
                if not self.covers(item):
                    continue
                name, patch = self.name_of(item), self.patch(item, canvas)
            shapes.append(Shape(self.names.index(name, path), patch))
            if not patch.mask.size:
                outside.append(f"{where} ('{name}')")
        if outside and multiprocessing.parent_process() is None:  # loader workers would say it again
            warnings.warn(f"{path}: outside of the image, and so left out: {some(outside)}")
        return paint(shapes, canvas, self.names.background, self.order)

    def existing(self, path: Path) -> Any:
        """The content of a label, None for that of an image without objects."""
        return self.content(path) if path.is_file() else None

    def each_of(self, path: Path, content: Any) -> Iterator[tuple[str, Any]]:
        """The objects of a label and their places in it. Raises UserError for a file of another form."""
        with blaming(path):
            items = [] if content is None else list(self.objects(content))
        for number, item in enumerate(items, 1):
            with blaming(path):
                where = self.place(item, number)
            yield where, item

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        names: Counter[str] = Counter()
        without_area = 0
        for path in paths:
            for where, item in self.each_of(path, self.existing(path)):
                with blaming(path, where):
                    has_area = self.covers(item)
                    names[self.name_of(item)] += has_area
                without_area += not has_area
        source = "the names in the file" if self.is_index else f"the names in {len(paths)} files"
        if not self.own_classes:
            source += ", the most frequent first"
        if without_area:
            source += f"; left out, as they have no area: {without_area} {self.noun}s (points, lines, boxes)"
        found = [name for name, count in names.most_common() if count and name != IGNORED_NAME]
        return self.own_classes or tuple(found), source


class IndexLabels(ShapeLabels):
    """One file with the labels of many images. `root` is that file, or a folder with one.

    The path of an image's label is FILE/IMAGE, with the image's name as the file has it.
    """

    suffixes: tuple[str, ...] = (".json",)
    is_index = True
    about: ClassVar[str]  # the file in words
    unlabelled = "skip"

    def __init__(self, root: Path, order: str = "", line_width: int = 0) -> None:
        super().__init__(root, order, line_width)
        self.file = single_file(root, self.suffixes)
        try:
            form: Any = type(self)
            self.labels, names = load_labels(form, self.file, self.file.stat().st_mtime_ns)
        except BROKEN as error:
            if isinstance(error, UserError) and str(self.file) in str(error):
                raise
            raise UserError(f"{self.file} is not {self.about} ({error})") from error
        self.listed_classes = names
        self.own_classes = tuple(dict.fromkeys(names)) or self.describe(())[0]

    @classmethod
    def images(cls, content: Any) -> Mapping[str, Any]:
        """The label of each image in the content of a file; raises one of BROKEN for another format's file."""
        raise NotImplementedError

    @classmethod
    def classes(cls, content: Any) -> Sequence[str]:
        """The class names that a file lists beside its labels."""
        return ()

    @classmethod
    def recognises(cls, content: Any) -> list[str]:
        try:
            found = cls.images(content)
        except UserError:
            raise
        except BROKEN:
            return []
        return [str(name) for name in found]

    def find_labels(self, images: Sequence[Path], folder: Path) -> list[Path | None]:
        listed = ListedImages(self.labels)
        names = [listed.name_of(path.relative_to(folder)) for path in images]
        return [None if name is None else self.file / name for name in names]

    def existing(self, path: Path) -> Any:
        return self.labels.get(path.relative_to(self.file).as_posix())

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        return super().describe([self.file / name for name in self.labels])


def judged(own: tuple[Any, Any] | None, path: Path, image: Path | None, size: tuple[int, int]) -> tuple[int, int]:
    """The size to paint a label in: its own, or that of its image.

    Raises UserError where neither is known, and before memory is taken for an absurd one.
    """
    if own is not None and None not in own:
        height, width = (int(side) for side in own)
        if min(height, width) < 1 or (height * width > MOST_PIXELS and (height, width) != actual_size(image, size)):
            raise UserError(f"{path} is for an image of {width}x{height} pixels, and its image is not so large")
        return height, width
    actual = actual_size(image, size)
    if actual is None:
        raise UserError(f"{path} does not state the image's size: put LoadImageFromFile before LoadAnnotations")
    return actual


def actual_size(image: Path | None, size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) of an image that was read, or that its file states."""
    return size if sum(size) else None if image is None else read_size(image)


def decode_mask(data: bytes, color_type: str, size: tuple[int, int]) -> np.ndarray:
    """The picture (H, W, C) in a PNG inside a label. Raises ValueError for another format and for one far too large."""
    if len(data) < 24 or not data.startswith(PNG):
        raise ValueError("its mask is not a PNG")
    width, height = struct.unpack(">II", data[16:24])
    if width * height > max(MOST_PIXELS, 4 * size[0] * size[1]):
        raise ValueError(f"its mask has {width}x{height} pixels, its image {size[1]}x{size[0]}")
    return decode_image(data, color_type, name="its mask")


@contextmanager
def blaming(path: Path, where: str = "") -> Iterator[None]:
    """Turn what a damaged part of a file raises into a UserError that names the file and the part."""
    try:
        yield
    except BROKEN as error:
        if isinstance(error, UserError) and str(path) in str(error):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}{f', {where},' if where else ''} is damaged or of another form: {reason}") from error


@lru_cache(maxsize=8)
def load_labels(form: Any, file: Path, changed: int) -> tuple[Mapping[str, Any], Sequence[str]]:
    """The labels in a file by their images, and its class names; `changed` tells versions of the file apart."""
    content = form.content(file)
    return {normal_name(name): label for name, label in form.images(content).items()}, form.classes(content)


def read_content(path: Path) -> Any:
    """The content of a JSON file, or the rows of a CSV by their columns. Raises UserError for a damaged file."""
    return read_rows(path) if path.suffix.lower() == ".csv" else read_json(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, whose first line names the columns."""
    text = read_text(path)
    head = text.partition("\n")[0]
    csv.field_size_limit(sys.maxsize)  # run lengths of a mask are long
    try:
        return list(csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count), restval=""))
    except csv.Error as error:
        raise UserError(f"cannot read {path}: {error}") from None


def single_file(root: Path, suffixes: tuple[str, ...]) -> Path:
    """A file, or the only one of these suffixes in a folder. Raises UserError if there is not exactly one."""
    if root.is_file():
        return root
    found = sorted(path for path in root.glob("*") if path.suffix in suffixes) if root.is_dir() else []
    if len(found) != 1:
        listed = f"{len(found)}: {some(path.name for path in found)}" if found else "none"
        raise UserError(f"{root} must be a file, or a folder with one {' or '.join(suffixes)}; it has {listed}")
    return found[0]


# Names of images


def normal_name(name: Any) -> str:
    """The name of an image in a label file as a path: of a URL, of Windows, or of an upload too."""
    text = unicodedata.normalize("NFC", readable_name(str(name)))
    if "://" in text or "?" in text:
        url = urlsplit(text)
        text = unquote(parse_qs(url.query).get("d", [url.path])[0])
    parts = [part for part in re.split(r"[/\\]", text) if part not in ("", ".", "..") and not part.endswith(":")]
    return "/".join(parts)


# ever looser forms of a listed and of a stored file's name by which they are compared
LOOSER_FORMS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (str, str),
    (str.casefold, str.casefold),
    (lambda name: PurePosixPath(name).stem.casefold(), lambda name: PurePosixPath(name).stem.casefold()),
    (lambda name: UPLOAD_MARK.sub("", name).casefold(), str.casefold),
)


class ListedImages:
    """Image names that a file lists, found by an image's path below any folder."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = {normal_name(name) for name in names}
        self.tables: list[dict[str, list[str]]] = []
        for listed, _ in LOOSER_FORMS:
            table: dict[str, list[str]] = {}
            for name in self.names:
                table.setdefault(listed(name.rpartition("/")[2]), []).append(name)
            self.tables.append(table)

    def name_of(self, image: Path | PurePosixPath) -> str | None:
        """The listed name of an image: the same path, or the one that ends most like it; None if several do."""
        path = normal_name(image.as_posix())
        if path in self.names:
            return path
        for (_, stored), table in zip(LOOSER_FORMS, self.tables, strict=True):
            found = table.get(stored(path.rpartition("/")[2]), [])
            best = max((common_end(name, path) for name in found), default=0)
            nearest = [name for name in found if common_end(name, path) == best]
            if nearest:
                return nearest[0] if len(nearest) == 1 else None
        return None


def common_end(one: str, other: str) -> int:
    """The number of folders above two files that have the same names."""
    pairs = zip(one.split("/")[-2::-1], other.split("/")[-2::-1], strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(one.count("/"), other.count("/")))
