"""The facts that the check keeps of an image or a label file, so that it is read only once while it is the same."""

from __future__ import annotations

import hashlib
import sqlite3
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from terrazzo.data.soft_labels import solid_counts
from terrazzo.errors import UserError
from terrazzo.hub.cache import home
from terrazzo.transforms.decode import decode_image, file_orientation, has_fourth_band
from terrazzo.transforms.label_files import read_label_file
from terrazzo.transforms.labels import value_counts
from terrazzo.transforms.opening import JPEG, read_bytes
from terrazzo.transforms.parts import file_of
from terrazzo.transforms.planes import plane_of

LOOK = 32  # edge of the small grey picture by which images are compared
MOST_COLOURS = 64  # of a colour label that are kept


@dataclass(frozen=True)
class ImageFacts:
    """An image's height, width and channels, the hash of its pixels, and how it looks from afar."""

    shape: tuple[int, ...] = ()
    digest: str = ""
    look: bytes = b""  # LOOK x LOOK grey values, empty for a volume
    orientation: int = 1  # EXIF's, by which the image was turned
    unused_band: bool = False  # the file has a fourth band that was not read
    error: str = ""


@dataclass(frozen=True)
class LabelFacts:
    """A label's height and width, and its stored values with their number of pixels.

    A label that holds colours has those, with their number of pixels, in place of values.
    """

    shape: tuple[int, ...] = ()
    counts: dict[int, int] = field(default_factory=dict)
    colours: dict[tuple[int, ...], int] = field(default_factory=dict)
    lossy: bool = False  # in a format that changes values
    solid: dict[int, int] = field(default_factory=dict)  # pixels inside regions of a value, where there are many values
    zero_is_no_data: bool = False  # the file declares 0 to be no data
    orientation: int = 1  # EXIF's, by which the label was turned
    error: str = ""


def image_facts(image: np.ndarray, layout: str = "HWC", file: Path | None = None) -> ImageFacts:
    """The facts of an image (H, W, C), or of a volume (C, Z, Y, X) with another `layout`; `file` is a picture's."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    digest.update(str((image.shape, image.dtype.str)).encode())
    if layout == "HWC" and (image == image[:1, :1]).all():  # an empty slice or tile, of which there may be several
        return ImageFacts(image.shape, look=small_look(image).tobytes())
    if layout != "HWC":
        return ImageFacts(image.shape[1:], digest.hexdigest())
    orientation, unused_band = (1, False) if file is None else (file_orientation(file), has_fourth_band(file))
    return ImageFacts(image.shape, digest.hexdigest(), small_look(image).tobytes(), orientation, unused_band)


def small_look(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) as LOOK x LOOK grey values (uint8)."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    else:
        grey = image.astype(np.float32).mean(axis=2)
    small = cv2.resize(grey, (LOOK, LOOK), interpolation=cv2.INTER_AREA)
    if small.dtype != np.uint8:  # other than 8 bits: from black to white
        low, high = float(np.nanmin(small)), float(np.nanmax(small))
        small = np.nan_to_num((small - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return small


def stored_label_facts(path: Path, backend: str) -> LabelFacts:
    """The facts of a label file of class indices, or of its colours where it holds those."""
    data = read_bytes(path) if plane_of(path) is None else b""
    try:
        label, zero_is_no_data = read_label_file(path, backend)
    except UserError as problem:
        colours = colours_of(data, path)
        if not colours:
            return LabelFacts(error=str(problem))
        return LabelFacts(colours=colours, lossy=is_lossy(data))
    counts = value_counts(label)
    return LabelFacts(
        label.shape,
        counts,
        lossy=is_lossy(data),
        solid=solid_counts(label, counts),
        zero_is_no_data=zero_is_no_data,
        orientation=file_orientation(path),
    )


def is_lossy(data: bytes) -> bool:
    """Return True for a file that is a JPEG, or a WebP that is compressed like one."""
    return data.startswith(JPEG) or (data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8 ")


def colours_of(data: bytes, path: Path) -> dict[tuple[int, ...], int]:
    """The most frequent colours of a label file and their number of pixels; none for a grey or a damaged one."""
    try:
        image = decode_image(data, name=str(path))
    except UserError:
        return {}
    if (image == image[..., :1]).all():
        return {}
    packed = image.astype(np.int64) @ np.array([65536, 256, 1])
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
    return {tuple(int(values[i]) >> shift & 255 for shift in (16, 8, 0)): int(counts[i]) for i in order}


# The cache

FORMAT = 3  # of the records; another one forgets them
Key = tuple[Path, str]  # a file, and the way it is read
Facts = ImageFacts | LabelFacts
Stamp = tuple[int, int]  # size, and time of change in nanoseconds


def cache_file() -> Path:
    """The database, which can be deleted at any time."""
    return home() / f"checked-files-{FORMAT}.sqlite"


def recall(keys: list[Key]) -> dict[Key, Facts]:
    """The facts of those files that have the size and the time they had when they were read."""
    found: dict[Key, Facts] = {}
    with suppress(sqlite3.Error, OSError, ValueError, SyntaxError, TypeError), _opened() as database:
        for path, reader in keys:
            query = "SELECT size, time, image, record, look FROM files WHERE path = ? AND reader = ?"
            row = database.execute(query, (database_key(path), reader)).fetchone()
            if row is not None and row[:2] == stamp(path):
                record = literal_eval(row[3])
                found[path, reader] = ImageFacts(**record, look=row[4]) if row[2] else LabelFacts(**record)
    return found


def remember(read: Mapping[Key, tuple[Stamp | None, Facts]]) -> None:
    """Keep the facts of files that could be read, with their stamps. A cache that cannot be written is done without."""
    rows = []
    for (path, reader), (stamped, facts) in read.items():
        if stamped is not None and not facts.error:
            record = dict(vars(facts))
            look = record.pop("look", None)
            rows.append((database_key(path), reader, *stamped, look is not None, repr(record), look))
    with suppress(sqlite3.Error, OSError), _opened() as database, database:
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def database_key(path: Path) -> bytes:
    """The path of a file, whose name may hold any bytes."""
    return str(path.absolute()).encode(errors="surrogateescape")


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, or None where there is none."""
    try:
        status = file_of(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The database while it is used; a damaged one is removed, so that the next run makes a new one."""
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=5)) as database:
        try:
            database.execute("PRAGMA synchronous = OFF")  # what a crash loses is read again
            database.execute(
                "CREATE TABLE IF NOT EXISTS files (path BLOB, reader TEXT, size INTEGER, time INTEGER, image INTEGER, "
                "record TEXT, look BLOB, PRIMARY KEY (path, reader)) WITHOUT ROWID"
            )
            yield database
        except sqlite3.DatabaseError as problem:
            database.close()
            if not isinstance(problem, sqlite3.OperationalError):
                path.unlink(missing_ok=True)
            raise
