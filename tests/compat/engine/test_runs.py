"""Whole runs with users' modules, metrics and hooks, in both styles."""

from __future__ import annotations

import logging
import re
import shutil
import warnings

import pytest

import terrazzo as tz
from compat.conftest import PLUGINS
from support.tiny import terrazzo

CONFIG = """
custom_imports = dict(imports=["{module}"])
crop = (32, 32)
train_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="{transform}", value=9),
                  dict(type="RandomCrop", crop_size=crop), dict(type="PackSegInputs")]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
data = dict(type="{dataset}", data_root="data")
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=dict(
    type="{dataset}", data_root="data", data_prefix=dict(img_path="train", seg_map_path="train"),
    pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler"), dataset=dict(
    type="{dataset}", data_root="data", data_prefix=dict(img_path="val", seg_map_path="val"), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = {metrics}
test_evaluator = val_evaluator
model = {model}
data_preprocessor = dict(type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                         bgr_to_rgb=True, size=crop)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
param_scheduler = [dict(type="PolyLR", power=0.9, begin=0, end=2, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook", interval=2))
custom_hooks = [dict(type="{hook}")]
"""


@pytest.mark.parametrize("style", ["older", "newer"])
def test_a_run_trains_resumes_scores_and_predicts(style, photos, monkeypatch, request):
    from compat.models.test_segmentors import NEWER, OLDER

    plugins = request.getfixturevalue(style)
    monkeypatch.chdir(photos)
    old = style == "older"
    words = {
        "module": style, "transform": "OldTransform" if old else "NewTransform",
        "dataset": "OldDataset" if old else "NewDataset", "hook": "OldHook" if old else "NewHook",
        "metrics": 'dict(type="IoUMetric", iou_metrics=["mIoU"])' if old else
        '[dict(type="IoUMetric", iou_metrics=["mIoU"]), dict(type="NewMetric", prefix="own")]',
        "model": OLDER if old else NEWER,
    }  # fmt: skip
    (photos / "config.py").write_text(CONFIG.format(**words))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = tz.train("config.py", work_dir="run", trust=True, device="cpu")
        scores = tz.evaluate("config.py", run.best, trust=True, device="cpu")
        labels = tz.load(run.best, device="cpu", trust=True)("data/val/0_photo.png").labels
    assert "mIoU" in run.metrics and labels.shape == (48, 64)
    steps = [call[1] for call in plugins.CALLS if isinstance(call, tuple) and call[0] == "after_train_iter"]
    assert steps == [0, 1]
    if not old:
        assert "own/share" in scores and ("after_val_epoch", True) in plugins.CALLS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["NewSegmentor", "EachSegmentor"])
