"""Losses against the definitions of their papers, computed pixel by pixel."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from terrazzo.errors import UserError
from terrazzo.models.losses.ohem import OHEMPixelSampler
from terrazzo.registry import MODELS

IGNORED = 255
CLASSES = 3


@pytest.fixture
def batch():
    """Logits (2, 3, 5, 6) and labels (2, 5, 6) of which some are ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, CLASSES, (2, 5, 6), generator=generator)
    labels[:, 0, :4] = IGNORED
    return logits, labels


def build(kind, **options):
    return MODELS.build({"type": kind, **options})


def pixels(logits, labels):
    """(logits of one pixel (K,), its class or None where ignored), for every pixel of the batch."""
    for image, map_ in zip(logits.detach(), labels, strict=True):
        for scores, label in zip(image.flatten(1).T, map_.flatten().tolist(), strict=True):
            yield scores, None if label == IGNORED else label


def close(value, expected):
    value, expected = (float(torch.as_tensor(number).detach()) for number in (value, expected))
    assert value == pytest.approx(expected, rel=1e-6)


# cross-entropy


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_cross_entropy_averages_over_all_or_the_labelled_pixels(batch, avg_non_ignore):
    logits, labels = batch
    values = [-scores.log_softmax(0)[label] if label is not None else 0.0 for scores, label in pixels(*batch)]
    count = int((labels != IGNORED).sum()) if avg_non_ignore else labels.numel()
    close(build("CrossEntropyLoss", avg_non_ignore=avg_non_ignore)(logits, labels), sum(values) / count)


@pytest.mark.parametrize("weight_average", ["weights", "pixels"])
def test_cross_entropy_with_class_weights_takes_ignored_pixels(batch, weight_average):
    logits, labels = batch
    weights = [0.5, 2.0, 1.5]
    labelled = [(scores, label) for scores, label in pixels(*batch) if label is not None]
    total = sum(-weights[label] * scores.log_softmax(0)[label] for scores, label in labelled)
    divisor = sum(weights[label] for _, label in labelled) if weight_average == "weights" else labels.numel()
    loss = build("CrossEntropyLoss", class_weight=weights, weight_average=weight_average, loss_weight=0.4)
    close(loss(logits, labels), 0.4 * total / divisor)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_sigmoid_cross_entropy_asks_each_class_for_itself(batch, avg_non_ignore):
    logits, labels = batch
    positive_weights = [0.5, 2.0, 1.5]
    total, count = 0.0, 0
    for scores, label in pixels(*batch):
        for index, probability in enumerate(scores.sigmoid().tolist()):
            count += label is not None or not avg_non_ignore
            if label is not None:
                right = label == index
                total -= positive_weights[index] * math.log(probability) if right else math.log(1 - probability)
    loss = build("CrossEntropyLoss", use_sigmoid=True, class_weight=positive_weights, avg_non_ignore=avg_non_ignore)
    close(loss(logits, labels), total / count)


def test_sigmoid_cross_entropy_with_one_channel_has_labels_0_and_1(batch):
    logits, labels = batch[0][:, :1], torch.where(batch[1] == 2, 1, batch[1])
    total = sum(
        -math.log(p if label else 1 - p)
        for p, label in ((float(scores.sigmoid()), label) for scores, label in pixels(logits, labels))
        if label is not None
    )
    close(build("CrossEntropyLoss", use_sigmoid=True)(logits, labels), total / labels.numel())


