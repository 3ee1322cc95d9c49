"""What holds for every model: one of each kind, with few of its repeated blocks, on random weights and small images."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import terrazzo as tz
from support import golden_models as golden
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import load_checkpoint

torch.set_num_threads(1)

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


def shallow(spec):
    """A model spec with as few of each stage's equal blocks as leave its shape."""
    if isinstance(spec, (list, tuple)):
        return [shallow(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    spec = {key: shallow(value) for key, value in spec.items()}
    kind, layers = str(spec.get("type", "")).rpartition(".")[2], spec.get("num_layers")
    if kind.startswith("Res") and spec.get("depth", 0) > 50:
        spec["depth"] = 50
    if isinstance(spec.get("depths"), list):
        spec["depths"] = [min(depth, 2) for depth in spec["depths"]]
    if kind == "MixVisionTransformer":
        spec["num_layers"] = [1] * len(layers)
    if kind in ("VisionTransformer", "BEiT", "MAE"):
        outputs = spec.get("out_indices", -1)
        spec["num_layers"] = len(outputs) if isinstance(outputs, list) else 2
        spec["out_indices"] = list(range(len(outputs))) if isinstance(outputs, list) else -1
    if kind == "CLIPTextEncoder":
        spec["num_layers"] = 1
    for stage in spec.get("extra", {}).values():  # HRNet's
        stage |= {"num_modules": 1, "num_blocks": [1] * len(stage["num_blocks"])}
    return spec


def trainable(spec):
    """The spec of a model that can be trained: SAN's for VOC inherits the class weights of another data set."""
    head = spec["decode_head"]
    if isinstance(head, dict) and head["type"] == "SideAdapterCLIPHead":
        losses = [head["loss_decode"]] if isinstance(head["loss_decode"], dict) else head["loss_decode"]
        for loss in losses:
            if loss.get("class_weight"):
                loss["class_weight"] = loss["class_weight"][: head["num_classes"]] + loss["class_weight"][-1:]
    return spec


def build(record, seed: int = 0):
    torch.manual_seed(seed)
    return golden.build("v1", trainable(shallow(golden.untuple(record["model"])))).eval()


def images(record, count: int = 1, size: int = 64) -> torch.Tensor:
    channels = record["logits"]["input_shape"][1]
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


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
    model, channels = build(record), record["logits"]["input_shape"][1]
    for size in ((97, 131), (32, 32)):  # the second has maps of a single pixel
        assert model(torch.randn(1, channels, *size)).shape[-2:] == size


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
    y = torch.randint(0, classes, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    y = y.repeat_interleave(16, 1).repeat_interleave(16, 2)
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


def pooling_model(**norm_cfg):
    """A head whose pyramid pools to a single pixel."""
    torch.manual_seed(0)
    head = {"type": "PSPHead", "in_channels": 512, "channels": 8, "num_classes": 3, "norm_cfg": norm_cfg}
    return tz.build_model({"type": "EncoderDecoder", "backbone": {"type": "ResNet", "depth": 18}, "decode_head": head})


@pytest.mark.parametrize("kind", ["BN", "SyncBN"])
def test_one_image_with_batch_norm_on_a_pixel_says_what_to_do(kind):
    model, x, y = pooling_model(type=kind), torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long)
    with pytest.raises(UserError, match=r"\(1, 8, 1, 1\): give each device a batch of at least two images"):
        model.loss(x, y)
    assert model.loss(x.repeat(2, 1, 1, 1), y.repeat(2, 1, 1))["decode.loss_ce"] > 0
    assert pooling_model(type="GN", num_groups=4).loss(x, y)["decode.loss_ce"] > 0
    assert model.eval()(x).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 7)])
def test_maps_of_a_single_pixel_work(size):
    assert pooling_model(type="BN").eval()(torch.randn(1, 3, *size)).shape == (1, 3, *size)


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


def test_no_model_type_loads_the_compiler_or_scipy():
    code = (
        "import sys; from terrazzo.registry import MODELS; MODELS.load(); "
        "print(*(name for name in ('torch._dynamo', 'scipy') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
