"""Training runs from beginning to end, on made and on real images."""

from __future__ import annotations

import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
import yaml

import terrazzo as tz
from support.paths import shared
from support.tiny import (
    CLASSES,
    fit,
    make_streets,
    model_config,
    records,
    same_weights,
    short_form,
    states,
    tiny_config,
    weights,
)
from terrazzo.config.experiment import Averaging, make_experiment
from terrazzo.data.build import open_dataset
from terrazzo.errors import UserError
from terrazzo.training.monitoring.progress import Meter
from terrazzo.training.optim.build import build_optimizer
from terrazzo.training.optim.ema import EMA


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


def test_work_dir_holds_logs_config_weights_and_states(streets, tmp_path):
    run = fit(short_form(streets), tmp_path / "run")
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "log.txt", "metrics.jsonl", "config.yaml", "best.safetensors", "last.safetensors", "checkpoints",
        "pictures", "run.json", "report.html",
    }  # fmt: skip
    assert run.log_path.read_text().count("report: ") == 1
    assert (run.best, run.last, run.log_path) == (
        folder / "best.safetensors",
        folder / "last.safetensors",
        folder / "log.txt",
    )
    assert len({path.stat().st_mode for path in (run.best, run.last, folder / "config.yaml")}) == 1
    assert run.finished and states(folder) == ["step_2.pt", "step_4.pt"]
    assert set(run.metrics) == {"aAcc", "mIoU", "mAcc", "per_class", "loss"}
    assert set(run.metrics["per_class"]) == set(CLASSES)


def test_log_begins_with_what_one_needs_to_know(streets, tmp_path):
    run = fit(short_form(streets), tmp_path / "run")
    head = run.log_path.read_text().split("step 1/")[0]
    for part in (
        str(run.log_path), f"torch {torch.__version__}", "Python 3.", "cores", "device cpu", "1 device",
        "batch size 2 per device, 2 in total", "4 iterations", "3 per epoch", "6 training images",
        "3 validation images",
        "3 classes: sky, road, car", "random weights",
    ):  # fmt: skip
        assert part in head, part
    assert run.log_path.read_text().rstrip().endswith(f"log: {run.log_path}")
    assert "absent" not in head


def test_warnings_are_in_the_log_too_also_those_before_it(streets, tmp_path):
    config = tiny_config(streets, steps=1, img_norm_cfg={"mean": [0]}, model=model_config(num_classes=3))
    config["data"] = {"samples_per_gpu": 2}
    with pytest.warns(UserWarning, match="have no effect"):
        run = fit(config, tmp_path / "run")
    log = run.log_path.read_text()
    assert log.count("warning: ") == 1 and "have no effect: 'data'" in log


def test_every_line_of_the_metrics_file_is_an_object_with_its_step(streets, tmp_path):
    fit(short_form(streets), tmp_path / "run")
    train, val = records(tmp_path / "run", "train"), records(tmp_path / "run", "val")
    assert [line["step"] for line in train] == [1, 2, 3, 4]
    assert [line["step"] for line in val] == [2, 4]
    assert {"decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "loss", "lr", "seconds", "data_share"} <= set(train[0])
    assert train[0]["loss"] == pytest.approx(train[0]["decode.loss_ce"] + train[0]["aux.loss_ce"], rel=1e-5)
    assert all(line["loss"] > 0 for line in val)


def test_epochs(streets, tmp_path):
    config = short_form(streets, epochs=2, val_interval=1)
    del config["iterations"]
    fit(config, tmp_path / "run")
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in records(tmp_path / "run", "val")] == [3, 6]


def test_a_run_learns(streets, tmp_path):
    config = tiny_config(streets, steps=60, batch=4)
    run = fit(config, tmp_path / "run")
    assert run.metrics["mIoU"] > 80
    assert tz.evaluate(config, run.best, device="cpu")["mIoU"] == pytest.approx(run.metrics["mIoU"])


def test_the_same_seed_gives_the_same_weights_and_another_one_others(streets, tmp_path):
    one, other, third = (
        fit(tiny_config(streets, steps=3, randomness={"seed": seed}), tmp_path / name).last
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same_weights(one, other)
    assert not same_weights(one, third)


def test_resize_holds_for_training_validation_and_prediction(streets, tmp_path):
    sizes = []
    config = short_form(streets, resize="48x60", ratio_range=[1.0, 1.0], crop="48x60", iterations=2)
    run = fit(config, tmp_path / "run")
    segmenter = tz.load(run.last, device="cpu")
    segmenter.model.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-2:]))
    image = next((streets / "images" / "val").iterdir())
    assert segmenter(image).labels.shape == (32, 40)
    assert [tuple(size) for size in sizes] == [(48, 60)]
    experiment = make_experiment(tz.load_config(config))
    assert open_dataset(experiment.train, 3, "train_dataloader", 0)[0, 0].image.shape[:2] == (48, 60)


