"""Commands killed at a random moment: files are whole, and the command can be run again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import terrazzo as tz
from data.converters.test_converters import TREES
from inference.video.test_video import save_video
from serving.conftest import Answer, Server
from serving.conftest import start as start_server
from support.scenes import save_scene
from support.tiny import CLASSES, fit, make_streets, short_form, street, tiny_config, write_config
from terrazzo.checkpoints.publish import save
from terrazzo.cli.main import main
from terrazzo.exporting.html_page import RUNTIME
from terrazzo.inference.labelling.tools import TOOLS
from terrazzo.inference.saved_config import describe
from terrazzo.models.safe_pickle import load_pickle
from terrazzo.transforms.decode import read_image
from test_plugins import FOREIGN

# command -> its arguments, and those of the second run in addition
COMMANDS = {
    "train": ("train {given}/c.yaml --work-dir out --device cpu", "--resume"),
    "train --seeds": ("train {given}/c.yaml --seeds 2 --work-dir out --device cpu --track csv", "--resume"),
    "train --fold": ("train {given}/folds.yaml --fold all --work-dir out --device cpu", "--resume"),
    "train --slurm": ("train {given}/c.yaml --slurm 2 --work-dir out", ""),
    "plan": ("plan {given}/streets --budget 20s --device cpu --out plan.yaml", "--force"),
    "test": (
        "test {given}/c.yaml {given}/w.pth --device cpu --out out --show-dir shown --confusion c.csv --gallery g",
        "",
    ),
    "compare": ("compare {given}/run {given}/w.pth --data {given}/c.yaml --device cpu --no-speed", ""),
    "predict": ("predict {given}/streets/images --model {given}/w.pth --device cpu --probabilities --confidence", ""),
    "predict --to": (
        f"predict {{given}}/streets/images --model {{given}}/w.pth --device cpu --to {' --to '.join(TOOLS)}",
        "--resume",
    ),
    "predict a video": ("predict {given}/clip.mp4 --model {given}/w.pth --device cpu --labels", "--resume"),
    "predict a scene": (
        "predict {given}/scene.tif --model {given}/w.pth --device cpu --window 64x64 --polygons regions.gpkg "
        "--probabilities --confidence",
        "--resume",
    ),
    "port": ("port {given}/head.py --out head.py", ""),
    "data check --fix": ("data check fix.yaml --fix", ""),
    "data convert": ("data convert chase_db1 {given}/raw out --workers 1", ""),
    "data init": ("data init {given}/streets --out a.yaml", "--force"),
    "data browse": ("data browse {given}/c.yaml", ""),
    "checkpoint convert": ("checkpoint convert {given}/w.pth w.safetensors", "--force"),
    "checkpoint average": ("checkpoint average w.pth {given}/w.pth {given}/w.pth", "--force"),
    "checkpoint publish": ("checkpoint publish {given}/w.pth w.safetensors", "--force"),
    "config upgrade": ("config upgrade {given}/c.yaml --out c.py", ""),
    "config schema": ("config schema --out schema.json", ""),
    "log plot": ("log plot {given}/run --out curves.png", ""),
    "export": ("export {given}/w.pth --out m.onnx --check {given}/c.yaml", ""),
    "export to OpenVINO": ("export {given}/w.pth --out m.xml", ""),
    "export to torch": ("export {given}/w.pth --out m.pt2", ""),
    "export to a page": ("export {given}/w.pth --out m.html --ort-web {given}/web", ""),
    "export to a bundle": ("export {given}/w.pth --to bundle --out bundle", ""),
    "export for Triton": ("export {given}/w.pth --to triton --out models", ""),
    "benchmark": ("benchmark {given}/w.pth --size 32x40 --ways torch --steps 2 --check {given}/c.yaml --out speed", ""),
    "weights get": ("weights get https://download.openmmlab.com/{published} --mirror {given}/mirror", ""),
    "demo": ("demo --iterations 2 --device cpu", ""),
}
DIGEST = re.compile("-[0-9a-f]{8}(?=[.])")  # in the name of a published file
NEEDS = {
    "predict a scene": ("rasterio", "pyogrio"),
    "export to OpenVINO": ("openvino",),
    **dict.fromkeys(
        ("export", "export to a page", "export to a bundle", "export for Triton", "benchmark"), ("onnx", "onnxruntime")
    ),
}
IN_CI = ("train", "predict", "data convert", "checkpoint convert")


def is_html(path: Path) -> bool:
    return path.read_text().rstrip().endswith("</html>")


def ends_a_line(path: Path) -> bool:
    return path.read_text().endswith("\n")


def is_program(path: Path) -> bool:
    """Return whether a config or a module is whole."""
    text = path.read_text()
    return bool(compile(text, path, "exec")) and ends_a_line(path)


def read_raster(path: Path) -> np.ndarray:
    """All bands of a GeoTIFF."""
    with pytest.importorskip("rasterio").open(path) as file:
        return file.read()


def count_frames(path: Path) -> bool:
    """Return whether a video has frames, all of which can be read."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return count > 0 and all(capture.read()[0] for _ in range(count))


