"""`terrazzo data stats`, `browse` and `init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import terrazzo as tz
from terrazzo.cli.main import main
from terrazzo.data.splits import load_for_data, open_splits
from terrazzo.data.statistics import Moments, survey
from terrazzo.transforms import read_image, read_label
from tiny import CLASSES, dataset_config, make_streets, save_label, tiny_config


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    root = make_streets(tmp_path_factory.mktemp("streets"))
    write_yaml(root / "street.yaml", short())
    return root


def short(**data: Any) -> dict[str, Any]:
    values = {"recipe": "fastscnn", "data": {"classes": CLASSES, **data}, "crop": "24x24", "batch": 2, "workers": 0}
    return values | {"iterations": 2}


def write_yaml(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def run(capsys, *arguments: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    code = main(["data", *map(str, arguments)])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


# Statistics


def test_statistics_are_those_of_all_pixels(streets, capsys):
    code, out, _ = run(capsys, "stats", streets / "street.yaml", "--json")
    found = json.loads(out)
    assert code == 0 and list(found["splits"]) == ["train", "val"], "the test set is that of validation"
    train = found["splits"]["train"]
    images = np.stack([read_image(path) for path in sorted((streets / "images/train").iterdir())]).astype(float)
    labels = np.stack([read_label(path) for path in sorted((streets / "labels/train").iterdir())])
    assert train["images"] == 6 and train["sizes"] == {"40x32": 6}
    np.testing.assert_allclose(train["mean"], images.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(train["std"], images.std(axis=(0, 1, 2)), rtol=1e-9)
    assert [row["pixels"] for row in train["classes"]] == np.bincount(labels.ravel()).tolist()
    assert [row["images"] for row in train["classes"]] == [6, 6, 6] and train["ignored"] == 0
    assert sum(row["share"] for row in train["classes"]) == pytest.approx(100)


def test_the_lines_go_into_the_config(streets, tmp_path, capsys):
    _, out, _ = run(capsys, "stats", streets / "street.yaml", "--split", "train")
    assert "train: 6 images, width x height 40x32 (6)" in out and "val:" not in out and "100.0" not in out
    lines = yaml.safe_load("\n".join(out.splitlines()[-2:]))
    config = tz.load_config(write_yaml(tmp_path / "a.yaml", short(root=str(streets)) | lines))
    assert config.model.data_preprocessor.mean == lines["mean"]
    values = tiny_config(streets)
    values["model"]["data_preprocessor"]["bgr_to_rgb"] = False  # a network that takes BGR
    code, out, _ = run(capsys, "stats", write_yaml(tmp_path / "b.yaml", values), "--split", "train")
    options = [line for line in out.splitlines() if line.startswith("model.data_preprocessor")]
    assert code == 0 and yaml.safe_load(options[0].partition("=")[2].strip("'")) == lines["mean"][::-1]


def test_bands_need_no_mean_to_compute_it(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for name in ("a", "b"):
            image = rng.normal(5000, 300, (20, 24, 6)).astype(np.float32)
            image[:3, :, 2] = np.nan
            np.save(tmp_path / "images" / split / f"{name}.npy", image)
            save_label(
                tmp_path / "labels" / split / f"{name}.png", np.full((20, 24), 255 if name == "a" else 1, np.uint8)
            )
    config = write_yaml(tmp_path / "a.yaml", short(bands=[3, 2, 1, 6]))
    code, out, err = run(capsys, "stats", config, "--json")
    found = json.loads(out)["splits"]["train"]
    assert code == 0, err
    np.testing.assert_allclose(found["mean"], 5000, atol=40)
    np.testing.assert_allclose(found["std"], 300, atol=30)
    assert found["ignored"] == 480 and [row["images"] for row in found["classes"]] == [0, 1, 0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_moments_join(kind):
    rng = np.random.default_rng(0)
    images = [rng.normal(100, 20, (size, size + 3, 5)).astype(kind) for size in (3, 9, 40)]
    joined = Moments.of(images[0]) + Moments.of(images[1]) + Moments.of(images[2])
    pixels = np.concatenate([image.reshape(-1, 5) for image in images]).astype(float)
    np.testing.assert_allclose(joined.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(joined.std, pixels.std(axis=0))


def test_statistics_through_wrappers(streets):
    part = dataset_config(streets, "train", augment=True)
    values = tiny_config(streets) | {
        "train_dataloader": {"dataset": {"type": "RepeatDataset", "dataset": part, "times": 5}}
    }
    dataset = open_splits(load_for_data(values), ["train"])["train"]
    assert len(dataset) == 30 and survey(dataset).images == 6


# Browsing


def test_a_page_of_samples(streets, tmp_path, capsys):
    arguments = ["browse", streets / "street.yaml", "--count", 3, "--out"]
    code, out, err = run(capsys, *arguments, tmp_path / "x" / "a.html")
    assert code == 0 and str(tmp_path / "x" / "a.png") in out, err
    page = (tmp_path / "x" / "a.html").read_text()
    assert page.count("<img") == 12 and "http://" not in page and "https://" not in page, "it holds all it shows"
    assert "RandomResize, RandomCrop, RandomFlip, PhotoMetricDistortion" in page
    assert all(name in page for name in CLASSES)
    run(capsys, *arguments, tmp_path / "b.html")
    assert (tmp_path / "b.html").read_text() == page, "the same seed draws the same"
    run(capsys, *arguments, tmp_path / "c.html", "--seed", 1)
    assert (tmp_path / "c.html").read_text() != page
    sheet = np.asarray(Image.open(tmp_path / "x" / "a.png"))
    assert sheet.shape[0] > 3 * 240 and sheet.std() > 20


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_splits_and_more_samples_than_there_are(streets, tmp_path, capsys, split):
    code, _, _ = run(capsys, "browse", streets / "street.yaml", "--split", split, "--out", tmp_path / "a.html")
    assert code == 0 and (tmp_path / "a.html").read_text().count("<img") == 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["browse", "--split", "vall"], "no split 'vall'"),
        (["browse", "--out", "a.png"], "a.png: the page is a .html"),
        (["stats", "--split", "trian"], "no split 'trian'"),
    ],
)
def test_mistakes(streets, capsys, arguments, words):
    command, *options = arguments
    code, _, err = run(capsys, command, streets / "street.yaml", *options)
    assert code == 1 and words in err and err.count("\n") == 1