def test_camvid_trains_from_the_short_form(camvid, tmp_path):
    names = [path.name for path in sorted((camvid / "images" / "train").iterdir())[:4]]
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
            for name in names:
                shutil.copy(camvid / kind / "train" / name, tmp_path / kind / split / name)
    classes = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    data = {"root": str(tmp_path), "classes": classes, "ignore": [11]}
    # four images, the same for validation: not what the check would let pass
    run = fit(short_form(tmp_path, data=data, crop="96x96", iterations=2), tmp_path / "run", check=False)
    assert set(run.metrics["per_class"]) == set(classes)


def test_drive_trains_with_split_files_and_tiff_images(tmp_path):
    drive = shared("data", "drive")
    stems = [path.stem for path in sorted((drive / "images").iterdir())]
    for name, chosen in (("train.txt", stems[:2]), ("val.txt", stems[2:3])):
        (tmp_path / name).write_text("\n".join(chosen))
    data = {
        "root": str(drive),
        "classes": ["background", "vessel"],
        "train": str(tmp_path / "train.txt"),
        "val": str(tmp_path / "val.txt"),
    }
    run = fit(short_form(tmp_path, data=data, crop="64x64", iterations=2), tmp_path / "run")
    assert set(run.metrics["per_class"]) == {"background", "vessel"}


@pytest.mark.parametrize(
    "optimizer",
    [
        {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005},
        {"type": "Adam", "lr": 0.001},
        {"type": "AdamW", "lr": 0.001, "betas": [0.9, 0.99], "weight_decay": 0.01},
    ],
    ids=lambda spec: spec["type"],
)
def test_optimizers(streets, tmp_path, optimizer):
    config = tiny_config(streets, steps=2, optim_wrapper={"type": "OptimWrapper", "optimizer": optimizer})
    fit(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "step_2.pt", weights_only=True)
    assert state["optimizer_type"] == optimizer["type"]


def test_paramwise_settings_make_groups():
    model = tz.build_model(model_config())
    paramwise = {"custom_keys": {"decode_head": {"lr_mult": 10.0}}, "norm_decay_mult": 0.0}
    optimizer = build_optimizer(model, {"type": "SGD", "lr": 0.1, "weight_decay": 0.5}, paramwise)
    found = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {(1.0, 0.5), (0.1, 0.5), (0.1, 0.0)}
    total = sum(len(group["params"]) for group in optimizer.param_groups)
    assert total == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"type": "AdmaW", "lr": 0.1}, "'AdamW'"),
        ({"type": "SGD", "lr": 0.1, "momentun": 0.9}, "'momentum'"),
    ],
)
def test_a_misspelt_optimizer_answers_with_the_nearest(streets, tmp_path, optimizer, message):
    config = tiny_config(streets, optim_wrapper={"type": "OptimWrapper", "optimizer": optimizer})
    with pytest.raises(UserError, match=message):
        fit(config, tmp_path / "run")


def test_the_learning_rate_follows_the_schedule(streets, tmp_path):
    fit(tiny_config(streets, steps=5), tmp_path / "run")
    rates = [line["lr"] for line in records(tmp_path / "run", "train")]
    assert rates == pytest.approx([0.1 * (1 - step / 4) ** 0.9 for step in range(5)], abs=1e-9)


