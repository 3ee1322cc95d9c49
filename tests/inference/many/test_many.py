"""Many images: what is done is not done again, memory that ends, and shards that make up one run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import terrazzo as tz
from support.scenes import landscape, save_model, save_scene
from support.tiny import environment, save_image, street
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.inference.many.shards import Shard
from terrazzo.inference.many.sources import find_items
from terrazzo.inference.many.turns import Turns

NAMES = [f"{index:02d}" for index in range(7)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of scenes of three bands of 16 bits."""
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors", bands=3)


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory) -> Path:
    """A model of pictures."""
    path = tmp_path_factory.mktemp("of_photos") / "model.safetensors"
    return save_model(path, bands=3, spread=(120.0, 60.0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, name in enumerate(NAMES):
        save_image(folder / f"{name}.png", street(index)[0])
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return save_scene(tmp_path_factory.mktemp("scene") / "field.tif", landscape(400, 260, bands=3))


def predict(*arguments: object) -> int | str | None:
    try:
        return main(["predict", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are not hidden."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Resuming


def test_resuming_does_what_is_not_done(of_photos, photos, tmp_path, capsys):
    command = [photos, "--model", of_photos, "--out", tmp_path, "--no-overlay", "--resume"]
    assert predict(*command) == 0 and set(contents(tmp_path)) == {f"{name}.png" for name in NAMES}
    assert predict(*command) == 0 and "7 of 7 segmented (7 before)" in capsys.readouterr().out
    (tmp_path / "03.png").unlink()
    (tmp_path / "04.png").write_bytes(b"of another program")
    assert predict(*command) == 0 and "7 of 7 segmented (5 before)" in capsys.readouterr().out
    assert predict(*command, "--confidence") == 0 and "7 of 7 segmented;" in capsys.readouterr().out


def test_a_changed_image_or_model_is_not_done(of_photos, photos, tmp_path, capsys):
    sources = [save_image(tmp_path / name, street(index)[0]) for index, name in enumerate(("a.png", "b.png"))]
    command = [*sources, "--out", tmp_path / "out", "--resume", "--model"]
    assert predict(*command, of_photos) == 0
    save_image(sources[1], street(9)[0])
    assert predict(*command, of_photos) == 0 and "(1 before)" in capsys.readouterr().out
    other = save_model(tmp_path / "other.safetensors", seed=2, bands=3, spread=(120.0, 60.0))
    assert predict(*command, other) == 0 and "before" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_goes_on(of_photos, photos, tmp_path):
    command = ["predict", photos, "--model", of_photos, "--out", tmp_path / "out", "--resume"]
    assert predict(*command[1:4], "--out", tmp_path / "once") == 0
    manifest = tmp_path / "out" / ".manifest.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "terrazzo", *map(str, command)], env=environment())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not manifest.is_file():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with manifest.open("a") as file:
        file.write('{"source": "cut o')
    assert predict(*command[1:]) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    lines = manifest.read_text().splitlines()
    done = [json.loads(line)["source"] for line in lines if line.endswith("}")]
    assert len(done) == len(set(done)) == len(NAMES), "each is done once"


# Memory


@pytest.mark.parametrize(("largest", "side"), [(300 * 300, 192), (160 * 160, 128)], ids=["windows", "smaller windows"])
def test_when_memory_ends_windows_are_tried(model, scene, tmp_path, monkeypatch, largest, side):
    segmenter = tz.load(model, device="cpu")
    expected, original = segmenter(scene).labels, segmenter.model.decode
    assert segmenter.runtime.bytes_per_pixel > 0  # is measured by a pass of its own

    def decode(images, *rest):
        if images.shape[2] * images.shape[3] > largest:
            raise torch.OutOfMemoryError("no memory left")
        return original(images, *rest)

    monkeypatch.setattr(segmenter.model, "decode", decode)
    prediction = segmenter(scene)
    assert type(prediction).__name__ == "ScenePrediction" and max(prediction.windows.size) <= side
    assert (prediction.labels != expected).mean() < 0.001
    monkeypatch.setattr(segmenter.model, "decode", lambda *_: decode(torch.empty(1, 3, 9999, 9999, device="meta")))
    with pytest.raises(UserError, match=r"not enough memory to segment .*field\.tif"):
        segmenter(scene)


def test_turns_are_taken_by_several_or_by_one_alone():
    turns = Turns(2)
    with turns.take(), turns.take():
        assert turns.free == 0
    with turns.take(2):
        assert turns.free == 0
    assert turns.free == 2


# Parts of a list, and of a scene


def test_every_second_image(photos, tmp_path):
    items = find_items([str(photos)], tmp_path, (".png",), every=2)
    assert [item.stem for item in items] == NAMES[::2]


def test_shards_of_a_list_make_up_one_run(of_photos, photos, tmp_path, capsys):
    command = [photos, "--model", of_photos, "--out"]
    assert predict(*command, tmp_path / "one") == 0
    for number in (3, 1, 2):
        assert predict(*command, tmp_path / "shards", "--shard", f"{number}/3") == 0
    assert contents(tmp_path / "shards") == contents(tmp_path / "one")
    assert predict(*command, tmp_path / "shards", "--shard", "1/1", "--resume") == 0
    assert "7 of 7 segmented (7 before)" in capsys.readouterr().out
    assert predict(*command, tmp_path / "shards", "--shard", "0/3") == 2
    assert predict(*command, photos, "--shard", "1/3") == 2 and "give another folder" in capsys.readouterr().err


def test_shards_of_a_scene_make_up_one_run(model, scene, tmp_path, capsys):
    options = ["--model", model, "--window", "96", "--overlap", "0.25", "--probabilities"]
    assert predict(scene, *options, "--out", tmp_path / "one") == 0
    for number in (2, 3, 1):
        assert not list((tmp_path).glob("shards/field*"))
        assert predict(scene, *options, "--out", tmp_path / "shards", "--shard", f"{number}/3") == 0
    assert "field.tif: part 3-of-3 is done; the last one to finish writes" in capsys.readouterr().out
    assert contents(tmp_path / "shards") == contents(tmp_path / "one")
    assert [path.name for path in (tmp_path / "shards").glob(".*")] == [".manifest-1-of-3.jsonl"]


def test_shards_with_other_windows_do_not_fit_together(model, scene, tmp_path, capsys):
    for number, size in ((1, 96), (2, 128)):
        code = predict(scene, "--model", model, "--out", tmp_path, "--window", size, "--shard", f"{number}/2")
    assert code == 1 and "shard 1 of 2 was made with another model, other windows" in capsys.readouterr().err


def test_results_of_several_at_a_time_are_those_of_one(of_photos, photos, tmp_path):
    assert predict(photos, "--model", of_photos, "--out", tmp_path) == 0
    segmenter = tz.load(of_photos, device="cpu")
    for name in NAMES:
        assert np.array_equal(np.array(Image.open(tmp_path / f"{name}.png")), segmenter(photos / f"{name}.png").labels)
    assert Shard(2, 3).of(NAMES) == NAMES[1::3]
