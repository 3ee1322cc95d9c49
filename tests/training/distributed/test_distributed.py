"""Several processes that train one model together, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import terrazzo as tz
from support.tiny import make_streets, model_config, records, start_terrazzo, tiny_config
from terrazzo.errors import UserError
from terrazzo.system.process_group import ProcessGroup, first_host, launched, set_address
from terrazzo.system.processes import is_alive
from terrazzo.training.distributed.launch import free_port
from terrazzo.training.monitoring.runs import read_record

# trains from a JSON config in double precision, where the order of additions does not show
PROGRAM = """
import json, sys, torch
import terrazzo as tz
torch.set_num_threads(1)
if sys.argv[3] == "float64":
    torch.set_default_dtype(torch.float64)
tz.train(json.loads(sys.argv[1]), work_dir=sys.argv[2], device="cpu", quiet=True, resume=sys.argv[4] == "resume")
"""


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"), train=8, val=5)


def run_program(config: dict[str, Any], folder: Path, size: int, dtype: str = "float64", resume: str = "") -> None:
    """Train in `size` processes, started as torchrun starts them."""
    arguments = [sys.executable, "-c", PROGRAM, json.dumps(config), str(folder), dtype, resume]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            arguments,
            env=os.environ | address | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    errors = [process.communicate(timeout=150)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * size, "\n".join(errors)


def config_for(streets: Path, batch: int, norm: str = "SyncBN", steps: int = 20, **sections: Any) -> dict[str, Any]:
    config = tiny_config(streets, steps=steps, batch=batch, **sections)
    config["model"] = model_config(dropout=0.0, norm_cfg={"type": norm})
    config["model"]["backbone"]["norm_cfg"] = {"type": norm}
    config["default_hooks"] = {"logger": {"type": "LoggerHook", "interval": 1}}
    return config


def terrazzo(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "terrazzo", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("strategy", ["DDPStrategy", pytest.param("FSDPStrategy", marks=pytest.mark.slow)])
def test_two_processes_equal_one_with_twice_the_batch(streets, tmp_path, strategy):
    run_program(config_for(streets, batch=4), tmp_path / "one", size=1)
    run_program(config_for(streets, batch=2) | {"strategy": {"type": strategy}}, tmp_path / "two", size=2)
    one, two = ([record["decode.loss_ce"] for record in records(tmp_path / name, "train")] for name in ("one", "two"))
    assert len(one) == 20 and one == pytest.approx(two, abs=1e-5)
    scores = [records(tmp_path / name, "val")[-1] for name in ("one", "two")]
    assert scores[0]["per_class"] == scores[1]["per_class"]
    weights = [load_file(tmp_path / name / "last.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDPStrategy", "FSDPStrategy"])
def test_two_processes_learn_from_a_teacher_as_one_does(streets, tmp_path, strategy):
    run_program(config_for(streets, batch=4, steps=2), tmp_path / "teacher", size=1)
    teacher = {"weights": str(tmp_path / "teacher" / "last.safetensors"), "features": 3.0}
    run_program(config_for(streets, batch=4, teacher=teacher), tmp_path / "one", size=1)
    sections = {"teacher": teacher, "strategy": {"type": strategy}}
    run_program(config_for(streets, batch=2, **sections), tmp_path / "two", size=2)
    one, two = ([record["loss"] for record in records(tmp_path / name, "train")] for name in ("one", "two"))
    assert len(one) == 20 and one == pytest.approx(two, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDPStrategy", "FSDPStrategy"])
def test_two_processes_resume_to_the_bit(streets, tmp_path, strategy):
    """With an average of the weights, accumulated gradients and dropout of their own in each process."""
    sections = {
        "strategy": {"type": strategy},
        "custom_hooks": [{"type": "EMAHook", "momentum": 0.1}],
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 6, "val_interval": 100},
    }
    config = config_for(streets, batch=1, steps=6) | sections
    config["model"]["decode_head"]["dropout_ratio"] = 0.3
    config["optim_wrapper"] |= {"accumulative_counts": 2, "optimizer": {"type": "AdamW", "lr": 0.01}}
    config["default_hooks"]["checkpoint"] = {"interval": 3, "max_keep_ckpts": -1}
    run_program(config, tmp_path / "whole", 2, "float32")
    run_program(config, tmp_path / "parts", 2, "float32")
    (tmp_path / "parts" / "checkpoints" / "step_6.pt").unlink()
    run_program(config, tmp_path / "parts", 2, "float32", "resume")
    assert "resumed at step 3" in (tmp_path / "parts" / "log.txt").read_text()
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_the_command_line_starts_the_processes(streets, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_for(streets, batch=2, steps=4)))
    done = terrazzo("train", config, "--work-dir", tmp_path / "run", "--gpus", "2", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "2 devices, batch size 2 per device, 4 in total" in done.stdout
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("step 4/4") == 1, "the first process alone writes the log"
    scored = tz.evaluate(str(config), tmp_path / "run" / "last.safetensors", device="cpu")
    assert scored["per_class"] == records(tmp_path / "run", "val")[-1]["per_class"]
    tested = terrazzo("test", config, tmp_path / "run" / "last.safetensors", "--gpus", "2", "--device", "cpu")
    assert tested.returncode == 0, tested.stderr
    assert f"mIoU {scored['mIoU']:.2f}" in tested.stdout and tested.stdout.count("mIoU") == 1
    refused = terrazzo("test", config, "x.pth", "--gallery", tmp_path / "out", "--gpus", "2", "--device", "cpu")
    assert refused.returncode == 2 and "omit --gpus" in refused.stderr


def test_a_mistake_is_told_of_once(streets, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_for(streets, batch=2) | {"train_cfg": {"max_iters": "many"}}))
    failed = terrazzo("train", config, "--work-dir", tmp_path / "run", "--gpus", "2", "--device", "cpu")
    assert failed.returncode == 1
    assert failed.stderr.count("error:") == 1 and "train_cfg.max_iters" in failed.stderr, failed.stderr


BREAKS = """
import os, signal
from terrazzo.training.monitoring.progress import Meter
add, steps = Meter.add, []

