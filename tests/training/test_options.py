"""What a run can be told beyond its length: when to end, what to average, what to leave out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from support.tiny import (
    fit,
    make_streets,
    records,
    same_weights,
    short_form,
    terrazzo,
    tiny_config,
    weights,
    write_config,
)
from terrazzo.config.duration import seconds
from terrazzo.config.experiment import Averaging, make_experiment
from terrazzo.errors import UserError
from terrazzo.training import loop
from terrazzo.training.batch_size import find_batch_size, largest
from terrazzo.training.device import checkpoint_activations, move_to_device
from terrazzo.training.monitoring.nonfinite import first_broken
from terrazzo.training.optim.ema import EMA
from terrazzo.training.optim.precision import Precision
from terrazzo.training.optim.schedule import Schedule
from terrazzo.training.stopping import Best


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


def scores(monkeypatch, values: list[float]) -> None:
    """Let validations give these scores, whatever the model predicts."""
    original, coming = Best.note, iter(values)
    monkeypatch.setattr(Best, "note", lambda self, result: original(self, {"mIoU": next(coming)}))


@pytest.mark.parametrize(
    ("rule", "values", "last"),
    [
        (2, [10, 20, 20, 19, 30], 4),
        ({"patience": 2, "min_delta": 5}, [10, 20, 24, 25, 30], 4),
        (3, [1, 2, 3, 4, 5, 6], 6),
    ],
)
def test_a_run_without_progress_ends_early(streets, tmp_path, monkeypatch, rule, values, last):
    scores(monkeypatch, values)
    run = fit(short_form(streets, early_stopping=rule, iterations=6, val_interval=1), tmp_path / "run")
    assert run.finished and run.last.exists()
    assert [record["step"] for record in records(tmp_path / "run", "val")][-1] == last
    assert ("stopped early" in run.log_path.read_text()) == (last < 6)


def test_early_stopping_goes_on_counting_after_a_resume(streets, tmp_path, monkeypatch):
    scores(monkeypatch, [10, 9, 8, 7])
    config = short_form(streets, early_stopping=3, iterations=8, val_interval=1, checkpoint_interval=1)
    assert not fit(config, tmp_path / "run", max_steps=2).finished
    assert fit(config, tmp_path / "run", resume=True).finished
    assert records(tmp_path / "run", "val")[-1]["step"] == 4


def test_a_session_ends_after_its_steps_and_the_next_one_goes_on(streets, tmp_path):
    config = tiny_config(streets, steps=6)
    whole = fit(config, tmp_path / "whole")
    part = fit(config, tmp_path / "parts", max_steps=2)
    assert not part.finished and "stopped at step 2 of 6, state saved" in part.log_path.read_text()
    fit(config, tmp_path / "parts", max_steps=3, resume=True)
    assert same_weights(whole.last, fit(config, tmp_path / "parts", resume=True).last)


def test_a_session_ends_after_its_time(streets, tmp_path):
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=100000))
    stopped = terrazzo("train", config, "--work-dir", tmp_path / "run", "--time-limit", "2s")
    assert stopped.returncode == 1 and "to continue: terrazzo train" in stopped.stdout


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), (45, 45), ("55m", 3300), ("1h30m", 5400), ("1:30:00", 5400), ("1.5 h", 5400)]
)
def test_lengths_of_time(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "", "5 parsecs", "1:30"])
def test_a_length_of_time_that_is_none(text):
    with pytest.raises(UserError, match="1h30m"):
        seconds(text)


def break_step(monkeypatch, step: int, what: str) -> None:
    """Let the weights' gradients or the loss of one step be no number."""
    original, steps = Precision.backward, []

    def backward(self: Any, loss: torch.Tensor) -> None:
        original(self, loss * float("nan") if what == "gradient" and len(steps) == step - 1 else loss)
        steps.append(1)

    monkeypatch.setattr(Precision, "backward", backward)
    if what == "loss":
        losses, seen = loop.compute_losses, []

        def broken(*arguments: Any) -> Any:
            seen.append(1)
            found = losses(*arguments)
            return {name: value * float("inf") for name, value in found.items()} if len(seen) == step else found

        monkeypatch.setattr(loop, "compute_losses", broken)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_no_number_is_named_or_left_out(streets, tmp_path, monkeypatch, what):
    with monkeypatch.context() as patch:
        break_step(patch, 3, what)
        with pytest.raises(UserError, match=rf"step 3 .*{what}.*learning rate.*\.png.*skip_nan"):
            fit(tiny_config(streets, steps=6), tmp_path / "ends")
    break_step(monkeypatch, 3, what)
    config = tiny_config(streets, steps=6)
    config["train_cfg"]["skip_nan"] = 1
    run = fit(config, tmp_path / "goes on")
    assert run.finished and "step skipped, 1 of at most 1" in run.log_path.read_text()
    assert all(value.isfinite().all() for value in weights(run.last).values())


def test_the_first_broken_module_is_found():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())
    nn.init.constant_(model[1].weight, float("inf"))
    assert first_broken(model, lambda: model(torch.ones(1, 2))) == "1"


def test_the_mean_of_weights_from_a_share_of_the_run_on():
    model = nn.Linear(1, 1, bias=False)
    average = EMA(model, Averaging("swa"), begin=2)
    for step, value in enumerate([5.0, 7.0, 1.0, 2.0, 6.0], 1):
        nn.init.constant_(model.weight, value)
        average.update(model, step)
    assert average.average.weight.item() == pytest.approx((1 + 2 + 6) / 3)