def test_mask_cross_entropy_compares_with_a_mask_of_each_class(batch):
    logits, labels = batch
    masks = torch.stack([labels % 2, labels // 2 % 2, labels == 0], dim=1).double()
    expected = F.binary_cross_entropy(logits.sigmoid(), masks)
    close(build("CrossEntropyLoss", use_mask=True)(logits, masks), expected)


def test_cross_entropy_is_either_sigmoid_or_mask():
    with pytest.raises(UserError, match="use_sigmoid and use_mask"):
        build("CrossEntropyLoss", use_sigmoid=True, use_mask=True)


# overlap


def overlaps(logits, labels):
    """(n, class) -> soft counts of hits, predicted and true pixels, over the labelled pixels."""
    probability = logits.detach().softmax(1).numpy()
    for n, map_ in enumerate(labels.numpy()):
        for index in range(CLASSES):
            p, truth = probability[n, index][map_ != IGNORED], map_[map_ != IGNORED] == index
            yield n, index, p[truth].sum(), p.sum(), truth.sum()


@pytest.mark.parametrize("naive_dice", [False, True])
@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_joint_dice_is_one_overlap_for_an_image(batch, use_sigmoid, naive_dice):
    logits, labels = batch
    values = []
    for scores, map_ in zip(logits.detach(), labels, strict=True):
        p = scores.sigmoid() if use_sigmoid else scores.softmax(0)
        truth = torch.stack([map_ == index for index in range(CLASSES)]).double()
        if naive_dice:
            dice = (2 * (p * truth).sum() + 1e-3) / (p.sum() + truth.sum() + 1e-3)
        else:
            dice = 2 * (p * truth).sum() / ((p * p).sum() + 1e-3 + truth.sum() + 1e-3)
        values.append(1 - dice)
    close(build("DiceLoss", use_sigmoid=use_sigmoid, naive_dice=naive_dice)(logits, labels), sum(values) / 2)


def test_dice_per_class_masks_ignored_pixels_in_the_numerator_only(batch):
    logits, labels = batch
    clamped = labels.clamp(max=CLASSES - 1)
    p = logits.detach().softmax(1)
    values = [
        1 - (2 * hit + 1) / ((p[n, index] ** 2).sum() + (clamped[n] == index).sum() + 1)
        for n, index, hit, _, _ in overlaps(logits, labels)
    ]
    close(build("DiceLoss", formula="per_class")(logits, labels), sum(values) / len(values))


def test_tversky_counts_hits_false_alarms_and_misses(batch):
    weights = [1.0, 0.5, 2.0]
    values = []
    for _, index, hit, predicted, true in overlaps(*batch):
        index_value = (hit + 1) / (hit + 0.3 * (predicted - hit) + 0.7 * (true - hit) + 1)
        values.append(weights[index] * (1 - index_value))
    close(build("TverskyLoss", class_weight=weights)(*batch), sum(values) / len(values))


def test_tversky_leaves_out_the_class_that_it_ignores(batch):
    logits, labels = batch
    without_first = torch.where(labels == 0, IGNORED, labels)
    values = [
        1 - (hit + 1) / (hit + 0.3 * (predicted - hit) + 0.7 * (true - hit) + 1)
        for _, index, hit, predicted, true in overlaps(logits, without_first)
        if index != 0
    ]
    close(build("TverskyLoss", ignore_index=0)(logits, labels), sum(values) / (2 * CLASSES))


def test_tversky_needs_alpha_and_beta_that_add_up_to_one():
    with pytest.raises(UserError, match="add up to 1"):
        build("TverskyLoss", alpha=0.3, beta=0.6)


# Lovász


def jaccard_loss(truth, wrong):
    """1 - IoU of a prediction that differs from `truth` (sets of pixels) at the pixels `wrong`."""
    predicted = truth ^ wrong
    return 1 - len(truth & predicted) / len(truth | predicted) if truth | predicted else 0.0


def lovasz_extension(errors, truth):
    """Its definition: each error times the loss that its pixel adds to that of the pixels with larger errors."""
    order = sorted(range(len(errors)), key=lambda pixel: -errors[pixel])
    objects = {pixel for pixel, on in enumerate(truth) if on}
    total, wrong = 0.0, set()
    for pixel in order:
        before = jaccard_loss(objects, wrong)
        wrong = wrong | {pixel}
        total += errors[pixel] * (jaccard_loss(objects, wrong) - before)
    return total


def lovasz_softmax(logits, labels, classes):
    labelled = [(scores.softmax(0), label) for scores, label in pixels(logits, labels) if label is not None]
    return sum(
        lovasz_extension(
            [abs((label == index) - float(p[index])) for p, label in labelled],
            [label == index for _, label in labelled],
        )
        for index in classes
    ) / len(classes)


@pytest.mark.parametrize("classes", ["all", "present", [1]])
def test_lovasz_softmax_is_the_extension_of_the_jaccard_loss(batch, classes):
    logits, labels = batch[0], torch.where(batch[1] == 0, 1, batch[1])  # class 0 is absent
    expected = {"all": [0, 1, 2], "present": [1, 2]}.get(str(classes), classes)
    close(build("LovaszLoss", classes=classes)(logits, labels), lovasz_softmax(logits, labels, expected))


def test_lovasz_counts_more_pixels_than_16_bits_can():
    """With 16-bit counts, the loss of large images would be that of their first few hundred pixels."""
    logits = torch.randn(1, CLASSES, 128, 128, generator=torch.Generator().manual_seed(0))
    labels = logits.roll(1, dims=2).argmax(1)
    exact = build("LovaszLoss")(logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(build("LovaszLoss")(logits.bfloat16(), labels)) == pytest.approx(float(exact), rel=1e-3)


def test_lovasz_of_each_image_is_averaged(batch):
    logits, labels = batch
    values = [lovasz_softmax(logits[n : n + 1], labels[n : n + 1], [0, 1, 2]) for n in range(2)]
    close(build("LovaszLoss", per_image=True)(logits, labels), sum(values) / 2)


def test_lovasz_softmax_of_a_certain_prediction_is_one_minus_iou(batch):
    _, labels = batch
    predicted = labels.roll(1, dims=2).clamp(max=CLASSES - 1)
    logits = 100.0 * F.one_hot(predicted, CLASSES).movedim(-1, 1)
    valid = labels != IGNORED
    ious = [
        float(((labels == index) & (predicted == index) & valid).sum())
        / float((((labels == index) | (predicted == index)) & valid).sum())
        for index in range(CLASSES)
    ]
    close(build("LovaszLoss")(logits, labels), 1 - sum(ious) / CLASSES)


def test_lovasz_hinge_reads_one_channel(batch):
    logits, labels = batch[0][:, :1], torch.where(batch[1] == 2, 1, batch[1])
    labelled = [(float(scores), label) for scores, label in pixels(logits, labels) if label is not None]
    errors = [max(0.0, 1 - score * (2 * label - 1)) for score, label in labelled]
    loss = build("LovaszLoss", loss_type="binary")
    close(loss(logits, labels), lovasz_extension(errors, [label for _, label in labelled]))
    with pytest.raises(UserError, match="out_channels=1"):
        loss(batch[0], labels)


# hard pixels


def test_focal_loss_scales_each_binary_cross_entropy(batch):
    gamma, alphas, weights = 1.5, [0.25, 0.5, 0.75], [1.0, 2.0, 0.5]
    total = 0.0
    for scores, label in pixels(*batch):
        for index, p in enumerate(scores.sigmoid().tolist()):
            alpha = alphas[index]
            if label == index:
                total -= weights[index] * alpha * (1 - p) ** gamma * math.log(p)
            elif label is not None:
                total -= weights[index] * (1 - alpha) * p**gamma * math.log(1 - p)
    loss = build("FocalLoss", gamma=gamma, alpha=alphas, class_weight=weights)
    close(loss(*batch), total / batch[0].numel())


def test_focal_loss_without_focus_is_half_the_binary_cross_entropy(batch):
    close(build("FocalLoss", gamma=0.0)(*batch), 0.5 * build("CrossEntropyLoss", use_sigmoid=True)(*batch))


def test_focal_loss_takes_one_channel_and_soft_targets(batch):
    logits, labels = batch
    hot = torch.stack([labels == index for index in range(CLASSES)], dim=1)
    labelled = torch.where(labels == IGNORED, 0, labels)
    soft = F.one_hot(labelled, CLASSES).movedim(-1, 1)
    close(build("FocalLoss")(logits, soft), build("FocalLoss")(logits, labelled))
    one = build("FocalLoss")(logits[:, :1], torch.where(labels == IGNORED, IGNORED, hot[:, 0].long()))
    two = build("FocalLoss")(logits[:, :1], hot[:, :1].double())
    ignored = build("FocalLoss", reduction="none")(logits[:, :1], hot[:, :1].double())[:, 0][labels == IGNORED].sum()
    close(one, two - ignored / labels.numel())


@pytest.mark.parametrize(("thres", "min_kept"), [(0.2, 1), (0.2, 20), (0.9, 1), (0.1, 1000)])
def test_ohem_cross_entropy_is_the_mean_over_the_hardest_pixels(batch, thres, min_kept):
    weights = [0.5, 2.0, 1.5]
    found = sorted(
        (float(scores.softmax(0)[label]), weights[label]) for scores, label in pixels(*batch) if label is not None
    )
    limit = max(thres, found[min(min_kept, len(found) - 1)][0])
    hard = [-weight * math.log(p) for p, weight in found if p < limit]
    loss = build("OhemCrossEntropy", thres=thres, min_kept=min_kept, class_weight=weights)
    close(loss(*batch), sum(hard) / len(hard))


@pytest.mark.parametrize(("thresh", "min_kept"), [(0.2, 1), (0.2, 10), (0.9, 1), (None, 4), (None, 1000)])
def test_ohem_sampler_keeps_the_hardest_pixels(batch, thresh, min_kept):
    logits, labels = batch
    probability = [None if label is None else float(scores.softmax(0)[label]) for scores, label in pixels(*batch)]
    ranked = sorted(p for p in probability if p is not None)
    limit = ranked[min(2 * min_kept, len(ranked) - 1)]  # min_kept is for each of two images
    if thresh is not None:
        limit = max(limit, thresh)
    elif 2 * min_kept >= len(ranked):
        limit = math.inf
    expected = torch.tensor([float(p is not None and p < limit) for p in probability]).view(labels.shape)

    def loss_map():
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)

    weight = OHEMPixelSampler(thresh=thresh, min_kept=min_kept).sample(logits, labels, loss_map, IGNORED)
    assert torch.equal(weight.float(), expected)


# boundaries, distances, depth, distillation


def test_boundary_loss_gives_edges_and_the_rest_the_same_weight(batch):
    logits = batch[0][:, :1]
    edges = torch.where(batch[1] == 2, 0, batch[1])
    found = [(float(scores.sigmoid()), label) for scores, label in pixels(logits, edges) if label is not None]
    share = sum(label for _, label in found) / len(found)
    total = sum(-(1 - share) * math.log(p) if label else -share * math.log(1 - p) for p, label in found)
    close(build("BoundaryLoss", loss_weight=20.0)(logits, edges), 20 * total / edges.numel())


def depth_inside(mask):
    """Distance of each pixel of a mask to the nearest pixel outside."""
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    depth = np.zeros(mask.shape)
    for point in inside:
        depth[tuple(point)] = np.sqrt(((outside - point) ** 2).sum(1)).min() if len(outside) else 0
    return depth


@pytest.mark.parametrize("kind", ["HausdorffDistanceLoss", "HuasdorffDisstanceLoss"])
def test_hausdorff_loss_weighs_errors_by_their_depth(batch, kind):
    weights = [9.0, 0.5, 2.0]
    logits, labels = batch[0].detach(), batch[1].clone()
    labels[0, 1:, :3], labels[1, 1:] = 1, 2  # objects of some depth
    total = 0.0
    for scores, map_ in zip(logits, labels.numpy(), strict=True):
        p, predicted = scores.softmax(0).numpy(), scores.argmax(0).numpy()
        for index in (1, 2):
            depth = depth_inside(predicted == index) ** 2 + depth_inside(map_ == index) ** 2
            errors = (p[index] - (map_ == index)) ** 2 * depth * (map_ != IGNORED)
            total += weights[index] * errors.mean()
    close(build(kind, class_weight=weights)(logits, labels), total / 2 / CLASSES)


def test_hausdorff_loss_of_an_object_that_fills_the_image_is_zero():
    logits = torch.stack([torch.full((1, 4, 4), -1.0), torch.full((1, 4, 4), 1.0)], dim=1)
    assert build("HausdorffDistanceLoss")(logits, torch.ones(1, 4, 4, dtype=torch.long)) == 0


def test_silog_of_depths_that_are_wrong_by_a_factor(batch):
    measured = 1 + 9 * torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    predicted = 2.5 * measured.unsqueeze(1)
    measured[:, 0] = 0  # not measured
    close(build("SiLogLoss")(predicted, measured), math.sqrt(0.5) * math.log(2.5))


def test_silog_is_the_root_of_each_image(batch):
    predicted, measured = batch[0][:, :1].detach().exp(), batch[0][:, 1].detach().exp()
    values = []
    for p, d in zip(predicted[:, 0], measured, strict=True):
        difference = (d.log() - p.log()).flatten()
        values.append(math.sqrt(float(difference.square().mean() - 0.5 * difference.mean() ** 2)))
    close(build("SiLogLoss")(predicted, measured), sum(values) / 2)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_divergence_from_a_teacher(batch, temperature):
    student, teacher = batch[0].detach(), batch[0].detach().flip(0)
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    divergence = (p * (p / q).log()).sum() * temperature**2
    close(build("KLDivLoss", temperature=temperature)(student, teacher), divergence / student.numel())
    close(build("KLDivLoss", temperature=temperature, reduction="sum")(student, teacher), divergence / 2)


def test_kl_divergence_from_a_class_map_is_cross_entropy(batch):
    close(build("KLDivLoss")(*batch), build("CrossEntropyLoss")(*batch) / CLASSES)


# what all of them have in common

NAMES = {
    "CrossEntropyLoss": "loss_ce",
    "DiceLoss": "loss_dice",
    "FocalLoss": "loss_focal",
    "LovaszLoss": "loss_lovasz",
    "TverskyLoss": "loss_tversky",
    "OhemCrossEntropy": "loss_ohem",
    "HuasdorffDisstanceLoss": "loss_huasdorff_disstance",
    "KLDivLoss": "loss_kld",
    "BoundaryLoss": "loss_boundary",
    "SiLogLoss": "loss_silog",
}
OF_CLASS_MAPS = [name for name in NAMES if name not in ("BoundaryLoss", "SiLogLoss")]


@pytest.mark.parametrize(("kind", "name"), NAMES.items())
def test_loss_has_the_published_name(kind, name):
    assert build(kind).loss_name == name
    assert build(kind, loss_name="loss_mine").loss_name == "loss_mine"


@pytest.mark.parametrize(
    "spec",
    [
        *({"type": kind} for kind in OF_CLASS_MAPS if kind != "DiceLoss"),
        {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0, 3.0]},
        {"type": "CrossEntropyLoss", "avg_non_ignore": True},
        {"type": "CrossEntropyLoss", "use_sigmoid": True, "avg_non_ignore": True},
        {"type": "CrossEntropyLoss", "use_mask": True},
        {"type": "LovaszLoss", "per_image": True},
    ],
    ids=str,
)
def test_nothing_but_ignored_pixels_costs_nothing(batch, spec):
    logits, labels = batch[0], torch.full_like(batch[1], IGNORED)
    value = build(**{"kind" if key == "type" else key: item for key, item in spec.items()})(logits, labels)
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize(("kind", "target"), [("BoundaryLoss", IGNORED), ("SiLogLoss", 0), ("DiceLoss", IGNORED)])
def test_gradients_are_finite_without_a_labelled_pixel(batch, kind, target):
    logits = batch[0][:, :1]
    value = build(kind)(logits, torch.full_like(batch[1], target))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(batch[0].grad).all()


@pytest.mark.parametrize("kind", OF_CLASS_MAPS)
def test_gradients_equal_finite_differences(batch, kind):
    logits, labels = batch
    loss = build(kind)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,), eps=1e-6, atol=1e-5)