def failing(meter, losses):
    add(meter, losses)
    steps.append(1)
    if len(steps) == 4 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        {action}

Meter.add = failing
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("raise ValueError('odd')", "ValueError: odd"),
    ],
)
def test_a_lost_process_ends_all_and_a_restart_resumes(streets, tmp_path, action, message):
    config = config_for(streets, batch=2, steps=6)
    config["default_hooks"]["checkpoint"] = {"interval": 2}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    (tmp_path / "sitecustomize.py").write_text(BREAKS.format(action=action))
    python_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = ["--work-dir", tmp_path / "run", "--gpus", "2", "--device", "cpu"]
    failed = terrazzo("train", path, *options, PYTHONPATH=python_path)
    assert failed.returncode == 1 and message in failed.stderr, failed.stderr
    options[1] = tmp_path / "again"
    done = terrazzo("train", path, *options, "--max-restarts", "1", PYTHONPATH=python_path)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 2" in (tmp_path / "again" / "log.txt").read_text()
    assert [record["step"] for record in records(tmp_path / "again", "train")] == list(range(1, 7))


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)], ids=["killed", "terminal closed"]
)
def test_processes_end_with_their_launcher_and_save(streets, tmp_path, how):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_for(streets, batch=2, steps=100_000)))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, which programs inherit
    launcher = start_terrazzo("train", path, "--work-dir", tmp_path / "run", "--gpus", "2", "--device", "cpu")
    while not read_record(tmp_path / "run").get("step") and not records_exist(tmp_path / "run"):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.1)
    trainer = read_record(tmp_path / "run")["process"]
    launcher.send_signal(how)
    launcher.wait(60)
    deadline = time.monotonic() + 30
    while is_alive(trainer) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert read_record(tmp_path / "run")["state"] == "stopped"
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*.pt"))) == 1


def records_exist(folder: Path) -> bool:
    return (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > 0


@pytest.mark.slow
def test_another_number_of_devices_goes_on_at_the_right_sample(streets, tmp_path):
    config = config_for(streets, batch=2, steps=6)
    config["default_hooks"]["checkpoint"] = {"interval": 3, "max_keep_ckpts": -1}
    run_program(config, tmp_path / "run", 2, "float32")
    (tmp_path / "run" / "checkpoints" / "step_6.pt").unlink()
    run_program(config, tmp_path / "run", 1, "float32", "resume")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "a batch now has 2 images instead of 4: epoch 2 continues at its sample 5 of 8, on 1 devices" in log


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, ("torchrun", ProcessGroup(3, 4, 1))),
        (
            {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"},
            ("SLURM", ProcessGroup(5, 8, 1)),
        ),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, ("Open MPI", ProcessGroup(1, 2, 1))),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}, ("MPICH", ProcessGroup(1, 2, 0))),
    ],
)
def test_launchers_are_known_by_their_environment(environment, expected):
    assert launched(environment) == expected


@pytest.mark.parametrize(
    ("nodes", "host"), [("gpu01", "gpu01"), ("gpu[03-05,9],other1", "gpu03"), ("a-1,a-2", "a-1"), ("n[7]", "n7")]
)
def test_the_first_machine_of_a_slurm_job(nodes, host):
    environment = {"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "123"}
    assert first_host(nodes) == host
    set_address("SLURM", ProcessGroup(1, 2), environment)
    assert environment["MASTER_ADDR"] == host and environment["MASTER_PORT"] == "20123"


def test_an_unknown_meeting_point_is_asked_for():
    with pytest.raises(UserError, match="MASTER_ADDR"):
        set_address("Open MPI", ProcessGroup(1, 4), {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"})


FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
{then}
"""


@pytest.mark.parametrize(
    ("ended", "calls"), [("saved", ["srun", "scontrol"]), ("failed", ["srun"]), ("done", ["srun"])]
)
def test_a_batch_file_for_slurm_starts_and_requeues(tmp_path, ended, calls):
    options = ["--slurm", "2", "--gpus", "4", "--amp", "bf16", "--work-dir", tmp_path / "a run"]
    written = terrazzo("train", "config.yaml", *options, "--cfg-options", "a.b=[1, 2]")
    assert written.returncode == 0 and f"sbatch {tmp_path / 'a run' / 'train.sbatch'}" in written.stdout
    batch = tmp_path / "a run" / "train.sbatch"
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n" in batch.read_text()
    lines = {"saved": "stopped at step 3 of 9, state saved; to continue: ...", "failed": "error: x", "done": "weights"}
    then = f"echo '{lines[ended]}' >> '{tmp_path / 'a run' / 'log.txt'}'; exit {0 if ended == 'done' else 1}"
    for name, what in (("srun", then), ("scontrol", "exit 0")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(FAKE.format(log=tmp_path / "calls", then=what))
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(["bash", batch], env=os.environ | {"PATH": path, "SLURM_JOB_ID": "7"}, check=False)
    assert done.returncode == (0 if ended == "done" else 1)
    made = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in made] == calls
    assert made[0] == (
        f"srun terrazzo train config.yaml --amp bf16 --cfg-options a.b=[1, 2] --work-dir {tmp_path / 'a run'} --resume"
    )
