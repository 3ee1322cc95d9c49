"""Class maps from small logits equal those from logits resized to the map's size, in a fraction of the memory."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import terrazzo as tz
from support.tiny import environment, model_config
from terrazzo.evaluation.scoring import validation_loss
from terrazzo.inference import argmax
from terrazzo.inference.argmax import LogitsGeometry, bilinear, class_map, own_logits
from terrazzo.inference.predict import Scores

AXES = {None: [], "horizontal": [-1], "vertical": [-2], "diagonal": [-2, -1]}


def resized(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def at_full_size(logits: Tensor, geometry: LogitsGeometry) -> Tensor:
    """Logits (K, H, W), every step done on the whole of them."""
    x = resized(logits[None], geometry.input_size, geometry.align_corners)
    top, left, bottom, right = geometry.window or (0, 0, *geometry.input_size)
    x = x[..., top:bottom, left:right].flip(AXES[geometry.flip])
    return resized(x, geometry.own_size, geometry.align_corners)[0]


def decided(logits: Tensor, threshold: float | None = None) -> Tensor:
    return logits.argmax(0) if len(logits) > 1 else logits[0].sigmoid() > (0.3 if threshold is None else threshold)


def case(seed: int) -> tuple[Tensor, LogitsGeometry, float | None]:
    """Logits with noise or with regions, and some way from them to an image: larger, smaller, padded, flipped."""
    pick = random.Random(seed)

    def size(most: int) -> tuple[int, int]:
        return pick.randint(1, most), pick.randint(1, most)

    head = size(20)
    given = pick.choice([head, size(90)])
    window = None
    if pick.random() < 0.5:
        top, left = pick.randrange(given[0]), pick.randrange(given[1])
        window = top, left, pick.randint(top + 1, given[0]), pick.randint(left + 1, given[1])
    kept = (window[2] - window[0], window[3] - window[1]) if window else given
    own, flip = pick.choice([kept, size(120)]), pick.choice(list(AXES))
    geometry = LogitsGeometry(head, given, own, window, flip, seed % 2 == 0)
    logits = torch.randn(pick.choice([1, 2, 5, 19, 300]), *head, generator=torch.Generator().manual_seed(seed))
    if pick.random() < 0.5:
        logits = F.avg_pool2d(logits[None], 3, 1, 1)[0]
    return 3 * logits, geometry, pick.choice([None, 0.5, 0.9])


@pytest.mark.parametrize("strip", [1, 500, 2**18])
@pytest.mark.parametrize("first", range(0, 120, 20))
def test_equal_to_resizing_everything(monkeypatch, first, strip):
    monkeypatch.setattr(argmax, "STRIP", strip)
    for seed in range(first, first + 20):
        logits, geometry, threshold = case(seed)
        whole = at_full_size(logits, geometry)
        expected, found = decided(whole, threshold), class_map(logits, geometry, threshold)
        for row, column in (expected != found).nonzero().tolist():  # ties within rounding, if any
            values = whole[:, row, column]
            other = values[found[row, column].long()] if len(values) > 1 else torch.tensor(threshold or 0.3).logit()
            assert float(values.max() - other) == pytest.approx(0, abs=1e-4), f"seed {seed}: {geometry}"


@pytest.mark.parametrize("seed", range(12))
def test_logits_at_the_images_size(seed):
    logits, geometry, _ = case(seed)
    found = torch.cat(list(own_logits(logits, geometry))).T.view(-1, *geometry.own_size)
    torch.testing.assert_close(found, at_full_size(logits, geometry), atol=1e-4, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "size"), [(4, 9), (9, 4), (1, 5), (5, 1), (7, 7), (16, 33)])
def test_weights_are_those_of_interpolate(source, size, align_corners):
    values, weights = torch.randn(source), bilinear(source, size, align_corners)
    found = (values[weights.index] * weights.weight).sum(1)
    expected = resized(values[None, None, :, None], (size, 1), align_corners).flatten()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("classes", [255, 256, 300])
def test_more_classes_than_a_byte_holds(classes):
    logits = torch.zeros(classes, 4, 4)
    logits[classes - 1] = 1
    found = class_map(logits, LogitsGeometry((4, 4), (8, 8), (8, 8)))
    assert (found == classes - 1).all()
    assert found.dtype == (torch.uint8 if classes == 255 else torch.int16)


def test_under_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    try:
        logits, geometry, _ = case(3)
        assert class_map(logits, geometry).shape == geometry.own_size
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    logits = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    geometry = LogitsGeometry((8, 8), (32, 32), (50, 61))
    expected = at_full_size(logits.float(), geometry).argmax(0)
    assert (class_map(logits, geometry).long() == expected).float().mean() > 0.999


# Several models or views


@pytest.mark.parametrize("classes", [1, 4])
def test_several_views_give_the_mean_of_their_probabilities(classes):
    generator = torch.Generator().manual_seed(1)
    size = (30, 41)
    views = tuple(
        (torch.randn(classes, *head, generator=generator), LogitsGeometry(head, given, size, flip=flip))
        for head, given, flip in [((4, 5), (32, 40), None), ((9, 9), (36, 36), "horizontal"), (size, size, "vertical")]
    )
    whole = [at_full_size(*view) for view in views]
    mean = torch.stack([x.softmax(0) if classes > 1 else x.sigmoid() for x in whole]).mean(0)
    scores = Scores(views, 0.5)
    torch.testing.assert_close(scores.probabilities()[-classes:], mean)
    expected = mean.argmax(0) if classes > 1 else (mean[0] > 0.5).long()
    assert torch.equal(scores.labels().long(), expected)


# The loss of a validation


@pytest.mark.parametrize(
    "loss",
    [
        {"type": "CrossEntropyLoss"},
        {"type": "CrossEntropyLoss", "avg_non_ignore": True, "loss_weight": 0.4},
        {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0, 0.5]},
        [{"type": "CrossEntropyLoss"}, {"type": "DiceLoss"}],
        {"type": "CrossEntropyLoss", "use_sigmoid": True},
    ],
    ids=["plain", "non-ignored", "weighted", "with dice", "sigmoid"],
)
def test_the_loss_of_small_logits_is_that_of_large_ones(loss):
    head = tz.build_model(model_config(loss_decode=loss)).final_head
    logits = torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (31, 35), generator=torch.Generator().manual_seed(1))
    labels[:5] = 255
    found = validation_loss(head, (logits, LogitsGeometry((8, 9), (32, 36), (60, 70))), labels)
    whole = F.interpolate(logits[None], (32, 36), mode="bilinear", align_corners=False)[..., :31, :35]
    losses = head.losses(whole, labels[None])
    expected = sum(value for name, value in losses.items() if "loss" in name)
    torch.testing.assert_close(found, expected)


# Memory

PEAK = """
import resource, torch
import torch.nn.functional as F
from terrazzo.inference.argmax import LogitsGeometry, class_map

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with torch.inference_mode():
    class_map(torch.randn(150, 16, 32), LogitsGeometry((16, 32), (64, 128), (64, 128)))  # what torch sets up once
    before = peak()
    logits = torch.randn(1, 150, 8, 16)
    logits = F.interpolate(logits, (256, 512), mode="bicubic")[0]
    labels = class_map(logits, LogitsGeometry((256, 512), (1024, 2048), (1024, 2048)))
print(peak() - before, len(labels.unique()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux tells it")
def test_a_tenth_of_the_memory_of_resizing_everything():
    result = subprocess.run([sys.executable, "-c", PEAK], env=environment(), capture_output=True, text=True)
    used, classes = map(int, result.stdout.split())
    small = 150 * 256 * 512 * 4
    assert used < (small + 16 * small) / 10, result.stderr
    assert classes > 50
