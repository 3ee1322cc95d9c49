"""Facts of files that have not changed since they were last read."""

from __future__ import annotations

import sqlite3
from ast import literal_eval
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from terrazzo.data.checks.facts import ImageFacts, LabelFacts
from terrazzo.hub.cache import home

FORMAT = 2  # of the records; another one forgets them
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
            row = database.execute(query, (str(path.absolute()), reader)).fetchone()
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
            rows.append((str(path.absolute()), reader, *stamped, look is not None, repr(record), look))
    with suppress(sqlite3.Error, OSError), _opened() as database, database:
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, or None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


class _opened:
    """The database while it is used."""

    def __enter__(self) -> sqlite3.Connection:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, timeout=5)
        try:
            self.database.execute("PRAGMA synchronous = OFF")  # what a crash loses is read again
            self.database.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT, reader TEXT, size INTEGER, time INTEGER, image INTEGER, "
                "record TEXT, look BLOB, PRIMARY KEY (path, reader)) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as problem:
            self.database.close()
            if not isinstance(problem, sqlite3.OperationalError):  # a damaged file; the next run makes a new one
                path.unlink(missing_ok=True)
            raise
        return self.database

    def __exit__(self, *_: object) -> None:
        self.database.close()
