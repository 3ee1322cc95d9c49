"""Predicting and testing on a Ray cluster, started here with two workers: the results of one process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.scenes import save_model
from support.tiny import fit, make_streets, save_image, start_terrazzo, street, terrazzo, tiny_config, write_config
from terrazzo.cli.main import main
from terrazzo.cli.test import without_ray

IMAGES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "m.safetensors", bands=3, spread=(120.0, 60.0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(IMAGES):
        save_image(folder / f"{index:02d}.png", street(index, 240, 320)[0])
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def kill_a_worker(process: subprocess.Popen[str], out: Path) -> bool:
    """Kill the worker of a run that holds the model as soon as there are results; False where it is over before."""
    psutil = pytest.importorskip("psutil")
    while process.poll() is None:
        if out.is_dir() and any(out.glob("*.png")):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.name().startswith("ray::Map"):
                    child.kill()
                    return True
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_a_cluster_gives_the_results_of_one_process(model, photos, tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    command = ["predict", photos, "--model", model, "--out"]
    assert terrazzo(*command, tmp_path / "one").returncode == 1
    process = start_terrazzo(*command, tmp_path / "ray", "--ray")
    killed = kill_a_worker(process, tmp_path / "ray")
    out, err = process.communicate(timeout=400)
    assert killed and process.returncode == 1, out + err
    assert f"{IMAGES} of {IMAGES + 1} segmented" in out and err.count("error:") == 1 and "bad.png" in err
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")
    sources = [json.loads(line)["source"] for line in (tmp_path / "ray" / ".manifest.jsonl").read_text().splitlines()]
    assert len(set(sources)) == IMAGES
    again = terrazzo(*command, tmp_path / "ray", "--ray", "--resume", timeout=300)
    assert f"{IMAGES} of {IMAGES + 1} segmented ({IMAGES} before)" in again.stdout


@pytest.mark.slow
def test_a_cluster_scores_like_one_process(tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    streets = make_streets(tmp_path / "streets", val=5)
    config = write_config(tmp_path / "c.yaml", tiny_config(streets))
    best = fit(tiny_config(streets), tmp_path / "run").best
    one = terrazzo("test", config, best, "--out", tmp_path / "one", "--device", "cpu")
    ray = terrazzo(
        "test", config, best, "--out", tmp_path / "ray", "--device", "cpu", "--gpus", 2, "--ray", timeout=400
    )
    assert ray.returncode == 0, ray.stderr
    assert ray.stdout == one.stdout.replace("/one", "/ray")
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


def test_without_ray_its_pip_line_is_shown(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["predict", str(photos / "00.png"), "--model", str(model), "--out", str(tmp_path), "--ray"]) == 1
    assert 'pip install "terrazzo[ray]"' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "--ray", "photo.png"])
    assert "put --ray last" in capsys.readouterr().err


@pytest.mark.parametrize("address", [[], ["ray://head:10001"]])
def test_the_processes_of_a_cluster_are_not_told_of_it(address):
    command = ["test", "a.yaml", "b.pth"]
    assert without_ray([*command, "--ray", *address, "--out", "x"]) == [*command, "--out", "x"]
    assert without_ray([*command, "--ray=auto"]) == command
