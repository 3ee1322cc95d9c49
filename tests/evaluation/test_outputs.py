"""What `terrazzo test` leaves behind: intervals, matrices, galleries, files for servers; ensembles."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import terrazzo as tz
from support.tiny import CLASSES, fit, make_streets, model_config, save_image, street, tiny_config, write_config
from terrazzo.cli.main import main
from terrazzo.config.experiment import make_experiment
from terrazzo.errors import UserError
from terrazzo.evaluation.gallery import Gallery
from terrazzo.evaluation.submission import FORMS, SubmissionWriter
from terrazzo.metrics import Evaluator
from terrazzo.metrics.cityscapes import IDS
from terrazzo.sample import Batch, Sample
from terrazzo.transforms import read_image


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def best(streets, tmp_path_factory) -> Path:
    return fit(tiny_config(streets, steps=40, batch=4), tmp_path_factory.mktemp("run")).best


@pytest.fixture(scope="module")
def other(streets, tmp_path_factory) -> Path:
    config = tiny_config(streets, steps=20, batch=4, randomness={"seed": 8})
    return fit(config, tmp_path_factory.mktemp("other")).best


@pytest.fixture(scope="module")
def config(streets, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "my.yaml", tiny_config(streets))


@pytest.fixture
def run(capsys):
    def call(*arguments) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        return code, *capsys.readouterr()

    return call


def test_all_metrics_and_files_of_one_run(run, config, best, tmp_path):
    metrics = ["mIoU", "mDice", "mFscore", "boundary", "trimap", "per-image", "calibration"]
    code, out, err = run(
        *("test", config, best, "--eval", *metrics, "--bootstrap", "30", "--out", tmp_path / "out"),
        *("--confusion", tmp_path / "new" / "matrix.csv", "--gallery", tmp_path / "gallery"),
    )
    assert code == 0, err
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for name in ("mIoU", "mBoundaryIoU", "mTrimapIoU@5px", "mIoU_I", "mIoU_C", "ECE", "temperature"):
        assert re.search(rf"{name} \d", out), name
    low, high = result["intervals"]["mIoU"]
    assert low <= result["mIoU"] <= high
    assert "BoundaryIoU" in out and "…" not in out, "the table is shown in full"
    assert "<svg" in (tmp_path / "out" / "reliability.svg").read_text()

    rows = list(csv.reader((tmp_path / "new" / "matrix.csv").open()))
    counts = np.array([row[1:] for row in rows[1:]], int)
    assert rows[0][1:] == CLASSES and counts.sum() == 3 * 32 * 40
    assert 100 * counts.trace() / counts.sum() == pytest.approx(result["aAcc"])
    assert cv2.imread(str(tmp_path / "new" / "matrix.png")) is not None

    page = (tmp_path / "gallery" / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == 12 and all((tmp_path / "gallery" / path).exists() for path in pictures)
    scores = [float(score) for score in re.findall(r"<figcaption>([\d.]+)% wrong: \d\d\.png", page)]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    for place in ("matrix.csv", "matrix.png", "index.html", "reliability.svg"):
        assert place in out, "it says where everything went"


def test_a_gallery_keeps_the_worst(tmp_path):
    evaluator, shares = Evaluator([{"type": "mIoU"}], CLASSES), []
    palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    gallery = Gallery(tmp_path, CLASSES, palette, lambda sample: read_image(sample.image_path), count=2)
    for index, wrong in enumerate([3, 20, 0, 11]):
        image, label = street(index)
        path = save_image(tmp_path / f"{index}.png", image)
        prediction = torch.from_numpy(label).clone()
        prediction[:wrong] = 2
        seen = evaluator.update(prediction, torch.from_numpy(label), lambda: iter(()))
        gallery.add(Sample(image_path=path), seen)
        shares.append(np.mean(prediction.numpy() != label))
    page = gallery.write().read_text()
    shown = re.findall(r"<figcaption>([\d.]+)% wrong: (\d).png", page)
    assert shown == [(f"{100 * shares[index]:.1f}", str(index)) for index in (1, 3)], "the worst comes first"
    assert len(list((tmp_path / "pictures").iterdir())) == 8, "what is not shown is gone"


# Thresholds


def binary_config(streets: Path, **sections) -> dict:
    head = {"out_channels": 1, "threshold": 0.9, "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True}}
    config = tiny_config(streets, steps=30, batch=4, model=model_config(2, **head), **sections)
    for split in ("train", "val", "test"):
        dataset = config[f"{split}_dataloader"]["dataset"]
        dataset["metainfo"] = {"classes": ["sky", "ground"]}
        dataset["label_map"] = {2: 1}
    return config


def test_threshold_search(run, streets, tmp_path):
    values = binary_config(streets)
    best = fit(values, tmp_path / "run").best
    config = write_config(tmp_path / "binary.yaml", values)
    code, out, err = run("test", config, best, "--threshold-search")
    assert code == 0, err
    (advice,) = re.findall(r"--cfg-options (\S+)", out)
    found = float(re.search(r"best_threshold_IoU ([\d.]+)", out)[1])
    key, value = advice.split("=")
    ground = tz.evaluate(values, best, overrides={key: float(value)})["per_class"]["ground"]["IoU"]
    assert found == pytest.approx(ground, abs=0.01)
    assert ground >= tz.evaluate(values, best)["per_class"]["ground"]["IoU"]


def test_a_threshold_is_searched_for_binary_models(run, config, best):
    code, _, err = run("test", config, best, "--threshold-search")
    assert code == 1 and "out_channels=1" in err


# For servers


def test_format_only_needs_no_labels(run, streets, best, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(streets / "images" / "val", root / "images" / "val")
    values = tiny_config(root)
    dataset = values["test_dataloader"]["dataset"]
    dataset["data_prefix"] = {"img_path": "images/val"}
    dataset["pipeline"] = [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]
    config = write_config(tmp_path / "my.yaml", values)
    code, out, err = run("test", config, best, "--format-only", "--out", tmp_path / "out")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00.png", "01.png", "02.png"]
    assert f"3 files (class numbers from 0): {tmp_path / 'out'}" in out and "mIoU" not in out


def test_format_only_in_the_config(run, streets, best, tmp_path):
    evaluator = {"type": "IoUMetric", "format_only": True, "output_dir": str(tmp_path / "there")}
    config = write_config(tmp_path / "my.yaml", tiny_config(streets, test_evaluator=evaluator))
    code, _, err = run("test", config, best)
    assert code == 0, err
    found = cv2.imread(str(tmp_path / "there" / "00.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, tz.load(best, device="cpu")(street(100)[0]).labels)


@pytest.mark.parametrize(
    ("dataset", "image", "name", "expected"),
    [
        ("ADE20KDataset", "ADE_test_00000001.jpg", "ADE_test_00000001.png", [1, 8]),
        ("CityscapesDataset", "a_000001_000019_leftImg8bit.png", "a_000001_000019.png", [IDS[0], IDS[7]]),
        ("LoveDADataset", "4191.png", "4191.png", [0, 7]),
        ("PotsdamDataset", "top_2_10.png", "top_2_10.tif", [[255, 0, 0], [9, 8, 7]]),
        ("iSAIDDataset", "P0003.png", "P0003_instance_color_RGB.png", [[255, 0, 0], [9, 8, 7]]),
        ("BaseSegDataset", "x.png", "x.png", [0, 7]),
    ],
)
def test_what_servers_want(tmp_path, dataset, image, name, expected):
    writer = SubmissionWriter(dataset, tmp_path, [Path(image)])
    palette = [[255, 0, 0], *[[0, 0, 0]] * 6, [9, 8, 7]]
    maps = [torch.tensor([[0, 7]], dtype=torch.uint8)]
    writer.write(Batch(torch.zeros(1), {}, [Sample(image_path=Path(image))], [(1, 2)]), maps, (), palette)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    stored = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint8
    assert (stored[0] if stored.ndim == 2 else stored[0, :, ::-1]).tolist() == expected
    assert dataset in FORMS or dataset == "BaseSegDataset"


def test_two_images_of_one_name(tmp_path):
    with pytest.raises(UserError, match=r"b/x\.jpg and a/x\.jpg would both be written as x\.png"):
        SubmissionWriter("ADE20KDataset", tmp_path, [Path(folder) / "x.jpg" for folder in "ab"])


# Ensembles


def test_an_ensemble_averages_probabilities(run, config, best, other, streets, tmp_path):
    code, _, err = run("test", config, "--ensemble", best, other, "--out", tmp_path)
    assert code == 0, err
    one, two = (tz.load(path, device="cpu") for path in (best, other))
    for index in range(3):
        image, _ = street(100 + index)
        expected = (one(image).probs + two(image).probs).argmax(0)
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / f"{index:02d}.png"), cv2.IMREAD_UNCHANGED), expected)


def test_an_ensemble_of_two_architectures(config, best, streets, tmp_path):
    wide = model_config()
    wide["backbone"]["base_channels"], wide["decode_head"]["in_channels"] = 6, 6
    wider = fit(tiny_config(streets, steps=2, model=wide), tmp_path / "run").last
    result = tz.evaluate(config, [best, wider], device="cpu")
    assert 0 < result["mIoU"] <= 100


def test_an_ensemble_of_one_is_the_model(config, best):
    assert tz.evaluate(config, [best], device="cpu") == tz.evaluate(config, best, device="cpu")


def test_models_of_other_classes_are_no_ensemble(config, best, streets, tmp_path):
    other = fit(binary_config(streets), tmp_path / "run").last
    with pytest.raises(UserError, match="logits for the same classes"):
        tz.evaluate(config, [best, other], device="cpu")


# Evaluators of a config


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"type": "IoUMetric", "iou_metrics": ["mIoU", "mFscore"], "beta": 2}, ["mIoU", "mFscore"]),
        ({"type": "mmseg.IoUMetric", "iou_metrics": "mDice"}, ["mDice"]),
        ([{"type": "IoUMetric"}, {"type": "CityscapesMetric", "output_dir": "x"}], ["mIoU", "cityscapes"]),
        ({"type": "DepthMetric", "max_depth_eval": 10.0, "crop_type": "nyu_crop"}, ["depth"]),
        ({"type": "IoUMetric", "iou_metrics": ["boundary", {"type": "trimap", "widths": [3]}]}, ["boundary", "trimap"]),
        (None, ["mIoU"]),
    ],
)
def test_evaluators(streets, section, expected):
    settings = make_experiment(tiny_config(streets, test_evaluator=section)).test_evaluator
    assert [spec["type"] for spec in settings.metrics] == expected


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "IoUMetric", "iou_metrics": ["bounadry"]}, "'boundary'"),
        ({"type": "IoUMetric", "iou_metric": ["mIoU"]}, "no key 'iou_metric'; did you mean 'iou_metrics'"),
        ({"type": "IuoMetric"}, "no metric is called 'IuoMetric'"),
    ],
)
def test_mistakes_in_evaluators(streets, section, message):
    with pytest.raises(UserError, match=message):
        make_experiment(tiny_config(streets, test_evaluator=section))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "x.yaml"], "CHECKPOINT"),
        (["test", "x.yaml", "y.pth", "--format-only"], "--out D"),
        (["test", "x.yaml", "y.pth", "--bootstrap", "few"], "whole number"),
    ],
)
def test_bad_usage(run, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2 and message in err


# Depth


def test_depth_from_training_to_scores(run, streets, tmp_path):
    for split, count in (("train", 6), ("val", 3)):
        (streets / "depth" / split).mkdir(parents=True)
        for index in range(count):
            image = cv2.imread(str(streets / "images" / split / f"{index:02d}.png"))
            depth = np.linspace(2, 6, image.shape[0])[:, None].repeat(image.shape[1], 1)
            cv2.imwrite(str(streets / "depth" / split / f"{index:02d}.png"), (1000 * depth).astype(np.uint16))
    head = {"type": "VPDDepthHead", "feature_dim": 32, "embed_dim": 16, "num_deconv_filters": [8, 8, 8]}
    model = {
        "type": "DepthEstimator",
        "data_preprocessor": {"type": "SegDataPreProcessor", "mean": [120.0] * 3, "std": [60.0] * 3},
        "backbone": {"type": "ResNet", "depth": 18, "base_channels": 16, "stem_channels": 16},
        "decode_head": head | {"in_channels": [16, 32, 64, 128], "max_depth": 10.0},
    }
    evaluator = {"type": "DepthMetric", "min_depth_eval": 0.001, "max_depth_eval": 10.0}
    values = tiny_config(streets, steps=2, model=model, val_evaluator=evaluator, test_evaluator=evaluator)
    for split, folder in (("train", "train"), ("val", "val"), ("test", "val")):
        values[f"{split}_dataloader"]["dataset"] = {
            "type": "NYUDataset",
            "data_root": str(streets),
            "data_prefix": {"img_path": f"images/{folder}", "depth_map_path": f"depth/{folder}"},
            "img_suffix": ".png",
            "pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "LoadDepthAnnotation", "depth_rescale_factor": 1e-3},
                {"type": "PackSegInputs"},
            ],
        }
    values["default_hooks"]["checkpoint"] |= {"save_best": "rmse", "rule": "less"}
    trained = fit(values, tmp_path / "run")
    assert 0 < trained.metrics["rmse"] < 10 and trained.best is not None
    config = write_config(tmp_path / "depth.yaml", values)
    code, out, err = run("test", config, trained.best, "--out", tmp_path / "out", "--show-dir", tmp_path / "show")
    assert code == 0, err
    assert re.search(r"d1 \d\.\d{4} .*rmse \d+\.\d{4}", out)
    assert np.load(tmp_path / "out" / "00.npy").shape == (32, 40)
    shown = cv2.imread(str(tmp_path / "show" / "00.png"))
    assert shown.shape[0] > 32 and shown.shape[1] == 40 + 8 + 40, "estimate and measurement, with captions below"
    code, _, err = run("test", config, trained.best, "--eval", "boundary")
    assert code == 1 and "this model estimates depth" in err
