"""Running a converter: only what is not there yet, in several processes, each file whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from terrazzo.data.build import build_dataset
from terrazzo.data.converters.base import CONVERTERS, Converter, Job, Options
from terrazzo.data.converters.raw import Missing, Raw
from terrazzo.data.spec import DatasetSpec, dataset_spec
from terrazzo.errors import UserError

RECORD = ".converted.json"  # what OUT was made by
SCRATCH = ".unpacked"


@dataclass(frozen=True)
class Report:
    """What a conversion did: files written and found ready, images of each split, and what to tell the user."""

    written: int
    kept: int
    images: dict[str, int]
    notes: list[str]


def convert(
    name: str,
    raw: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    link: bool = False,
    tile: int | None = None,
    stride: int | None = None,
    console: Console | None = None,
) -> Report:
    """Convert a data set as published (`raw`, a folder or an archive) to what its declaration reads, below `out`.

    What `out` holds already is kept, so that an interrupted run goes on. `link` sets symbolic links to files that stay
    as they are, instead of copies. Raises UserError for what is missing or damaged, after all the rest is done.
    """
    converter: Converter = CONVERTERS.get(name)
    source, target = Path(raw).resolve(), Path(out).resolve()
    if target == source or target.is_relative_to(source):
        raise UserError(f"{out} lies inside {raw}, which is only read: choose another folder to write to")
    options = choose(converter, tile, stride)
    target.mkdir(parents=True, exist_ok=True)
    check_record(target, converter, options)
    jobs, files = make_plan(converter, options, Raw(source, target / SCRATCH), console)
    check_outputs(jobs, target, source)
    (target / RECORD).write_text(record(converter, options), encoding="utf-8")
    waiting = [job for job in jobs if job.renew or not all((target / output).exists() for output in job.outputs)]
    failures = run_all(waiting, target, files.scratch, link, workers, console)
    if failures:
        listed = "\n  ".join(failures[:5]) + ("\n  ..." if len(failures) > 5 else "")
        raise UserError(f"{len(failures)} of {len(jobs)} conversions failed; mend them and run again:\n  {listed}")
    images, notes = verify(converter, options, target, jobs)
    shutil.rmtree(target / SCRATCH, ignore_errors=True)
    return Report(len(waiting), len(jobs) - len(waiting), images, notes)


def choose(converter: Converter, tile: int | None, stride: int | None) -> Options:
    """The converter's options with the user's. Raises UserError for tiles where none are cut, and impossible ones."""
    if tile is None and stride is None:
        return converter.options
    if not converter.options.tile:
        raise UserError(f"{converter.name} cuts no tiles: leave out --tile and --stride")
    edge = tile or converter.options.tile
    step = stride or (edge if tile else converter.options.stride)
    if not 0 < step <= edge:
        raise UserError(f"tiles of {edge} pixels every {step} would leave gaps: --stride must be 1 to {edge}")
    return Options(edge, step)


def check_record(target: Path, converter: Converter, options: Options) -> None:
    """Raise UserError where `target` was made by another converter, or with other tiles."""
    path = target / RECORD
    if path.exists() and path.read_text(encoding="utf-8") != record(converter, options):
        raise UserError(
            f"{target} was made with other settings ({path.read_text(encoding='utf-8')}): choose another folder, or "
            "the same settings to go on"
        )


def record(converter: Converter, options: Options) -> str:
    return json.dumps({"converter": converter.name, **asdict(options)})


def make_plan(converter: Converter, options: Options, raw: Raw, console: Console | None) -> tuple[list[Job], Raw]:
    """The jobs from the loose files of RAW, from its archives too where these do not do."""
    try:
        jobs = converter.plan(raw, options)
        if not raw.archives() or not missing_splits(converter, jobs):
            return jobs, raw
    except Missing as missing:
        if not raw.archives():
            raise Missing(f"{raw.root}: {missing}. It should hold {converter.needs}") from None
    if console is not None:
        console.print(f"unpacking {len(raw.archives())} archives into {raw.scratch}", highlight=False)
    raw.unpack()
    try:
        return converter.plan(raw, options), raw
    except Missing as missing:
        raise Missing(f"{raw.root}: {missing}. It should hold {converter.needs}") from None


def image_folder(spec: DatasetSpec, split: str) -> str:
    """The folder of a split's images below the data set's root."""
    return spec.layout[split]["data_prefix"]["img_path"]


def missing_splits(converter: Converter, jobs: list[Job]) -> list[str]:
    """Splits that are neither optional nor among the files that the jobs write."""
    spec = dataset_spec(converter.dataset)
    folders = {str(Path(output).parent) for job in jobs for output in job.outputs}
    wanted = [split for split in converter.splits if split not in converter.optional]
    return [split for split in wanted if not any(f"{f}/".startswith(f"{image_folder(spec, split)}/") for f in folders)]


def check_outputs(jobs: list[Job], target: Path, source: Path) -> None:
    outputs = [target / output for job in jobs for output in job.outputs]
    assert len(set(outputs)) == len(outputs), "two jobs write the same file"
    inside = [path for path in outputs if path.is_relative_to(source)]
    if inside:
        raise UserError(f"{inside[0]} would be written into {source}, which is only read: choose another folder")


def run_all(
    jobs: list[Job], target: Path, scratch: Path, link: bool, workers: int | None, console: Console | None
) -> list[str]:
    """Run the jobs; the messages of those that failed."""
    count = min(workers or os.cpu_count() or 1, len(jobs))
    work = results(jobs, target, scratch, link, count)
    steps = track(work, "converting", total=len(jobs), console=console, disable=console is None, transient=True)
    return [message for message in steps if message]


def results(jobs: list[Job], target: Path, scratch: Path, link: bool, count: int) -> Iterator[str]:
    if count <= 1:
        yield from (run_job(job, target, scratch, link) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=start_worker) as pool:
        futures = [pool.submit(run_job, job, target, scratch, link) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, perhaps for want of memory: run again with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    """One thread a process; interrupts are the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def run_job(job: Job, target: Path, scratch: Path, link: bool) -> str:
    """Write a job's files; an empty string, or what went wrong."""
    paths = [target / output for output in job.outputs]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        if job.source is not None:
            place(job.source, paths[0], link and not job.source.is_relative_to(scratch))
        else:
            assert job.make is not None
            for path, made in zip(paths, job.make(), strict=True):
                write(path, made)
    except UserError as problem:
        return str(problem)
    except OSError as problem:
        return f"cannot write {problem.filename or paths[0]}: {problem.strerror or problem}"
    return ""


