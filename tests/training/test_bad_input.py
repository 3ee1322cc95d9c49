"""What users get wrong: each case ends in one message that names file or key and the way out, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import terrazzo as tz
from support.tiny import (
    CLASSES,
    fit,
    make_streets,
    model_config,
    records,
    save_image,
    save_label,
    short_form,
    states,
    street,
    terrazzo,
    tiny_config,
    weights,
    write_config,
)
from terrazzo.errors import UserError
from terrazzo.system import files


@pytest.fixture
def streets(tmp_path) -> Path:
    return make_streets(tmp_path / "data", train=4, val=2)


def image(root: Path, name: str = "01.png", split: str = "train") -> Path:
    return root / "images" / split / name


def label(root: Path, name: str = "01.png", split: str = "train") -> Path:
    return root / "labels" / split / name


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def paint(path: Path, value: int, rows: int = 8) -> None:
    """Write `value` into the first rows of a label: rows / 32 of its pixels."""
    _, values = street(1)
    values[:rows] = value
    save_label(path, values)


# One entry a mistake: how it is made, what training says of it (all these parts in one message)
MISTAKES = {
    "no label": (lambda root: label(root).unlink(), ["1 of 4 images", "01.png", "labels/train", "add the labels"]),
    "no image folder": (lambda root: shutil.rmtree(image(root).parent), ["no image folder", "images/train"]),
    "no label folder": (lambda root: shutil.rmtree(label(root).parent), ["no label folder", "labels/train"]),
    "empty folder": (
        lambda root: [path.unlink() for path in image(root).parent.iterdir()],
        ["holds no image", "images/train", ".png"],
    ),
    "empty validation": (
        lambda root: [path.unlink() for path in image(root, split="val").parent.iterdir()],
        ["holds no image", "images/val"],
    ),
    "truncated image": (lambda root: truncate(image(root)), ["cannot decode", "images/train/01.png", "damaged"]),
    "truncated label": (lambda root: truncate(label(root)), ["cannot decode", "labels/train/01.png", "damaged"]),
    "image of zero bytes": (lambda root: image(root).write_bytes(b""), ["images/train/01.png", "damaged"]),
    "text as an image": (lambda root: image(root).write_text("hello"), ["images/train/01.png", "not an image"]),
    "other size": (
        lambda root: save_label(label(root), street(1, 30, 44)[1]),
        ["labels/train/01.png is 44x30", "images/train/01.png is 40x32"],
    ),
    "value outside": (
        lambda root: paint(label(root), 7),
        ["labels/train/01.png", "3 classes 0-2: 7 (25%", "label_map: {7: CLASS}", "ignore: [7]"],
    ),
    "value outside in the validation labels": (
        lambda root: paint(label(root, split="val"), 9),
        ["labels/val/01.png", "3 classes 0-2: 9", "label_map"],
    ),
    "RGB mask": (
        lambda root: save_image(label(root), street(1)[0]),
        ["labels/train/01.png is a colour image", "class indices", "convert"],
    ),
    "everything ignored": (
        lambda root: [paint(path, 255, 32) for path in label(root).parent.iterdir()],
        ["every pixel", "is ignored", "reduce_zero_label"],
    ),
}


@pytest.mark.filterwarnings("ignore:.*no image of the same name")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_data_set(streets, tmp_path, mistake):
    make, parts = MISTAKES[mistake]
    make(streets)
    with pytest.raises(UserError) as caught:
        fit(tiny_config(streets, steps=4), tmp_path / "run")
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value) in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("mistake", ["no label", "truncated image", "value outside"])
def test_mistakes_end_the_program_with_one_line(streets, tmp_path, mistake):
    make, parts = MISTAKES[mistake]
    make(streets)
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=4, workers=2))
    result = terrazzo("train", config, "--work-dir", tmp_path / "run")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and all(part in line for part in parts)


def binary(root: Path, **data) -> dict:
    for path in (root / "labels").rglob("*.png"):
        save_label(path, np.where(street(0)[1] == 2, 255, 0).astype(np.uint8))
    return short_form(root, data={"root": str(root), "classes": ["ground", "car"], **data}, iterations=1)


def test_a_mask_of_0_and_255(streets, tmp_path):
    with pytest.raises(UserError, match=r"0 and 255 .*labels/train/00.png.*'car'.*label_map: \{255: 1\}"):
        fit(binary(streets), tmp_path / "a")
    run = fit(binary(streets, label_map={255: 1}), tmp_path / "b")
    assert set(run.metrics["per_class"]) == {"ground", "car"}


def test_a_mask_of_0_and_255_in_the_test_set(streets, tmp_path):
    run = fit(binary(streets, label_map={255: 1}), tmp_path / "run")
    with pytest.raises(UserError, match="0 and 255"):
        tz.evaluate(binary(streets), run.last, device="cpu")


def test_jpeg_labels(streets, tmp_path):
    label(streets).unlink()
    save_image(label(streets, "01.jpg"), np.repeat(street(1)[1][..., None] * 40, 3, axis=2))
    with pytest.raises(UserError, match="save labels as PNG"):
        fit(tiny_config(streets), tmp_path / "run")


@pytest.mark.parametrize(
    ("lines", "message"),
    [("", "names no image"), ("00\nnone.png\n", r"line 2: there is no image 'none.png'"), (None, "no split file")],
)
def test_split_files(streets, tmp_path, lines, message):
    if lines is not None:
        (streets / "train.txt").write_text(lines)
    data = {"root": str(streets), "classes": CLASSES, "train": "train.txt", "images": "images/train"}
    with pytest.raises(UserError, match=rf"train.txt.*{message}|{message}.*train.txt"):
        fit(short_form(streets, data=data | {"labels": "labels/train"}), tmp_path / "run")


# Errors in the middle of a run


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_late_loses_nothing(streets, tmp_path, workers):
    """The state is saved; the mended run ends as one that never failed."""
    config = tiny_config(streets, steps=8, batch=1, workers=workers)
    whole = fit(config, tmp_path / "whole")
    good = image(streets).read_bytes()
    truncate(image(streets))
    with pytest.raises(UserError, match=r"01\.png"):
        fit(config, tmp_path / "run", check=False)
    (state,) = states(tmp_path / "run")
    step = len(records(tmp_path / "run", "train"))
    assert state == f"step_{step}.pt" and step > 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"the state of step {step} is saved; to continue from it: terrazzo train" in log
    image(streets).write_bytes(good)
    resumed = fit(config, tmp_path / "run", resume=True)
    one, other = weights(whole.last), weights(resumed.last)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_validation_image_that_breaks_late_loses_nothing(streets, tmp_path):
    config = tiny_config(streets, steps=4, train_cfg={"max_iters": 4, "val_interval": 2})
    good = image(streets, split="val").read_bytes()
    truncate(image(streets, split="val"))
    with pytest.raises(UserError, match=r"val.*01.png"):
        fit(config, tmp_path / "run", check=False)
    assert states(tmp_path / "run") == ["step_2.pt"]
    image(streets, split="val").write_bytes(good)
    run = fit(config, tmp_path / "run", resume=True)
    assert [line["step"] for line in records(tmp_path / "run", "val")] == [2, 4] and run.finished


def test_a_loss_that_is_not_a_number(streets, tmp_path):
    """The message says where and with what; the broken weights do not replace the last good state."""
    hook = {"type": "CheckpointHook", "interval": 2, "by_epoch": False}
    hooks = {"logger": {"interval": 1}, "checkpoint": hook}
    optimizer = {"type": "SGD", "lr": 1e38, "momentum": 0.9}
    schedule = [{"type": "MultiStepLR", "milestones": [2], "gamma": 1e38, "begin": 0, "by_epoch": False}]
    config = tiny_config(streets, steps=9, param_scheduler=schedule, default_hooks=hooks)
    config["optim_wrapper"] = {"type": "OptimWrapper", "optimizer": optimizer | {"lr": 1e-3}}
    with pytest.raises(UserError) as caught:
        fit(config, tmp_path / "run")
    message = str(caught.value)
    for part in (
        "step 4",
        "decode.loss_ce is nan",
        "comes out of backbone.encoder",
        "learning rate 1e+35",
        "images/train/",
        "clip_grad",
    ):
        assert part in message, message
    assert message.count("images/train/") == 2, "both files of the batch"
    assert states(tmp_path / "run") == ["step_2.pt"]
    assert all(value.isfinite().all() for value in weights(tmp_path / "run" / "last.safetensors").values())
    assert "the state of step 2 is saved" in (tmp_path / "run" / "log.txt").read_text()


def test_any_other_error_saves_the_state_too(streets, tmp_path, monkeypatch):
    from terrazzo.training import loop

    original = loop.log_losses

    def failing(state, *arguments):
        original(state, *arguments)
        if state.step == 3:
            raise ZeroDivisionError

    monkeypatch.setattr(loop, "log_losses", failing)
    with pytest.raises(ZeroDivisionError):
        fit(tiny_config(streets), tmp_path / "run")
    assert states(tmp_path / "run") == ["step_3.pt"]
    assert "ZeroDivisionError" in (tmp_path / "run" / "log.txt").read_text()


# Saving


ERRORS = {
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
    "torch": RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_failed_write_leaves_the_previous_file(tmp_path, error):
    path = tmp_path / "x.bin"
    files.write_atomically(path, lambda temporary: temporary.write_bytes(b"good"))

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"ha")
        raise ERRORS[error]

    with pytest.raises(UserError, match=rf"cannot save {path}: .*(space|write failed)") as caught:
        files.write_atomically(path, write)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"good" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failures_of_the_disk_while_it_flushes(tmp_path, monkeypatch, call):
    path = tmp_path / "x.bin"
    path.write_bytes(b"good")

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(UserError, match="Input/output error"):
        files.write_atomically(path, lambda temporary: temporary.write_bytes(b"new"))
    assert path.read_bytes() == b"good" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_went_away(tmp_path):
    with pytest.raises(UserError, match="cannot save"):
        files.write_atomically(tmp_path / "gone" / "x", lambda temporary: temporary.write_bytes(b"x"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["state", "weights"])
def test_a_real_full_disk(small_disk, kind):
    from terrazzo.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(small_disk)
    small, large = torch.nn.Linear(4, 4), torch.nn.Linear(300, 300)
    checkpoints.save_state(1, {"model": small.state_dict()})
    checkpoints.save_weights(checkpoints.last, small, {})
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"cannot save .*(No space left|MiB free)"):
        if kind == "state":
            checkpoints.save_state(2, {"model": large.state_dict()})
        else:
            checkpoints.save_weights(checkpoints.last, large, {})
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before


def test_training_on_a_full_disk_says_so_and_keeps_what_was_there(streets, small_disk, tmp_path):
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=2))
    (small_disk / "ballast").write_bytes(b"x" * 200 * 1024)
    result = terrazzo("train", config, "--work-dir", small_disk / "run")
    assert result.returncode == 1
    assert "cannot save" in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    assert not list(small_disk.rglob("*.tmp"))


def test_a_log_that_cannot_be_written_does_not_end_the_training(streets, tmp_path, monkeypatch):
    from terrazzo.training.monitoring import log

    original = log.RunLog.__init__

    def full(self, *arguments, **options):
        original(self, *arguments, **options)
        self.path = Path("/dev/full")

    monkeypatch.setattr(log.RunLog, "__init__", full)
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert fit(tiny_config(streets, steps=2), tmp_path / "run").finished


@pytest.mark.parametrize("kind", ["a file in its place", "below a file", "read-only"])
def test_an_unwritable_work_dir(streets, tmp_path, kind):
    (tmp_path / "file").write_text("x")
    folder = {"a file in its place": tmp_path / "file", "below a file": tmp_path / "file" / "run"}.get(kind)
    if folder is None:
        folder = Path("/proc/run")
        if not Path("/proc").exists():
            pytest.skip("this system has no /proc")
    config = write_config(tmp_path / "config.yaml", tiny_config(streets, steps=1))
    with pytest.raises(UserError, match=f"cannot write to the folder {folder}"):
        fit(tz.load_config(config), folder)
    assert (tmp_path / "file").read_text() == "x"


# Checkpoints


def other_architecture(tmp_path: Path) -> Path:
    """Of a wider model: the normalisation's counters are all that fits."""
    config = model_config()
    config["decode_head"]["channels"] = 12
    path = tmp_path / "other.pth"
    torch.save(tz.build_model(config).state_dict(), path)
    return path


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_checkpoint_of_another_architecture(streets, tmp_path, command):
    config = write_config(tmp_path / "config.yaml", tiny_config(streets))
    path = other_architecture(tmp_path)
    if command == "test":
        result = terrazzo("test", config, path)
    else:
        result = terrazzo("predict", image(streets), "--model", path, "--config", config, "--out", tmp_path / "out")
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for part in (str(path), "saved from another one", "loaded ", "with another shape", "decode_head.conv_seg.weight"):
        assert part in line