def test_a_head_adds_up_its_losses_by_name(batch):
    specs = [{"type": kind} for kind in OF_CLASS_MAPS] + [{"type": "CrossEntropyLoss", "loss_weight": 0.5}]
    head = MODELS.build(
        {"type": "FCNHead", "in_channels": 4, "channels": 4, "num_classes": CLASSES, "loss_decode": specs}
    )
    logits, labels = batch
    losses = head.losses(logits, labels)
    assert set(losses) == {NAMES[kind] for kind in OF_CLASS_MAPS} | {"acc_seg"}
    close(losses["loss_ce"], 1.5 * build("CrossEntropyLoss")(logits, labels))
    assert isinstance(head.loss_decode, nn.ModuleList)


@pytest.mark.parametrize("loss", ["DiceLoss", "LovaszLoss", "CrossEntropyLoss"])
@pytest.mark.parametrize("thresh", [None, 0.7])
def test_a_sampler_works_with_any_loss(loss, thresh):
    options = {"per_image": True} if loss == "LovaszLoss" else {}
    head = MODELS.build(
        {
            "type": "FCNHead",
            "in_channels": 4,
            "channels": 4,
            "num_classes": 3,
            "loss_decode": {"type": loss, **options},
            "sampler": {"type": "OHEMPixelSampler", "thresh": thresh, "min_kept": 5},
        }
    )
    losses = head.loss([torch.randn(2, 4, 8, 8)], torch.randint(0, 3, (2, 8, 8)))
    assert all(value.isfinite() for value in losses.values())
