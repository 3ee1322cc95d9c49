"""Models that learn from trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.tiny import (
    CLASSES,
    dataset_config,
    fit,
    make_streets,
    model_config,
    records,
    same_weights,
    short_form,
    tiny_config,
)
from terrazzo.config.teacher import TeacherSettings
from terrazzo.errors import UserError
from terrazzo.models.build import build_model
from terrazzo.models.protocols import as_segmentor
from terrazzo.sample import Batch
from terrazzo.training import distillation
from terrazzo.training.distillation import Distillation, Teacher, distance

IMAGES = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 24, 24), generator=torch.Generator().manual_seed(1))
BATCH = Batch(IMAGES, {}, [], [(24, 24), (20, 16)])  # the second has margins
ONE_CHANNEL = {
    "out_channels": 1,
    "threshold": 0.5,
    "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True},
}


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    """Of six training images, two have a label; of three validation images, two."""
    root = make_streets(tmp_path_factory.mktemp("streets"))
    for name in ("train/02", "train/03", "train/04", "train/05", "val/02"):
        (root / f"labels/{name}.png").unlink()
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """A trained model of the classes sky, road and car."""
    root = tmp_path_factory.mktemp("teacher")
    return str(fit(tiny_config(make_streets(root)), root / "run").last)


def distilled(teacher: str, model: nn.Module, classes: list[str] = CLASSES, **options: Any) -> dict[str, torch.Tensor]:
    """The losses towards a teacher after a training step of the model."""
    segmentor, settings = as_segmentor(model), TeacherSettings((teacher,), **options)
    taught = Distillation(settings, segmentor, classes, 3, torch.device("cpu"))
    segmentor.loss(segmentor.preprocess(IMAGES), LABELS % len(classes))
    return taught.losses(BATCH, (24, 24))


def test_a_student_learns_from_images_with_and_without_labels(streets, teacher, tmp_path):
    form = short_form(streets, teacher={"weights": teacher, "features": 2.0}, class_weight="auto")
    form["data"]["unlabelled"] = "teacher"
    run = fit(form, tmp_path / "run")
    log = run.log_path.read_text()
    assert "6 training images, 2 validation images" in log and f"teacher: EncoderDecoder of {teacher}" in log
    steps = records(tmp_path / "run", "train")
    assert all(step["distil.loss_logits"] > 0 and step["distil.loss_features"] > 0 for step in steps)
    parts = ("decode.loss_ce", "aux.loss_ce", "distil.loss_logits", "distil.loss_features")
    assert steps[0]["loss"] == pytest.approx(sum(steps[0][part] for part in parts), rel=1e-5)


def test_a_resumed_run_is_the_same(streets, teacher, tmp_path):
    form = short_form(streets, teacher=teacher, ema=0.9)
    form["data"]["unlabelled"] = "teacher"
    whole = fit(form, tmp_path / "whole")
    fit(form, tmp_path / "parts", max_steps=2)
    assert same_weights(whole.last, fit(form, tmp_path / "parts", resume=True).last)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_the_divergence_from_the_teachers_probabilities(teacher, temperature):
    model = build_model(model_config(dropout=0.0))
    loss = distilled(teacher, model, temperature=temperature, loss_weight=0.5)["distil.loss_logits"]
    student = build_model(model_config(dropout=0.0))
    student.load_state_dict(model.state_dict())
    other = Distillation(TeacherSettings((teacher,)), as_segmentor(student), CLASSES, 3, torch.device("cpu"))
    p = (other.teachers[0].logits(BATCH, (24, 24)) / temperature).softmax(1)
    q = (model.train()(model.preprocess(IMAGES)) / temperature).softmax(1)
    terms = (p * (p / q).log()).sum(1) * temperature**2  # N, H, W
    seen = [terms[0].flatten(), terms[1, :20, :16].flatten()]
    torch.testing.assert_close(loss, 0.5 * torch.cat(seen).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "head"),
    [
        (["car", "sky"], {}),  # fewer than the teacher's, in another order
        (["sky", "car"], ONE_CHANNEL),
        (CLASSES, {"type": "DAHead", "pam_channels": 2, "num_convs": None, "concat_input": None}),  # not called as one
    ],
)
def test_classes_are_matched_by_name_and_heads_are_of_many_kinds(teacher, classes, head):
    spec = model_config(num_classes=len(classes), **head)
    spec["decode_head"] = {key: value for key, value in spec["decode_head"].items() if value is not None}
    model = build_model(spec)
    loss = distilled(teacher, model, classes)["distil.loss_logits"]
    loss.backward()
    gradient = model.backbone.encoder[0][0].convs[0].conv.weight.grad
    assert loss > 0 and gradient.abs().sum() > 0


def test_teachers_that_classify_masks_give_shares_of_each_class(teacher, monkeypatch):
    known = Teacher(teacher, CLASSES, 3, torch.device("cpu"), features=False)
    shares = torch.tensor([0.6, 0.15, 0.0]).view(1, 3, 1, 1).expand(2, 3, 24, 24)
    monkeypatch.setattr(known.model, "decode", lambda images: shares)
    monkeypatch.setattr(distillation, "SUMS_OF_MASKS", (type(known.model.final_head),))
    probabilities = known.logits(BATCH, (24, 24)).softmax(1)[0, :, 0, 0]
    torch.testing.assert_close(probabilities, torch.tensor([0.8, 0.2, 0.0]))


def test_the_distance_of_features_ignores_their_strength_and_their_number():
    maps = [torch.rand(2, 4, 8, 8), torch.rand(2, 8, 4, 4)]
    stronger = [5 * torch.cat([one, one], dim=1) for one in maps]
    assert distance(maps, stronger) == pytest.approx(0, abs=1e-6)
    assert distance(maps, stronger[1:]) == pytest.approx(0, abs=1e-6), "levels are matched from the last one on"
    assert 0 < distance(maps, [one.flip(-1) for one in maps]) < 4


@pytest.mark.parametrize(
    ("changes", "unlabelled", "message"),
    [
        ({}, "teacher", "leaves images without labels to the teacher; name its weights in `teacher`"),
        ({"teacher": "missing.safetensors"}, "teacher", "missing.safetensors"),
        ({"teacher": "TEACHER", "rare_class_sampling": True}, "teacher", "never draws images without labels"),
        ({"teacher": "street"}, "teacher", "does not know the class nothing"),
        ({"teacher": {"weights": "TEACHER", "temperature": 0}}, "skip", "teacher.temperature must be a number above 0"),
        ({"teacher": {"weights": "TEACHER", "loss_weight": 0}}, "skip", "nothing would be learned"),
        ({"teacher": {"weight": "TEACHER"}}, "skip", "teacher has no key 'weight'"),
        ({"teacher": {"weights": []}}, "skip", "teacher must name weights of trained models"),
        ({"teacher": True}, "skip", "teacher must be a file of trained weights"),
        ({"teacher": "TEACHER", "in_channels": 1}, "skip", "for images of 3 channels, and these have 1"),
    ],
)
def test_mistakes_are_named(streets, teacher, tmp_path, changes, unlabelled, message):
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return teacher if value == "TEACHER" else value

    form = short_form(streets, **filled(changes))
    form["data"] |= {"unlabelled": unlabelled}
    if changes.get("teacher") == "street":
        form["data"]["classes"] = ["sky", "road", "nothing"]
    with pytest.raises(UserError, match=message):
        fit(form, tmp_path / "run")


def test_a_head_that_computes_no_logits_of_whole_crops_is_named(teacher):
    model = build_model(model_config())
    model.decode_head.forward = lambda inputs: None  # as those that classify masks
    model.decode_head.conv_seg = nn.Identity()
    taught = Distillation(TeacherSettings((teacher,)), as_segmentor(model), CLASSES, 3, torch.device("cpu"))
    with pytest.raises(UserError, match="FCNHead computes no logits of whole crops in training"):
        taught.losses(BATCH, (24, 24))


def test_a_whole_config_says_it_in_the_data_section(streets, teacher, tmp_path):
    config = tiny_config(streets, steps=2, teacher=[teacher, teacher])
    config["train_dataloader"]["dataset"] = dataset_config(streets, "train", augment=True) | {"unlabelled": "teacher"}
    config["val_dataloader"]["dataset"]["unlabelled"] = "skip"
    fit(config, tmp_path / "run")
    assert all(step["distil.loss_logits"] > 0 for step in records(tmp_path / "run", "train"))
    with pytest.raises(UserError, match="leaves images without labels to a teacher"):
        fit(config | {"teacher": None}, tmp_path / "other")