def place(source: Path, path: Path, link: bool) -> None:
    """A copy of a file, or a symbolic link to it."""
    growing = path.with_name(f".{path.name}.tmp")
    growing.unlink(missing_ok=True)
    if link:
        growing.symlink_to(source)
    else:
        shutil.copyfile(source, growing)
    growing.replace(path)


def write(path: Path, made: bytes | np.ndarray) -> None:
    """Bytes, or an array in the format that the name asks for (RGB to PNG, or to JPEG at its best)."""
    if isinstance(made, np.ndarray):
        array = made[..., ::-1] if made.ndim == 3 else made
        options = [cv2.IMWRITE_JPEG_QUALITY, 100] if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
        made = cv2.imencode(path.suffix, np.ascontiguousarray(array), options)[1].tobytes()
    growing = path.with_name(f".{path.name}.tmp")
    growing.write_bytes(made)
    growing.replace(path)


def verify(converter: Converter, options: Options, target: Path, jobs: list[Job]) -> tuple[dict[str, int], list[str]]:
    """Read every split by its declaration: the number of its images, and notes where it is not the published one.

    Raises UserError for an image without a label, and for images that are not of this conversion.
    """
    spec = dataset_spec(converter.dataset)
    images, notes = {}, []
    for split in converter.splits:
        section: dict[str, Any] = spec.split(split, target)
        folders = section["data_prefix"]
        if not (target / folders["img_path"]).is_dir():
            if split not in converter.optional:
                notes.append(f"{split}: RAW holds none of its images")
            continue
        labels = folders.get("seg_map_path")
        if labels is not None and not (target / labels).is_dir():
            section["data_prefix"] = {key: value for key, value in folders.items() if key != "seg_map_path"}
            notes.append(f"{split}: images without labels")
        images[split] = len(build_dataset(section))
        planned = count_images(jobs, folders["img_path"])
        if not section.get("ann_file") and images[split] != planned:
            raise UserError(
                f"{target / folders['img_path']} holds {images[split]} images, but RAW gives {planned}: "
                "remove the others or choose an empty folder"
            )
        published = spec.counts.get(split)
        if options == converter.options and published not in (None, images[split]):
            notes.append(f"{split}: {images[split]} of {published} published images; is the download complete?")
    return images, notes


def count_images(jobs: Iterable[Job], folder: str) -> int:
    """Files that the jobs write below a folder."""
    return sum(output.startswith(f"{folder}/") for job in jobs for output in job.outputs)
