"""`terrazzo checkpoint`: looking into checkpoints, and making others of them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import terrazzo as tz
from support import foreign_weights as foreign
from support.tiny import CLASSES, MEAN, STD, model_config
from terrazzo.checkpoints import inspect
from terrazzo.checkpoints.inspect import inspect_checkpoint, looks_like
from terrazzo.checkpoints.publish import average, convert, publish
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import read_checkpoint

PALETTE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
CONFIG_TEXT = f"""model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean={MEAN}, std={STD}, bgr_to_rgb=True),
    backbone=dict(type='UNet', base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1), dec_num_convs=(1, ),
        downsamples=(True, ), enc_dilations=(1, 1), dec_dilations=(1, )),
    decode_head=dict(type='FCNHead', in_channels=4, in_index=1, channels=8, num_convs=1, concat_input=False,
        num_classes=3, norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
"""
OLD_TEXT = CONFIG_TEXT.replace("    data_preprocessor", "    # data_preprocessor") + (
    "img_norm_cfg = dict(mean=[120.0, 120.0, 120.0], std=[60.0, 60.0, 60.0], to_rgb=True)\n"
    "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(64, 64), flip=False,\n"
    "    transforms=[dict(type='Normalize', **img_norm_cfg), dict(type='ImageToTensor', keys=['img']),\n"
    "        dict(type='Collect', keys=['img'])])]\n"
    "data = dict(samples_per_gpu=2, test=dict(type='CustomDataset', pipeline=test_pipeline))\n"
)


def model() -> Any:
    torch.manual_seed(0)
    return tz.build_model(model_config()).eval()


def official(path: Path, version: str, **more: Any) -> Path:
    """A checkpoint as MMSegmentation saves it, with the state of its run."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(1000)}}, "param_groups": [{"lr": 0.1}]}
    content: dict[str, Any] = {"state_dict": model().state_dict(), "optimizer": optimizer}
    if version == "0.x":
        content["meta"] = {"iter": 80000, "epoch": 3, "CLASSES": CLASSES, "PALETTE": PALETTE, "config": OLD_TEXT}
    else:
        info = {"iter": 80000, "dataset_meta": {"classes": tuple(CLASSES), "palette": PALETTE}, "cfg": CONFIG_TEXT}
        content |= {"meta": info, "message_hub": {"runtime_info": {"best_score": 78.5, "iter": 80000}},
            "param_schedulers": [{}]}  # fmt: skip
    torch.save(content | more, path)
    return path


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)


def run(*arguments: Any) -> int:
    return main(["checkpoint", *map(str, arguments)])


# A file with its config is the whole model


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("version", ["0.x", "1.x"])
def test_an_official_checkpoint_needs_no_config_beside_it(tmp_path, version):
    segmenter = tz.load(official(tmp_path / "x.pth", version), device="cpu")
    assert (segmenter.classes, segmenter.palette) == (CLASSES, PALETTE)
    own = model()
    logits = own(own.preprocess(torch.from_numpy(image()).permute(2, 0, 1)[None]))
    assert np.array_equal(segmenter(image()).labels, logits.argmax(1)[0].numpy())


