"""A run's files are never lost to another one by accident."""

from __future__ import annotations

import json
import os
import platform
import signal
from pathlib import Path
from typing import Any

import pytest

from support.tiny import fit, make_streets, records, same_weights, start_terrazzo, states, tiny_config, write_config
from terrazzo.errors import UserError
from terrazzo.system.files import write_whole
from terrazzo.training import loop
from terrazzo.training.monitoring import runs
from terrazzo.training.monitoring.runs import RunRecord, read_record
from terrazzo.training.work_dir import choose_folder, claim


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the log, which all sessions add to."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_named_work_dir_with_a_run_is_refused(streets, tmp_path):
    fit(tiny_config(streets, steps=2), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"has a run \(finished, step 2 of 2\): .*--resume.*--overwrite"):
        fit(tiny_config(streets, steps=1), tmp_path)
    assert contents(tmp_path) == before


def test_the_default_work_dir_takes_the_next_number(streets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "street.yaml", tiny_config(streets, steps=1))
    folders = [fit(config, None).work_dir for _ in range(3)]
    assert folders == [Path("runs/street"), Path("runs/street-2"), Path("runs/street-3")]
    assert fit(config, None, resume=True).work_dir == Path("runs/street-3")
    with pytest.raises(UserError, match="--work-dir"):
        fit(config, None, overwrite=True)


def fail(*_: Any) -> None:
    raise RuntimeError("before the first step")


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}], ids=["overwrite", "resume"])
def test_a_session_that_ends_before_its_first_step_leaves_all_as_it_was(streets, tmp_path, monkeypatch, options):
    fit(tiny_config(streets, steps=3), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"does not exist|no folder|not a folder|there is no"):
        fit(tiny_config(tmp_path / "nowhere", steps=5), tmp_path, **options)
    monkeypatch.setattr(loop, "compute_losses", fail)
    with pytest.raises(RuntimeError, match="first step"):
        fit(tiny_config(streets, steps=5), tmp_path, **options)
    assert contents(tmp_path) == before


def test_an_overwritten_run_leaves_nothing(streets, tmp_path):
    fit(tiny_config(streets, steps=4), tmp_path)
    run = fit(tiny_config(streets, steps=2), tmp_path, overwrite=True)
    assert states(tmp_path) == ["step_2.pt"]
    assert [line["step"] for line in records(tmp_path)] == [1, 2, 2]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["step_000002.png"]
    assert same_weights(run.last, fit(tiny_config(streets, steps=2), tmp_path / "fresh").last)


def test_a_failed_setup_in_a_new_folder_leaves_no_run(tmp_path):
    with pytest.raises(UserError):
        fit(tiny_config(tmp_path / "nowhere", steps=1), tmp_path / "run")
    assert read_record(tmp_path / "run") == {}
    assert choose_folder(tmp_path / "run") == tmp_path / "run"


def test_a_config_of_the_users_own_is_not_replaced(streets, tmp_path):
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=1))
    before = config.read_text()
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match=r"config\.yaml is not of a run"):
            fit(config, tmp_path, **options)
    assert config.read_text() == before and not (tmp_path / "log.txt").exists()


def test_a_finished_run_without_states_is_not_trained_over(streets, tmp_path):
    fit(tiny_config(streets, steps=1), tmp_path)
    (tmp_path / "checkpoints" / "step_1.pt").unlink()
    with pytest.raises(UserError, match="without the states"):
        fit(tiny_config(streets, steps=2), tmp_path, resume=True)


def test_two_runs_do_not_share_a_folder(streets, tmp_path):
    config = write_config(tmp_path / "street.yaml", tiny_config(streets, steps=100_000))
    first = start_terrazzo("train", config, "--work-dir", tmp_path / "run", "--device", "cpu")
    while not read_record(tmp_path / "run"):
        assert first.poll() is None
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match=rf"process {first.pid} is training in .*run"):
            claim(tmp_path / "run", **options)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    claim(tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("host", "began", "is_refused"),
    [(platform.node(), None, True), (platform.node(), "1", False), ("elsewhere", None, False)],
    ids=["alive", "its id belongs to another process now", "on another machine"],
)
@pytest.mark.filterwarnings("ignore:process .* on elsewhere")
def test_the_record_of_a_process_locks_its_folder(tmp_path, host, began, is_refused):
    values = {"state": "running", "seconds": 0, "resumed": 0, "step": 0, "process": os.getppid(), "host": host}
    (tmp_path / "run.json").write_text(json.dumps(values | {"process_began": began}))
    if is_refused:
        with pytest.raises(UserError, match="is training in"):
            claim(tmp_path)
    else:
        assert claim(tmp_path).values["process"] == os.getpid()


def test_a_failure_is_on_record_with_a_full_disk(tmp_path, monkeypatch):
    """Otherwise the run would count as killed."""
    record = RunRecord(tmp_path)
    record.begin(0, 10)
    record.note_first_step()

    def full(path: Path, content: str) -> None:
        raise UserError(f"cannot save {path}: No space left on device")

    monkeypatch.setattr(runs, "write_whole", full)
    record.end("failed", 3)
    monkeypatch.setattr(runs, "write_whole", write_whole)
    assert (read_record(tmp_path)["state"], read_record(tmp_path)["step"]) == ("failed", 3)