def test_a_model_of_a_users_modules_becomes_an_onnx_file(newer, kind, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    from compat.models.test_segmentors import NEWER
    from terrazzo.cli.main import main
    from terrazzo.inference.saved_config import describe

    monkeypatch.chdir(tmp_path)
    config = {"model": {**NEWER, "type": kind}, "custom_imports": {"imports": ["newer"]}}
    texts = describe(config, "abc", [[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    save_file(tz.build_model(config).state_dict(), "model.safetensors", texts)
    arguments = ["model.safetensors", "--trust-config", "--out", "model.onnx"]
    assert main(["export", *arguments]) == 0  # which compares the labels
    assert (tmp_path / "model.onnx").is_file()


def test_nothing_is_imported_without_trust(photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "config.py").write_text("custom_imports = dict(imports=['older'])\nmodel = dict(type='OldSegmentor')\n")
    with pytest.raises(tz.errors.UserError, match="--trust-config"):
        tz.build_model(tz.load_config("config.py"))


def test_users_and_terrazzo_itself_say_what_they_do_on_the_screen_and_in_the_log(photos):
    from compat.models.test_segmentors import NEWER

    shutil.copy(PLUGINS / "newer.py", photos)
    words = {"module": "newer", "transform": "NewTransform", "dataset": "NewDataset", "hook": "NewHook", "model": NEWER}
    metrics = '[dict(type="IoUMetric", iou_metrics=["mIoU"]), dict(type="NewMetric", prefix="own")]'
    (photos / "config.py").write_text(CONFIG.format(**words, metrics=metrics))
    done = terrazzo("train", "config.py", "--trust-config", "--work-dir", "run", "--device", "cpu", cwd=photos)
    assert done.returncode == 0, done.stderr
    screen, log = done.stdout + done.stderr, (photos / "run/log.txt").read_text()
    for text in ("get terrazzo's own parts", "the share of right pixels"):  # of NewMetric, by print_log
        assert screen.count(text) == log.count(text) > 0
    assert log.count("get terrazzo's own parts") == 1


def test_a_root_logger_writes_its_file_and_leaves_that_of_python(tmp_path, caplog):
    from mmcv.utils import print_log
    from mmengine.logging import MMLogger
    from mmseg.utils import get_root_logger

    before = logging.root.level, [*logging.root.handlers]
    logger = get_root_logger(log_file=str(tmp_path / "train.log"), log_level="INFO")
    logger.info("it begins")
    print_log("a line", logger)
    print_log("a further line", "mmseg")
    print_log("nobody sees it", "silent")
    text = (tmp_path / "train.log").read_text()
    assert "mmseg - INFO - it begins" in text and text.count("line") == 2 and "nobody" not in text
    own = MMLogger.get_instance("own", log_file=str(tmp_path / "own.log"), log_level="WARNING")
    own.info("too low")
    own.warning("it ends")
    assert (tmp_path / "own.log").read_text().endswith("own - WARNING - it ends\n")
    assert (logging.root.level, logging.root.handlers) == before
    assert [record.message for record in caplog.records][-1] == "it ends"


FAILURES = {
    "hook": ({"hook": "FailingHook"}, "KeyError: 'of the hook'"),
    "metric": ({"metrics": 'dict(type="FailingMetric")'}, "AssertionError: of the metric"),
    "transform": ({"transform": "FailingTransform"}, "FileNotFoundError: of the transform"),
    "transform in a worker": ({"transform": "FailingTransform"}, "KeyError: 'what the transform needs'"),
}


@pytest.mark.parametrize("part", FAILURES)
def test_an_error_in_a_users_part_is_a_failure_at_its_line(part, newer, photos, monkeypatch, capsys):
    """It ends with exit code 1, where a fault of ours has 70."""
    from compat.models.test_segmentors import NEWER
    from terrazzo.cli.main import main

    monkeypatch.chdir(photos)
    metrics = 'dict(type="IoUMetric", iou_metrics=["mIoU"])'
    words = {"transform": "NewTransform", "dataset": "NewDataset", "metrics": metrics, "hook": "NewHook"}
    text = CONFIG.format(**words | FAILURES[part][0], module='newer", "failing', model=NEWER)
    if "worker" in part:
        text = text.replace("num_workers=0", "num_workers=1").replace("value=9", "value=8")
    (photos / "config.py").write_text(text)
    monkeypatch.setattr("sys.argv", ["terrazzo", "train", "config.py", "--trust-config", "--work-dir", "run"])
    assert main() == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(r"error: \S+failing\.py:\d+: ", message) and FAILURES[part][1] in message
    assert "KeyError: KeyError" not in message


def test_parts_of_a_run_of_ones_own_are_imported_and_refused_with_what_to_do(photos, newer, monkeypatch):
    from mmengine.dataset import DefaultSampler
    from mmengine.optim import LRSchedulerMixin, OptimWrapper, PolyLR, _ParamScheduler
    from mmengine.runner import IterBasedTrainLoop
    from mmseg.registry import DATA_SAMPLERS, LOOPS, OPTIM_WRAPPERS, PARAM_SCHEDULERS

    from compat.models.test_segmentors import NEWER

    class HalfParamScheduler(_ParamScheduler): ...

    PARAM_SCHEDULERS.register_module()(type("HalfLR", (LRSchedulerMixin, HalfParamScheduler), {}))
    PARAM_SCHEDULERS.register_module()(type("PolyLRRatio", (PolyLR,), {}))
    DATA_SAMPLERS.register_module()(type("OwnSampler", (DefaultSampler,), {}))
    OPTIM_WRAPPERS.register_module()(type("OwnWrapper", (OptimWrapper,), {}))
    LOOPS.register_module()(type("OwnLoop", (IterBasedTrainLoop,), {}))
    monkeypatch.chdir(photos)
    words = {"module": "newer", "transform": "NewTransform", "dataset": "NewDataset", "hook": "NewHook", "model": NEWER}
    (photos / "config.py").write_text(CONFIG.format(**words, metrics='dict(type="IoUMetric")'))
    for key, kind, advice in (
        ("param_scheduler.0.type", "HalfLR", "curves with their begin and end, or .* before_train_iter"),
        ("train_dataloader.sampler.type", "OwnSampler", "load_data_list"),
        ("optim_wrapper.type", "OwnWrapper", "accumulative_counts, clip_grad"),
        ("train_cfg.type", "OwnLoop", "custom_hooks"),
    ):
        with warnings.catch_warnings(), pytest.raises(tz.errors.UserError, match=f"{kind}.*of your own are.*{advice}"):
            warnings.simplefilter("ignore")
            tz.train("config.py", work_dir="run", trust=True, overrides={key: kind}, quiet=True, check=False)


ITERATIONS = """
before_train_epoch 0 0
before_train_iter 0 0
after_train_iter 0 0
before_val_epoch 1 0
before_train_iter 1 0
after_train_iter 1 0
before_val_epoch 2 0
after_train_epoch 2 0
after_train 2 0
"""
EPOCHS = """
before_train_epoch 0 0
before_train_iter 0 0
after_train_iter 0 0
before_train_iter 1 0
after_train_iter 1 0
after_train_epoch 2 0
before_val_epoch 2 1
before_train_epoch 2 1
before_train_iter 2 1
after_train_iter 2 1
before_train_iter 3 1
after_train_iter 3 1
after_train_epoch 4 1
before_val_epoch 4 2
after_train 4 2
"""


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_run_of_iterations_is_one_epoch_to_hooks(by_epoch, newer, photos, monkeypatch):
    """Points with `iter` and `epoch`, in the order in which MMEngine's loops call them."""
    from mmengine.hooks import Hook
    from mmengine.structures import PixelData
    from mmseg.registry import HOOKS

    from compat.models.test_segmentors import NEWER

    seen = []

    def point(name):
        def method(self, runner, batch_idx=None, data_batch=None, outputs=None):
            seen.append(f"{name} {runner.iter} {runner.epoch}")
            if name.endswith("train_iter"):
                assert [image.shape for image in data_batch["inputs"]] == [(3, 32, 32)] * len(data_batch["inputs"])
                assert isinstance(data_batch["data_samples"][0].gt_sem_seg, PixelData)

        return method

    names = dict.fromkeys(line.split()[0] for line in EPOCHS.split("\n") if line)
    HOOKS.register_module(module=type("Witness", (Hook,), {name: point(name) for name in names}))
    monkeypatch.chdir(photos)
    metrics = 'dict(type="IoUMetric", iou_metrics=["mIoU"])'
    words = {"transform": "NewTransform", "dataset": "NewDataset", "metrics": metrics, "hook": "Witness"}
    text = CONFIG.format(**words, module="newer", model=NEWER)
    loop = 'type="EpochBasedTrainLoop", max_epochs=2, val_interval=1'
    old = 'type="IterBasedTrainLoop", max_iters=2, val_interval=2'
    text = text.replace(old, loop if by_epoch else old.replace("val_interval=2", "val_interval=1"))
    (photos / "config.py").write_text(text)
    tz.train("config.py", work_dir="run", trust=True, device="cpu")
    assert seen == (EPOCHS if by_epoch else ITERATIONS).split("\n")[1:-1]
