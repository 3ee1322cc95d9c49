"""A dataset of drawn street scenes on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from terrazzo.demo.scenes import draw_scene
from terrazzo.system.painting import save_picture
from terrazzo.system.processes import end_with_parent


def write_scenes(
    folder: Path, counts: Mapping[str, int], size: tuple[int, int], seed: int = 0, processes: int = 1
) -> Iterator[int]:
    """Write images/SPLIT/NNNN.png and labels/SPLIT/NNNN.png by each split's count; yield the number written so far.

    A scene depends on its size, seed, split's index and number only.
    """
    jobs = []
    for index, (split, count) in enumerate(counts.items()):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        jobs += [(f"{split}/{number:04d}.png", (seed, index, number)) for number in range(count)]
    with ProcessPoolExecutor(processes, initializer=end_with_parent) if processes > 1 else nullcontext() as pool:
        write = partial(write_scene, folder, size)
        written = pool.map(write, jobs, chunksize=4) if pool else map(write, jobs)
        yield from (number for number, _ in enumerate(written, 1))


def write_scene(folder: Path, size: tuple[int, int], job: tuple[str, tuple[int, ...]]) -> None:
    """Write the image and the label of one scene, given its name and seed."""
    image, label = draw_scene(np.random.default_rng(job[1]), size)
    save_picture(folder / "images" / job[0], image)
    save_picture(folder / "labels" / job[0], label)
