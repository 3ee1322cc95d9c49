"""The run of a converter in several processes: missing files only, each written whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from terrazzo.data.build import build_dataset
from terrazzo.data.converters.base import CONVERTERS, Converter, Job, Options
from terrazzo.data.converters.raw import Missing, Raw
from terrazzo.data.spec import dataset_spec
from terrazzo.errors import UserError
from terrazzo.system.files import write_atomically, write_whole
from terrazzo.system.processes import end_with_parent
from terrazzo.system.terminal import Console

RECORD = ".converted.json"  # the converter and options that made OUT
SCRATCH = ".unpacked"


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion: files written and found complete, images of each split, and notes for the user."""

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
) -> ConversionReport:
    """Convert a data set as published (`raw`, a folder or an archive) to the layout of its declaration, below `out`.

    Files already in `out` are kept, so that an interrupted run continues. `link` makes symbolic links to unchanged
    files instead of copies. Raises UserError for missing or damaged files, after all others are converted.
    """
    converter: Converter = CONVERTERS.get(name)
    source, target = Path(raw).resolve(), Path(out).resolve()
    if target == source or target.is_relative_to(source):
        raise UserError(f"{out} is inside {raw}, which is only read: choose another folder to write to")
    options = chosen_options(converter, tile, stride)

    # plan, and refuse to mix with what other settings have written
    target.mkdir(parents=True, exist_ok=True)
    check_record(target, converter, options)
    files = Raw(source, target / SCRATCH)
    jobs = make_plan(converter, options, files, console)
    check_outputs(jobs, target, source)
    write_whole(target / RECORD, record(converter, options))

    # convert what is missing
    waiting = [job for job in jobs if job.renew or not all((target / output).exists() for output in job.outputs)]
    work = results(waiting, target, files.scratch, link, min(workers or os.cpu_count() or 1, len(waiting)))
    steps = track(work, "converting", len(waiting), console=console, disable=console is None, transient=True)
    failures = [message for message in steps if message]
    if failures:
        listed = "\n  ".join(failures[:5]) + ("\n  ..." if len(failures) > 5 else "")
        raise UserError(
            f"{len(failures)} of {len(jobs)} conversions failed; fix their causes and run again:\n  {listed}"
        )

    # read the result by its declaration
    images, notes = verify(converter, options, target, jobs)
    shutil.rmtree(target / SCRATCH, ignore_errors=True)
    return ConversionReport(len(waiting), len(jobs) - len(waiting), images, notes)


def chosen_options(converter: Converter, tile: int | None, stride: int | None) -> Options:
    """The converter's options with the user's. Raises UserError for tiles that it cannot cut."""
    if tile is None and stride is None:
        return converter.options
    if not converter.options.tile:
        raise UserError(f"{converter.name} does not cut tiles: omit --tile and --stride")
    edge = tile or converter.options.tile
    step = stride or (edge if tile else converter.options.stride)
    if not 0 < step <= edge:
        raise UserError(f"tiles of {edge} pixels every {step} would leave gaps: --stride must be 1 to {edge}")
    return Options(edge, step)


def check_record(target: Path, converter: Converter, options: Options) -> None:
    """Raise UserError if `target` was made by another converter or with other tiles."""
    path = target / RECORD
    if path.exists() and path.read_text(encoding="utf-8") != record(converter, options):
        raise UserError(
            f"{target} was made with other settings ({path.read_text(encoding='utf-8')}): choose another folder, or "
            "the same settings to continue"
        )


def record(converter: Converter, options: Options) -> str:
    """The settings of a conversion as JSON."""
    return json.dumps({"converter": converter.name, **asdict(options)})


def make_plan(converter: Converter, options: Options, raw: Raw, console: Console | None) -> list[Job]:
    """The jobs for the loose files of RAW, and for those of its archives where the loose ones do not suffice."""
    try:
        if raw.archives():
            with suppress(Missing):
                jobs = converter.jobs(raw, options)
                if not missing_splits(converter, jobs):
                    return jobs
            if console is not None:
                console.print(f"unpacking {len(raw.archives())} archives into {raw.scratch}")
            raw.unpack()
        return converter.jobs(raw, options)
    except Missing as missing:
        raise Missing(f"{raw.root}: {missing}. It should hold {converter.needs}") from None


