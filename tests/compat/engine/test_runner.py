"""Scripts that train, score and go on with one `Runner`."""

from __future__ import annotations

import warnings

import pytest
import torch


@pytest.fixture
def cfg(photos, newer, monkeypatch):
    """The config of two iterations, as a script changes it."""
    from mmengine.config import Config

    from compat.engine.test_runs import CONFIG
    from compat.models.test_segmentors import NEWER

    monkeypatch.chdir(photos)
    words = {"module": "newer", "transform": "NewTransform", "dataset": "NewDataset", "hook": "NewHook", "model": NEWER}
    (photos / "config.py").write_text(CONFIG.format(**words, metrics='dict(type="IoUMetric", iou_metrics=["mIoU"])'))
    found = Config.fromfile("config.py")
    found.work_dir = "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield found


def test_a_runner_trains_its_model_and_tests_what_it_has_trained(cfg, photos):
    from mmengine.hooks import Hook
    from mmengine.runner import Runner
    from mmseg.apis import init_model

    steps = []

    class Watch(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            steps.append((runner.iter, runner.max_iters))

    runner = Runner.from_cfg(cfg)
    model = runner.model
    torch.nn.init.constant_(model.decode_head.conv_seg.bias, 7.0)
    assert (runner.iter, runner.epoch, runner.max_iters) == (0, 0, 2)
    runner.register_hook(Watch())
    assert [type(hook) for hook in runner.hooks] == [Watch]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert runner.train() is runner.model is model
    assert steps == [(0, 2), (1, 2)] and (runner.iter, runner.max_iters) == (2, 2)
    assert [type(hook).__name__ for hook in runner.hooks] == ["NewHook", "Watch"]
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    bias = model.decode_head.conv_seg.bias.detach().clone()
    assert ((bias - 7.0).abs() < 0.5).all()  # from where the script has put it

    # the weights that are scored are those that the run has saved
    scores = runner.test()
    assert scores["mIoU"] == pytest.approx(runner.val()["mIoU"]) == pytest.approx(runner.files.metrics["mIoU"])
    saved = init_model(cfg, f"{cfg.work_dir}/iter_2.pth", device="cpu")
    assert torch.equal(saved.decode_head.conv_seg.bias, bias) and saved.dataset_meta["classes"][0] == "sky"

    # a cell that is run again trains on, in the same folder
    runner.train()
    assert not torch.equal(model.decode_head.conv_seg.bias, bias) and steps[2:] == [(0, 2), (1, 2)]
    Runner.from_cfg(cfg).train()


def test_a_runner_opens_data_and_files(cfg, photos):
    from mmengine.runner import Runner

    runner = Runner.from_cfg(cfg)
    assert len(runner.val_dataloader.dataset) == len(runner.build_dataloader(cfg.train_dataloader).dataset) == 3
    assert len(runner.val_evaluator.metrics) == 1
    runner.visualizer.add_scalar("own", 1.0)
    runner.message_hub.update_info("own", 2)
    assert runner.message_hub.get_info("own") == 2
    runner.save_checkpoint("kept", "start.pth")
    weight = runner.model.decode_head.conv_seg.weight
    start = weight.detach().clone()
    torch.nn.init.zeros_(weight)
    runner.load_checkpoint("kept/start.pth")
    assert torch.equal(weight, start)
    cfg.load_from = "kept/start.pth"
    assert torch.equal(Runner.from_cfg(cfg).model.decode_head.conv_seg.weight, start)
