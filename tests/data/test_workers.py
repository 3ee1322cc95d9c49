"""Loader workers: what is said when one dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import terrazzo as tz
from support.paths import REPOSITORY
from support.tiny import dataset_config, environment, fit, make_streets, records, tiny_config, write_config
from terrazzo.data.build import build_dataset
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.loaders import loading, make_loader
from terrazzo.data.workers import PINNING, losses_held_back, lost_workers, worker_died
from terrazzo.data.wrappers import RepeatDataset
from terrazzo.errors import UserError
from terrazzo.sample import Batch


def can_mount() -> bool:
    call = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]
    return shutil.which("unshare") is not None and subprocess.run(call, capture_output=True).returncode == 0


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


def read(loader: Any) -> list[Batch]:
    with loading(loader) as batches:
        return list(batches)


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
        read(make_loader(dataset, order, 2))


FAILING = """
import os, signal, sys, time
from support.tiny import fit, tiny_config
from terrazzo.training import loop

compute = loop.compute_losses

def fail(state, batch, profile):
    {action}
    return compute(state, batch, profile)

loop.compute_losses = fail
config = tiny_config({streets!r}, workers=2)
config["val_dataloader"]["num_workers"] = 2
fit(config, {folder!r})
"""


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("raise KeyError('odd')", "KeyError: 'odd'"),
        ("worker = state.train_set and __import__('multiprocessing').active_children()[0]; "
         "os.kill(worker.pid, signal.SIGKILL); time.sleep(0.5)", "UserError: a loader worker was killed"),
    ],
    ids=["any error", "out of memory"],
)  # fmt: skip
def test_a_failure_ends_the_workers_at_once_and_is_told_of_once(streets, tmp_path, action, error):
    program = FAILING.format(action=action, streets=streets, folder=tmp_path).replace(
        "PosixPath", "__import__('pathlib').Path"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), cwd=REPOSITORY / "tests", capture_output=True, text=True
    )
    assert done.returncode == 1 and error in done.stderr.splitlines()[-2], done.stderr
    assert "Alarm clock" not in done.stderr and done.stderr.count(error) == 1
    assert time.monotonic() - started < 30


def test_a_worker_ends_when_its_main_process_says_so_and_not_when_all_are_told(streets):
    loader = make_loader(build_dataset(dataset_config(streets, "train")), [[(0, 0)], [(0, 1)]] * 20, 1)
    with loading(loader) as batches:
        next(batches)
        (worker,) = loader_workers(batches)
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # from another process
        assert len(list(batches)) == 39
        worker.terminate()
        worker.join(5)
        assert worker.exitcode == 0


def test_a_worker_that_is_lost_while_it_hands_over_a_batch_is_told_of_as_any_other(streets):
    loader = make_loader(build_dataset(dataset_config(streets, "train")), [[(0, 0)], [(0, 1)]] * 20, 2)
    with pytest.raises(UserError, match="a loader worker was killed"), loading(loader) as batches:
        next(batches)
        os.kill(loader_workers(batches)[0].pid, signal.SIGKILL)
        time.sleep(0.2)  # whatever the main process does is not disturbed
        raise ConnectionResetError("Connection reset by peer")
    assert not loader_workers(batches)


def test_a_lost_worker_is_told_of_where_the_next_batch_is_asked_for(streets):
    loader = make_loader(build_dataset(dataset_config(streets, "train")), [[(0, 0)], [(0, 1)]] * 20, 2)
    other = make_loader(build_dataset(dataset_config(streets, "val")), [[(0, 0)]] * 20, 1)
    with pytest.raises(UserError, match="a loader worker was killed"), loading(loader) as batches:
        next(batches)
        os.kill(loader_workers(batches)[0].pid, signal.SIGKILL)
        time.sleep(0.2)  # so that it is gone when others are started
        with loading(other) as others:  # of whichever loader
            next(others)
            raise AssertionError("the loss is not noticed")
    assert not loader_workers(batches)


def test_what_breaks_in_the_thread_that_pins_batches_is_told_of_by_the_main_thread(monkeypatch):
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fail() -> None:
        raise ConnectionResetError("Connection reset by peer")

    with losses_held_back():
        for name in (PINNING, "another"):
            thread = threading.Thread(target=fail, name=name)
            thread.start()
            thread.join()
    assert [failure.thread.name for failure in told] == ["another"]


def loader_workers(_: Any) -> list[Any]:
    import multiprocessing

    return multiprocessing.active_children()


@pytest.mark.skipif(not can_mount(), reason="mounting needs user namespaces")
@pytest.mark.parametrize("command", ["train", "test", "test --tta"])
def test_a_shortage_of_shared_memory_is_an_error_that_names_the_ways_out(tmp_path, command):
    values = tiny_config(make_streets(tmp_path / "streets", size=(512, 640)), workers=2, batch=4, steps=3)
    values["test_dataloader"]["num_workers"] = 2
    views = [[{"type": "RandomFlip", "prob": chance} for chance in (0.0, 1.0)]]
    values["tta_pipeline"] = [{"type": "LoadImageFromFile"}, {"type": "TestTimeAug", "transforms": views}]
    config, trained = write_config(tmp_path / "c.yaml", values), tmp_path / "w.safetensors"
    save_file(tz.build_model(values).state_dict(), str(trained))
    crop = "train_dataloader.dataset.pipeline.2.crop_size=[500,600]"
    options = {"train": f"--work-dir {tmp_path}/run --cfg-options {crop}"}
    call = "mount -t tmpfs -o size=1m tmpfs /dev/shm && "
    call += f"{sys.executable} -m terrazzo {command} {config} {options.get(command, trained)} --device cpu"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", call], env=environment(), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "/dev/shm has 1 MiB" in done.stderr and "--shm-size" in done.stderr and "`workers: 0`" in done.stderr


def test_other_errors_of_torch_name_what_they_can():
    problem = RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly")
    assert lost_workers(problem, None) == {12, 13}
    message = str(worker_died(problem, None, lost_workers(problem, None)))
    assert "(pid(s) 12, 13)" in message and "while it read" not in message


def test_persistent_workers_wait_for_the_next_pass(streets):
    loader = make_loader(build_dataset(dataset_config(streets, "train")), [[(0, 0)], [(0, 1)]], 1, persistent=True)
    passes = []
    for _ in range(2):
        assert len(read(loader)) == 2
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
