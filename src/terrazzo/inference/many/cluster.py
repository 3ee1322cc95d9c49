"""Many images on a cluster: actors of Ray Data hold the model, and write the results where all can."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from terrazzo.inference.many.run import ManyRun, Outcome
from terrazzo.inference.many.setup import Setup
from terrazzo.inference.many.sources import Item
from terrazzo.system.extras import import_extra
from terrazzo.system.failures import line_of_users
from terrazzo.system.ray import connected, worker_count


class Worker:
    """An actor: a model, and the items by number."""

    def __init__(self, setup: Setup, items: Sequence[Item], folder: str) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)  # which paths are relative to
        self.items, self.work = items, setup.run(setup.segmenter())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict the item of a number, whose outcome becomes bytes."""
        (outcome,) = self.work.run([self.items[int(batch["id"][0])]])
        if outcome.unexpected is not None:  # which may be of a class that others do not have
            reason = f"{type(outcome.unexpected).__name__}: {outcome.unexpected}"
            places = filter(None, (outcome.item.source, line_of_users(outcome.unexpected)))
            text = ": ".join([*map(str, places), reason])
            outcome = replace(outcome, problem=text, unexpected=None)
        return {"outcome": np.array([pickle.dumps(outcome)], object)}


def run_on_ray(
    setup: Setup,
    work: ManyRun,
    items: Sequence[Item],
    address: str | None,
    on_end: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Predict items in the processes of a cluster; `work` is the run that has planned them, and keeps its manifest.

    A process that is lost is started again, and predicts its item once more. Raises UserError where no cluster answers.
    """
    import_extra("ray.data", "ray", "clusters")
    waiting = [item for item in items if not work.is_done(item)]
    outcomes = [Outcome(item, was_done=True) for item in items if work.is_done(item)]
    for outcome in outcomes:
        on_end(outcome)
    needs_gpu = str(work.segmenter.device).startswith("cuda")
    with connected(address) as ray:
        ray.data.DataContext.get_current().enable_progress_bars = False
        workers = min(len(waiting) or 1, worker_count(ray, needs_gpu))
        found = ray.data.range(len(waiting), override_num_blocks=max(1, len(waiting))).map_batches(
            Worker,
            fn_constructor_args=(setup, waiting, os.getcwd()),  # noqa: PTH109
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=None if needs_gpu else 1,
            num_gpus=1 if needs_gpu else None,
        )
        for row in found.iter_rows() if waiting else ():
            outcome = pickle.loads(row["outcome"])
            work.record(outcome)
            outcomes.append(outcome)
            on_end(outcome)
    work.close()
    return outcomes
