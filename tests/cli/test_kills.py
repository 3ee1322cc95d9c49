"""Commands killed at a random moment: files are whole, and the command can be run again."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import terrazzo as tz
from data.converters.test_converters import TREES
from support.tiny import CLASSES, fit, make_streets, tiny_config, write_config
from terrazzo.checkpoints.publish import save
from terrazzo.cli.main import main
from terrazzo.config.load import load_config
from terrazzo.inference.saved_config import describe
from terrazzo.models.safe_pickle import load_pickle
from terrazzo.transforms.decode import read_image

# command -> its arguments, and those of the second run in addition
COMMANDS = {
    "train": ("train {given}/c.yaml --work-dir out --device cpu", "--resume"),
    "test": (
        "test {given}/c.yaml {given}/w.pth --device cpu --out out --show-dir shown --confusion c.csv --gallery g",
        "",
    ),
    "predict": ("predict {given}/streets/images --model {given}/w.pth --device cpu --probabilities --confidence", ""),
    "data convert": ("data convert chase_db1 {given}/raw out --workers 1", ""),
    "data init": ("data init {given}/streets --out a.yaml", "--force"),
    "data browse": ("data browse {given}/c.yaml", ""),
    "checkpoint convert": ("checkpoint convert {given}/w.pth w.safetensors", "--force"),
    "checkpoint average": ("checkpoint average w.pth {given}/w.pth {given}/w.pth", "--force"),
    "checkpoint publish": ("checkpoint publish {given}/w.pth w.safetensors", "--force"),
    "config upgrade": ("config upgrade {given}/c.yaml --out c.py", ""),
    "config schema": ("config schema --out schema.json", ""),
    "log plot": ("log plot {given}/run --out curves.png", ""),
    "export": ("export {given}/w.pth --out m.onnx", ""),
}
DIGEST = re.compile("-[0-9a-f]{8}(?=[.])")  # in the name of a published file
IN_CI = ("train", "predict", "data convert", "checkpoint convert")


def is_html(path: Path) -> bool:
    return path.read_text().rstrip().endswith("</html>")


def read_records(path: Path) -> list[Any]:
    """The lines of a record that is appended to; the last one may be incomplete."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


READERS: dict[str, Callable[[Path], Any]] = {
    ".png": read_image,
    ".jpg": read_image,
    ".npy": np.load,
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": read_records,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".py": load_config,
    ".csv": lambda path: path.read_text().endswith("\n"),
    ".html": is_html,
    ".pth": load_pickle,
    ".pt": load_pickle,
    ".safetensors": load_file,
    ".onnx": tz.load,
    ".txt": lambda path: True,  # log.txt, which is appended to
}


def check_whole(folder: Path) -> list[str]:
    """Read every file of a final name; return their names."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    final = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    for path in final:
        assert READERS[path.suffix](path) is not False, f"{path} is incomplete"
    return [DIGEST.sub("", str(path.relative_to(folder))) for path in final]


def start(arguments: str, folder: Path) -> int:
    """Run a command in a process of its own, with the modules that are imported already."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.chdir(folder)
        torch.set_num_threads(1)
        silent = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        status = main(arguments.split())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run(arguments: str, folder: Path) -> float:
    """Run a command to its end, which is success; return the seconds that it took."""
    began = time.monotonic()
    _, status = os.waitpid(start(arguments, folder), 0)
    assert status == 0, folder.with_suffix(".log").read_text()[-2000:]
    return time.monotonic() - began


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Data, a config, weights and a run."""
    root = tmp_path_factory.mktemp("given")
    streets = make_streets(root / "streets")
    config = tiny_config(streets, steps=12)
    write_config(root / "c.yaml", config)
    fit(config | {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 1}}, root / "run")
    save(root / "w.pth", tz.build_model(config).state_dict(), describe(config, CLASSES, [[0, 0, 0]] * 3))
    (root / "raw").mkdir()
    TREES["chase_db1"](root / "raw")
    return root


names = [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_a_killed_command_leaves_whole_files_and_can_be_run_again(name, kills, given, tmp_path):
    command, again = COMMANDS[name]
    command = command.format(given=given)
    (tmp_path / "whole").mkdir()
    seconds = run(command, tmp_path / "whole")
    expected = check_whole(tmp_path / "whole")
    assert expected
    for number in range(min(kills, 3) if name == "export" else kills):  # which takes longer
        folder = tmp_path / str(number)
        folder.mkdir()
        moment = random.Random(f"{name} {number}").random()
        process = start(command, folder)
        time.sleep(moment * seconds)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        print(f"{name} is killed after {moment:.0%} of {seconds:.2f} s, when it has {check_whole(folder)}")
        run(f"{command} {again}", folder)
        assert set(check_whole(folder)) >= set(expected)
        shutil.rmtree(folder)
