"""The commands of the pages on single jobs, run one after the other on small images."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from support.pages import blocks, commands
from support.paths import REPOSITORY
from support.tiny import make_streets, save_image, short_form, street, terrazzo, write_config

PAGES = ("start", "binary", "imbalance", "fine-tuning", "video", "slurm")
NOT_HERE = ("weights get", "--find-batch")  # downloads, a GPU
SPOKEN_OF = ("terrazzo data check", "terrazzo compare", "terrazzo log plot")  # without their arguments
SMALLER = {
    "CONFIG CHECKPOINT --gpus 4": "street.yaml runs/street --gpus 2",
    "--seeds 3": "--seeds 2",
    "--gpus 4 --work-dir runs/street": "--gpus 4 --work-dir runs/batch",
    "--size 720x1280": "--size 64x80 --steps 2 --ways torch onnxruntime",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the pages speak of: data, a config, two runs, photos and videos."""
    root = tmp_path_factory.mktemp("jobs")
    streets = make_streets(root / "data" / "street", size=(64, 80))
    shutil.copytree(streets, root / "data" / "lesions")
    for path in (root / "data" / "lesions").glob("labels/*/*.png"):
        cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0).astype(np.uint8) * 255)
    write_config(root / "street.yaml", short_form(Path("data/street")))
    for run in ("street", "scratch"):
        done = terrazzo("train", "street.yaml", "--work-dir", f"runs/{run}", cwd=root)
        assert done.returncode == 0, done.stderr
    save_image(root / "photo.jpg", street(1, 64, 80)[0])
    shutil.copytree(streets / "images" / "val", root / "more")
    (root / "clips").mkdir()
    for path in (root / "drive.mp4", root / "clips" / "a.mp4"):
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (80, 64))
        for frame in range(3):
            video.write(street(frame, 64, 80)[0])
        video.release()
    return root


def shrink(path: Path, shown: str | None) -> None:
    """Let a config train for four steps; its model is that of the page, where that shows one."""
    small, found = short_form(Path()), yaml.safe_load(shown or path.read_text())
    model = found.get("model", {})
    if found["recipe"] == "unet":
        model = {name: part | model.get(name, {}) for name, part in small["model"].items()}
    settings = {key: small[key] for key in ("batch", "workers", "iterations", "val_interval", "log_interval")}
    write_config(path, found | settings | {"crop": "64x64", "model": model})


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_its_commands_run(name, made, tmp_path):
    page, folder = REPOSITORY / "docs" / f"{name}.md", tmp_path / "here"
    shutil.copytree(made, folder)
    if name == "start":
        (folder / "street.yaml").unlink()
        shutil.rmtree(folder / "runs")
    calls = [call for call in commands(page) if call not in SPOKEN_OF and not any(part in call for part in NOT_HERE)]
    for call in calls:
        for shown, smaller in SMALLER.items():
            call = call.replace(shown, smaller)
        words = shlex.split(call, comments=True)[1:]
        if "--threshold-search" in words:  # of the model with one channel
            shrink(folder / "lesions.yaml", blocks(page, "yaml")[0])
            assert terrazzo("train", "lesions.yaml", "--overwrite", cwd=folder).returncode == 0
        done = terrazzo(*words, cwd=folder, timeout=500)
        assert done.returncode == 0, f"{call}\n{done.stdout}{done.stderr}"
        if words[:2] == ["data", "init"]:
            shrink(folder / f"{Path(words[2]).name}.yaml", None)
