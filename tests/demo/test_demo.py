"""`terrazzo demo`: draws, trains, tests, and leaves a page that shows it all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from terrazzo.cli.main import main
from terrazzo.demo.demo import PICTURES, Scenes, run_demo
from terrazzo.demo.scenes import CLASSES
from terrazzo.errors import UserError

TINY = Scenes(train=8, val=2, test=PICTURES, height=64, width=96)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo of four steps on a few scenes."""
    return run_demo(tmp_path_factory.mktemp("tiny") / "demo", iterations=4, scenes=TINY)


def test_it_leaves_a_page_with_curves_table_and_pictures(demo):
    page = demo.report.read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "Loss" in page and "mIoU" in page
    assert all(f"</span>{name}</td>" in page for name in CLASSES)
    assert page.count("<figure>") == 4 * PICTURES
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page must need no other file"


def test_its_curves_hold_the_whole_run(demo):
    page = demo.report.read_text(encoding="utf-8")
    assert len(re.findall("<title>training", page)) == 4
    assert len(re.findall("<title>validation", page)) == 2 * 4  # loss and mIoU


def test_its_metrics_cover_every_class(demo):
    assert list(demo.metrics["per_class"]) == list(CLASSES)
    assert 0 <= demo.metrics["mIoU"] <= 100


def test_its_files_work_with_the_other_commands(demo, tmp_path, capsys):
    folder = demo.report.parent
    assert main(["test", str(folder / "config.yaml"), str(demo.weights), "--device", "cpu"]) == 0
    assert f"mIoU {demo.metrics['mIoU']:.2f}" in capsys.readouterr().out
    image = folder / "data/images/test/0000.png"
    assert main(["predict", str(image), "--model", str(demo.weights), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/0000.png").exists()


def test_a_second_demo_starts_clean_on_the_same_scenes(tmp_path, capsys):
    first = run_demo(tmp_path, iterations=2, scenes=TINY)
    foreign = tmp_path / "notes.txt"
    foreign.write_text("mine")
    scene = tmp_path / "data/images/train/0000.png"
    drawn = scene.stat().st_mtime_ns
    second = run_demo(tmp_path, iterations=2, scenes=TINY)
    assert "reusing" in capsys.readouterr().out
    assert scene.stat().st_mtime_ns == drawn and foreign.read_text() == "mine"
    np.testing.assert_allclose(second.metrics["mIoU"], first.metrics["mIoU"])
    assert (tmp_path / "metrics.jsonl").read_text().count('"step": 2, "mode": "val"') == 1


def test_scenes_that_are_not_all_there_are_drawn_again(tmp_path, monkeypatch):
    def stop(console, data, scenes):
        data.mkdir(exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("terrazzo.demo.demo.draw", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):  # the second draws again, as the first did
            run_demo(tmp_path, scenes=TINY)


def test_other_scenes_replace_those_of_before(tmp_path):
    run_demo(tmp_path, iterations=1, scenes=TINY)
    before = (tmp_path / "data/images/train/0000.png").read_bytes()
    run_demo(tmp_path, iterations=1, scenes=Scenes(train=6, val=1, test=2, height=64, width=96, seed=1))
    assert (tmp_path / "data/images/train/0000.png").read_bytes() != before
    assert len(list((tmp_path / "data/labels/train").iterdir())) == 6


def test_it_does_not_touch_the_folder_of_another_run(tmp_path):
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(b"weeks of work")
    with pytest.raises(UserError, match=r"best\.safetensors.*--work-dir"):
        run_demo(tmp_path, iterations=1, scenes=TINY)
    assert weights.read_bytes() == b"weeks of work"


def test_the_command_says_what_to_try_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("terrazzo.demo.demo.Scenes", lambda seed: TINY)
    assert main(["demo", "--iterations", "1", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert Path("demo/report.html").exists()
    for words in ("demo/report.html", "terrazzo predict", "demo/best.safetensors", "recipe: "):
        assert words in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_learns_to_see_streets(tmp_path):
    demo = run_demo(tmp_path / "demo")
    assert demo.metrics["mIoU"] >= 80, demo.metrics["per_class"]
