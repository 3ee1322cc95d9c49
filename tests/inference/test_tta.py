"""Test-time augmentation: several views of an image, their results averaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import terrazzo as tz
from support.tiny import (
    CLASSES,
    MEAN,
    STD,
    fit,
    make_streets,
    model_config,
    short_form,
    street,
    terrazzo,
    tiny_config,
    write_config,
)
from terrazzo.data.loaders import collate, to_tensor
from terrazzo.errors import UserError
from terrazzo.inference.modes import infer, with_mirror
from terrazzo.inference.tta import predict_views
from terrazzo.inference.windows import window_starts
from terrazzo.sample import Sample
from terrazzo.transforms import Compose

TTA = [
    {"type": "LoadImageFromFile"},
    {
        "type": "TestTimeAug",
        "transforms": [
            [{"type": "Resize", "scale_factor": factor, "keep_ratio": True} for factor in (0.5, 1.0)],
            [{"type": "RandomFlip", "prob": chance, "direction": "horizontal"} for chance in (0.0, 1.0)],
            [{"type": "LoadAnnotations"}],
            [{"type": "PackSegInputs"}],
        ],
    },
]


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def trained(streets, tmp_path_factory):
    config = tiny_config(streets, steps=30, batch=4, tta_pipeline=TTA, tta_model={"type": "SegTTAModel"})
    return config, fit(config, tmp_path_factory.mktemp("run")).best


def average_by_hand(model, image: np.ndarray, probability) -> torch.Tensor:
    """Two sizes, each as it is and mirrored; (K, H, W) at the image's size."""
    height, width = image.shape[:2]
    total = 0
    for factor in (0.5, 1.0):
        view = cv2.resize(image, (int(width * factor), int(height * factor)), interpolation=cv2.INTER_LINEAR)
        pixels = (torch.from_numpy(view).permute(2, 0, 1)[None].float() - MEAN[0]) / STD[0]
        for mirrored in (False, True):
            logits = model(pixels.flip(-1) if mirrored else pixels)
            logits = logits.flip(-1) if mirrored else logits
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            total = total + probability(logits)[0]
    return total / 4


def views_of(image: np.ndarray):
    pipeline = Compose([{**TTA[1], "transforms": TTA[1]["transforms"][:2]}])
    sample = Sample(image=image, original_size=image.shape[:2])
    return collate([pipeline(sample, np.random.default_rng(0))])


@pytest.mark.parametrize("classes", [3, 2])
@torch.inference_mode()
def test_views_average_as_by_hand(classes):
    torch.manual_seed(0)
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    binary = {} if classes == 3 else {"out_channels": 1, "threshold": 0.5, "loss_decode": loss}
    model = tz.build_model(model_config(classes, **binary)).eval()
    image, _ = street(0)
    scores = predict_views([model], views_of(image))
    expected = average_by_hand(model, image, torch.sigmoid if binary else lambda logits: logits.softmax(1))
    torch.testing.assert_close(scores.probabilities()[-len(expected) :], expected)
    assert torch.equal(scores.labels().long(), (expected[0] > 0.5).long() if binary else expected.argmax(0))


def test_a_configs_views_are_scored(trained, streets):
    config, checkpoint = trained
    seen = []
    result = tz.evaluate(
        config,
        checkpoint,
        device="cpu",
        tta=True,
        on_prediction=lambda batch, maps, classes, palette: seen.append((len(batch.samples), maps[0])),
    )
    model = tz.build_model(config).eval()
    tz.load_checkpoint(model, checkpoint)
    hits = pixels = 0
    for index, (count, labels) in enumerate(seen):
        image, truth = street(100 + index)
        with torch.inference_mode():
            expected = average_by_hand(model, image, lambda logits: logits.softmax(1)).argmax(0)
        assert count == 1
        assert torch.equal(labels.long(), expected)
        hits, pixels = hits + int((expected.numpy() == truth).sum()), pixels + truth.size
    assert result["aAcc"] == pytest.approx(100 * hits / pixels)
    assert list(result["per_class"]) == CLASSES


def test_on_the_command_line(trained, tmp_path):
    config, checkpoint = trained
    path = write_config(tmp_path / "config.yaml", config)
    result = terrazzo("test", path, checkpoint, "--tta", "--device", "cpu", "--out", tmp_path / "maps")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "maps").glob("*.png"))) == 3


@pytest.mark.parametrize("options", [{}, {"resize": "64x80"}], ids=["as they are", "resized"])
def test_the_short_form_can_be_augmented(streets, tmp_path, options):
    config = write_config(tmp_path / "config.yaml", short_form(streets, **options))
    run = fit(config, tmp_path / "run")
    shapes = []
    tz.evaluate(
        config, run.last, device="cpu", tta=True, on_prediction=lambda batch, maps, *_: shapes.append(maps[0].shape)
    )
    assert shapes == [(32, 40)] * 3


@pytest.mark.parametrize(
    ("sections", "message"),
    [({"tta_pipeline": None}, "no `tta_pipeline`"), ({"tta_model": {"type": "MaxTTA"}}, "'MaxTTA' is unknown")],
)
def test_a_config_that_cannot_be_augmented(trained, sections, message):
    config, checkpoint = trained
    with pytest.raises(UserError, match=message):
        tz.evaluate({**config, **sections}, checkpoint, device="cpu", tta=True)


# Windows, each as it is and mirrored


@torch.inference_mode()
def test_slide_flip_averages_each_window_with_its_mirrored_pass():
    torch.manual_seed(0)
    model, images = tz.build_model(model_config()).eval(), torch.randn(1, 3, 24, 44)
    total, visits = torch.zeros(1, 3, 24, 44), torch.zeros(44)
    for left in window_starts(44, 24, 16):
        window = images[..., left : left + 24]
        both = (model(window) + model(window.flip(-1)).flip(-1)) / 2
        total[..., left : left + 24] += both
        visits[left : left + 24] += 1
    actual = infer(model, images, {"mode": "slide_flip", "crop_size": [24, 24], "stride": [16, 16]})
    torch.testing.assert_close(actual, total / visits)


def test_a_mirrored_model_does_not_know_left_from_right():
    model = with_mirror(lambda images: images.cumsum(-1))
    images = torch.arange(6.0).reshape(1, 1, 1, 6)
    torch.testing.assert_close(model(images.flip(-1)), model(images).flip(-1))


def test_a_recipes_depth_model_slides_with_flips():
    assert tz.load_config("vpd_sd_4xb8-25k_nyu-480x480").to_dict()["model"]["test_cfg"]["mode"] == "slide_flip"


def test_an_image_of_one_view_is_unchanged():
    image, _ = street(1)
    sample = Sample(image=image, original_size=image.shape[:2])
    batch = collate([[sample]])
    assert torch.equal(batch.image[0], to_tensor(image))
