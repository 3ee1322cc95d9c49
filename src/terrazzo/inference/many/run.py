"""Images one after another, some at a time: while the model runs, others are read and written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.inference.many.manifest import Manifest, entry_of, identity, job_of
from terrazzo.inference.many.shards import Shard, predict_shard
from terrazzo.inference.many.sources import Item, as_local, is_fetched
from terrazzo.inference.many.turns import Turns, lanes_of, thread_count, torch_threads
from terrazzo.inference.scenes.choice import fits_whole
from terrazzo.inference.scenes.outputs import Wanted, predict_to_files
from terrazzo.inference.video.predict import AS_USUAL, VideoOptions, predict_video
from terrazzo.inference.video.reading import is_live, is_video
from terrazzo.system.failures import explained, told
from terrazzo.system.files import make_folder
from terrazzo.system.memory import keep_freed_memory
from terrazzo.system.remote import joined, put

LOWER = "cut it into tiles, skip such images with --max-pixels, or take a smaller model"
BESIDE = 2  # images that are read or written while the model has others
WAITING = (
    "{}: part {} is done; the last one to finish writes the results, or if it is killed meanwhile, its command with "
    "--resume"
)


@dataclass(frozen=True)
class Outcome:
    """The end of one item: done, now or before, or the `problem` that it had; a `note` says what is still to come."""

    item: Item
    problem: str = ""
    unexpected: Exception | None = None
    was_done: bool = False
    note: str = ""
    entry: dict[str, Any] | None = None  # for the manifest


class Stopped(Exception):
    """The run is over before this item is."""


class ManyRun:
    """The prediction of many items into a folder; one that fails does not lose the others.

    `on_progress(item, progress)` is told of scenes and videos while they last, with None at their end. With a `shard`,
    the items are split among the shards, or where there are fewer, the windows of each scene. Results are copied to an
    `address` on an object store where there is one, and `out` only holds them until then.
    """

    def __init__(
        self,
        segmenter: Any,
        out: Path,
        wanted: Wanted,
        video: VideoOptions = AS_USUAL,
        shard: Shard | None = None,
        on_progress: Callable[[Item, Any], None] = lambda item, progress: None,
        address: str | None = None,
    ) -> None:
        self.segmenter, self.out, self.wanted, self.video = segmenter, out, wanted, video
        self.shard, self.on_progress, self.address = shard, on_progress, address
        self.manifest: Manifest | None = None
        self.split: set[Item] = set()
        self.stopped = threading.Event()
        self.folders = threading.Lock()
        self.made: set[Path] = set()

    def plan(self, items: Sequence[Item]) -> list[Item]:
        """The items that this process works on; a manifest is kept where it is one of several, or they are."""
        shard = self.shard
        if len(items) > 1 or shard is not None:
            options = asdict(replace(self.wanted, resume=False)) | {"video": asdict(self.video)}
            self.manifest = Manifest(
                self.out, job_of(self.segmenter, options), f"-{shard}" if shard else "", self.address
            )
        if shard is None:
            return list(items)
        if len(items) < shard.count:
            self.split = {item for item in items if is_scene(self.segmenter, item)}
        if self.split and self.address is not None:
            raise UserError("the parts of one scene are put together in a folder that all share: give a local --out")
        rest = shard.of([item for item in items if item not in self.split])
        return [item for item in items if item in self.split or item in rest]

    def run(self, items: Sequence[Item], on_end: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
        """Predict the items, and return their outcomes in the order in which they end."""
        lanes = max(1, min(len(items), lanes_of(self.segmenter.runtime)))
        self.turns, self.threads = Turns(lanes), thread_count() if lanes > 1 else None
        at_once = max(1, min(len(items), lanes + BESIDE))
        if len(items) > 1:
            keep_freed_memory()
        if lanes > 1:
            _ = self.segmenter.runtime.bytes_per_pixel  # measured while the model does nothing else
        outcomes: list[Outcome] = []
        self.stopped.clear()
        with torch_threads(self.threads and self.threads // lanes), ThreadPoolExecutor(at_once) as pool:
            waiting = {pool.submit(self.predict, item): item for item in items}
            try:
                for future in as_completed(waiting):
                    outcomes.append(future.result())
                    del waiting[future]
                    on_end(outcomes[-1])
            except KeyboardInterrupt:
                if not all(is_live(item.source) for item in waiting.values()):
                    raise
                self.stopped.set()  # what a camera or a stream has given is kept
                outcomes += [future.result() for future in waiting]
            finally:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                self.close()
        return outcomes

    def is_done(self, item: Item) -> bool:
        """Return whether an item need not be predicted again."""
        return self.manifest is not None and self.wanted.resume and self.manifest.is_done(item)

    def record(self, outcome: Outcome) -> None:
        """Note in the manifest that the results of an item are in place."""
        if self.manifest is not None and outcome.entry is not None:
            self.manifest.add(outcome.entry)

    def close(self) -> None:
        """Bring the manifest up to date where the results are."""
        if self.manifest is not None:
            self.manifest.save()

    def predict(self, item: Item) -> Outcome:
        """Predict one item, unless it is done."""
        if self.is_done(item):
            return Outcome(item, was_done=True)
        try:
            seen = identity(item)
            with explained(f"to segment {item.source}", LOWER), as_local(item.source) as source:
                files = self.write(item, source, self.folder(item) / item.stem)
            if not files:
                return Outcome(item, note=WAITING.format(item.source, self.shard))
            is_kept = not is_live(item.source)
            entry = entry_of(item, seen, files, self.out, has_times=self.address is None) if is_kept else None
            if self.address is not None:
                for file in files:
                    put(file, joined(self.address, file.relative_to(self.out).as_posix()))
                    file.unlink()
            outcome = Outcome(item, entry=entry)
            self.record(outcome)
            return outcome
        except Stopped:
            return Outcome(item, problem=f"{item.source}: stopped")
        except (UserError, OSError) as problem:  # as text, as the error itself would keep its image in memory
            return Outcome(item, problem=told(problem))
        except Exception as problem:
            return Outcome(item, problem=f"{item.source}: {type(problem).__name__}", unexpected=problem)
        finally:
            self.on_progress(item, None)

    def write(self, item: Item, source: Path | str, target: Path) -> list[Path]:
        """Write the results of an item, which is at hand as `source`, and return their files."""

        def show(progress: Any) -> None:
            if self.stopped.is_set():
                raise Stopped
            self.on_progress(item, progress)

        if is_video(item.source):
            with self.turn():
                return predict_video(self.segmenter, source, target, self.video, show, self.stopped.is_set)
        if self.shard is not None and item in self.split:
            with self.turn():
                return predict_shard(self.segmenter, source, target, self.wanted, self.shard, show)
        return predict_to_files(self.segmenter, source, target, self.wanted, show, self.turn)

    @contextmanager
    def turn(self, height: int = 0, width: int = 0) -> Iterator[None]:
        """A turn at the model for an image: one lane, or all of them where it takes much of the memory."""
        memory, lanes = self.segmenter.memory, self.turns.lanes
        limited = replace(memory, limit=memory.limit // lanes)
        is_small = lanes > 1 and height and fits_whole(self.segmenter, height, width, limited)
        with self.turns.take(1 if is_small else lanes), torch_threads(None if is_small else self.threads):
            yield

    def folder(self, item: Item) -> Path:
        """The folder of an item's results, which is there."""
        folder = self.out / item.folder
        with self.folders:
            if folder not in self.made:
                make_folder(folder)
                self.made.add(folder)
        return folder


def is_scene(segmenter: Any, item: Item) -> bool:
    """Return whether an item is predicted in windows; one that cannot be opened is not."""
    if is_video(item.source) or is_fetched(item.source):
        return False
    try:
        return segmenter.scene(item.source) is not None
    except UserError:
        return False