@pytest.mark.parametrize("what", ["missing", "truncated"])
def test_a_missing_or_truncated_checkpoint(streets, tmp_path, what):
    path = tmp_path / "x.safetensors"
    if what == "truncated":
        path.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match=rf"{path}.*damaged|no checkpoint file {path}"):
        tz.load(path, device="cpu")
    with pytest.raises(UserError, match=rf"{path}"):
        tz.evaluate(tiny_config(streets), path, device="cpu")


# Configs

SHORT_FORMS = {
    "unknown key": ({"bacth": 4}, "'bacth'; did you mean 'batch'"),
    "unknown data key": ({"data": {"root": ".", "clases": CLASSES}}, "data.clases'.*'classes'"),
    "no classes": ({"data": {"root": "."}}, "data.classes"),
    "classes as text": ({"data": {"classes": "sky, road"}}, "data.classes"),
    "a class twice": ({"data": {"classes": ["sky", "sky"]}}, "'sky' twice"),
    "no data": ({"data": None}, "data is empty: it must be a section"),
    "unknown recipe": ({"recipe": "unett"}, "unet"),
    "text as a number": ({"batch": "eight"}, "batch must be a whole number.*'eight'"),
    "a batch of none": ({"batch": 0}, "batch must be .* from 1 to"),
    "no iterations": ({"iterations": 0}, "iterations must be .* at least 1"),
    "half an iteration": ({"iterations": 0.5}, "iterations"),
    "both lengths": ({"epochs": 3}, "not both"),
    "interval of none": ({"val_interval": 0}, "val_interval"),
    "crop": ({"crop": "big"}, "height x width"),
    "rate": ({"lr": "fast"}, "lr must be a number"),
    "amp": ({"amp": "int8"}, "true, false, bf16 or fp16, not 'int8'"),
    "ema": ({"ema": 2}, "ema must be .*the share"),
    "weights": ({"class_weight": [1, 2]}, "3 numbers"),
    "palette": ({"data": {"classes": CLASSES, "palette": [[0, 0, 0]]}}, "3 colours"),
    "ignore": ({"data": {"classes": CLASSES, "ignore": ["void"]}}, "label values"),
    "label map": ({"data": {"classes": CLASSES, "label_map": {7: 3}}}, "classes 0 to 2"),
    "ratio": ({"ratio_range": 2}, "two factors"),
    "resize": ({"resize": "half"}, "resize must be height x width, .* not 'half'"),
}


