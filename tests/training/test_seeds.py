"""Several runs that differ in their seeds alone."""

from __future__ import annotations

import shutil

import pytest

from support.tiny import fit, make_streets, same_weights, short_form, tiny_config, write_config
from terrazzo.cli.main import main


def test_each_seed_is_a_run_of_its_own(tmp_path, capsys):
    config = tiny_config(make_streets(tmp_path / "data"), steps=2)
    arguments = ["train", str(write_config(tmp_path / "c.yaml", config)), "--seeds", "2", "--seed", "5"]
    arguments += ["--work-dir", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["seed5", "seed6"]
    assert "(mean and deviation, 2 seeds): seed5, seed6" in capsys.readouterr().out
    alone = fit(config, tmp_path / "alone", overrides={"randomness.seed": 6})
    assert same_weights(tmp_path / "runs" / "seed6" / "last.safetensors", alone.last)
    assert not same_weights(tmp_path / "runs" / "seed5" / "last.safetensors", alone.last)

    # no run is lost, and a finished one is not trained again
    assert main(arguments) == 1
    assert "seed5 already has a run" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs" / "seed6")
    finished = (tmp_path / "runs" / "seed5" / "run.json").stat().st_mtime_ns
    assert main([*arguments, "--resume"]) == 0
    assert (tmp_path / "runs" / "seed5" / "run.json").stat().st_mtime_ns == finished
    assert same_weights(tmp_path / "runs" / "seed6" / "last.safetensors", alone.last)


def test_all_folds_end_with_the_scores_of_their_ensemble(tmp_path, capsys):
    streets = make_streets(tmp_path / "data")
    config = short_form(streets, iterations=1)
    config["data"] |= {"folds": 2, "test": "val"}
    path = write_config(tmp_path / "c.yaml", config)
    arguments = ["train", str(path), "--fold", "all", "--work-dir", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "(mean and deviation, 2 folds): fold1, fold2" in out and "ensemble of 2 folds on val: mIoU" in out

    # without test images, the command that scores the ensemble
    del config["data"]["test"]
    write_config(path, config)
    assert main([*arguments, "--resume"]) == 0
    assert f"terrazzo test {path} {tmp_path}/runs/fold1 --ensemble {tmp_path}/runs/fold2" in capsys.readouterr().out
    del config["data"]["folds"]
    write_config(path, config)
    assert main(arguments) == 1 and "has no folds: set `data: {folds: 5}`" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--find-batch", "--slurm", "--resume-from=runs/a"])
def test_what_is_about_one_run_is_refused(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "street.yaml", "--seeds", "2", flag])
    assert stopped.value.code == 2 and "omit --seeds" in capsys.readouterr().err
