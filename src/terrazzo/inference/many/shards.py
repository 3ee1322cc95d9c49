"""Shards: a list of images, or the windows of a scene, split among processes that share a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.many.sources import Item
from terrazzo.inference.scenes.engine import Progress
from terrazzo.inference.scenes.outputs import Wanted, predict_to_files
from terrazzo.inference.scenes.prediction import ScenePrediction, predict_in_windows
from terrazzo.inference.scenes.rasters import ROWS
from terrazzo.inference.scenes.store import Store, rows_of
from terrazzo.system.files import make_folder, write_whole

DONE, MERGING = "done.json", "merging"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the work, numbered from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this shard: every `count`-th of them."""
        return list(items[self.number - 1 :: self.count])


def predict_shard(
    segmenter: Any,
    source: Path | str,
    target: Path,
    wanted: Wanted,
    shard: Shard,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Path]:
    """Predict a shard's rows of windows, and write the results of the whole scene if it is the last one to finish.

    Returns the files, none where another shard writes them. Raises UserError as `predict_to_files` does, and where the
    shards do not fit together.
    """
    folder = make_folder(target.with_name(f".{target.name}.shards"))
    own = folder / str(shard)
    (own / DONE).unlink(missing_ok=True)
    options = {"layers": wanted.layers(), "on_progress": on_progress, "resume": wanted.resume}
    part = predict_in_windows(
        segmenter, segmenter.scene(source), Path(source), folder=own, part=(shard.number - 1, shard.count), **options
    )
    job = (own / "job.json").read_text(encoding="utf-8")
    write_whole(own / DONE, json.dumps({"job": job, "rows": part.rows, "damaged": part.damaged}))
    done = [read_done(folder / str(Shard(number, shard.count)) / DONE) for number in range(1, shard.count + 1)]
    if None in done:
        return []
    different = [str(number) for number, one in enumerate(done, 1) if one["job"] != job]
    if different:
        raise UserError(
            f"{target.name}: shard {', '.join(different)} of {shard.count} was made with another model, other "
            f"windows or from another file than shard {shard.number}: give all of them the same options, also --window "
            "and --overlap, and run those again"
        )
    if not claims(folder / MERGING, shard):
        return []
    unfinished = target.with_name(f".{target.name}.unfinished")
    merge(folder, unfinished, part, job, done)
    try:
        return predict_to_files(segmenter, source, target, replace(wanted, resume=True), on_progress)
    finally:
        if not unfinished.exists():  # the results are in place, whatever could not be read
            shutil.rmtree(folder, ignore_errors=True)


def read_done(path: Path) -> Any:
    """The record of a finished shard; None where it has not finished."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def claims(path: Path, shard: Shard) -> bool:
    """Return whether a shard is to write the results: it is the first to ask, or was killed while doing so."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(str(shard))
        return True
    except FileExistsError:
        return path.read_text(encoding="utf-8") == str(shard)


def merge(folder: Path, unfinished: Path, part: ScenePrediction, job: str, done: Sequence[dict[str, Any]]) -> None:
    """Put the rows of all shards into the store of one run, with a journal that says that they are complete."""
    (height, width), layers = part.scene.size, part.store.layers
    store = Store(unfinished, (height, width), layers, {})
    try:
        for number, one in enumerate(done, 1):
            for name, (bands, dtype) in layers.items():
                path = folder / str(Shard(number, len(done))) / f"{name}.raw"
                rows = np.memmap(path, dtype, mode="r", shape=(bands, height, width))
                first, last = one["rows"]
                for top in range(first, last, ROWS):
                    store.write(name, top, 0, rows_of(rows, top, min(top + ROWS, last)))
        for chunk in range(part.chunks):
            store.commit(chunk, height, [cell for one in done for cell in one["damaged"]])
        write_whole(unfinished / "job.json", job)
    finally:
        store.close()