@pytest.mark.parametrize("case", SHORT_FORMS)
def test_mistakes_in_the_short_form(streets, tmp_path, case):
    changes, message = SHORT_FORMS[case]
    path = write_config(tmp_path / "short.yaml", short_form(streets, **changes))
    with pytest.raises(UserError, match=message):
        tz.load_config(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train_dataloader.batch_size": "eight"}, "train_dataloader.batch_size must be a whole number"),
        ({"train_cfg.val_interval": 0}, "train_cfg.val_interval must be .* at least 1"),
        ({"train_cfg.max_iters": None}, "max_iters"),
        ({"train_cfg.max_iter": 4}, "'max_iter'.*'max_iters'"),
        ({"default_hooks.logger.interval": 0}, "default_hooks.logger.interval"),
        ({"model.type": "EncoderDecodr"}, "'EncoderDecoder'"),
        ({"model.decode_head.num_convz": 1}, "model.decode_head.*'num_convs'"),
        ({"train_dataloader.dataset.type": "BaseSegDatasets"}, "'BaseSegDataset'"),
        ({"param_scheduler": [{"type": "PolyLr"}]}, "'PolyLR'"),
        ({"val_evaluator.iou_metrics": ["mIou"]}, "'mIoU'"),
        ({"train_dataloader.dataset.pipeline.1.type": "LoadAnotations"}, "'LoadAnnotations'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_in_a_config(streets, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        fit(tiny_config(streets), tmp_path / "run", overrides=overrides)


def test_a_training_pipeline_without_labels(streets, tmp_path):
    config = tiny_config(streets)
    del config["train_dataloader"]["dataset"]["pipeline"][1]
    with pytest.raises(UserError, match="LoadAnnotations"):
        fit(config, tmp_path / "run")