def test_accumulation_equals_the_larger_batch(streets, tmp_path):
    """Up to batch norm, which is left out here; the learning rate is constant."""
    model = model_config(dropout=0.0)
    model["backbone"]["norm_cfg"] = model["decode_head"]["norm_cfg"] = {"type": "GN", "num_groups": 2}
    settings = {"model": model, "param_scheduler": [], "train_cfg": {"max_iters": 4, "val_interval": 4}}
    plain = {"type": "SGD", "lr": 0.1, "momentum": 0.9}
    wrapper = {"type": "OptimWrapper", "optimizer": plain, "accumulative_counts": 2}
    small = tiny_config(streets, **settings, batch=1, optim_wrapper=wrapper)
    large = tiny_config(streets, **(settings | {"train_cfg": {"max_iters": 2, "val_interval": 2}}), batch=2)
    one, other = weights(fit(small, tmp_path / "a").last), weights(fit(large, tmp_path / "b").last)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_gradient_clipping_bounds_the_step(streets, tmp_path):
    wrapper = {
        "type": "OptimWrapper",
        "optimizer": {"type": "SGD", "lr": 1.0},
        "clip_grad": {"max_norm": 1e-3, "norm_type": 2},
    }
    start = weights(fit(tiny_config(streets, steps=1, param_scheduler=[]), tmp_path / "free").last)
    config = tiny_config(streets, steps=1, param_scheduler=[], optim_wrapper=wrapper)
    torch.manual_seed(3)
    first = tz.build_model(config).state_dict()
    clipped = weights(fit(config, tmp_path / "clipped").last)

    def moved(other):
        trained = [name for name in first if name.endswith(("weight", "bias"))]
        return sum(float((other[name] - first[name]).square().sum()) for name in trained) ** 0.5

    assert moved(clipped) == pytest.approx(1e-3, rel=1e-3)
    assert moved(start) > 2e-3


def test_a_misspelt_clipping_argument_is_named(streets, tmp_path):
    wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 1.0}, "clip_grad": {"max_nrom": 1}}
    with pytest.raises(UserError, match="max_norm"):
        fit(tiny_config(streets, steps=1, optim_wrapper=wrapper), tmp_path / "run")


@pytest.mark.parametrize(("amp", "name"), [("bf16", "bf16"), ("fp16", "fp16"), (True, "bf16"), (None, None)])
def test_mixed_precision(streets, tmp_path, amp, name):
    run = fit(tiny_config(streets, steps=2), tmp_path / "run", amp=amp)
    assert (f"mixed precision {name}" if name else "float32") in run.log_path.read_text()
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(run.last).values())
    saved = tz.load_config(run.work_dir / "config.yaml")["optim_wrapper"]
    assert saved["type"] == ("AmpOptimWrapper" if amp else "OptimWrapper")


def test_unknown_precision(streets, tmp_path):
    with pytest.raises(UserError, match="neither bf16 nor fp16"):
        fit(tiny_config(streets), tmp_path / "run", amp="int8")


def test_ema_follows_the_weights_and_is_what_is_saved(streets, tmp_path):
    config = tiny_config(streets, steps=4, custom_hooks=[{"type": "EMAHook", "momentum": 0.01}])
    run = fit(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "step_4.pt", weights_only=True)
    saved = weights(run.last)
    assert all(torch.equal(saved[name], state["ema"][name]) for name in saved)
    assert any(not torch.equal(saved[name], state["model"][name]) for name in saved)


def test_the_average_starts_fast_and_ends_at_its_momentum():
    source, average = torch.nn.Linear(1, 1, bias=False), None
    with torch.no_grad():
        source.weight.fill_(0.0)
        average = EMA(source, Averaging("ema", 0.01))
        source.weight.fill_(1.0)
        average.update(source, 1)
        assert average.average.weight.item() == pytest.approx(0.9)
        average.average.weight.fill_(0.0)
        average.update(source, 10**6)
        assert average.average.weight.item() == pytest.approx(0.01)


def test_best_keeps_the_highest_score_and_last_the_last_weights(streets, tmp_path, monkeypatch):
    from terrazzo.training import validation

    scores = iter([10.0, 30.0, 20.0])
    original = validation.run_evaluation

    def scripted(*args, **kwargs):
        return original(*args, **kwargs) | {"mIoU": next(scores)}

    monkeypatch.setattr(validation, "run_evaluation", scripted)
    config = tiny_config(streets, steps=3, train_cfg={"max_iters": 3, "val_interval": 1})
    run = fit(config, tmp_path / "run")
    meta = tz.models.checkpoint.read_checkpoint(run.best).meta
    assert (meta["step"], meta["metrics"]["mIoU"]) == (2, 30.0)
    assert tz.models.checkpoint.read_checkpoint(run.last).meta["step"] == 3


@pytest.mark.parametrize(
    ("interval", "keep", "expected"),
    [
        (1, None, ["step_5.pt", "step_6.pt"]),  # two are kept unless the config says otherwise
        (2, 1, ["step_6.pt"]),
        (2, -1, ["step_2.pt", "step_4.pt", "step_6.pt"]),
        (-1, 3, ["step_6.pt"]),  # the end alone
    ],
)
def test_states_are_saved_at_intervals_and_old_ones_deleted(streets, tmp_path, interval, keep, expected):
    hook = {"type": "CheckpointHook", "interval": interval, "by_epoch": False}
    hook |= {} if keep is None else {"max_keep_ckpts": keep}
    fit(tiny_config(streets, default_hooks={"checkpoint": hook}), tmp_path / "run")
    assert states(tmp_path / "run") == expected