def test_averaged_weights_of_a_run_are_scored_and_saved(streets, tmp_path):
    run = fit(short_form(streets, swa=0.5, iterations=6, checkpoint_interval=6), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "step_6.pt", weights_only=True)
    saved = weights(run.last)
    assert all(torch.equal(value, state["ema"][name]) for name, value in saved.items())
    assert not all(torch.equal(value, state["model"][name]) for name, value in saved.items())


def test_a_rate_that_falls_when_the_loss_does_not():
    spec = {"type": "ReduceOnPlateauLR", "monitor": "loss", "factor": 0.1, "patience": 1, "by_epoch": False}
    schedule = Schedule([spec], [1.0], 10, 100)
    rates = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0):
        schedule.note({"loss": loss})
        rates.append(schedule.rates(0)[0])
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    other = Schedule([spec], [1.0], 10, 100)
    other.load_state(json.loads(json.dumps(schedule.state())))
    assert other.rates(5) == schedule.rates(5)
    with pytest.raises(UserError, match="mIoU"):
        Schedule([spec | {"monitor": "mDice"}], [1.0], 10, 100).note({"mIoU": 1.0})
    with pytest.raises(UserError, match="patience"):
        Schedule([spec | {"patienec": 1}], [1.0], 10, 100)


def test_activations_computed_again_give_the_same_weights(streets, tmp_path):
    config = tiny_config(streets, steps=2)
    config["model"]["backbone"]["norm_cfg"] = {"type": "GN", "num_groups": 2}
    plain = fit(config, tmp_path / "plain")
    again = fit(config | {"activation_checkpointing": True}, tmp_path / "again")
    assert "blocks are recomputed" in again.log_path.read_text()
    first, second = weights(plain.last), weights(again.last)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)


def test_a_backbone_without_blocks_says_so():
    with pytest.raises(UserError, match="no repeated blocks"):
        checkpoint_activations(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("deterministic", "benchmark", "expected"),
    [(False, False, (False, False)), (False, True, (False, True)), (True, True, (True, False))],
)
def test_algorithms_are_chosen_while_a_run_lasts(streets, tmp_path, monkeypatch, deterministic, benchmark, expected):
    def chosen() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []
    losses = loop.compute_losses
    monkeypatch.setattr(loop, "compute_losses", lambda *arguments: seen.append(chosen()) or losses(*arguments))
    sections = {"randomness": {"deterministic": deterministic}, "env_cfg": {"cudnn_benchmark": benchmark}}
    fit(tiny_config(streets, steps=1, **sections), tmp_path / "run")
    assert seen == [expected] and chosen() == (False, False)
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic


def test_channels_last_lays_out_the_weights_of_convolutions(streets):
    settings = make_experiment(tiny_config(streets) | {"channels_last": True}).run
    convolution = nn.Conv2d(4, 8, 3)
    move_to_device(convolution, settings, torch.device("cpu"), print)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_trains_the_same_weights_and_saves_them_in_the_usual_layout(streets, tmp_path):
    runs = [fit(short_form(streets, iterations=3, channels_last=on), tmp_path / str(on)) for on in (False, True)]
    first, second = (weights(run.last) for run in runs)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("is_taught", [False, True])
def test_a_compiled_run_gives_the_same_weights_within_rounding(streets, tmp_path, is_taught):
    config = tiny_config(streets, steps=3)
    if is_taught:
        config["teacher"] = {"weights": str(fit(config, tmp_path / "teacher").last), "features": 1.0}
    plain = fit(config, tmp_path / "plain")
    compiled = fit(config | {"compile": True}, tmp_path / "compiled")
    for name, value in weights(plain.last).items():
        torch.testing.assert_close(value, weights(compiled.last)[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 24, 100])
def test_the_largest_number_that_fits_is_found_in_few_tries(limit):
    tried: list[int] = []
    assert largest(lambda count: tried.append(count) is None and count <= limit, limit=64) == min(limit, 64)
    assert len(tried) <= 14


def test_the_largest_batch_is_that_of_a_real_training_step(streets, monkeypatch):
    original = nn.Conv2d.forward

    def forward(self, images):
        if len(images) > 5:
            raise torch.OutOfMemoryError("no memory left")
        return original(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    assert find_batch_size(make_experiment(tiny_config(streets)), torch.device("cpu")) == 5


def test_memory_without_an_end_is_not_searched(streets, tmp_path):
    config = write_config(tmp_path / "config.yaml", tiny_config(streets))
    refused = terrazzo("train", config, "--find-batch", "--device", "cpu")
    assert refused.returncode == 1 and "--find-batch measures the memory of a GPU" in refused.stderr


def test_pretrained_auto_takes_what_is_here_and_names_the_command_otherwise(streets, tmp_path):
    config = tiny_config(streets, steps=1)
    config["model"]["backbone"]["init_cfg"] = {"type": "Pretrained", "checkpoint": "resnet18_v1c"}
    run = fit(config, tmp_path / "missing", pretrained="auto")
    assert "backbone: random weights, as resnet18_v1c is not on this machine: `terrazzo weights get resnet18_v1c`" in (
        run.log_path.read_text()
    )
    own = weights(run.last).items()
    file = tmp_path / "unet.safetensors"
    save_file({name.removeprefix("backbone."): value for name, value in own if name.startswith("backbone.")}, file)
    config["model"]["backbone"]["init_cfg"]["checkpoint"] = str(file)
    assert f"tensors from {file}" in fit(config, tmp_path / "here", pretrained="auto").log_path.read_text()