def is_consistent(path: Path) -> bool:
    """Return whether a database is whole, after what sqlite makes up for itself."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


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
    ".py": is_program,
    ".html": is_html,
    ".pth": load_pickle,
    ".pt": load_pickle,
    ".safetensors": load_file,
    ".onnx": tz.load,
    ".xml": ElementTree.parse,
    ".gpkg": lambda path: pytest.importorskip("pyogrio").raw.read(path),
    ".geojson": lambda path: json.loads(path.read_text()),
    ".tif": read_raster,
    ".mp4": count_frames,
    ".mkv": count_frames,
    ".bin": lambda path: tz.load(path.with_suffix(".xml")),  # the weights of an OpenVINO file
    ".pt2": lambda path: tz.load(path, trust=True),
    ".sbatch": ends_a_line,
    ".csv": ends_a_line,
    ".pbtxt": ends_a_line,
    ".md": ends_a_line,
    "": ends_a_line,
    ".sqlite": is_consistent,
    **dict.fromkeys((".sqlite-journal", ".sqlite-wal", ".sqlite-shm"), lambda path: True),
    ".part": lambda path: True,  # of a download, which is continued
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
        os.environ["TERRAZZO_HOME"] = str(folder / "home")
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
    form = short_form(streets)
    write_config(root / "folds.yaml", form | {"data": form["data"] | {"folds": 2}})
    write_config(root / "fix.yaml", form | {"data": form["data"] | {"classes": [*CLASSES, "dog"]}})
    (root / "head.py").write_text(FOREIGN)
    (root / "web").mkdir()
    for name in RUNTIME:
        (root / "web" / name).write_bytes(b"-" * 10**6)
    (root / "mirror").mkdir()
    torch.save({"a": torch.rand(10**6)}, root / "large.pth")
    content = (root / "large.pth").read_bytes()
    (root / "mirror" / f"w-{hashlib.sha256(content).hexdigest()[:8]}.pth").write_bytes(content)
    save_video(root / "clip.mp4", [street(0)[0]] * 30)
    if find_spec("rasterio"):
        save_scene(root / "scene.tif", np.tile(street(0)[0], (8, 8, 1)).transpose(2, 0, 1))
    return root


def new_folder(path: Path, given: Path) -> Path:
    """A folder to run a command in, with a config that `data check --fix` changes."""
    path.mkdir()
    shutil.copy(given / "fix.yaml", path)
    return path


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_a_killed_command_leaves_whole_files_and_can_be_run_again(name, kills, given, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    command, again = COMMANDS[name]
    (published,) = [path.name for path in (given / "mirror").iterdir()]
    command = command.format(given=given, published=published)
    whole = new_folder(tmp_path / "whole", given)
    seconds = run(command, whole)
    expected = check_whole(whole)
    assert len(expected) > 1 or name == "data check --fix"
    for number in range(min(kills, max(3, int(20 / seconds)))):  # fewer of those that take long
        folder = new_folder(tmp_path / str(number), given)
        moment = random.Random(f"{name} {number}").random()
        process = start(command, folder)
        time.sleep(moment * seconds)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        print(f"{name} is killed after {moment:.0%} of {seconds:.2f} s, when it has {check_whole(folder)}")
        run(f"{command} {again}", folder)
        assert set(check_whole(folder)) >= set(expected)
        shutil.rmtree(folder)


def keep(server: Server, image: Path, label: Path) -> Answer:
    """Send an image and its labels as the page does."""
    parts = [
        f'--end\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'.encode()
        + path.read_bytes()
        for name, path in (("image", image), ("labels", label))
    ]
    body = b"\r\n".join([*parts, b"--end--\r\n"])
    return server.post("/keep", body, Content_Type="multipart/form-data; boundary=end", X_Terrazzo="keep")


@pytest.mark.slow
def test_a_killed_server_leaves_whole_files_and_can_be_started_again(given, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    streets, kept = given / "streets", tmp_path / "kept"
    pairs = [(path, streets / "labels" / "train" / path.name) for path in (streets / "images" / "train").iterdir()]

    def keep_all(server: Server) -> None:
        with suppress(OSError, HTTPException):
            for pair in pairs:
                keep(server, *pair)

    for number in range(4):
        server = start_server(given / "w.pth", "--device", "cpu", "--keep", kept)
        sending = threading.Thread(target=keep_all, args=[server])
        sending.start()
        time.sleep(random.Random(number).random() / 4)
        server.process.kill()
        sending.join()
        server.process.communicate()
        print(f"the server is killed when it has {check_whole(kept) if kept.exists() else []}")
    server = start_server(given / "w.pth", "--device", "cpu", "--keep", kept)
    assert all(keep(server, *pair).status == 200 for pair in pairs)
    server.stop()
    names = [{path.name for path in (kept / kind).glob("*.png")} for kind in ("images", "labels")]
    assert names[0] == names[1] == {image.name for image, _ in pairs}
