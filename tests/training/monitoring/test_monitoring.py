"""How a run is watched: trackers, pictures of validations, its record, its profile."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from support.tiny import (
    CLASSES,
    fit,
    make_streets,
    records,
    same_weights,
    short_form,
    terrazzo,
    tiny_config,
    write_config,
)
from terrazzo.cli.main import main
from terrazzo.cli.runs import SORTS
from terrazzo.config.load import load_config
from terrazzo.config.monitoring import TrackerSettings, watch_settings
from terrazzo.errors import UserError
from terrazzo.training.monitoring import trackers
from terrazzo.training.monitoring.profile import StepProfile, hint
from terrazzo.training.monitoring.progress import Meter, pace, pace_text
from terrazzo.training.monitoring.runs import open_runs, read_record, read_records, wanted_metric
from terrazzo.viz.grid import compared, picture_grid


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


# What a config says


def names(config: dict[str, Any]) -> list[str]:
    return [tracker.name for tracker in watch_settings(config, 4).trackers]


def test_trackers_of_a_config_in_the_newer_vocabulary():
    backends = [
        {"type": "LocalVisBackend"},
        {"type": "mmengine.TensorboardVisBackend"},
        {"type": "WandbVisBackend", "init_kwargs": {"project": "streets"}},
    ]
    settings = watch_settings({"visualizer": {"vis_backends": backends}, "vis_backends": backends}, 4)
    wandb = TrackerSettings("wandb", {"init_kwargs": {"project": "streets"}})
    assert settings.trackers == (TrackerSettings("tensorboard"), wandb)


def test_a_config_labels_a_run_of_wandb_and_sends_it_nowhere():
    wanted = {"project": "streets", "tags": ["a"]}
    backend = {"type": "WandbVisBackend", "init_kwargs": wanted | {"settings": {"base_url": "https://elsewhere"}}}
    with pytest.warns(UserWarning, match="'settings' of init_kwargs has no effect here"):
        settings = watch_settings({"vis_backends": [backend]}, 4)
    assert settings.trackers == (TrackerSettings("wandb", {"init_kwargs": wanted}),)
    with pytest.raises(UserError, match="vis_backends: init_kwargs is a dict of project"):
        watch_settings({"vis_backends": [{"type": "WandbVisBackend", "init_kwargs": 3}]}, 4)


def test_trackers_get_no_values_of_the_environment():
    settings = TrackerSettings("wandb", {"init_kwargs": {"notes": "by hunter2"}, "save_dir": "/home/hunter2"})
    hidden = settings.shareable({"{{ $TOKEN }}": "hunter2"})
    assert hidden.options == {"init_kwargs": {"notes": "by {{ $TOKEN }}"}, "save_dir": "/home/hunter2"}


def test_track_adds_to_the_backends():
    assert names({"vis_backends": [{"type": "MLflowVisBackend"}], "track": ["csv", "mlflow"]}) == ["mlflow", "csv"]
    assert names({"track": "csv"}) == ["csv"]


def test_trackers_of_a_config_in_the_older_vocabulary():
    hooks = [
        {"type": "TextLoggerHook"},
        {"type": "TensorboardLoggerHook", "log_dir": "events"},
        {"type": "WandbLoggerHook", "init_kwargs": {"project": "p"}, "by_epoch": False},
        {"type": "MlflowLoggerHook", "exp_name": "streets"},
    ]
    override = {"log_config": {"interval": 50, "hooks": hooks}}
    config = load_config("fcn_r50-d8_512x512_20k_voc12aug", override, vocabulary="0.x")
    assert watch_settings(config.to_dict(), 4).trackers == (
        TrackerSettings("tensorboard", {"save_dir": "events"}),
        TrackerSettings("wandb", {"init_kwargs": {"project": "p"}}),
        TrackerSettings("mlflow", {"exp_name": "streets"}),
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"track": ["tensorbord"]}, "did you mean 'tensorboard'"),
        ({"vis_backends": [{"type": "WandVisBackend"}]}, "did you mean 'WandbVisBackend'"),
        ({"vis_backends": [{"type": "WandbVisBackend", "init_kwarg": {}}]}, "has no argument 'init_kwarg'"),
    ],
)
def test_an_unknown_tracker_or_option_is_an_error(config, message):
    with pytest.raises(UserError, match=message):
        watch_settings(config, 4)


def test_a_tracker_that_terrazzo_does_not_write_to_is_warned_of():
    with pytest.warns(UserWarning, match="does not write to ClearMLVisBackend"):
        assert names({"vis_backends": [{"type": "ClearMLVisBackend"}]}) == []


def test_a_missing_package_is_told_of_before_anything_else(streets, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'curves in wandb need wandb .* pip install "terrazzo\[track\]"'):
        fit(short_form(streets, track=["wandb"]), tmp_path / "run")


# Trackers


def test_csv_has_a_row_for_each_record_and_a_column_for_each_value(streets, tmp_path):
    fit(short_form(streets, track="csv"), tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = records(tmp_path / "run")
    assert [(row["step"], row["mode"]) for row in rows] == [(str(line["step"]), line["mode"]) for line in lines]
    assert float(rows[0]["loss"]) == lines[0]["loss"]
    last = next(line for line in lines if line["mode"] == "val")
    row = next(row for row in rows if row["mode"] == "val")
    assert float(row["mIoU"]) == last["mIoU"]
    assert float(row["IoU.road"]) == last["per_class"]["road"]["IoU"]
    assert row["lr"] == ""


class FakeWandb(types.ModuleType):
    """What of W&B a tracker uses."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.exit_code: int | None = None
        self.Settings, self.Image = dict, np.shape

    def init(self, **options: Any) -> FakeWandb:
        self.started.append(options)
        self.id = options.get("id", "abc")
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def test_wandb_is_offline_unless_the_environment_says_otherwise(streets, tmp_path, wandb, monkeypatch):
    backend = {"type": "WandbVisBackend", "init_kwargs": {"project": "streets", "mode": "online"}}
    run = fit(tiny_config(streets, steps=2, vis_backends=[backend]), tmp_path / "run")
    assert (wandb.started[0]["mode"], wandb.started[0]["project"]) == ("offline", "streets")
    assert "wandb: offline" in run.log_path.read_text()
    steps = [step for step, _ in wandb.logged]
    values = {name: value for _, logged in wandb.logged for name, value in logged.items()}
    assert steps == sorted(steps) and {"train/loss", "val/mIoU", "val/IoU/road", "val/pictures"} <= set(values)
    assert wandb.exit_code == 0
    monkeypatch.setenv("WANDB_MODE", "online")
    fit(tiny_config(streets, steps=2, track=["wandb"]), tmp_path / "other")
    assert wandb.started[1]["mode"] == "online"


