"""Models side by side on the same images."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest

import terrazzo as tz
from support.tiny import CLASSES, fit, make_streets, tiny_config, write_config
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.evaluation.compare import compare


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same images: one of a single step, and one that has learnt."""
    root = tmp_path_factory.mktemp("compare")
    streets = make_streets(root / "data", val=8)
    for name, steps in (("poor", 1), ("good", 30)):
        fit(tiny_config(streets, steps=steps, batch=4), root / "runs" / name)
    return root


def test_the_better_run_is_told_on_a_page(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    poor, good = (str(runs / "runs" / name) for name in ("poor", "good"))
    assert main(["compare", poor, good, "--out", str(page), "--device", "cpu", "--no-speed"]) == 0
    text = capsys.readouterr().out
    assert "good is better than poor: mIoU +" in text and "significantly better:" in text and str(page) in text
    content = page.read_text()
    HTMLParser().feed(content)
    for part in ("good against poor", "95% interval", *CLASSES):
        assert part in content


def test_scores_are_those_of_a_test(runs):
    paths = [runs / "runs" / name for name in ("poor", "good")]
    ranking = compare(paths, device="cpu")
    tested = [tz.evaluate(path, path, device="cpu")["mIoU"] for path in paths]
    assert [one.mIoU for one in ranking.contestants] == pytest.approx(tested)
    assert ranking.images == 8 and ranking.size == (32, 40)


def test_a_run_is_no_better_than_itself(runs):
    good = runs / "runs" / "good"
    (outcome,) = compare([good, good / "best.safetensors"], device="cpu").outcomes
    assert "not distinguishable on 8 images: mIoU 0.00" in outcome.verdict("good")
    assert outcome.worst == [] and outcome.classes(1) == outcome.classes(-1) == []


def test_regressions_come_worst_first(runs):
    (outcome,) = compare([runs / "runs" / name for name in ("good", "poor")], device="cpu").outcomes
    lost = [share for _, share in outcome.worst]
    assert lost == sorted(lost, reverse=True) and lost[-1] > 0
    assert len(outcome.pictures) == len(lost) and outcome.verdict("good").startswith("poor is worse than good")
    assert [picture.shape for _, picture in outcome.pictures[0]] == [(32, 40, 3)] * 5


def test_exported_files_are_models_too(exported, tmp_path, capsys):
    arguments = [str(exported.best), str(exported.onnx), "--data", str(exported.config)]
    assert main(["compare", *arguments, "--out", str(tmp_path / "c.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["models"]] == ["best.safetensors", "street.onnx"]
    assert found["against_first"][0]["differences"]["mIoU"]["second"] == pytest.approx(found["models"][0]["mIoU"])
    assert all(one["timing"]["median"] > 0 and one["timing"]["bytes"] > 0 for one in found["models"])


def test_classes_in_another_order(runs, tmp_path):
    """Two people have numbered the same classes differently: each class is compared with itself."""
    order = [2, 0, 1]
    good = runs / "runs" / "good"
    model = tz.load(good, device="cpu").model
    config = tiny_config(runs / "data", steps=1)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        config[loader]["dataset"]["metainfo"]["classes"] = [CLASSES[index] for index in order]
    run = fit(config, tmp_path / "other")
    other = tz.load(run.last, device="cpu").model
    state = model.state_dict()
    for name in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
        state[name] = state[name][order]
    other.load_state_dict(state)
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(run.last, "pt") as file:
        texts = file.metadata()
    save_file(other.state_dict(), tmp_path / "m.safetensors", texts)
    ranking = compare([good, tmp_path / "m.safetensors"], runs / "runs" / "good", device="cpu")
    assert ranking.contestants[0].mIoU == pytest.approx(ranking.contestants[1].mIoU)
    assert np.allclose([found.value for found in ranking.outcomes[0].differences.values()], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classes", r"b has other classes \(sky, road, van\) than good \(sky, road, car\)"),
        ("images", "good and b were not tested on the same images: .*--data CONFIG"),
    ],
)
def test_models_that_cannot_be_compared(runs, tmp_path, change, message):
    make_streets(tmp_path / "data", train=2, val=2)
    config = tiny_config(tmp_path / "data", steps=1)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if change == "classes":
            config[loader]["dataset"]["metainfo"]["classes"] = ["sky", "road", "van"]
    fit(config, tmp_path / "b")
    with pytest.raises(UserError, match=message):
        compare([runs / "runs" / "good", tmp_path / "b"], device="cpu")


def test_weights_alone_need_their_config_and_data(runs, tmp_path):
    import torch

    bare = tmp_path / "bare.pth"
    torch.save(tz.load(runs / "runs" / "good", device="cpu").model.state_dict(), bare)
    with pytest.raises(UserError, match="--config C"):
        compare([bare, bare], device="cpu")
    config = write_config(tmp_path / "c.yaml", tiny_config(runs / "data"))
    ranking = compare([runs / "runs" / "good", bare], config=config, device="cpu")
    assert ranking.contestants[0].mIoU == ranking.contestants[1].mIoU


@pytest.mark.parametrize(
    ("arguments", "message"), [(["runs/a"], "give at least two"), (["a", "b", "--out", "page.txt"], "page.html")]
)
def test_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
