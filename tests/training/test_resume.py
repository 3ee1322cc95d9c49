"""A run that was stopped ends as if it had never been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import terrazzo as tz
from support.tiny import (
    fit,
    make_streets,
    model_config,
    records,
    same_weights,
    short_form,
    start_terrazzo,
    states,
    stop_at,
    terrazzo,
    tiny_config,
    write_config,
)
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.loaders import TrainingSampler
from terrazzo.errors import UserError
from terrazzo.training import validation
from terrazzo.training.checkpoints import read_state


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


CASES = {
    "plain": {},
    "dropout": {"model": model_config(dropout=0.5)},
    "workers": {"workers": 2, "model": model_config(dropout=0.5)},
    "adam": {"optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 0.01}}},
    "accumulation": {
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
            "accumulative_counts": 3,
        }
    },
    "ema": {"custom_hooks": [{"type": "EMAHook", "momentum": 0.1}]},
    "schedule free": {
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamWScheduleFree", "lr": 0.01}},
        "param_scheduler": [],
        "train_cfg": {"max_iters": 9, "val_interval": 2},
    },
    "muon": {"optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "MuonWithAdamW", "lr": 0.01}}},
    "clipping": {
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.1},
            "clip_grad": {"max_norm": 0.1},
        }
    },
    "bf16": {
        "optim_wrapper": {
            "type": "AmpOptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.1},
            "dtype": "bfloat16",
        }
    },
    "fp16": {
        "optim_wrapper": {
            "type": "AmpOptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.1},
            "dtype": "float16",
        }
    },
    "validations": {"train_cfg": {"max_iters": 9, "val_interval": 2}, "model": model_config(dropout=0.5)},
    "epochs": {
        "train_cfg": {"max_epochs": 3, "val_interval": 1},
        "param_scheduler": [{"type": "PolyLR", "power": 0.9, "end": 3, "convert_to_iter_based": True}],
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop", [4, 5])
def test_resuming_is_bit_identical(streets, tmp_path, monkeypatch, case, stop):
    """Six images in batches of two: step 4 is inside the second epoch and inside an accumulation."""
    config = tiny_config(streets, **({"steps": 9} | CASES[case]))
    whole = fit(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        part = fit(config, tmp_path / "parts")
    assert not part.finished and f"step_{stop}.pt" in states(tmp_path / "parts")
    torch.manual_seed(12345)  # what happens in between has no influence
    resumed = fit(config, tmp_path / "parts", resume=True)
    assert resumed.finished and f"resumed at step {stop} of 9" in resumed.log_path.read_text()
    assert same_weights(whole.last, resumed.last)
    whole_state, resumed_state = (
        torch.load(tmp_path / name / "checkpoints" / "step_9.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert equal(whole_state, resumed_state)
    assert [line["step"] for line in records(tmp_path / "parts", "train")] == list(range(1, 10))
    assert resumed.metrics == whole.metrics


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("workers", [0, 2])
def test_past_batches_are_not_read_again(streets, tmp_path, monkeypatch, workers):
    config = tiny_config(streets, steps=6, workers=workers)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        fit(config, tmp_path / "run")
    read = tmp_path / "read.txt"
    original = SegmentationDataset.__getitem__

    def counting(self, position):
        if "train" in str(self.pairs[0][0]):
            with read.open("a") as file:
                print(*position, file=file)
        return original(self, position)

    monkeypatch.setattr(SegmentationDataset, "__getitem__", counting)
    fit(config, tmp_path / "run", resume=True)
    positions = [tuple(map(int, line.split())) for line in read.read_text().splitlines()]
    order = iter(TrainingSampler(6, 2, seed=3))
    past = [position for _ in range(4) for position in next(order)]
    coming = [position for _ in range(2) for position in next(order)]
    assert set(coming) <= set(positions)
    assert not set(positions) & set(past)


def test_resume_on_an_empty_work_dir_starts_afresh(streets, tmp_path):
    fresh = fit(tiny_config(streets, steps=2), tmp_path / "a")
    run = fit(tiny_config(streets, steps=2), tmp_path / "b", resume=True)
    assert "nothing to resume" in run.log_path.read_text()
    assert same_weights(fresh.last, run.last)


def test_resuming_a_finished_run_changes_nothing(streets, tmp_path):
    config = tiny_config(streets, steps=2)
    first = fit(config, tmp_path / "run")
    before = first.last.read_bytes(), first.best.read_bytes()
    again = fit(config, tmp_path / "run", resume=True)
    assert again.finished and again.metrics == first.metrics
    assert (again.last.read_bytes(), again.best.read_bytes()) == before


def test_a_longer_run_goes_on_from_a_finished_one(streets, tmp_path):
    fit(tiny_config(streets, steps=2), tmp_path / "run")
    run = fit(tiny_config(streets, steps=4), tmp_path / "run", resume=True)
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2, 3, 4]
    assert tz.models.checkpoint.read_checkpoint(run.last).meta["step"] == 4


def test_records_of_steps_that_are_done_again_are_dropped(streets, tmp_path):
    config = tiny_config(streets, steps=4, default_hooks={
        "logger": {"interval": 1}, "checkpoint": {"interval": 2, "by_epoch": False, "max_keep_ckpts": -1},
    })  # fmt: skip
    fit(config, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step_4.pt").unlink()  # as if it had been killed before
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "mo')
    fit(config, tmp_path / "run", resume=True)
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2, 3, 4]


def test_pretrained_weights_are_not_needed_again(streets, tmp_path, monkeypatch):
    backbone = fit(tiny_config(streets, steps=1), tmp_path / "a").last
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        fit(tiny_config(streets, steps=2), tmp_path / "b", pretrained=str(backbone))
    backbone.unlink()
    assert fit(tiny_config(streets, steps=2), tmp_path / "b", pretrained=str(backbone), resume=True).finished


def test_a_stopped_validation_is_made_up_for(streets, tmp_path, monkeypatch):
    """A stop does not wait for a long validation; the resumed run begins with it."""
    config = tiny_config(streets, steps=4, train_cfg={"max_iters": 4, "val_interval": 2})
    whole = fit(config, tmp_path / "whole")
    original = validation.run_evaluation

    def stopping(*args, on_progress, **kwargs):
        def show(done, total):
            if done == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            on_progress(done, total)

        return original(*args, on_progress=show, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "run_evaluation", stopping)
        assert not fit(config, tmp_path / "parts").finished
    assert records(tmp_path / "parts", "val") == []
    resumed = fit(config, tmp_path / "parts", resume=True)
    assert [line["step"] for line in records(tmp_path / "parts", "val")] == [2, 4]
    assert records(tmp_path / "parts", "val") == records(tmp_path / "whole", "val")
    assert same_weights(whole.last, resumed.last) and same_weights(whole.best, resumed.best)


@pytest.mark.parametrize("change", ["model", "optimizer"])
def test_a_state_of_another_config_is_refused(streets, tmp_path, change):
    fit(tiny_config(streets, steps=1), tmp_path / "run")
    other = tiny_config(streets, steps=2)
    if change == "model":
        other["model"]["decode_head"]["channels"] = 12
    else:
        other["optim_wrapper"]["optimizer"] = {"type": "Adam", "lr": 0.1}
    with pytest.raises(UserError, match=r"config.yaml of the work dir"):
        fit(other, tmp_path / "run", resume=True)


@pytest.fixture(scope="module")
def two_states(streets, tmp_path_factory) -> Path:
    """A run with the states of its steps 1 and 2."""
    folder = tmp_path_factory.mktemp("states")
    keep_all = {"interval": 1, "by_epoch": False, "max_keep_ckpts": -1}
    fit(tiny_config(streets, steps=2, default_hooks={"checkpoint": keep_all}), folder)
    return folder


def zeroed(data: bytes) -> bytes:
    """A tensor's data as zeros, as after a power failure."""
    start = data.index(b"data/0") + 1000
    return data[:start] + bytes(64) + data[start + 64 :]