def test_a_resumed_run_goes_on_as_the_same_run_of_wandb(streets, tmp_path, wandb):
    fit(tiny_config(streets, steps=2, track=["wandb"]), tmp_path / "run")
    fit(tiny_config(streets, steps=4, track=["wandb"]), tmp_path / "run", resume=True)
    assert "id" not in wandb.started[0] and wandb.started[1]["id"] == "abc"


def test_a_tracker_that_fails_ends_no_training(streets, tmp_path, wandb, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(wandb, "log", fail)
    run = fit(tiny_config(streets, steps=3, track=["wandb"]), tmp_path / "run")
    assert run.finished
    assert run.log_path.read_text().count("warning: tracking with wandb ends here: ConnectionError: gone") == 1


def test_a_tracker_that_does_not_start_is_an_error(streets, tmp_path, wandb, monkeypatch):
    def fail(**_: Any) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(wandb, "init", fail)
    with pytest.raises(UserError, match=r"cannot start tracking with wandb \(RuntimeError: no API key"):
        fit(tiny_config(streets, steps=3, track=["wandb"]), tmp_path / "run")


class FakeMlflow:
    """What of MLflow's client a tracker uses."""

    clients: ClassVar[list[FakeMlflow]] = []

    def __init__(self, tracking_uri: str) -> None:
        self.place, self.calls = tracking_uri, []
        FakeMlflow.clients.append(self)

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_run(self, *args: Any, **options: Any) -> Any:
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="run-1"))

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.calls.append((name, args))