def test_a_config_that_would_run_something_is_not_run(tmp_path):
    text = f"import os\nos.system('touch {tmp_path / 'mark'}')\n" + CONFIG_TEXT
    torch.save({"state_dict": model().state_dict(), "meta": {"cfg": text}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="contains weights without a config"):
        tz.load(tmp_path / "x.pth", device="cpu")
    assert not (tmp_path / "mark").exists()


# inspect


@pytest.mark.parametrize("version", ["0.x", "1.x"])
def test_inspect(tmp_path, capsys, version):
    path = official(tmp_path / "x.pth", version)
    assert run("inspect", path) == 0
    text = capsys.readouterr().out
    count = sum(parameter.numel() for parameter in model().parameters())
    for part in (f"{count:,} in 32 tensors", "backbone UNet; decode_head FCNHead", "3: sky, road, car", "iter 80000"):
        assert part in text
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:8] in text
    assert ("best 78.50" in text) == (version == "1.x")
    assert run("inspect", path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == count and found["classes"] == CLASSES and found["palette"] == PALETTE
    assert found["config"]["model"]["decode_head"]["num_classes"] == 3 and "optimizer" in found["sections"]


def test_inspect_tells_of_averaged_weights(tmp_path, capsys):
    average = {f"module.{name}": value for name, value in model().state_dict().items()}
    official(tmp_path / "x.pth", "1.x", ema_state_dict=average | {"steps": torch.tensor(3)})
    assert run("inspect", tmp_path / "x.pth") == 0
    assert "averaged; as trained too" in capsys.readouterr().out


@pytest.mark.slow
def test_weights_alone_are_recognised(tmp_path):
    with torch.device("meta"):
        pspnet = tz.build_model(tz.recipes.family("pspnet")["model"])
    cases = {
        "a pspnet model": pspnet.state_dict(),
        "the backbone SwinTransformer; names: torchvision": foreign.filled(foreign.swin_torchvision()),
        "the backbone ResNeSt; names: timm or the ResNeSt release (a deep stem)": foreign.filled(foreign.resnest()),
        "the backbone ConvNeXt; names: timm": foreign.filled(foreign.convnext_timm()),
    }
    for expected, weights in cases.items():
        assert looks_like(weights) == expected
    assert looks_like({f"something.{index}.else": torch.ones(1) for index in range(30)}) is None


def test_a_file_of_few_tensors_is_compared_with_no_architecture(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect, "architectures", lambda: pytest.fail("building all takes seconds"))
    save_file({"a": torch.ones(2)}, str(tmp_path / "x.safetensors"))
    assert inspect_checkpoint(tmp_path / "x.safetensors")["looks_like"] is None


# publish


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_publish_leaves_the_weights_and_what_is_known(tmp_path, capsys, suffix):
    source = official(tmp_path / "x.pth", "1.x")
    assert run("publish", source, tmp_path / f"pspnet{suffix}") == 0
    (path,) = (item for item in tmp_path.iterdir() if item != source)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"pspnet-{digest[:8]}{suffix}" and str(path) in capsys.readouterr().out
    read = read_checkpoint(path)
    assert all(torch.equal(value, read.weights[name]) for name, value in model().state_dict().items())
    assert "optimizer" not in read.sections and path.stat().st_size < source.stat().st_size
    before, after = tz.load(source, device="cpu"), tz.load(path, device="cpu")
    assert np.array_equal(before(image()).probs, after(image()).probs)
    assert after.classes == CLASSES and after.palette == PALETTE
    assert inspect_checkpoint(path)["iter"] == 80000 and inspect_checkpoint(path)["best_score"] == 78.5


def test_publish_replaces_the_digits_in_a_name(tmp_path):
    source = official(tmp_path / "x.pth", "1.x")
    first = publish(source, tmp_path / "model-01234567.pth").path
    assert first.name.count("-") == 1 and "01234567" not in first.name
    with pytest.raises(UserError, match=rf"{first} exists already"):
        publish(source, tmp_path / "model.pth")
    assert len(list(tmp_path.iterdir())) == 2


def test_publish_halves_the_weights_and_tells_nothing_of_the_machine(tmp_path, capsys):
    data = "val_dataloader = dict(dataset=dict(type='ADE20KDataset', data_root='/home/me/ade', pipeline=[]))"
    meta = {"dataset_meta": {"classes": CLASSES, "palette": PALETTE}, "cfg": f"{CONFIG_TEXT}\n{data}"}
    source = official(tmp_path / "x.pth", "1.x", meta=meta)
    whole = publish(source, tmp_path / "whole.safetensors")
    assert run("publish", source, tmp_path / "half.safetensors", "--half") == 0
    (path,) = tmp_path.glob("half-*.safetensors")
    assert {value.dtype for value in read_checkpoint(path).weights.values() if value.ndim > 1} == {torch.float16}
    before, after = tz.load(whole.path, device="cpu"), tz.load(path, device="cpu")
    assert next(after.model.parameters()).dtype == torch.float32
    np.testing.assert_allclose(before(image()).probs, after(image()).probs, atol=2e-3)
    assert b"ADE20KDataset" in path.read_bytes() and b"/home/me" not in path.read_bytes()


def test_publish_gives_the_same_digits_each_time(tmp_path):
    source = official(tmp_path / "x.pth", "1.x")
    assert len({publish(source, tmp_path / "x.safetensors", force=True).path for _ in range(4)}) == 1


def test_publish_refuses_to_halve_what_does_not_fit(tmp_path):
    source = saved(tmp_path / "x.safetensors", **{"conv.weight": [[1e5]]})
    with pytest.raises(UserError, match=r"conv.weight contains 1e\+05, which exceeds 16 bits"):
        publish(source, tmp_path / "half.safetensors", half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_published_weights_are_found_by_their_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path))
    path = publish(official(tmp_path / "x.pth", "1.x"), tmp_path / "weights" / "m.safetensors").path
    assert read_checkpoint(f"https://example.org/{path.name}").path == path


# average


def saved(path: Path, **values: Any) -> Path:
    save_file({name: torch.as_tensor(value) for name, value in values.items()}, str(path))
    return path


