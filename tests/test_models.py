"""What holds for every model: one of each kind, on random weights and small images."""

from __future__ import annotations

import pytest
import torch

import golden_models as golden
import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import load_checkpoint

torch.set_num_threads(2)

# Inference graphs that torch.export cannot capture, and why.
NOT_EXPORTED: dict[str, str] = {
    "PointHead": "the points to refine are chosen from the logits, step by step",
}
NO_ODD_SIZES: dict[str, str] = {}


def kinds() -> list:
    """A model of each kind: segmentor, backbone, neck and head."""
    return [
        pytest.param(record, id=golden.label("v1", record).removeprefix("v1-"))
        for record in golden.records("v1").values()
        if "logits" in record
    ]


def build(record, seed: int = 0):
    torch.manual_seed(seed)
    return golden.build("v1", record["model"]).eval()


def images(record, count: int = 1, seed: int = 0) -> torch.Tensor:
    """Noise at the size of the golden facts, at most 128."""
    _, channels, height, width = record["logits"]["input_shape"]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, min(height, 128), min(width, 128), generator=generator)


def reason(record, table: dict[str, str]) -> str | None:
    return next((why for name, why in table.items() if name in golden.type_names(record["model"])), None)


@pytest.mark.slow
@pytest.mark.parametrize("record", kinds())
@torch.no_grad()
def test_inference_is_deterministic_and_runs_no_auxiliary_head(record):
    model, x = build(record), images(record)
    for head in getattr(model, "auxiliary_heads", {}).values():
        head.forward = pytest.fail  # an auxiliary head must not be run
    first = model(x)
    assert first.shape[-2:] == x.shape[-2:]
    assert torch.equal(first, model(x))


@pytest.mark.slow
@pytest.mark.parametrize("record", kinds())
@torch.no_grad()
def test_odd_sizes_work(record):
    if why := reason(record, NO_ODD_SIZES):
        pytest.skip(why)
    channels = record["logits"]["input_shape"][1]
    assert build(record)(torch.randn(1, channels, 97, 131)).shape[-2:] == (97, 131)


@pytest.mark.slow
@pytest.mark.parametrize("record", kinds())
@torch.no_grad()
def test_channels_last_gives_the_same_output(record):
    model, x = build(record), images(record)
    expected = model(x)
    actual = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * float(expected.std()) + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("record", kinds())
@torch.no_grad()
def test_the_inference_graph_exports(record):
    if why := reason(record, NOT_EXPORTED):
        pytest.skip(why)
    model, x = build(record), images(record)
    exported = torch.export.export(model, (x,), strict=False).module()
    expected = model(x)
    torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-4 * float(expected.std()) + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("record", kinds())
def test_training_lowers_the_loss_of_a_fixed_batch(record):
    model = build(record).train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    x = images(record, 2)
    classes = model.final_head.num_classes
    y = torch.randint(0, classes, (2, x.shape[2] // 32, x.shape[3] // 32), generator=torch.Generator().manual_seed(1))
    y = y.repeat_interleave(32, 1).repeat_interleave(32, 2)
    targets = {"edge": torch.zeros_like(y)} if "PIDHead" in golden.type_names(record["model"]) else {}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    totals = []
    for _ in range(4):
        torch.manual_seed(0)  # the same random points, where a loss draws some
        total = sum(value for name, value in model.loss(x, y, **targets).items() if "loss" in name)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0], totals


@pytest.mark.slow
@pytest.mark.parametrize("record", kinds())
def test_weights_go_through_a_file(record, tmp_path):
    model, other = build(record), build(record, seed=1)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "weights.pth")
    report = load_checkpoint(other, tmp_path / "weights.pth")
    assert not report.missing and not report.unexpected and not report.reinitialised
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_an_unknown_type_or_argument_names_the_nearest():
    head = {"type": "FCNHead", "in_channels": 8, "channels": 8, "num_classes": 3}
    backbone = {"type": "ResNet", "depth": 18}
    with pytest.raises(UserError, match=r"'FCNHed' at model.decode_head; did you mean 'FCNHead'"):
        tz.build_model({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head | {"type": "FCNHed"}})
    with pytest.raises(UserError, match="no argument 'num_conv'; did you mean 'num_convs'"):
        tz.build_model({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head | {"num_conv": 1}})


@pytest.mark.parametrize(
    ("num_classes", "out_channels", "message"),
    [(19, 1, "does not fit num_classes=19"), (2, 3, "does not fit num_classes=2"), (3, 2, "does not fit")],
)
def test_output_channels_that_do_not_fit_are_refused(num_classes, out_channels, message):
    head = {
        "type": "FCNHead",
        "in_channels": 512,
        "channels": 8,
        "num_classes": num_classes,
        "out_channels": out_channels,
    }
    with pytest.raises(ValueError, match=message):
        tz.build_model({"type": "EncoderDecoder", "backbone": {"type": "ResNet", "depth": 18}, "decode_head": head})


def test_binary_heads_warn_of_a_default_threshold_and_hint_at_the_other_form():
    head = {"type": "FCNHead", "in_channels": 512, "channels": 8, "num_classes": 2}
    spec = {"type": "EncoderDecoder", "backbone": {"type": "ResNet", "depth": 18}, "decode_head": head}
    with pytest.warns(UserWarning, match="out_channels=1"):
        tz.build_model(spec)
    with pytest.warns(UserWarning, match="threshold"):
        model = tz.build_model(spec | {"decode_head": head | {"out_channels": 1}})
    assert model.decode_head.threshold == 0.3
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)