@pytest.fixture
def mlflow(monkeypatch) -> type[FakeMlflow]:
    modules = {name: types.ModuleType(name) for name in ("mlflow", "mlflow.tracking", "mlflow.entities")}
    modules["mlflow.tracking"].MlflowClient = FakeMlflow
    modules["mlflow.entities"].Metric = lambda *values: values
    for name in (*modules, "sqlalchemy", "alembic"):
        monkeypatch.setitem(sys.modules, name, modules.get(name, types.ModuleType(name)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(FakeMlflow, "clients", [])
    return FakeMlflow


def test_mlflow_writes_to_the_work_dir_unless_the_environment_says_otherwise(streets, tmp_path, mlflow, monkeypatch):
    backend = {"type": "MLflowVisBackend", "tracking_uri": "https://elsewhere.example"}
    run = fit(tiny_config(streets, steps=2, vis_backends=[backend]), tmp_path / "run")
    assert mlflow.clients[0].place == f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}"
    assert "nothing is sent to https://elsewhere.example" in run.log_path.read_text()
    logged = [metric for name, args in mlflow.clients[0].calls if name == "log_batch" for metric in args[1]]
    assert {("train/loss", 1), ("val/IoU/road", 2)} <= {(metric[0], metric[3]) for metric in logged}
    assert mlflow.clients[0].calls[-1] == ("set_terminated", ("run-1", "FINISHED"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://own.example")
    fit(tiny_config(streets, steps=2, track=["mlflow"]), tmp_path / "other")
    assert mlflow.clients[1].place == "http://own.example"


def test_tensorboard_events(streets, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(tiny_config(streets, steps=2, track=["tensorboard"]), tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    loss = [event.value for event in events.Scalars("train/loss")]
    assert loss == pytest.approx([line["loss"] for line in records(tmp_path / "run", "train")])
    assert [image.step for image in events.Images("val/pictures")] == [2]


def test_numbers_of_a_record():
    values = {"mIoU": 50.0, "aAcc": None, "per_class": {"car": {"IoU": 1.0, "Acc": None}}, "table": [1, 2]}
    assert trackers.flat(values) == {"mIoU": 50.0, "IoU.car": 1.0}


# Pictures of validations


def test_each_validation_leaves_a_picture(streets, tmp_path):
    fit(short_form(streets), tmp_path / "run")
    folder = tmp_path / "run" / "pictures"
    assert sorted(path.name for path in folder.iterdir()) == ["step_000002.png", "step_000004.png"]
    assert Image.open(folder / "step_000002.png").mode == "RGB"


def test_no_pictures_where_none_are_wanted(streets, tmp_path):
    fit(short_form(streets, val_pictures=0), tmp_path / "run")
    assert not (tmp_path / "run" / "pictures").exists()


def test_a_fresh_run_drops_the_pictures_of_an_earlier_one(streets, tmp_path):
    fit(tiny_config(streets, steps=3), tmp_path / "run")
    fit(tiny_config(streets, steps=2), tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run" / "pictures").iterdir()] == ["step_000002.png"]


def test_a_row_shows_image_label_and_prediction():
    image = np.full((8, 12, 3), 77, np.uint8)
    label, prediction = np.zeros((8, 12), np.uint8), np.ones((8, 12), np.int64)
    label[0] = 255
    cells = compared(image, [label, prediction], [(255, 0, 0), (0, 255, 0)])
    assert [cell.shape for cell in cells] == [(8, 12, 3)] * 3
    assert (cells[0] == 77).all() and (cells[1][0] == 0).all()
    assert (cells[1][1:] == (255, 0, 0)).all() and (cells[2] == (0, 255, 0)).all()
    sheet = picture_grid([cells, cells], ("image", "label", "prediction"), {"a": (255, 0, 0)})
    assert sheet.shape[1] == 480 and (sheet == (255, 0, 0)).all(-1).any()


def test_large_pictures_are_shrunk_and_depth_is_coloured():
    depth = np.linspace(0, 5, 480 * 640, dtype=np.float32).reshape(480, 640)
    cells = compared(np.zeros((480, 640, 3), np.uint8), [depth], [], height=240)
    assert [cell.shape for cell in cells] == [(240, 320, 3)] * 2
    near, far = cells[1][0, 0].astype(int), cells[1][-1, -1].astype(int)
    assert near[2] > near[0] and far[0] > far[2]


# The record of a run


def test_the_record_says_how_a_run_ended(streets, tmp_path):
    fit(tiny_config(streets, steps=4), tmp_path / "run", max_steps=2)
    first = read_record(tmp_path / "run")
    assert (first["state"], first["step"], first["total"]) == ("stopped", 2, 4)
    fit(tiny_config(streets, steps=4), tmp_path / "run", resume=True)
    record = read_record(tmp_path / "run")
    assert (record["state"], record["step"], record["started"]) == ("finished", 4, first["started"])
    assert record["seconds"] >= first["seconds"]


def test_every_run_leaves_a_page_of_its_scores_curves_classes_and_pictures(streets, tmp_path):
    run = fit(tiny_config(streets, steps=4), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{run.metrics['mIoU']:.2f}" in page and "4 of 4" in page and "finished" in page
    assert page.count("<svg") == 2 and page.count("data:image/") == 1
    assert all(f"<td>{name}</td>" in page for name in (*CLASSES, "mean"))


def test_a_failed_run_is_on_record(streets, tmp_path):
    config = tiny_config(streets, steps=30)
    config["optim_wrapper"]["optimizer"]["lr"] = 1e30
    with pytest.raises(UserError, match="NaN or Inf"):
        fit(config, tmp_path / "run")
    assert read_record(tmp_path / "run")["state"] == "failed"


def test_a_run_without_a_process_was_killed(tmp_path):
    values = {"state": "running", "seconds": 0, "resumed": 0, "process": 2**22 + 1, "host": platform.node()}
    (tmp_path / "run.json").write_text(json.dumps(values))
    assert read_record(tmp_path)["state"] == "killed"
    (tmp_path / "run.json").write_text(json.dumps(values | {"process": os.getpid()}))
    assert read_record(tmp_path)["state"] == "running"


# The log


def test_the_log_says_what_an_image_costs_and_how_fast_it_goes(streets, tmp_path):
    run = fit(short_form(streets), tmp_path / "run")
    text = run.log_path.read_text()
    assert "GFLOPs for an image of 32x32" in text and "images/s" in text and "left 0:0" in text
    line = records(tmp_path / "run", "train")[-1]
    assert line["images_per_second"] == pytest.approx(2 / line["seconds"])


def test_the_pace_on_a_gpu_has_its_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    values = pace(Meter(), 8, torch.device("cuda"))
    assert values["memory"] == 3 and pace_text(values).endswith("images/s  3 MiB")


# The profile


def test_a_profile_says_where_the_time_of_a_step_goes(streets, tmp_path):
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=12, workers=1))
    done = terrazzo("train", config, "--work-dir", tmp_path / "run", "--device", "cpu", "--profile", "4")
    assert done.returncode == 0, done.stderr
    assert "profile of 4 steps" in done.stdout and "hint: " in done.stdout
    report = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert sum(report["parts"].values()) == pytest.approx(report["seconds"], rel=0.02)
    assert {"waiting for data", "backbone", "decode head", "losses", "backward", "optimizer"} <= set(report["parts"])
    assert len(report["operators"]) == 5
    assert "convolution_backward" in {operator["name"] for operator in report["operators"]}
    assert [line["step"] for line in records(tmp_path / "run", "train")] == list(range(1, 13))


def test_a_profile_changes_no_weights(streets, tmp_path):
    plain = fit(tiny_config(streets, steps=8), tmp_path / "plain")
    profiled = fit(tiny_config(streets, steps=8), tmp_path / "profiled", profile=2)
    assert same_weights(plain.last, profiled.last)


def test_a_run_too_short_for_a_profile_says_so(streets, tmp_path):
    run = fit(tiny_config(streets, steps=2), tmp_path / "run", profile=5)
    assert "profile: the run is too short" in run.log_path.read_text()


def test_parts_within_parts_are_counted_once(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 6.0])
    state: Any = types.SimpleNamespace(device=torch.device("cpu"), model=torch.nn.Identity())
    state.group, state.settings = types.SimpleNamespace(is_main=True), types.SimpleNamespace(compile=False)
    profile = StepProfile(1, state)
    monkeypatch.setattr(profile, "now", lambda: next(clock))
    with profile.part("waiting for data"), profile.part("losses"):
        pass
    assert dict(profile.spent) == {"waiting for data": 4.0, "losses": 2.0}


@pytest.mark.parametrize(
    ("shares", "settings", "said"),
    [
        ({"waiting for data": 0.45}, ("cuda", 2, "float32", 8), "takes 45 %: raise `workers`"),
        ({"waiting for data": 0.45}, ("cuda", 8, "float32", 8), "as many workers as cores"),
        ({"preprocessing": 0.25}, ("cpu", 2, "float32", 8), "smaller crops"),
        ({"optimizer": 0.4}, ("cpu", 2, "float32", 8), "accumulate"),
        ({"losses": 0.4}, ("cpu", 2, "float32", 8), "losses take 40 %"),
        ({"backbone": 0.5, "backward": 0.4}, ("cuda", 2, "float32", 8), "take 90 %.*--amp"),
        ({"backbone": 0.5, "backward": 0.4}, ("cuda", 2, "bf16", 8), "smaller model or crop"),
    ],
)
def test_the_hint_follows_from_the_shares(shares, settings, said):
    assert re.search(said, hint(shares, *settings))


# Looking at runs


@pytest.fixture(scope="module")
def two_runs(streets, tmp_path_factory) -> Path:
    """A folder with a finished run of four steps and one that goes wrong, of another learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    fit(short_form(streets), folder / "good")
    with pytest.raises(UserError):
        fit(short_form(streets, lr=1e30), folder / "bad")
    return folder


def called(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_runs_are_listed_with_scores_and_states(two_runs, capsys):
    assert called("runs", two_runs) == 0
    said = capsys.readouterr().out
    score = max(line["mIoU"] for line in records(two_runs / "good", "val"))
    assert re.search(rf"good .* finished .* 4/4 .* mIoU {score:.2f}", said)
    assert re.search(r"bad .* failed", said)
    assert "optim_wrapper.optimizer.lr\n    0.01: good\n    1e+30: bad" in said
    assert "train_dataloader" not in said, "what all runs share is left out"


@pytest.mark.parametrize(("order", "first"), [("best", "good"), ("name", "bad"), ("step", "good"), ("state", "bad")])
def test_runs_as_json_and_in_another_order(two_runs, capsys, order, first):
    assert called("runs", two_runs, "--json", "--sort", order) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"][0]["name"] == first
    values = said["differences"]["optim_wrapper.optimizer.lr"]
    assert set(values) == {0.01, 1e30}


def test_the_table_has_recipe_size_and_speed_in_80_columns(two_runs, capsys):
    assert called("runs", two_runs, "--differences", "none") == 0
    said = capsys.readouterr().out
    assert re.search(r"good +unet +finished +4/4 +mIoU \d+\.\d+ +0\.1 +\d+\.\d\d +0:\d\d", said)
    assert max(map(len, said.splitlines())) <= 80 and "differ" not in said


def test_long_names_of_runs_are_cut_to_fit(tmp_path, capsys):
    folder = tmp_path / ("a-run-with-a-very-long-name-" * 4 + "seed7")
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 5, "mode": "val", "mIoU": 61.0}) + "\n")
    assert called("runs", tmp_path) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80 and "seed7 " in said


def test_runs_that_differ_in_their_seeds_are_summed_up(tmp_path, capsys):
    scores = {1: 60.0, 2: 62.0, 3: 64.0}
    for seed, score in scores.items():
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        model = {f"key{number}": seed for number in range(4)} if seed == 3 else {}
        config = {"model": {"type": "A", **model}, "randomness": {"seed": seed}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 5, "mode": "val", "mIoU": score}) + "\n")
    assert called("runs", tmp_path) == 0
    said = capsys.readouterr().out
    assert "mIoU 61.00 \u00b1 1.41 (mean and deviation, 2 seeds): seed2, seed1" in said
    assert "  model: 4 keys (--differences all shows them)\n" in said and "key0" not in said
    assert called("runs", tmp_path, "--differences", "all") == 0
    assert "  model.key0\n    3: seed3\n" in capsys.readouterr().out


def test_the_newest_run_comes_first():
    times = ["2026-03-01T09:00:00+02:00", None, "2026-03-01T08:30:00+00:00"]
    runs = sorted((types.SimpleNamespace(started=time) for time in times), key=SORTS["started"])
    assert [run.started for run in runs] == [times[2], times[0], None]


def test_runs_of_one_name_are_told_apart(two_runs, tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "run").mkdir(parents=True)
        (tmp_path / place / "run" / "metrics.jsonl").write_text('{"step": 1, "mode": "train", "loss": 2.0}\n{"step"')
    names = [run.name for run in open_runs([tmp_path])]
    assert names == ["one/run", "two/run"]
    run = open_runs([tmp_path / "one"])[0]
    assert (run.state, run.best, run.points("train", "loss")) == ("unknown", None, [(1, 2.0)])


def test_a_run_that_never_began_is_none(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="contains no run"):
        open_runs([tmp_path])


def test_a_run_is_judged_by_its_own_metric():
    records = [{"step": 1, "mode": "val", "aAcc": 1.0, "mDice": 2.0}]
    assert wanted_metric({"default_hooks": {"checkpoint": {"save_best": "loss"}}}, records) == ("loss", True)
    assert wanted_metric({"default_hooks": {"checkpoint": {"save_best": "auto"}}}, records) == ("mDice", False)


def test_curves_of_several_runs_as_a_picture(two_runs, tmp_path, capsys):
    assert called("log", "plot", two_runs, "--out", tmp_path / "curves.png") == 0
    assert capsys.readouterr().out == f"4 charts of 2 runs: {tmp_path}/curves.png\n"
    picture = np.array(Image.open(tmp_path / "curves.png"))
    assert picture.shape == (1200, 1920, 3)
    assert (picture == (0x3B, 0x82, 0xF6)).all(-1).any(), "the colour of the first run"


def test_curves_as_a_page(two_runs, tmp_path):
    out = tmp_path / "new" / "curves.html"
    assert called("log", "plot", two_runs / "good", "--keys", "val.loss", "IoU.road", "--out", out) == 0
    page = out.read_text()
    assert page.count("<svg") == 2 and "loss (val)" in page and "IoU.road (val)" in page and "loss (train)" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keys", "mIuo"], "did you mean 'mIoU'"),
        (["--out", "curves.pdf"], "must end in .png or .html"),
    ],
)
def test_what_cannot_be_plotted(two_runs, capsys, arguments, message):
    assert called("log", "plot", two_runs / "good", *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [("runs",), ("log", "plot")])
def test_a_folder_without_runs_is_told_of(tmp_path, capsys, command):
    assert called(*command, tmp_path) == 1
    assert f"{tmp_path} contains no run" in capsys.readouterr().err
    assert called(*command, tmp_path / "nothing") == 1
    assert "is not a folder" in capsys.readouterr().err


# Files that something else wrote


@pytest.mark.parametrize("line", ["{", "[]", "[" * 9999 + "]" * 9999, '{"step": "x", "mode": "val"}', '{"a": NaN}'])
def test_a_line_that_is_no_record_is_named_unless_it_is_the_last(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "mode": "train"}\n' + line)
    assert read_records(path) == [{"step": 1, "mode": "train"}]
    path.write_text(path.read_text() + "\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: this is not a line"):
        read_records(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"state": "running"}', "[" * 9999])
def test_a_record_of_another_program_is_none(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) == {}