DAMAGES = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:1000],
    "no zip": lambda data: b"x" * len(data),
    "broken pickle": lambda data: data.replace(b"batch_in_all", b"batch\xff\xffn_all", 1),
    "one bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "zeros": zeroed,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named_and_the_one_before_it_used(streets, two_states, tmp_path, damage):
    folder = shutil.copytree(two_states, tmp_path / "run")
    path = folder / "checkpoints" / "step_2.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    run = fit(tiny_config(streets, steps=2), folder, resume=True)
    log = run.log_path.read_text()
    assert f"{path} is damaged" in log or f"{path} cannot be read as a checkpoint: it is damaged" in log
    assert "resumed at step 1 of 2" in log
    assert run.finished and states(folder) == ["step_1.pt", "step_2.pt"]
    assert same_weights(run.last, two_states / "last.safetensors")
    torch.load(path, weights_only=True)


def test_nothing_is_resumed_from_damaged_states_alone(streets, two_states, tmp_path):
    folder = shutil.copytree(two_states, tmp_path / "run")
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no state that is whole.*--overwrite"):
        fit(tiny_config(streets, steps=3), folder, resume=True)


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.ones(1)}}, torch.ones(1), {"step": 3}])
def test_a_file_of_another_kind_is_no_state(streets, tmp_path, content):
    path = tmp_path / "checkpoints" / "step_1.pt"
    path.parent.mkdir()
    torch.save(content, path)
    with pytest.raises(UserError, match=r"step_1\.pt is not the state of a run"):
        fit(tiny_config(streets), tmp_path / "run", resume=path)


