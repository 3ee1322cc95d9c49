"""The `terrazzo` program: what it writes, what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from support.paths import REPOSITORY, SHARED
from support.tiny import (
    CLASSES,
    environment,
    fit,
    make_streets,
    records,
    same_weights,
    save_image,
    short_form,
    street,
    terrazzo,
    tiny_config,
    write_config,
)
from terrazzo.cli.main import COMMANDS, main, make_parser, show_warning
from terrazzo.cli.parser import flags, subcommands
from terrazzo.config.experiment import make_experiment
from terrazzo.inference.segmenter import Prediction
from terrazzo.system.failures import note
from terrazzo.system.painting import overlay
from terrazzo.system.palette import suggested_palette


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def config(streets) -> Path:
    return write_config(streets / "config.yaml", tiny_config(streets, steps=40, batch=4))


@pytest.fixture(scope="module")
def best(config, tmp_path_factory) -> Path:
    return fit(config, tmp_path_factory.mktemp("run")).best


@pytest.fixture
def run(capsys, monkeypatch):
    """Call the program in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way out
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


# train


def test_train(run, streets, tmp_path):
    config = write_config(tmp_path / "my.yaml", short_form(streets))
    code, out, err = run("train", config, "--work-dir", tmp_path / "run", "--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == lines[-1] == f"log: {tmp_path}/run/log.txt"
    assert any(line.startswith(f"weights: {tmp_path}/run/last.safetensors, best: ") for line in lines)
    steps = [line for line in lines if re.match(r"step \d/4  lr ", line)]
    assert len(steps) == 4 and all(" s/step  data " in line and " left " in line for line in steps)
    assert len([line for line in lines if re.match(r"step \d  val  mIoU ", line)]) == 2


def test_train_options(run, streets, tmp_path):
    config = write_config(tmp_path / "my.yaml", tiny_config(streets, steps=3))
    options = [
        "--amp",
        "--pretrained",
        "none",
        "--cfg-options",
        "train_cfg.max_iters=2",
        "model.decode_head.channels=6",
    ]
    code, out, _ = run("train", config, "--work-dir", tmp_path / "run", *options)
    assert code == 0 and "mixed precision bf16" in out and "2 iterations" in out
    assert tz.load_config(tmp_path / "run" / "config.yaml")["model"]["decode_head"]["channels"] == 6


def test_the_default_work_dir_has_the_configs_name(run, streets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "my_first.model.yaml", tiny_config(streets, steps=1))
    assert run("train", "my_first.model.yaml")[0] == 0
    assert (tmp_path / "runs" / "my_first.model" / "last.safetensors").exists()


# test


def test_test_prints_and_writes(run, config, best, streets, tmp_path):
    out_dir, show_dir = tmp_path / "out", tmp_path / "show"
    code, out, err = run(
        "test", config, best, "--out", out_dir, "--show-dir", show_dir, "--opacity", "1", "--eval", "mIoU", "mDice",
        "mFscore",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert f"loaded {len(tz.models.checkpoint.read_checkpoint(best).weights)} of" in out
    for text in (*CLASSES, "IoU", "Dice", "Fscore", "mFscore ", "mIoU ", str(out_dir), str(show_dir)):
        assert text in out
    result = json.loads((out_dir / "metrics.json").read_text())
    assert result == tz.evaluate(config, best, metrics=["mIoU", "mDice", "mFscore"])
    segmenter = tz.load(best)
    for index in range(3):
        prediction = segmenter(streets / "images" / "val" / f"{index:02d}.png")
        np.testing.assert_array_equal(np.array(Image.open(out_dir / f"{index:02d}.png")), prediction.labels)
        shown = cv2.imread(str(show_dir / f"{index:02d}.png"))[..., ::-1]
        np.testing.assert_array_equal(shown[:32, :40], prediction.overlay(1))
    assert {path.name for path in show_dir.iterdir()} == {"00.png", "01.png", "02.png"}


def test_test_with_half_opacity_shows_the_image_with_its_labels_beside(run, config, best, streets, tmp_path):
    assert run("test", config, best, "--show-dir", tmp_path)[0] == 0
    shown = cv2.imread(str(tmp_path / "00.png"))[..., ::-1]
    prediction = tz.load(best)(streets / "images" / "val" / "00.png")
    np.testing.assert_array_equal(shown[:32, :40], prediction.overlay(0.5))
    label = cv2.imread(str(streets / "labels" / "val" / "00.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(shown[:32, 48:88], overlay(prediction.image, label, prediction.palette, 0.5))


def test_writing_into_the_data_set_does_not_overwrite_it(run, config, best, tmp_path, streets):
    copy = tmp_path / "data"
    shutil.copytree(streets, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*.png")}
    overrides = ["--cfg-options", f"test_dataloader.dataset.data_root={copy}"]
    assert run("test", config, best, "--out", copy / "images" / "val", *overrides)[0] == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (copy / "images" / "val" / "val_00.png").exists()


# predict


def shown(folder: Path) -> set[str]:
    """The files in a folder that are not hidden, as a run's manifest is."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_predict_an_image(run, best, streets, tmp_path):
    photo = streets / "images" / "val" / "00.png"
    code, out, err = run("predict", photo, "--model", best, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"1 of 1 segmented; class maps and pictures: {tmp_path}/out"
    prediction = tz.load(best)(photo)
    with Image.open(tmp_path / "out" / "00.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), prediction.labels)
        assert image.getpalette()[:9] == np.ravel(suggested_palette(CLASSES)).tolist()
    picture = cv2.imread(str(tmp_path / "out" / "00_overlay.png"))[..., ::-1]
    np.testing.assert_array_equal(picture[:32, :40], prediction.overlay(0.5))
    assert picture.shape[1] > 40, "the legend stands beside it"


def test_predict_a_folder_and_single_files(run, best, streets, tmp_path):
    folder, single = streets / "images" / "val", streets / "images" / "train" / "05.png"
    assert run("predict", folder, single, "--model", best, "--out", tmp_path)[0] == 0
    assert shown(tmp_path) == {f"{stem}{end}.png" for stem in ("00", "01", "02", "05") for end in ("", "_overlay")}


def test_files_of_one_name_keep_apart(run, best, streets, tmp_path):
    photos = [streets / "images" / split / "00.png" for split in ("val", "train")]
    photos.append(tmp_path / "00.jpg")
    cv2.imwrite(str(photos[2]), street(3)[0])
    assert run("predict", *photos, "--model", best, "--out", tmp_path / "out")[0] == 0
    assert len(shown(tmp_path / "out")) == 6


def test_a_prediction_does_not_overwrite_its_image(run, best, streets, tmp_path, monkeypatch):
    shutil.copy(streets / "images" / "val" / "00.png", tmp_path / "photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    assert run("predict", "photo.png", "--model", best, "--out", ".")[0] == 0
    assert (tmp_path / "photo.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_one_bad_file_does_not_lose_the_others(run, best, streets, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(streets / "images" / "val", folder)
    (folder / "01.png").write_bytes(b"no image")
    code, out, err = run("predict", folder, "--model", best, "--out", tmp_path / "out")
    assert code == 1
    assert out.splitlines()[-1].startswith("2 of 3 segmented")
    (line,) = err.splitlines()
    assert line.startswith("error: cannot decode") and "01.png" in line
    assert (tmp_path / "out" / "02.png").exists() and not (tmp_path / "out" / "01.png").exists()


def test_predict_a_tree_of_folders(run, best, tmp_path):
    root = tmp_path / "drives"
    for index, name in enumerate(["a.png", "city/a.png", "city/night/b.JPG", ".cache/c.png", "results/old.png"]):
        save_image(root / name, street(index)[0])
    (root / "city" / "notes.txt").write_text("x")
    for _ in range(2):  # what it has written is not segmented again
        code, out, _ = run("predict", root, "--model", best, "--out", root / "results")
        assert code == 0 and "3 of 3 segmented" in out
    written = {path.relative_to(root / "results").as_posix() for path in (root / "results").rglob("*.png")}
    pictures = {f"{stem}{ending}.png" for stem in ("a", "city/a", "city/night/b") for ending in ("", "_overlay")}
    assert written == pictures | {"old.png"}


def test_predict_a_pattern(run, best, tmp_path):
    for name in ("a.png", "b.png", "deep/c.png", "d.jpg"):
        save_image(tmp_path / "photos" / name, street(1)[0])
    pattern = f"{tmp_path}/photos/**/*.png"
    assert run("predict", pattern, "--model", best, "--out", tmp_path / "out")[0] == 0
    assert sorted(path.stem for path in (tmp_path / "out").glob("?.png")) == ["a", "b", "c"]
    code, _, err = run("predict", f"{tmp_path}/photos/*.gif", "--model", best, "--out", tmp_path / "other")
    assert code == 1 and "there is no file or folder" in err and not (tmp_path / "other").exists()


def test_bad_files_among_good_ones_are_named_at_the_end(run, best, tmp_path):
    for index in range(3):
        save_image(tmp_path / "photos" / f"{index}.png", street(index)[0])
    for name in ("0_bad.png", "1_bad.mp4"):
        (tmp_path / "photos" / name).write_bytes(b"nothing")
    code, out, err = run("predict", tmp_path / "photos", "--model", best, "--out", tmp_path / "out")
    assert code == 1 and "3 of 5 segmented" in out
    named = [line.partition("photos/")[2].split()[0].rstrip(":;,") for line in err.splitlines()]
    assert named == ["0_bad.png", "1_bad.mp4"]
    assert shown(tmp_path / "out") == {f"{index}{ending}.png" for index in range(3) for ending in ("", "_overlay")}


def write_video(path: Path, frames: int = 5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no mp4 videos")
    for index in range(frames):
        writer.write(street(index, 48, 64)[0][..., ::-1])
    writer.release()


def test_predict_a_video(run, best, tmp_path):
    write_video(tmp_path / "drive.mp4")
    assert run("predict", tmp_path / "drive.mp4", "--model", best, "--out", tmp_path / "out")[0] == 0
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "drive_overlay.mp4"
    capture = cv2.VideoCapture(str(path))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (5, 10)
    found, frame = capture.read()
    assert found and frame.shape == (48, 64, 3)
    expected = tz.load(best)(street(0, 48, 64)[0]).overlay(0.5)
    assert np.abs(frame[..., ::-1].astype(int) - expected).mean() < 25


def test_a_broken_video_is_named(run, best, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    code, _, err = run("predict", tmp_path / "x.mp4", "--model", best, "--out", tmp_path / "out")
    assert code == 1 and "x.mp4 cannot be read as a video" in err


# Mistakes


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train"],
        ["train", "x.yaml", "--amp", "int8"],
        ["train", "x.yaml", "--cfg-options", "nothing"],
        ["train", "x.yaml", "--nonsense"],
        ["test", "x.yaml"],
        ["test", "x.yaml", "y.pth", "--opacity", "2"],
        ["predict"],
        ["predict", "x.png", "--opacity", "much"],
        ["config"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.startswith("usage: terrazzo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "missing.yaml"], "there is no config file missing.yaml"),
        (["test", "missing.py", "x.pth"], "there is no config file missing.py"),
        (["predict", "missing.png", "--model", "missing.safetensors"], "no checkpoint file missing.safetensors"),
        (["config", "show", "missing.json"], "there is no config file missing.json"),
        (["config", "show", "psnet"], "psnet"),
    ],
    ids=" ".join,
)
def test_failing_is_1_with_one_line(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    (line,) = err.splitlines()
    assert code == 1 and line.startswith("error: ") and message in line
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        ("trian street.yaml", "did you mean 'train'?"),
        ("street.yaml", "did you mean 'terrazzo train street.yaml'?"),
        ("infer a.png", "did you mean 'terrazzo predict'?"),
        ("get_flops c.py", "did you mean 'terrazzo model info'?"),
        ("data chekc c.yaml", "did you mean 'check'?"),
        ("train c.yaml --work_dir w", "there is no --work_dir; did you mean '--work-dir'?"),
        ("train c.yaml --epoch 3", "there is no --epoch"),
        ("model info c.yaml --sise 3", "did you mean '--size'"),
        ("test c.yaml x.pth --show_dir=d", "did you mean '--show-dir'?"),
        ("config show c.yaml d.yaml", "'d.yaml' is one argument too many"),
        ("recipe list --sort miou", "did you mean 'mIoU'?"),
        ("predict a.png a.pth b.pth", "b.pth is not an image, and --model a.pth is given already"),
        ("predict a.yaml", "give at least one image"),
    ],
)
def test_a_misspelt_call_is_answered_with_the_nearest(run, call, meant):
    code, _, err = run(*call.split())
    assert code == 2 and meant in err.splitlines()[-1]


def test_without_a_command_the_help_is_shown(run):
    code, out, _ = run()
    assert code == 0 and out == run("--help")[1]
    assert all(f"  {command} " in out for command in COMMANDS) and "examples:" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("flag", ["--resume={}", "--resume {}", "--resume-from {}"])
def test_resuming_from_anything_but_a_state_says_how_to_start_from_it(run, config, best, tmp_path, flag):
    work_dir, missing = tmp_path / "run", tmp_path / "none.pth"
    for path, message in (
        (missing, "there is no state"),
        (best, f"start a new run from its weights with --load-from {best}"),
    ):
        code, _, err = run("train", config, "--work-dir", work_dir, *flag.format(path).split())
        assert code == 1 and message in err and not work_dir.exists()


def test_a_state_is_continued_in_its_run_or_in_another_folder(run, streets, tmp_path, monkeypatch):
    config = write_config(tmp_path / "c.yaml", tiny_config(streets, steps=3))
    whole = fit(config, tmp_path / "whole")
    fit(config, tmp_path / "a", max_steps=1)
    state = tmp_path / "a" / "checkpoints" / "step_1.pt"
    code, out, err = run("train", config, "--resume-from", state, "--work-dir", tmp_path / "b", "--device", "cpu")
    assert code == 0 and "resumed at step 1 of 3" in out, err
    assert [line["step"] for line in records(tmp_path / "a", "train")] == [1]
    code, out, _ = run("train", config, "--resume-from", tmp_path / "a", "--device", "cpu")
    assert code == 0 and f"log: {tmp_path / 'a'}" in out
    for folder in "ab":
        assert same_weights(tmp_path / folder / "last.safetensors", whole.last)


def test_a_run_is_a_model_wherever_one_is_expected(run, best, streets, tmp_path):
    folder, image = best.parent, streets / "images" / "val" / "00.png"
    code, out, err = run("test", folder, "--device", "cpu")
    assert code == 0 and "mIoU" in out, err
    assert run("test", folder / "config.yaml", folder, "--device", "cpu")[1] == out
    assert run("predict", image, "--model", folder, "--out", tmp_path)[0] == 0
    assert str(best) in run("checkpoint", "inspect", folder)[1]
    assert run("config", "show", folder)[1] == run("config", "show", folder / "config.yaml")[1]
    code, _, err = run("predict", image, "--model", tmp_path)
    assert code == 1 and "has no weights of a run" in err


def test_images_come_before_config_and_checkpoint_as_in_mmsegmentations_scripts(run, config, best, streets, tmp_path):
    image = streets / "images" / "val" / "00.png"
    for order, name in (((image, config, best), "a"), ((image, best), "b")):
        assert run("predict", *order, "--out", tmp_path / name)[0] == 0
    expected = run("predict", image, "--model", best, "--out", tmp_path / "c")
    assert expected[0] == 0
    assert len({(tmp_path / name / "00.png").read_bytes() for name in "abc"}) == 1


def test_several_processes_write_the_files_of_one(config, best, streets, tmp_path):
    written = []
    for number, extra in (("1", ["--gpus", 1]), ("2", ["--gpus", 2])):
        show, out = tmp_path / f"show{number}", tmp_path / f"out{number}"
        result = terrazzo("test", config, best, "--device", "cpu", *extra, "--show-dir", show, "--out", out)
        assert result.returncode == 0, result.stderr
        names = [path.name for folder in (show, out) for path in sorted(folder.iterdir())]
        contents = [path.read_bytes() for folder in (show, out) for path in sorted(folder.glob("*.png"))]
        written.append((names, contents, json.loads((out / "metrics.json").read_text())["mIoU"]))
    assert written[0] == written[1] and len(written[0][0]) == 7


def test_predict_names_the_missing_image(run, best, tmp_path):
    code, _, err = run("predict", tmp_path / "none.png", "--model", best, "--out", tmp_path / "out")
    assert code == 1 and err.strip() == f"error: there is no file or folder {tmp_path}/none.png"


def test_help_of_every_command(run):
    for command in COMMANDS:
        if (Path(tz.__file__).parent / "cli" / f"{command}.py").exists():
            code, out, _ = run(command, "--help")
            assert code == 0 and out.startswith(f"usage: terrazzo {command}")


def test_version_and_doctor(run):
    assert run("--version")[:2] == (0, f"terrazzo {tz.__version__}\n")
    code, out, _ = run("doctor")
    assert code == 0 and "torch" in out and "all required packages are installed" in out


def test_every_extra_is_for_a_feature_that_exists():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("\n[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = ", section, re.MULTILINE)) - {"dev", "docs"}
    source = "".join(path.read_text(encoding="utf-8") for path in Path(tz.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"terrazzo\[(\w+)\]", source)) | set(
        re.findall(r'import_extra\((?:"[\w.]+"|\w+), "(\w+)"', source)
    )
    assert extras and extras == named, "the code names an extra where it needs it"


def test_every_command_that_a_message_names_exists():
    """`terrazzo data check` in a message or a comment is a command, and its flags are flags of it."""
    source = "".join(path.read_text(encoding="utf-8") for path in Path(tz.__file__).parent.rglob("*.py"))
    calls = {" ".join(call.split()) for call in re.findall(r"`terrazzo ([a-z][^`{}]*)`", source)}
    assert len(calls) > 10
    for call in calls:
        command, *rest = call.split()
        assert command in COMMANDS, call
        parser = subcommands(make_parser(command)).choices[command]
        actions = subcommands(parser)
        if actions is not None and rest:
            assert rest[0] in actions.choices, call
            parser = actions.choices[rest[0]]
        assert {word for word in rest if word.startswith("--")} <= {*flags(parser), "--help"}, call


def test_opencv_keeps_quiet_from_the_first_import(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    program = f"import terrazzo, cv2; cv2.imread({str(tmp_path / 'bad.png')!r}); cv2.imread('none.png')"
    plain = {key: value for key, value in environment().items() if key != "OPENCV_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", program], env=plain, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_interrupting_a_command_prints_no_traceback(run, config, best, monkeypatch):
    monkeypatch.setattr(
        "terrazzo.evaluation.evaluate.evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert run("test", config, best)[::2] == (1, "stopped\n")


SHORTAGES = {
    "CUDA": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand so on"),
    "torch": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: tried to allocate 2147483648 bytes"
    ),
    "NumPy": MemoryError("Unable to allocate 2.00 GiB for an array"),
    "OpenCV": cv2.error("(-4:Insufficient memory) Failed to allocate 2147483648 bytes in function 'OutOfMemoryError'"),
    "C++": RuntimeError("std::bad_alloc"),
}


@pytest.mark.parametrize("library", SHORTAGES)
def test_running_out_of_memory_says_what_to_do(run, config, best, monkeypatch, library):
    monkeypatch.setattr("terrazzo.evaluation.evaluate.evaluate", raising(SHORTAGES[library]))
    code, _, err = run("test", config, best)
    assert code == 1 and err.startswith("error: not enough memory for `terrazzo test`") and "smaller batch" in err
    assert re.search(r"\((2.00 GiB|2,048 MiB) more\)", err) or library == "C++"
    assert len(err.splitlines()) == 1


def raising(problem: BaseException):
    def fail(*_, **__):
        raise problem

    return fail


def test_an_unexpected_error_says_what_was_done_and_where_its_traceback_is(config, best, monkeypatch, capsys):
    problem = KeyError("no such thing")
    note(problem, "to predict street.png")
    inner: dict = {"KeyError": problem}
    exec("def fail(*_, **__):\n    raise KeyError", inner)  # in no file of a user's
    monkeypatch.setattr("terrazzo.evaluation.evaluate.evaluate", inner["fail"])
    command = ["test", str(config), str(best)]
    with pytest.raises(KeyError):  # a program that gives the arguments sees the error itself
        main(command)
    problem.__traceback__ = None
    monkeypatch.setattr(sys, "argv", ["terrazzo", *command])
    assert main() == 70
    err = capsys.readouterr().err
    assert err.startswith("error: failed to predict street.png: KeyError: 'no such thing'. ") and err.count("\n") == 1
    path = Path(re.search(r"in (\S+\.txt)$", err.strip()).group(1))
    assert "Traceback" in path.read_text() and "in fail" in path.read_text()
    path.unlink()
    monkeypatch.setattr(sys, "argv", ["terrazzo", *command, "--debug"])
    with pytest.raises(KeyError):
        main()


def test_classes_of_any_name_are_trained_tested_and_shown(run, streets, tmp_path):
    names = ["[background]", "a[/b]", "car\u202e\x1b[31m"]
    text = short_form(streets) | {"iterations": 1, "val_interval": 1}
    text["data"] |= {"classes": names}
    config = write_config(tmp_path / "my.yaml", text)
    code, out, err = run("train", config, "--work-dir", tmp_path / "run")
    assert code == 0, err
    shown = ("[background]", "a[/b]", r"car\u202e\u001b[31m")
    log = (tmp_path / "run" / "log.txt").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    code, out, err = run("test", config, tmp_path / "run" / "last.safetensors", "--confusion", tmp_path / "m.csv")
    assert code == 0 and all(name in text for name in shown for text in (out, log, page))
    assert not re.search("[\x1b\u202e]", out + err + log + page)


def test_a_failed_image_is_named_and_the_others_go_on(run, best, streets, tmp_path, monkeypatch):
    images = streets / "images" / "val"
    small = [images / f"{index:02d}.png" for index in range(3)]
    Image.new("L", (100, 50)).save(tmp_path / "large.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    save = Prediction.save

    def fails_once(self, path, *rest):
        if path.name == "01.png":
            raise MemoryError("Unable to allocate 9.31 GiB for an array")
        return save(self, path, *rest)

    monkeypatch.setattr(Prediction, "save", fails_once)
    sources = [small[0], tmp_path / "bad.png", tmp_path / "large.png", *small[1:]]
    code, out, err = run("predict", *sources, "--model", best, "--out", tmp_path / "out", "--max-pixels", "4999")
    assert code == 1 and "2 of 5 segmented" in out
    assert shown(tmp_path / "out") == {"00.png", "00_overlay.png", "02.png", "02_overlay.png"}
    lines = err.splitlines()
    assert len(lines) == 3 and re.search(r"bad.png: .*damaged", lines[0])
    assert re.search(r"large.png has 100x50 pixels, more than the limit of 4999", lines[1])
    assert re.search(r"not enough memory to segment \S+01.png \(9.31 GiB more\): .*--max-pixels", lines[2])


def test_an_image_that_fails_unexpectedly_does_not_lose_the_others(run, best, streets, tmp_path, monkeypatch):
    def fails_once(self, path, *rest):
        if path.name == "00.png":
            raise KeyError("no such thing")
        return save(self, path, *rest)

    save = Prediction.save
    monkeypatch.setattr(Prediction, "save", fails_once)
    with pytest.raises(KeyError, match="no such thing") as failure:
        run("predict", streets / "images" / "val", "--model", best, "--out", tmp_path)
    assert failure.value.__notes__[0].endswith("00.png")
    assert shown(tmp_path) == {f"0{n}{end}.png" for n in (1, 2) for end in ("", "_overlay")}


def test_nothing_half_written_is_left_by_a_full_disk(best, streets, tmp_path):
    limits = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); "
    code = f"{limits}from terrazzo.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "predict", streets / "images" / "val", "--model", best, "--out", tmp_path]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.count("error: cannot save") == 3, result.stderr
    assert all(np.array(Image.open(path)).shape == (32, 40) for path in tmp_path.iterdir())


def test_predictions_with_probabilities_confidence_and_colours(run, best, streets, tmp_path):
    image, out = streets / "images" / "val" / "00.png", tmp_path / "out"
    command = ["predict", image, "--model", best, "--out", out, "--probabilities", "--confidence"]
    assert run(*command, "--palette", "road=#010203")[0] == 0
    prediction = tz.load(best)(image)
    np.testing.assert_array_equal(np.load(out / "00_probabilities.npy"), prediction.probs)
    confidence = np.array(Image.open(out / "00_confidence.png"))
    np.testing.assert_allclose(confidence / 255, prediction.confidence, atol=0.002)
    colours = np.reshape(Image.open(out / "00.png").getpalette()[:9], (3, 3)).tolist()
    assert colours == [prediction.palette[0], [1, 2, 3], prediction.palette[2]]
    assert "did you mean 'road'" in run(*command, "--palette", "raod=#010203")[2]


def test_control_characters_never_reach_the_terminal(run, tmp_path):
    name = "a\x1b[2J\u202e[b]\udcff.png"
    code, out, err = run("predict", tmp_path / name)
    assert code == 1 and r"a\u001b[2J\u202e[b]\udcff.png" in err
    code, out, err = run("config", "show", name)
    assert "\x1b" not in out + err


def test_a_reader_that_goes_away_is_no_error(config):
    command = f"{sys.executable} -m terrazzo config show {config} | head -1"
    result = subprocess.run(["sh", "-c", command], env=environment(), capture_output=True, text=True)
    assert result.stdout and result.stderr == ""


# config show


def comparable(experiment) -> object:
    """An experiment with lists for tuples: YAML has no tuples."""
    return json.loads(json.dumps(experiment, default=lambda value: vars(value)))


@pytest.mark.parametrize("form", ["short", "epochs", "whole", "python", "overridden"])
def test_config_show_prints_what_reads_back_as_the_same(run, streets, tmp_path, form):
    path, options = tmp_path / "my.yaml", []
    if form == "python":
        path = tmp_path / "my.py"
        path.write_text("".join(f"{key} = {value!r}\n" for key, value in tiny_config(streets).items()))
    elif form in ("short", "epochs"):
        values = short_form(streets, amp="bf16", ema=0.99, class_weight=[1, 2, 3], lr=1e-5)
        values["data"]["label_map"] = {7: 1}
        if form == "epochs":
            values["epochs"] = values.pop("iterations")
        write_config(path, values)
    else:
        write_config(path, tiny_config(streets))
        options = ["--cfg-options", "optim_wrapper.optimizer.lr=1e-7"] if form == "overridden" else []
    code, out, _ = run("config", "show", path, *options)
    assert code == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(out)
    overrides = {"optim_wrapper.optimizer.lr": 1e-7} if form == "overridden" else None
    assert comparable(make_experiment(tz.load_config(shown))) == comparable(
        make_experiment(tz.load_config(path, overrides))
    )


# Progress


def test_a_terminal_gets_a_live_bar(streets, tmp_path):
    config = write_config(tmp_path / "my.yaml", tiny_config(streets, steps=300))
    main_end, its_end = pty.openpty()
    command = [sys.executable, "-m", "terrazzo", "train", str(config), "--work-dir", str(tmp_path / "run")]
    environ = environment() | {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(command, stdout=its_end, stderr=its_end, stdin=its_end, env=environ)
    os.close(its_end)
    text = b""
    while select.select([main_end], [], [], 60)[0]:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(main_end)
    assert process.wait(timeout=60) == 0
    shown = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", text).decode()
    assert re.search(r"train .*\d+/300 +loss \d\.\d+ lr 0\.\d+ \d\.\d\d s/step, data \d+% left \d+:\d\d", shown)
    assert "val " in shown and "mIoU" in shown
    assert not re.search(r"step \d+/300  lr", shown), "no plain lines beside the bar"
    assert len(records(tmp_path / "run", "train")) == 300


def test_the_module_is_the_same_program(tmp_path):
    result = terrazzo("--version", cwd=tmp_path)
    assert result.stdout == f"terrazzo {tz.__version__}\n"


@pytest.mark.skipif(not (SHARED / "data" / "camvid").exists(), reason="needs CamVid (set TERRAZZO_TEST_DATA)")
def test_a_real_photograph(run, best, tmp_path):
    photo = next((SHARED / "data" / "camvid" / "images" / "val").iterdir())
    assert run("predict", photo, "--model", best, "--out", tmp_path)[0] == 0
    assert np.array(Image.open(tmp_path / photo.name)).shape == (360, 480)


def test_the_same_warning_is_printed_once(capsys):
    told: set[str] = set()
    for text in ("an old key", "an old key", "another"):
        show_warning(told, text, UserWarning)
    assert capsys.readouterr().err == "warning: an old key\nwarning: another\n"
