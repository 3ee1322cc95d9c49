"""Scores of a checkpoint on a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import terrazzo as tz
from support.tiny import CLASSES, fit, make_streets, model_config, save_image, save_label, street, tiny_config
from terrazzo.errors import UserError
from terrazzo.evaluation.scoring import total_loss
from terrazzo.inference.modes import infer, slide
from terrazzo.inference.windows import gaussian_window, window_starts
from terrazzo.metrics import ConfusionMatrix


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def trained(streets, tmp_path_factory):
    config = tiny_config(streets, steps=40, batch=4)
    return config, fit(config, tmp_path_factory.mktemp("run")).best


def score(config, checkpoint, **options):
    return tz.evaluate(config, checkpoint, device="cpu", **options)


def test_result(trained):
    result = score(*trained)
    assert list(result) == ["aAcc", "mIoU", "mAcc", "per_class"]
    assert list(result["per_class"]) == CLASSES
    assert 60 < result["mIoU"] <= 100


def test_equal_to_predictions_counted_by_hand(trained, streets):
    config, checkpoint = trained
    matrix, segmenter = ConfusionMatrix(3), tz.load(checkpoint, device="cpu")
    for index in range(3):
        labels = segmenter(streets / "images" / "val" / f"{index:02d}.png").labels
        matrix.update(torch.from_numpy(labels), torch.from_numpy(street(100 + index)[1]))
    result = score(config, checkpoint)
    assert {key: result[key] for key in ("aAcc", "mIoU", "mAcc")} == pytest.approx(
        {key: matrix.compute()[key] for key in ("aAcc", "mIoU", "mAcc")}
    )


def test_other_metrics(trained):
    result = score(*trained, metrics=["mIoU", "mDice", "mFscore"])
    for name in ("mIoU", "mDice", "mFscore", "mPrecision", "mRecall", "mAcc", "aAcc"):
        assert 0 <= result[name] <= 100
    assert result["mDice"] == pytest.approx(result["mFscore"])


def test_an_unknown_metric_is_refused_before_the_work(trained, monkeypatch):
    monkeypatch.setattr("terrazzo.evaluation.evaluate.run_evaluation", lambda *a, **k: pytest.fail("it has begun"))
    with pytest.raises(UserError, match="'mIoU'"):
        score(*trained, metrics=["mIuO"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [2, 3])
def test_batches_and_workers_do_not_change_the_result(trained, batch, workers):
    config, checkpoint = trained
    overrides = {"test_dataloader.batch_size": batch, "test_dataloader.num_workers": workers}
    assert score(config, checkpoint, overrides=overrides) == score(config, checkpoint)


@pytest.mark.parametrize("resize", [False, True])
def test_images_of_different_sizes_in_one_batch(trained, tmp_path, resize):
    config, checkpoint = trained
    for index, size in enumerate([(32, 40), (48, 40), (32, 56)]):
        image, label = street(index, *size)
        save_image(tmp_path / "images" / "val" / f"{index}.png", image)
        save_label(tmp_path / "labels" / "val" / f"{index}.png", label)
    overrides = {"test_dataloader.dataset.data_root": str(tmp_path)}
    if resize:
        load, labels, pack = config["test_dataloader"]["dataset"]["pipeline"]
        scaled = {"type": "Resize", "scale": [80, 64], "keep_ratio": True}
        overrides["test_dataloader.dataset.pipeline"] = [load, labels, scaled, pack]
    one = score(config, checkpoint, overrides=overrides)
    several = score(config, checkpoint, overrides=overrides | {"test_dataloader.batch_size": 3})
    assert several["aAcc"] == pytest.approx(one["aAcc"], abs=1e-6)
    assert several["mIoU"] == pytest.approx(one["mIoU"], abs=1e-6)


def test_labels_count_at_their_own_size(trained):
    """A pipeline that resizes images before the labels are loaded does not resize the labels."""
    config, checkpoint = trained
    load, labels, pack = config["test_dataloader"]["dataset"]["pipeline"]
    pipeline = [load, {"type": "Resize", "scale": [80, 64], "keep_ratio": True}, labels, pack]
    seen = []
    result = score(
        config,
        checkpoint,
        overrides={"test_dataloader.dataset.pipeline": pipeline},
        on_prediction=lambda batch, maps, classes, palette: seen.append((batch.image.shape, maps[0].shape)),
    )
    assert [(tuple(image[-2:]), tuple(labels)) for image, labels in seen] == [((64, 80), (32, 40))] * 3
    assert result["mIoU"] > 50


def test_without_labels_it_says_what_to_do(trained):
    config, checkpoint = trained
    load, _, pack = config["test_dataloader"]["dataset"]["pipeline"]
    with pytest.raises(UserError, match="terrazzo predict"):
        score(config, checkpoint, overrides={"test_dataloader.dataset.pipeline": [load, pack]})


def test_progress_is_told(trained):
    calls = []
    score(*trained, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_an_auxiliary_head_is_not_run(streets, tmp_path, monkeypatch):
    model = model_config()
    model["auxiliary_head"] = model["decode_head"] | {"in_index": 0, "in_channels": 8}
    config = tiny_config(streets, steps=1, model=model)
    run = fit(config, tmp_path / "run")
    segmenter = tz.load(run.last, device="cpu")
    segmenter.model.auxiliary_head.forward = lambda *_: pytest.fail("it was run")
    assert segmenter(street(0)[0]).labels.shape == (32, 40)


# Inference modes


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tz.build_model(model_config()).eval()


def test_whole_equals_the_model(model):
    images = torch.randn(2, 3, 40, 48)
    with torch.inference_mode():
        assert torch.equal(infer(model, images, {"mode": "whole"}), model(images))


def naive_slide(model, images, crop, stride):
    """One window after the other, as one would write it down."""
    count, _, height, width = images.shape
    total, visits = torch.zeros(count, 3, height, width), torch.zeros(height, width)
    rows = max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            bottom, right = min(row * stride[0] + crop[0], height), min(column * stride[1] + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            total[:, :, top:bottom, left:right] += model(images[:, :, top:bottom, left:right])
            visits[top:bottom, left:right] += 1
    assert visits.min() > 0
    return total / visits


@pytest.mark.parametrize(
    ("size", "crop", "stride"),
    [
        ((40, 48), (16, 16), (12, 12)),
        ((40, 48), (16, 24), (10, 24)),
        ((41, 47), (16, 16), (16, 16)),
        ((16, 16), (16, 16), (8, 8)),
        ((20, 12), (16, 16), (8, 8)),  # an image narrower than the window
    ],
)
def test_slide_equals_a_naive_loop(model, size, crop, stride):
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(slide(model, images, crop, stride), naive_slide(model, images, crop, stride))


def test_gaussian_windows_count_more_in_their_middle(model):
    images, share = torch.randn(1, 3, 24, 16), torch.from_numpy(gaussian_window(16, 16))
    with torch.inference_mode():
        upper, lower = model(images[:, :, :16]), model(images[:, :, 8:])
        found = slide(model, images, (16, 16), (8, 8), gaussian=True, windows_at_once=1)
    torch.testing.assert_close(found[:, :, :8], upper[:, :, :8])
    both = (upper[:, :, 8:] * share[8:] + lower[:, :, :8] * share[:8]) / (share[8:] + share[:8])
    torch.testing.assert_close(found[:, :, 8:16], both)
    assert float(share[7:9, 7:9].min()) > 0.9 and float(share[0, 8]) < 0.01


@pytest.mark.parametrize("windows_at_once", [1, 3, 100])
def test_windows_in_a_batch_change_nothing(model, windows_at_once):
    images = torch.randn(2, 3, 40, 48)
    with torch.inference_mode():
        found = slide(model, images, (16, 16), (12, 12), windows_at_once=windows_at_once)
        torch.testing.assert_close(found, naive_slide(model, images, (16, 16), (12, 12)))


@pytest.mark.parametrize(
    ("length", "crop", "stride", "starts"),
    [(10, 4, 3, [0, 3, 6]), (11, 4, 3, [0, 3, 6, 7]), (4, 4, 3, [0]), (3, 4, 3, [0]), (8, 4, 4, [0, 4])],
)
def test_window_starts(length, crop, stride, starts):
    assert window_starts(length, crop, stride) == starts


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        ({"mode": "slides"}, "neither 'whole' nor 'slide'"),
        ({"mode": "slide", "crop_size": (8, 8)}, "stride"),
        ({"mode": "slide", "crop_size": (8, 8), "stride": (4, 4), "blending": "soft"}, "neither 'uniform' nor"),
    ],
)
def test_mistakes_in_test_cfg(model, test_cfg, message):
    with pytest.raises(UserError, match=message):
        infer(model, torch.randn(1, 3, 16, 16), test_cfg)


def test_slide_in_a_config(trained, monkeypatch):
    config, checkpoint = trained
    windows = []

    def recorded(model, images, crop_size, stride, **options):
        windows.append((list(crop_size), list(stride)))
        return slide(model, images, crop_size, stride, **options)

    monkeypatch.setattr("terrazzo.inference.modes.slide", recorded)
    slide_cfg = {"mode": "slide", "crop_size": [24, 24], "stride": [16, 16]}
    assert score(config, checkpoint, overrides={"model.test_cfg": slide_cfg})["mIoU"] > 50
    assert windows == [([24, 24], [16, 16])] * 3


def test_the_total_loss_is_the_sum_of_the_losses():
    losses = {"decode.loss_ce": torch.tensor(1.0), "decode.acc_seg": torch.tensor(50.0), "aux.loss_ce": torch.tensor(2)}
    assert float(total_loss(losses)) == 3.0


def test_the_validation_loss_is_the_models_own(streets, tmp_path):
    config = tiny_config(streets, steps=1)
    run = fit(config, tmp_path / "run")
    model = tz.build_model(config).eval()
    tz.load_checkpoint(model, run.last)
    losses = []
    for index in range(3):
        image, label = street(100 + index)
        pixels = model.preprocess(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None])
        with torch.no_grad():
            losses.append(float(model.loss(pixels, torch.from_numpy(label)[None].long())["decode.loss_ce"]))
    assert run.metrics["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_labels_of_different_sizes_ask_for_batches_of_one(trained, tmp_path):
    config, checkpoint = trained
    for index, size in enumerate([(32, 40), (64, 80)]):
        image, label = street(index, *size)
        save_image(tmp_path / "images" / "val" / f"{index}.png", image)
        save_label(tmp_path / "labels" / "val" / f"{index}.png", label)
    load, labels, pack = config["test_dataloader"]["dataset"]["pipeline"]
    pipeline = [load, {"type": "Resize", "scale": [96, 48], "keep_ratio": False}, labels, pack]
    overrides = {
        "test_dataloader.dataset.data_root": str(tmp_path),
        "test_dataloader.dataset.pipeline": pipeline,
    }
    assert score(config, checkpoint, overrides=overrides)["aAcc"] > 50
    with pytest.raises(UserError, match="batch_size=1"):
        score(config, checkpoint, overrides=overrides | {"test_dataloader.batch_size": 2})
