"""The commands that the FAQ answers with, run one after the other on a model of two classes."""

from __future__ import annotations

import shlex

import cv2
import pytest

from support.pages import commands
from support.paths import REPOSITORY
from support.tiny import dataset_config, make_streets, model_config, terrazzo, tiny_config, write_config

CALLS = [call for call in dict.fromkeys(commands(REPOSITORY / "docs" / "faq.md")) if call != "terrazzo train"]
SMALLER = {"4": "2", "CONFIG": "config.yaml", "config.py": "config.yaml", "FOLDER": "images/val"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, labels and `config.yaml` of a head with one channel, and its weights."""
    root = make_streets(tmp_path_factory.mktemp("faq"))
    for path in root.glob("labels/*/*.png"):
        cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0).astype("uint8"))
    model = model_config(2, out_channels=1, threshold=0.5)
    model["decode_head"]["loss_decode"] = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    splits = {
        f"{split}_dataloader": {
            "batch_size": 2,
            "num_workers": 0,
            "dataset": dataset_config(root, folder, ["sky", "road"]),
        }
        for split, folder in (("train", "train"), ("val", "val"), ("test", "val"))
    }
    config = tiny_config(root, model=model, auto_scale_lr={"base_batch_size": 8}, **splits)
    write_config(root / "config.yaml", config)
    trained = terrazzo("train", "config.yaml", "--work-dir", "run", cwd=root)
    assert trained.returncode == 0, trained.stderr
    (root / "run" / "best.safetensors").rename(root / "best.safetensors")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_it_runs(folder, call):
    words = [SMALLER.get(word, word) for word in shlex.split(call)[1:]]
    words = ["best.safetensors" if word == "CHECKPOINT" else word for word in words]
    done = terrazzo(*words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
