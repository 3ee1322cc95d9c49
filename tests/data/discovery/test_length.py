"""The length of training that `data init` proposes."""

from __future__ import annotations

import pytest

import terrazzo as tz
from support.tiny import make_streets
from terrazzo.cli.main import main
from terrazzo.data.discovery.length import proposed_steps
from terrazzo.training.speed import rounded


@pytest.mark.parametrize(
    ("images", "steps"), [(1, 500), (16, 500), (24, 600), (367, 9200), (3000, 20000), (20000, 50000)]
)
def test_steps_grow_with_the_number_of_images(images, steps):
    assert proposed_steps(images, 8) == steps


def test_the_config_says_epochs_and_the_command_the_time(tmp_path, capsys):
    make_streets(tmp_path / "data", train=24)
    assert main(["data", "init", str(tmp_path / "data"), "--out", str(tmp_path / "a.yaml")]) == 0
    out = capsys.readouterr().out
    assert "iterations: 600  # 200 epochs of 24 images" in out
    assert "training: about " in out
    assert tz.load_config(tmp_path / "a.yaml")["train_cfg"]["max_iters"] == 600


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (80, "80 s"), (100, "1.7 min"), (900, "15 min"), (5400, "1.5 h"), (1e6, "278 h")],
)
def test_times_are_rounded(seconds, text):
    assert rounded(seconds) == text
