"""Loader workers: what is said when one dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.tiny import dataset_config, fit, make_streets, records, tiny_config
from terrazzo.data.build import build_dataset
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.loaders import checked, make_loader
from terrazzo.data.workers import worker_died
from terrazzo.data.wrappers import RepeatDataset
from terrazzo.errors import UserError


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


class Deadly:
    """A transform that no process survives, as a decoder that crashes on a file."""

    def __init__(self, stem: str, how: int) -> None:
        self.stem, self.how = stem, how

    def __call__(self, sample, rng):
        if sample.image_path.stem == self.stem:
            os.kill(os.getpid(), self.how)
        return sample


def open_deadly(root: Path, stem: str, how: int) -> SegmentationDataset:
    pipeline = [Deadly(stem, how), *dataset_config(root, "train")["pipeline"]]
    return build_dataset(dataset_config(root, "train") | {"pipeline": pipeline})


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("repeated", [False, True])
def test_the_file_that_a_worker_died_on_is_named(streets, how, repeated):
    dataset = open_deadly(streets, "03", how)
    if repeated:
        dataset = RepeatDataset(dataset, times=2)
    order = [[(0, 1), (0, 2)], [(0, 3), (0, 4)], [(0, 5)]]
    with pytest.raises(UserError, match=r"worker was killed while it read .*03\.png .*lower num_workers"):
        list(checked(make_loader(dataset, order, 2)))


def test_other_errors_of_torch_name_what_they_can():
    message = str(worker_died(RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), None))
    assert "(pid(s) 12, 13)" in message and "while it read" not in message


def test_persistent_workers_wait_for_the_next_pass(streets):
    loader = make_loader(build_dataset(dataset_config(streets, "train")), [[(0, 0)], [(0, 1)]], 1, persistent=True)
    passes = []
    for _ in range(2):
        assert len(list(checked(loader))) == 2
        passes.append(loader.dataset.reading[0, 0].item())
    assert passes[0] == passes[1] > 0
    loader._iterator._shutdown_workers()


def test_workers_serve_training_validation_and_its_pictures(streets, tmp_path):
    config = tiny_config(streets, steps=4, workers=1)
    config["train_cfg"]["val_interval"] = 2
    config["val_dataloader"]["num_workers"] = 1
    run = fit(config, tmp_path / "run")
    assert len(records(tmp_path / "run", "val")) == 2
    assert len(list((run.work_dir / "pictures").iterdir())) == 2
