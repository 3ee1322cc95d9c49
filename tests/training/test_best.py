"""The score that decides which weights are best, when a run ends, and how it is counted."""

from __future__ import annotations

import pytest
import torch

import terrazzo as tz
from support.tiny import make_streets, tiny_config
from terrazzo.config.experiment import EarlyStopping, RunSettings, Target, make_experiment
from terrazzo.errors import UserError
from terrazzo.metrics import Evaluator
from terrazzo.training.intervals import Intervals
from terrazzo.training.stopping import Best

RESULT = {"aAcc": 90.0, "mIoU": 50.0, "per_class": {"road": {"IoU": 70.0}, "car": {"IoU": None}}, "loss": 0.4}


@pytest.fixture
def config(tmp_path):
    return tiny_config(make_streets(tmp_path / "data"), steps=2)


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ({"save_best": "IoU.road"}, Target("IoU.road", False, "default_hooks.checkpoint.save_best")),
        ({"save_best": "val/loss"}, Target("loss", True, "default_hooks.checkpoint.save_best")),
        ({"save_best": "rmse"}, Target("rmse", True, "default_hooks.checkpoint.save_best")),
        ({"save_best": "x", "less_keys": ["x"]}, Target("x", True, "default_hooks.checkpoint.save_best")),
        ({"save_best": "loss", "rule": "greater"}, Target("loss", False, "default_hooks.checkpoint.save_best")),
    ],
)
def test_save_best_names_any_score(config, hook, expected):
    config["default_hooks"]["checkpoint"] = hook
    assert make_experiment(config).run.best == expected


def test_a_monitor_of_its_own_ends_a_run():
    rule = EarlyStopping(2, 0.0, Target("loss", True, "monitor"))
    best = Best(RunSettings(10, best=Target("IoU.road"), early_stopping=rule))
    assert best.note(RESULT) and best.score == 70.0
    better = RESULT | {"per_class": {"road": {"IoU": 80.0}}}  # the loss stays
    assert best.note(better) and not best.patience_is_over
    assert not best.note(better) and best.patience_is_over


@pytest.mark.parametrize("name", ["miou", "mDice", "IoU.raod"])
@pytest.mark.parametrize("key", ["save_best", "monitor"])
def test_a_score_that_is_not_computed_ends_the_run_before_its_first_step(config, tmp_path, name, key):
    if key == "save_best":
        config["default_hooks"]["checkpoint"]["save_best"] = name
    else:
        config["custom_hooks"] = [{"type": "EarlyStoppingHook", "monitor": name}]
    with pytest.raises(UserError, match=f"{key}: validation computes no '{name}'.*; it gives aAcc, mIoU"):
        tz.train(config, work_dir=tmp_path / "run", quiet=True)


def test_the_score_of_one_class_decides(config, tmp_path):
    config["default_hooks"]["checkpoint"]["save_best"] = "IoU.road"
    run = tz.train(config, work_dir=tmp_path / "run", quiet=True)
    assert run.best is not None and "save_best: IoU.road, the higher the better" in run.log_path.read_text()


def test_an_ignored_class_and_the_score_of_an_absent_one():
    labels, prediction = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]])

    def scores(**options):
        evaluator = Evaluator([{"type": "mIoU"}], ["a", "b", "c"], **options)
        evaluator.update(prediction, labels, lambda: iter(()))
        return evaluator.compute()

    assert scores()["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert scores(nan_to_num=0)["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 3)
    ignoring = scores(ignore_index=0)
    assert ignoring["mIoU"] == 100.0 and ignoring["per_class"]["a"]["IoU"] is None


def test_validations_come_at_changing_intervals():
    intervals = Intervals(RunSettings(20, val_interval=8, val_intervals=((11, 3),)), 5)
    assert [step for step in range(1, 21) if intervals.validates(step)] == [8, 12, 15, 18, 20]