def test_average(tmp_path, capsys):
    files = [
        saved(tmp_path / "a.safetensors", w=[1.0, 2.0], half=torch.tensor([1.0]).half(), count=3),
        saved(tmp_path / "b.safetensors", w=[3.0, 6.0], half=torch.tensor([2.0]).half(), count=9),
    ]
    assert run("average", tmp_path / "mean.safetensors", *files) == 0
    mean = read_checkpoint(tmp_path / "mean.safetensors").weights
    assert mean["w"].tolist() == [2.0, 4.0] and mean["count"] == 9
    assert mean["half"].dtype == torch.float16 and mean["half"].tolist() == [1.5]
    assert inspect_checkpoint(tmp_path / "mean.safetensors")["tensors"] == 3


def test_the_average_of_a_model_with_itself_is_that_model(tmp_path):
    source = official(tmp_path / "x.pth", "1.x")
    average(tmp_path / "mean.pth", [source, source, source])
    assert np.array_equal(
        tz.load(source, device="cpu")(image()).probs, tz.load(tmp_path / "mean.pth", device="cpu")(image()).probs
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": [1.0, 2.0], "more": [1.0]}, r"more is \(1,\) and absent"),
        ({"v": [1.0, 2.0]}, r"v is \(2,\) and absent, w is absent and \(2,\)"),
        ({"w": [1.0, 2.0, 3.0]}, r"w is \(3,\) and \(2,\)"),
    ],
)
def test_what_differs_is_not_averaged(tmp_path, other, message):
    first, second = saved(tmp_path / "a.safetensors", w=[1.0, 2.0]), saved(tmp_path / "b.safetensors", **other)
    with pytest.raises(UserError, match=rf"b.safetensors cannot be averaged with .*a.safetensors: {message}"):
        average(tmp_path / "mean.safetensors", [first, second])
    assert not (tmp_path / "mean.safetensors").exists()


# convert


def test_convert_between_the_formats(tmp_path):
    source = official(tmp_path / "x.pth", "0.x")
    convert(source, tmp_path / "y.safetensors")
    convert(tmp_path / "y.safetensors", tmp_path / "z.pth")
    weights = [read_checkpoint(tmp_path / name).weights for name in ("x.pth", "y.safetensors", "z.pth")]
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in weights[0])
    assert tz.load(tmp_path / "y.safetensors", device="cpu").classes == CLASSES
    assert tz.load(tmp_path / "z.pth", device="cpu").classes == CLASSES


def test_convert_a_foreign_backbone_to_our_names(tmp_path, capsys):
    torch.save(foreign.filled(foreign.poolformer_timm()), tmp_path / "timm.pth")
    config = model_config()
    config["backbone"] = {"type": "PoolFormer", "out_indices": [0], "arch": {"layers": [1] * 4,
        "embed_dims": [16, 32, 64, 128], "mlp_ratios": [4] * 4, "layer_scale_init_value": 1e-5}}  # fmt: skip
    config["decode_head"] |= {"in_channels": 16, "in_index": 0}
    (tmp_path / "config.json").write_text(json.dumps({"model": config}))
    assert run("convert", tmp_path / "timm.pth", tmp_path / "ours.safetensors", "--to", tmp_path / "config.json") == 0
    text = capsys.readouterr().out
    assert "names: timm, translated" in text and "weights, no config" in text
    weights = read_checkpoint(tmp_path / "ours.safetensors").weights
    assert all(name.startswith("backbone.") for name in weights) and "backbone.patch_embed.proj.weight" in weights


def test_convert_gives_a_config_to_weights(tmp_path, capsys):
    torch.save(model().state_dict(), tmp_path / "x.pth")
    (tmp_path / "config.py").write_text(CONFIG_TEXT)
    assert run("convert", tmp_path / "x.pth", tmp_path / "y.safetensors", "--to", tmp_path / "config.py") == 0
    assert "one file is the whole model" in capsys.readouterr().out
    assert tz.load(tmp_path / "y.safetensors", device="cpu")(image()).labels.shape == (32, 40)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("publish", "x.pth", "y.bin"), r"y.bin: a checkpoint is written as .safetensors or .pth"),
        (("convert", "x.pth", "there.pth"), "there.pth exists already: choose another name, or --force"),
        (("convert", "x.pth", "x.pth", "--force"), "x.pth is both read and written"),
        (("average", "y.pth", "x.pth"), "give two checkpoints or more"),
        (("average", "y.pth", "x.pth", "none.pth"), "there is no checkpoint file none.pth"),
        (("inspect", "there.pth"), "there.pth (cannot be read|holds|is refused)"),
        (("inspect", "x.pth", "--weights", "ema"), "x.pth contains no averaged weights"),
        (("convert", "x.pth", "y.pth", "--to", "psspnet"), "no recipe is called 'psspnet'"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    official(tmp_path / "x.pth", "1.x")
    (tmp_path / "there.pth").write_bytes(b"")
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.pth", "x.pth"]