def test_a_state_is_read_without_executing_it(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    others = {"position": 0, "optimizer": {}, "schedule": {}}
    torch.save({"step": Evil(), **others}, tmp_path / "step_1.pt")
    with pytest.raises(UserError, match=r"is not the state of a run|Nothing in it was executed"):
        read_state(tmp_path / "step_1.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("classes", [["sky", "car", "road"], ["sky", "road", "bus"]], ids=["order", "names"])
def test_a_state_of_other_classes_is_refused(streets, two_states, tmp_path, classes):
    config = tiny_config(streets, steps=3)
    config["train_dataloader"]["dataset"]["metainfo"]["classes"] = classes
    config["val_dataloader"]["dataset"]["metainfo"]["classes"] = classes
    with pytest.raises(UserError, match=f"sky, road, car.*{', '.join(classes)}"):
        fit(config, shutil.copytree(two_states, tmp_path / "run"), resume=True)


def wait_for_step(work_dir: Path, process) -> None:
    deadline = time.monotonic() + 60
    while not (work_dir / "metrics.jsonl").exists() or not (work_dir / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step within a minute"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "workers", "to_all"),
    [(signal.SIGTERM, 0, False), (signal.SIGINT, 2, True), (signal.SIGTERM, 2, True)],
    ids=["SIGTERM", "Ctrl-C", "SIGTERM to the group"],
)
def test_a_signal_finishes_the_step_saves_and_prints_how_to_go_on(streets, tmp_path, number, workers, to_all):
    work_dir = tmp_path / "my run"
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=100_000, workers=workers))
    process = start_terrazzo(
        "train", config, "--work-dir", work_dir, "--amp", "bf16", "--cfg-options", "train_cfg.max_iters=90000"
    )
    wait_for_step(work_dir, process)
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    (state,) = states(work_dir)
    step = torch.load(work_dir / "checkpoints" / state, weights_only=True)["step"]
    assert f"stopped at step {step} of 90000, state saved" in out
    command = out.split("to continue: ")[1].splitlines()[0]
    assert command == f"terrazzo train '{work_dir}/config.yaml' --work-dir '{work_dir}' --resume"
    assert (work_dir / "last.safetensors").exists()
    resolved = tz.load_config(work_dir / "config.yaml")
    assert resolved["train_cfg"]["max_iters"] == 90000 and resolved["optim_wrapper"]["dtype"] == "bfloat16"


def test_the_printed_command_continues(streets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        fit(short_form(streets, iterations=2), Path("run"))
    result = terrazzo("train", "run/config.yaml", "--work-dir", "run", "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "resumed at step 1 of 2" in result.stdout


def test_a_killed_process_loses_only_what_came_after_its_last_state(streets, tmp_path):
    """SIGKILL in the middle of saving: half-written files have other names, and go at the next start."""
    fit(tiny_config(streets, steps=2), tmp_path / "run")
    leftover = tmp_path / "run" / "checkpoints" / ".step_3.pt.4711.tmp"
    leftover.write_bytes(b"half a state")
    run = fit(tiny_config(streets, steps=3), tmp_path / "run", resume=True)
    assert run.finished and not leftover.exists()


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_no_more_than_the_interval(streets, tmp_path):
    """Every step saves, so that kills meet saves; in the end the weights are those of a run that was left alone."""
    config = tiny_config(streets, steps=400)
    config["default_hooks"]["checkpoint"]["interval"] = 1
    config["train_cfg"]["val_interval"] = 400
    whole = fit(config, tmp_path / "whole")
    path, folder = write_config(tmp_path / "config.yaml", config), tmp_path / "killed"
    random, done = np.random.default_rng(0), 0

    def newest() -> int:
        names = (
            [name for name in states(folder) if not name.startswith(".")] if (folder / "checkpoints").exists() else []
        )
        return max((int(name.removeprefix("step_").removesuffix(".pt")) for name in names), default=0)

    for _ in range(20):
        process = start_terrazzo("train", path, "--work-dir", folder, "--resume", "--device", "cpu", "--no-check")
        while newest() == done:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        whole_lines = (folder / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()
        assert newest() >= json.loads(whole_lines[-1])["step"] - 1
        torch.load(folder / "checkpoints" / f"step_{newest()}.pt", weights_only=True)
        done = newest()
    assert 20 <= done < 400
    resumed = fit(config, folder, resume=True)
    assert resumed.finished and same_weights(whole.last, resumed.last)