def missing_splits(converter: Converter, jobs: list[Job]) -> list[str]:
    """The splits that are not optional and of which the jobs write no images."""
    spec = dataset_spec(converter.dataset)
    wanted = {split: spec.layout[split]["data_prefix"]["img_path"] for split in converter.splits}
    return [split for split, folder in wanted.items() if split not in converter.optional and not count(jobs, folder)]


def check_outputs(jobs: list[Job], target: Path, source: Path) -> None:
    """Raise UserError for a job that would write below `source`."""
    outputs = [target / output for job in jobs for output in job.outputs]
    assert len(set(outputs)) == len(outputs), "two jobs write the same file"
    inside = [path for path in outputs if path.is_relative_to(source)]
    if inside:
        raise UserError(f"{inside[0]} would be written into {source}, which is only read: choose another folder")


def results(jobs: list[Job], target: Path, scratch: Path, link: bool, processes: int) -> Iterator[str]:
    """The result of each job, in the order of completion."""
    if processes <= 1:
        yield from (run_job(job, target, scratch, link) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=start_worker) as pool:
        futures = [pool.submit(run_job, job, target, scratch, link) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, possibly for lack of memory: run again with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    """Limit a worker to one thread, leave interrupts to the main process, and end with it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def run_job(job: Job, target: Path, scratch: Path, link: bool) -> str:
    """Write the files of a job and return the message of its failure, or an empty string."""
    paths = [target / output for output in job.outputs]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        if job.source is not None:
            copy_or_link(job.source, paths[0], link and not job.source.is_relative_to(scratch))
        else:
            assert job.make is not None
            for path, made in zip(paths, job.make(), strict=True):
                write(path, made)
    except UserError as problem:
        return str(problem)
    except OSError as problem:
        return f"cannot write {problem.filename or paths[0]}: {problem.strerror or problem}"
    return ""


def copy_or_link(source: Path, path: Path, link: bool) -> None:
    """Copy a file, or make a symbolic link to it."""
    if not link:
        write_atomically(path, lambda temporary: shutil.copyfile(source, temporary))
        return
    growing = path.with_name(f".{path.name}.tmp")
    growing.unlink(missing_ok=True)
    growing.symlink_to(source)
    growing.replace(path)


def write(path: Path, made: bytes | np.ndarray) -> None:
    """Write bytes, or an array in the format of the file's name (RGB as PNG, or as JPEG of the best quality)."""
    if isinstance(made, np.ndarray):
        array = made[..., ::-1] if made.ndim == 3 else made
        options = [cv2.IMWRITE_JPEG_QUALITY, 100] if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
        made = cv2.imencode(path.suffix, np.ascontiguousarray(array), options)[1].tobytes()
    write_whole(path, made)


def verify(converter: Converter, options: Options, target: Path, jobs: list[Job]) -> tuple[dict[str, int], list[str]]:
    """Read every split by its declaration: the number of images, and notes where it differs from the published one.

    Raises UserError for an image without a label, and for images that this conversion does not write.
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
        planned = count(jobs, folders["img_path"])
        if not section.get("ann_file") and images[split] != planned:
            raise UserError(
                f"{target / folders['img_path']} holds {images[split]} images, but RAW gives {planned}: "
                "remove the others or choose an empty folder"
            )
        published = spec.counts.get(split)
        if options == converter.options and published not in (None, images[split]):
            notes.append(f"{split}: {images[split]} of {published} published images; is the download complete?")
    return images, notes


def count(jobs: Iterable[Job], folder: str) -> int:
    """The number of files that the jobs write below a folder."""
    return sum(output.startswith(f"{folder}/") for job in jobs for output in job.outputs)