def test_a_run_replaces_an_earlier_one_where_that_is_asked_for(streets, tmp_path):
    fit(tiny_config(streets, steps=6), tmp_path / "run")
    run = fit(tiny_config(streets, steps=2), tmp_path / "run", overwrite=True)
    assert states(tmp_path / "run") == ["step_2.pt"]
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2]
    assert "earlier run" in run.log_path.read_text()
    assert tz.models.checkpoint.read_checkpoint(run.best).meta["step"] == 2


def test_a_run_without_validation_data(streets, tmp_path):
    config = tiny_config(streets, steps=2)
    del config["val_dataloader"], config["test_dataloader"]
    run = fit(config, tmp_path / "run")
    assert run.best is None and run.metrics == {} and run.last.exists()


def test_one_class_for_all_pixels_is_warned_of(streets, tmp_path):
    model = model_config(dropout=0.0)
    config = tiny_config(streets, steps=1, model=model)
    config["optim_wrapper"]["optimizer"]["lr"] = 0.0
    torch.manual_seed(3)
    untrained = tz.build_model(config)
    torch.nn.init.zeros_(untrained.decode_head.conv_seg.weight)
    torch.nn.init.constant_(untrained.decode_head.conv_seg.bias, 0.0)
    untrained.decode_head.conv_seg.bias.data[1] = 5.0
    torch.save(untrained.state_dict(), tmp_path / "road.pth")
    run = fit(config | {"load_from": str(tmp_path / "road.pth")}, tmp_path / "run")
    assert "every pixel was predicted as 'road'" in run.log_path.read_text()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_binary_segmentation_with_one_channel_end_to_end(tmp_path, threshold):
    make_streets(tmp_path / "data")
    head = {"out_channels": 1, "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True}}
    head |= {} if threshold is None else {"threshold": threshold}
    config = tiny_config(tmp_path / "data", steps=40, batch=4, model=model_config(2, **head))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        config[loader]["dataset"] |= {"metainfo": {"classes": ["ground", "sky"]}, "label_map": {0: 1, 1: 0, 2: 0}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(config, tmp_path / "run")
    assert any("0.3" in str(warning.message) for warning in caught) == (threshold is None)
    assert run.metrics["mIoU"] > 80
    prediction = tz.load(run.best, device="cpu")(tmp_path / "data" / "images" / "val" / "00.png")
    assert prediction.probs.shape == (2, 32, 40)
    foreground = prediction.probs[1] > (0.3 if threshold is None else threshold)
    assert (prediction.labels == foreground).all()


def test_the_number_of_classes_must_fit(streets, tmp_path):
    with pytest.raises(UserError, match=r"3 classes.*num_classes=4.*num_classes=3"):
        fit(tiny_config(streets, model=model_config(4)), tmp_path / "run")


def test_pretrained_weights_are_never_downloaded(streets, tmp_path):
    with pytest.raises(UserError, match=r"--pretrained PATH, or --pretrained none"):
        fit(tiny_config(streets), tmp_path / "run", pretrained="open-mmlab://resnet18_v1c")


def test_pretrained_weights_from_a_path(streets, tmp_path):
    first = fit(tiny_config(streets, steps=1), tmp_path / "a")
    second = fit(tiny_config(streets, steps=1), tmp_path / "b", pretrained=str(first.last))
    assert "backbone: loaded" in second.log_path.read_text()


def test_validation_and_saving_take_no_time_of_the_steps():
    meter = Meter()
    with meter.paused():
        time.sleep(0.2)
    meter.add({"loss_ce": torch.tensor(1.0)})
    assert meter.seconds_per_step < 0.1


def test_the_log_of_a_failed_run_has_no_value_of_the_environment(streets, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTS_OF_A_TEST", "/secret-place/of-weights.pth")
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(tiny_config(streets, load_from="{{ $WEIGHTS_OF_A_TEST }}")))
    with pytest.raises(UserError, match="secret-place"):
        fit(path, tmp_path / "run", trust=True)
    logged = (tmp_path / "run" / "log.txt").read_text()
    assert "secret-place" not in logged and "$WEIGHTS_OF_A_TEST" in logged
