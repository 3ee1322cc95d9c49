"""The check of data: every corrupted data set is caught before the first step, and sound ones raise nothing."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import terrazzo as tz
from support.paths import REPOSITORY, shared
from support.tiny import (
    dataset_config,
    environment,
    fit,
    make_streets,
    model_config,
    records,
    same_weights,
    save_image,
    save_label,
    short_form,
    street,
    tiny_config,
    write_config,
)
from terrazzo.cli.main import main
from terrazzo.config.edit import edited
from terrazzo.config.experiment import make_experiment
from terrazzo.data.build import build_dataset, open_dataset
from terrazzo.data.checks import survey
from terrazzo.data.checks.balance import Balance, measure_balance
from terrazzo.data.checks.finding import KINDS
from terrazzo.data.checks.run import check_experiment
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.loaders import RareClassSampler
from terrazzo.errors import UserError
from terrazzo.registry import MODELS


def check(*arguments: Any) -> tuple[int, list[dict[str, Any]]]:
    """`terrazzo data check ... --json`: the exit code and the findings."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["data", "check", *map(str, arguments), "--json"])
    assert "Traceback" not in err.getvalue()
    return code, json.loads(out.getvalue() or "[]")


def kinds(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["kind"] for finding in findings]


@pytest.fixture
def streets(tmp_path) -> Path:
    return make_streets(tmp_path / "data")


def config(root: Path, **data: Any) -> Path:
    values = short_form(root)
    values["data"] |= data
    return write_config(root.parent / "my.yaml", values)


# Ways to spoil a data set


def path(root: Path, kind: str, split: str = "train", name: str = "01.png") -> Path:
    return root / kind / split / name


def relabel(root: Path, change: Callable[[np.ndarray], np.ndarray], splits: str = "train val") -> None:
    """Write all labels of the splits anew."""
    for split in splits.split():
        for file in sorted((root / "labels" / split).iterdir()):
            save_label(file, change(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)).astype(np.uint8))


def paint(root: Path, value: int, split: str = "train") -> None:
    label = street(1)[1]
    label[:8] = value
    save_label(path(root, "labels", split), label)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


PALETTE = [[90, 150, 230], [90, 90, 90], [220, 40, 40]]


def in_colours(root: Path) -> None:
    for file in sorted((root / "labels").rglob("*.png")):
        save_image(file, np.array(PALETTE, np.uint8)[cv2.imread(str(file), cv2.IMREAD_UNCHANGED)])


def as_jpeg(root: Path) -> None:
    for file in (root / "labels" / "train").iterdir():
        label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        file.unlink()
        Image.fromarray(label * 20).save(file.with_suffix(".jpg"), quality=60)


def was_jpeg(root: Path) -> None:
    for file in (root / "labels" / "train").iterdir():
        coded = cv2.imencode(".jpg", cv2.imread(str(file), cv2.IMREAD_UNCHANGED) * 100, [cv2.IMWRITE_JPEG_QUALITY, 70])
        save_label(file, cv2.imdecode(coded[1], cv2.IMREAD_UNCHANGED) // 3 * (np.arange(40) > 34))


def resized(root: Path) -> None:
    """Labels of values 0, 100 and 200 that were made a third smaller, and as large again."""
    for file in sorted((root / "labels").rglob("*.png")):
        label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) * 100
        small = cv2.resize(label, None, fx=0.66, fy=0.66, interpolation=cv2.INTER_AREA)
        save_label(file, cv2.resize(small, label.shape[::-1], interpolation=cv2.INTER_CUBIC))


def turned(root: Path) -> None:
    """Images that EXIF turns upside down."""
    exif = Image.Exif()
    exif[274] = 3
    for file in sorted((root / "images" / "train").iterdir()):
        Image.open(file).save(file, exif=exif)


def fourth_band(root: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted((root / "images").rglob("*.png")):
        image = Image.open(file).convert("RGB")
        image.putalpha(Image.fromarray(rng.integers(0, 256, image.size[::-1], np.uint8)))
        image.save(file)


def declared(root: Path) -> None:
    """Labels in TIFF that declare 0 to be no data."""
    for file in sorted((root / "labels" / "train").iterdir()):
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[42113] = "0"
        Image.open(file).save(file.with_suffix(".tif"), tiffinfo=info)
        file.unlink()


def recoded(root: Path) -> None:
    """A training image, compressed and brighter, among the validation images."""
    image = cv2.imread(str(path(root, "images")))
    assert cv2.imwrite(str(path(root, "images", "val")), np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8))
    shutil.copy(path(root, "labels"), path(root, "labels", "val"))


def compressed(root: Path) -> None:
    """A training image as a JPEG among the validation images."""
    image = cv2.imread(str(path(root, "images")))
    assert cv2.imwrite(str(path(root, "images", "val", "01.jpg")), image, [cv2.IMWRITE_JPEG_QUALITY, 75])
    path(root, "images", "val").unlink()
    shutil.copy(path(root, "labels"), path(root, "labels", "val"))


def copied(root: Path, suffix: str = ".png") -> None:
    """A training image under another name, or in another format, among the validation images."""
    image = cv2.imread(str(path(root, "images")))
    assert cv2.imwrite(str(path(root, "images", "val", f"99{suffix}")), image)
    shutil.copy(path(root, "labels"), path(root, "labels", "val", "99.png"))


def large(root: Path, split: str = "train", **size: int) -> None:
    image, label = street(50, **size)
    save_image(path(root, "images", split, "77.png"), image)
    save_label(path(root, "labels", split, "77.png"), label)


def rare(root: Path) -> None:
    """One car pixel in all."""
    relabel(root, lambda label: np.where(label == 2, 1, label), "train")
    label = street(1)[1] * 0
    label[16:], label[20, 20] = 1, 2
    save_label(path(root, "labels"), label)


ONES = {"classes": ["ground", "car"]}

# name -> how it is spoilt, the data section's keys, the kind of the finding, its split, and what else it says
SPOILT: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str, str, dict[str, Any]]] = {
    "an image without a label": (
        lambda root: path(root, "labels").unlink(), {}, "unpaired", "train",
        {"files": ["images/train/01.png"], "fix": "data.exclude: [images/train/01.png]"},
    ),
    "a label without an image": (
        lambda root: path(root, "images").unlink(), {}, "unpaired", "train",
        {"files": ["labels/train/01.png"], "fix": "data.exclude: [labels/train/01.png]"},
    ),
    "no validation images": (lambda root: shutil.rmtree(root / "images" / "val"), {}, "empty-split", "val", {}),
    "an empty folder": (
        lambda root: [file.unlink() for kind in ("images", "labels") for file in (root / kind / "train").iterdir()],
        {}, "empty-split", "train", {},
    ),
    "no label folder": (lambda root: shutil.rmtree(root / "labels" / "train"), {}, "unpaired", "train", {}),
    "a truncated image": (
        lambda root: truncate(path(root, "images")), {}, "unreadable", "train",
        {"files": ["images/train/01.png"], "fix": "data.exclude: [images/train/01.png]"},
    ),
    "a truncated label": (
        lambda root: truncate(path(root, "labels", "val")), {}, "unreadable", "val",
        {"files": ["labels/val/01.png"], "fix": "data.exclude: [images/val/01.png]"},
    ),
    "a text file as an image": (
        lambda root: path(root, "images").write_text("hello"), {}, "unreadable", "train", {"message": "not an image"},
    ),
    "a label of another size": (
        lambda root: save_label(path(root, "labels"), street(1, 30, 44)[1]), {}, "size-mismatch", "train",
        {"files": ["labels/train/01.png"], "message": "44x30"},
    ),
    "a label on its side": (
        lambda root: save_label(path(root, "labels"), street(1)[1].T), {}, "size-mismatch", "train",
        {"message": "EXIF"},
    ),
    "a value outside": (
        lambda root: paint(root, 7), {}, "value-outside-classes", "train",
        {"values": [7], "files": ["labels/train/01.png"], "message": "25% of its pixels", "fix": "data.ignore: [7]"},
    ),
    "a value outside, beside an ignored one": (
        lambda root: [paint(root, 7), paint(root, 9, "val")], {"ignore": [7]}, "value-outside-classes", "val",
        {"values": [9], "fix": "data.ignore: [7, 9]"},
    ),
    "numbers of single things": (
        lambda root: save_label(path(root, "labels"), np.arange(1280, dtype=np.uint16).reshape(32, 40)),
        {"ignore": [7]}, "value-outside-classes", "train",
        {"message": "single things", "fix": "data.exclude: [images/train/01.png]"},
    ),
    "a label of one pixel": (
        lambda root: save_label(path(root, "labels"), street(1)[1][:1, :1]), {"ignore": [7]}, "size-mismatch", "train",
        {"message": "1x1"},
    ),
    "stretched values": (
        lambda root: relabel(root, lambda label: label * 100), {}, "value-outside-classes", "train",
        {"values": [100, 200], "fix": "data.label_map: {100: 1, 200: 2}"},
    ),
    "a background that the classes forget": (
        lambda root: relabel(root, lambda label: np.maximum(label + 1, np.eye(32, 40))* (np.eye(32, 40) < 1)), {},
        "value-outside-classes", "train", {"values": [3], "message": "reduce_zero_label: true"},
    ),
    "0 and 255": (
        lambda root: relabel(root, lambda label: (label == 2) * 255), ONES, "binary-255", "train",
        {"values": [0, 255], "fix": "data.label_map: {255: 1}", "message": "'car'"},
    ),
    "0 and 255 in some of the files": (
        lambda root: [
            relabel(root, lambda label: label == 2),
            save_label(path(root, "labels"), ((street(1)[1] == 2) * 255).astype(np.uint8)),
        ],
        ONES, "binary-255", "train", {"files": ["labels/train/01.png"], "fix": "data.label_map: {255: 1}"},
    ),
    "colours": (
        lambda root: [save_image(file, street(1)[0] // 16 * 16) for file in (root / "labels" / "train").iterdir()],
        {}, "rgb-mask", "train", {"message": "colour"},
    ),
    "the colours of the palette": (
        in_colours, {"palette": PALETTE}, "rgb-mask", "val", {"fix": "data.label_format: rgb"},
    ),
    "one label of colours": (
        lambda root: save_image(path(root, "labels", "val"), street(1)[0]), {}, "rgb-mask", "val",
        {"files": ["labels/val/01.png"]},
    ),
    "JPEG": (as_jpeg, {}, "jpeg-mask", "train", {"message": "save labels as PNG"}),
    "JPEG once": (was_jpeg, {}, "jpeg-mask", "train", {"message": "JPEG"}),
    "resized smoothly": (
        resized, {}, "jpeg-mask", "train",
        {"message": "around 0, 100, 200", "fix": "data.label_format: {type: rgb, other: nearest, colours: [[0, 0, 0],"},
    ),
    "shifted by one": (
        lambda root: relabel(root, lambda label: label + 1), {}, "shifted-labels", "train",
        {"values": [1, 2, 3], "fix": "data.reduce_zero_label: true"},
    ),
    "shifted by one, with a border": (
        lambda root: relabel(root, lambda label: np.where(np.eye(32, 40) > 0, 255, label + 1)), {}, "shifted-labels",
        "val", {"fix": "data.reduce_zero_label: true"},
    ),
    "needless reduce_zero_label": (
        lambda root: None, {"reduce_zero_label": True}, "needless-reduce-zero-label", "train",
        {"values": [0], "fix": "data.reduce_zero_label: false", "message": "'sky'"},
    ),
    "needless reduce_zero_label with two classes": (
        lambda root: relabel(root, lambda label: label == 2), ONES | {"reduce_zero_label": True},
        "needless-reduce-zero-label", "train", {"fix": "data.reduce_zero_label: false"},
    ),
    "everything ignored in the files": (
        lambda root: relabel(root, lambda label: label * 0 + 255), {}, "all-ignored", "train", {"values": [255]},
    ),
    "everything ignored by the config": (
        lambda root: None, {"ignore": [0, 1, 2]}, "all-ignored", "val", {"fix": "data.ignore: []"},
    ),
    "a class without a pixel": (
        lambda root: relabel(root, lambda label: label * 2 % 4), {"classes": ["sky", "road", "car"]},
        "missing-class", "train", {"class": "road", "fix": "data.classes: [sky, car]; data.label_map: {2: 1}"},
    ),
    "a copy of a training image": (
        copied, {}, "train-val-copy", "val", {"files": ["images/val/99.png"], "fix": "exclude: [images/train/01.png]"},
    ),
    "a copy in another format": (
        lambda root: copied(root, ".bmp"), {}, "train-val-copy", "val", {"files": ["images/val/99.bmp"]},
    ),
    "training data as validation data": (lambda root: None, {"val": "train"}, "train-val-copy", "val", {}),
}  # fmt: skip

ADVICE: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str, str, dict[str, Any]]] = {
    "a recoded copy": (recoded, {}, "near-duplicate", "val", {"files": ["images/val/01.png"]}),
    "a compressed copy": (compressed, {}, "near-duplicate", "val", {"files": ["images/val/01.jpg"]}),
    "an odd size": (
        lambda root: [large(root, height=64, width=64), *(shutil.copy(p, p.with_name(f"{i}{p.name}"))
        for kind in ("images", "labels") for i in "abc" for p in sorted((root / kind / "train").glob("0*.png")))],
        {}, "odd-size", "train", {"files": ["images/train/77.png"], "message": "64x64"},
    ),
    "a strip": (lambda root: large(root, height=32, width=400), {}, "odd-size", "train", {"message": "400x32"}),
    "a rare class": (rare, {}, "imbalance", "train", {"class": "car", "fix": "rare_class_sampling: true"}),
    "mostly ignored": (
        lambda root: relabel(root, lambda label: np.where(np.arange(40) > 5, 255, label)), {}, "mostly-ignored",
        "train", {"values": [255]},
    ),
    "labels without a counted pixel": (
        lambda root: save_label(path(root, "labels"), street(1)[1] * 0 + 255), {}, "mostly-ignored", "train",
        {"files": ["labels/train/01.png"]},
    ),
    "images turned by EXIF": (turned, {}, "exif-orientation", "train", {"message": "6 of 6 images"}),
    "a fourth band": (fourth_band, {}, "unused-band", "train", {"message": "`bands: [1, 2, 3, 4]`"}),
    "0 declared as no data": (declared, {}, "declared-no-data", "train", {"message": "class 'sky'"}),
    "a class that validation lacks": (
        lambda root: relabel(root, lambda label: np.minimum(label, 1), "val"), {}, "missing-class", "val",
        {"class": "car"},
    ),
}  # fmt: skip


def assert_found(root: Path, findings: list[dict[str, Any]], kind: str, split: str, says: dict[str, Any]) -> None:
    found = [finding for finding in findings if (finding["kind"], finding["split"]) == (kind, split)]
    assert found, findings
    assert all(set(finding) == {"kind", "severity", "split", "class", "values", "files", "message", "fix"}
               for finding in findings)  # fmt: skip
    for key, value in says.items():
        if key == "files":
            assert found[0]["files"] == [str(root / name) for name in value]
        elif key in ("message", "fix"):
            assert value in found[0][key]
        else:
            assert found[0][key] == value


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_data_set_is_caught_before_the_first_step(streets, tmp_path, case):
    spoil, data, kind, split, says = SPOILT[case]
    spoil(streets)
    code, findings = check(config(streets, **data))
    assert code == 1
    assert_found(streets, findings, kind, split, says)
    assert findings[0]["severity"] == "error"
    with pytest.raises(UserError) as caught:
        fit(tz.load_config(config(streets, **data)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert records(tmp_path / "run") == []


@pytest.mark.parametrize("case", ADVICE)
def test_mere_advice_lets_training_go_on(streets, case):
    spoil, data, kind, split, says = ADVICE[case]
    spoil(streets)
    code, findings = check(config(streets, **data))
    assert_found(streets, findings, kind, split, says)
    assert (code, {finding["severity"] for finding in findings}) == (0, {"advice"})


def split_files(root: Path) -> dict[str, Any]:
    for kind in ("images", "labels"):
        (root / kind / "all").mkdir()
        for file in sorted((root / kind / "train").iterdir()):
            file.rename(root / kind / "all" / file.name)
        for file in sorted((root / kind / "val").iterdir()):
            file.rename(root / kind / "all" / f"v{file.name}")
    (root / "train.txt").write_text("".join(f"{index:02d}\n" for index in range(5)))
    (root / "val.txt").write_text("v00\nv01\nv02\n")
    return {"images": "images/all", "labels": "labels/all", "train": "train.txt", "val": "val.txt"}


def palette_images(root: Path) -> dict[str, Any]:
    for file in sorted((root / "labels").rglob("*.png")):
        image = Image.fromarray(np.array(Image.open(file)))
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] + [0] * 759)
        image.save(file)
    return {}


SOUND: dict[str, Callable[[Path], dict[str, Any]]] = {
    "streets": lambda root: {},
    "void as 11": lambda root: relabel(root, lambda label: np.where(np.eye(32, 40) > 0, 11, label)) or {"ignore": [11]},
    "a border of 255": lambda root: relabel(root, lambda label: np.where(np.eye(32, 40) > 0, 255, label)) or {},
    "label 0 is no data": lambda root: relabel(
        root, lambda label: np.where(np.eye(32, 40) > 0, 0, label + 1)
    ) or {"reduce_zero_label": True},
    "reduce_zero_label without any 0": lambda root: relabel(root, lambda label: label + 1)
    or {"reduce_zero_label": True},
    "0 and 255 with a map": lambda root: relabel(root, lambda label: (label == 2) * 255)
    or {**ONES, "label_map": {255: 1}},
    "binary with a border of 255": lambda root: relabel(
        root, lambda label: np.where(np.eye(32, 40) > 0, 255, label == 2)
    ) or ONES,
    "split files": split_files,
    "palette images": palette_images,
    "labels in colours": lambda root: in_colours(root) or {"palette": PALETTE, "label_format": "rgb"},
    "two values joined": lambda root: relabel(root, lambda label: np.where(np.tri(32, 40) * label == 2, 3, label))
    or {"label_map": {3: 2}},
    "an image and its label left out": lambda root: truncate(path(root, "images"))
    or {"exclude": ["images/train/01.png"]},
}  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_data_set_raises_nothing(streets, case):
    data = SOUND[case](streets)
    assert check(config(streets, **data)) == (0, [])


def test_real_photographs_raise_nothing(camvid, tmp_path):
    """CamVid's streets: many classes, rare ones, a void label, frames of one ride."""
    for kind in ("images", "labels"):
        for split, step in (("train", 12), ("val", 10)):
            (tmp_path / kind / split).mkdir(parents=True)
            for file in sorted((camvid / kind / split).iterdir())[::step]:
                shutil.copy(file, tmp_path / kind / split)
    classes = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    data = {"root": str(tmp_path), "classes": classes, "ignore": [11]}
    assert check(write_config(tmp_path / "my.yaml", short_form(tmp_path, data=data))) == (0, [])


def test_retinas_are_alike_but_no_duplicates(tmp_path):
    drive = shared("data", "drive")
    stems = [file.stem for file in sorted((drive / "images").iterdir())]
    for name, chosen in (("train", stems[:14]), ("val", stems[14:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(chosen))
    data = {"root": str(drive), "classes": ["background", "vessel"]}
    data |= {name: str(tmp_path / f"{name}.txt") for name in ("train", "val")}
    assert check(write_config(tmp_path / "my.yaml", short_form(drive, data=data))) == (0, [])


def test_every_kind_is_documented_and_has_an_example():
    used = {case[2] for case in (*SPOILT.values(), *ADVICE.values())}
    of_scenes = {"no-crs", "no-overlap", "band-count", "no-data", "other-crs", "partly-labelled"}  # tested with these
    assert used | of_scenes == set(KINDS)
    text = (REPOSITORY / "docs" / "data-check.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in text for kind in KINDS)


def test_the_fix_never_ignores_what_may_be_a_missing_class(streets):
    relabel(streets, lambda label: (label == 2) * 7)  # the objects are 7, and nothing is 1
    file = config(streets, **ONES, ignore=[3])
    code, findings = check(file)
    assert code == 1 and findings[0]["kind"] == "value-outside-classes"
    assert findings[0]["fix"] == "data.label_map: {7: 1}"


ONE = "has one class, 'car', and nothing to tell it from.*`classes: \\[background, car\\]`.*out_channels=1"


@pytest.mark.parametrize("value", [1, 255])
def test_one_class_is_refused_with_both_ways_out(streets, tmp_path, capsys, value):
    relabel(streets, lambda label: (label == 2) * value)
    file = config(streets, classes=["car"])
    before = file.read_text()
    assert main(["data", "check", str(file), "--fix"]) == 1
    assert re.search(ONE, capsys.readouterr().err) and file.read_text() == before
    with pytest.raises(UserError, match=ONE):
        fit(tz.load_config(file), tmp_path / "run")


def test_an_error_is_printed_once(streets, tmp_path, capsys):
    truncate(path(streets, "images"))
    truncate(path(streets, "labels", "val"))
    assert main(["train", str(config(streets)), "--work-dir", str(tmp_path / "run")]) == 1
    streams = capsys.readouterr()
    assert (streams.out + streams.err).count("01.png (image file is truncated") == 2  # one image, one label


# Configs of every form, and folders


@pytest.mark.parametrize("setting", [{"class_weight": "auto"}, {"rare_class_sampling": True}])
def test_imbalance_that_the_config_deals_with_is_not_told_of(streets, tmp_path, setting):
    rare(streets)
    assert check(write_config(tmp_path / "my.yaml", short_form(streets, **setting))) == (0, [])


def test_fix_goes_on_to_what_a_mistake_has_hidden(streets):
    """Shifted labels hide that there is no road."""
    relabel(streets, lambda label: np.where(label == 1, 2, label) + 1)
    file = config(streets)
    assert kinds(check(file)[1]) == ["shifted-labels", "shifted-labels"]
    assert check(file, "--fix") == (0, [])
    data = tz.load_config(file, upgrade=False)["data"]
    assert (data["classes"], data["reduce_zero_label"], data["label_map"]) == (["sky", "car"], True, {2: 1})


FIXABLE = [
    "an image without a label", "a label without an image", "a truncated image", "a truncated label",
    "a label of another size", "a value outside", "a value outside, beside an ignored one", "stretched values",
    "numbers of single things",
    "0 and 255", "0 and 255 in some of the files", "shifted by one", "needless reduce_zero_label",
    "everything ignored by the config", "a copy of a training image", "a class without a pixel",
    "the colours of the palette",
]  # fmt: skip


@pytest.mark.parametrize("case", FIXABLE)
def test_fix_writes_what_repairs_it(streets, tmp_path, case):
    spoil, data, *_ = SPOILT[case]
    spoil(streets)
    file = config(streets, **data)
    file.write_text(f"# my streets\n{file.read_text()}# the end\n")
    assert check(file, "--fix") == (0, [])
    text = file.read_text()
    assert text.startswith("# my streets\n") and text.endswith("# the end\n")
    assert fit(tz.load_config(file), tmp_path / "run").finished


def as_python(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {value!r}  # {key}\n" for key, value in values.items())


@pytest.mark.parametrize("form", ["yaml", "json", "py", "base"])
def test_fix_in_a_whole_config(streets, tmp_path, form):
    paint(streets, 7)
    values = tiny_config(streets)
    file = tmp_path / f"my.{'py' if form == 'base' else form}"
    if form == "yaml":
        write_config(file, values)
    elif form == "json":
        file.write_text(json.dumps(values, indent=2))
    elif form == "py":
        file.write_text(as_python(values))
    else:
        (tmp_path / "base.py").write_text(as_python(values))
        file.write_text("_base_ = 'base.py'\nrandomness = dict(seed=7)  # mine\n")
    code, findings = check(file)
    assert (code, findings[0]["fix"]) == (1, "train_dataloader.dataset.ignore: [7]")
    assert check(file, "--fix") == (0, [])
    assert tz.load_config(file)["train_dataloader"]["dataset"]["ignore"] == [7]
    assert "# mine" in file.read_text() or form != "base"
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_fix_in_a_pipeline_that_has_its_own_setting(streets, tmp_path):
    values = tiny_config(streets)
    for loader in ("train", "val", "test"):
        values[f"{loader}_dataloader"]["dataset"]["pipeline"][1]["reduce_zero_label"] = True
    file = write_config(tmp_path / "my.yaml", values)
    assert "train_dataloader.dataset.pipeline.1.reduce_zero_label: false" in [f["fix"] for f in check(file)[1]]
    assert check(file, "--fix")[0] == 0


def test_fix_says_what_to_give_where_it_cannot_write(streets, capsys):
    truncate(path(streets, "images"))
    assert main(["data", "check", str(streets), "--fix"]) == 1
    err = capsys.readouterr().err
    assert "not a config file" in err and "data.exclude: [images/train/01.png]" in err


EDITS = {
    "block": (
        "a: 1  # one\nb:\n  c: x  # see\n\n# next\n",
        "a: 1  # one\nb:\n  c: x  # see\n  k: {7: 1}\n\n# next\n",
    ),
    "flow": ("b: {c: x, }  # see\n", "b: {c: x, k: {7: 1}, }  # see\n"),
    "replaced": ("b:\n  k:  # old\n    3: 4\n  c: x\n", "b:\n  k: {7: 1}  # old\n  c: x\n"),
    "list": ("b:\n  k:\n  - 3\n  - 4\nc: x\n", "b:\n  k: {7: 1}\nc: x\n"),
    "absent": ("a: [1,\n  2]  # one\n", "a: [1,\n  2]  # one\nb: {k: {7: 1}}\n"),
    "text": ("b:\n  c: |\n    some\n    text\nd: 1\n", "b:\n  c: |\n    some\n    text\n  k: {7: 1}\nd: 1\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS)
def test_an_edit_changes_one_line(tmp_path, case):
    before, after = EDITS[case]
    file = tmp_path / "x.yaml"
    file.write_text(before)
    assert edited(file, {"b.k": {7: 1}}) == after
    assert file.read_text() == before


def test_an_edit_that_would_change_more_is_refused(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: &same {c: 1}\nb: *same\n")
    with pytest.raises(UserError, match="by hand"):
        edited(file, {"b.k": 1})


def test_a_folder_without_a_config(streets):
    assert check(streets) == (0, [])
    relabel(streets, lambda label: label + 1)
    truncate(path(streets, "images"))
    code, findings = check(streets)
    assert code == 1 and {"unreadable", "shifted-labels"} <= set(kinds(findings))
    with pytest.raises(UserError, match="which files are images and which are labels"):
        from terrazzo.data.checks.run import folder_specs

        folder_specs(streets / "images")


@pytest.mark.filterwarnings("ignore:.*classes.txt")
def test_a_recipe_with_a_data_root(streets):
    recipe = "pspnet_r50-d8_4xb4-80k_loveda-512x512"
    assert check(recipe, "--data-root", streets) == (0, [])
    truncate(path(streets, "images"))
    code, findings = check(recipe, "--data-root", streets)
    assert (code, kinds(findings)) == (1, ["unreadable"])


def test_wrapped_data_sets_name_the_part(streets, tmp_path):
    paint(streets, 9, "val")
    values = tiny_config(streets)
    parts = [dataset_config(streets, "train"), dataset_config(streets, "val")]
    wrapped = {"type": "RepeatDataset", "times": 2, "dataset": {"type": "ConcatDataset", "datasets": parts}}
    values["train_dataloader"]["dataset"] = wrapped
    del values["val_dataloader"], values["test_dataloader"]
    _, findings = check(write_config(tmp_path / "my.yaml", values))
    assert [f["fix"] for f in findings] == ["train_dataloader.dataset.dataset.datasets.1.ignore: [9]"]


def test_mistakes_in_the_config_itself(streets, tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "no.yaml")]) == 1
    assert "there is no config file" in capsys.readouterr().err
    assert main(["data", "check", str(write_config(tmp_path / "bare.yaml", {"model": model_config()}))]) == 1
    assert "names no data" in capsys.readouterr().err
    file = write_config(tmp_path / "my.yaml", tiny_config(streets, model=model_config(4)))
    assert main(["data", "check", str(file)]) == 1
    assert "num_classes=3" in capsys.readouterr().err


def test_the_text_says_what_where_and_how_to_repair_it(streets, capsys):
    paint(streets, 7)
    assert main(["data", "check", str(config(streets))]) == 1
    out = capsys.readouterr().out
    for part in ("train: 6 images, 40x32", "0 sky", "error: value-outside-classes (train)", "fix: data.ignore: [7]",
                 str(path(streets, "labels")), "1 error"):  # fmt: skip
        assert part in out


def test_the_check_needs_no_torch(streets):
    code = f"import sys; from terrazzo.cli.main import main; main(['data', 'check', {str(config(streets))!r}]); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), stdout=subprocess.DEVNULL).returncode == 0


# The cache


def test_files_are_read_once(streets, monkeypatch):
    file = config(streets)
    check(file)
    read = []
    original = survey.Task.run
    monkeypatch.setattr(survey.Task, "run", lambda task, key: read.append(key[0]) or original(task, key))
    assert check(file) == (0, []) and read == []
    assert check(config(streets, ignore=[2]))[0] == 1 and read == [], "the mapping is no matter of files"
    paint(streets, 7)
    assert kinds(check(config(streets))[1]) == ["value-outside-classes"]
    assert read == [path(streets, "labels")]


def test_a_damaged_cache_is_no_obstacle(streets):
    from terrazzo.data.checks.facts import cache_file

    cache_file().parent.mkdir(parents=True, exist_ok=True)
    cache_file().write_text("no database at all " * 100)
    assert check(config(streets)) == (0, [])
    assert check(config(streets)) == (0, []) and cache_file().read_bytes().startswith(b"SQLite")


# Training


def test_training_without_the_check(streets, tmp_path):
    relabel(streets, lambda label: np.minimum(label, 1))
    file = config(streets)
    with pytest.raises(UserError, match=r"'car'.*--no-check trains all the same"):
        fit(tz.load_config(file), tmp_path / "a")
    assert main(["train", str(file), "--work-dir", str(tmp_path / "b"), "--no-check"]) == 0


def test_advice_is_written_to_the_log(streets, tmp_path):
    rare(streets)
    run = fit(tz.load_config(config(streets)), tmp_path / "run")
    assert "data check, advice: 1 of 3 classes have less than 1/200" in run.log_path.read_text()


# Balance


def test_median_frequency_weights_by_hand():
    """Eigen and Fergus: a class's pixels over those of the images that show it; the median over that."""
    balance = Balance(np.array([[80, 20, 0], [60, 30, 10], [100, 0, 0]]))
    frequency = np.array([240 / 300, 50 / 200, 10 / 100])
    assert balance.median_frequency_weights() == pytest.approx(0.25 / frequency, abs=1e-4)
    assert Balance(np.array([[5, 0]])).median_frequency_weights() == [1, 1]


def test_rare_class_chances_by_hand():
    """DAFormer: softmax of (1 - frequency) / temperature."""
    balance = Balance(np.array([[80, 20, 0, 0], [60, 30, 10, 0]]))
    scores = np.exp((1 - np.array([0.7, 0.25, 0.05])) / 0.1)
    chances = balance.rare_class_chances(0.1)
    assert chances[:3] == pytest.approx(scores / scores.sum()) and chances[3] == 0
    assert balance.rare_class_chances(0.01).sum() == pytest.approx(1)


def test_auto_class_weights(streets, tmp_path):
    values = short_form(streets, class_weight="auto", iterations=1)
    run = fit(values, tmp_path / "auto")
    weights = measure_balance(build_dataset(dataset_config(streets, "train"))).median_frequency_weights()
    line = next(line for line in run.log_path.read_text().splitlines() if "class_weight auto" in line)
    assert f"car {weights[2]:.3g}" in line and weights[2] > weights[0]
    assert same_weights(run.last, fit(short_form(streets, class_weight=weights, iterations=1), tmp_path / "list").last)
    assert tz.evaluate(run.work_dir / "config.yaml", run.last, device="cpu")["mIoU"] >= 0
    assert tz.load(run.last, device="cpu")(path(streets, "images")).labels.shape == (32, 40)


def test_auto_class_weights_of_a_head_with_one_channel(streets, tmp_path):
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True, "class_weight": "auto"}
    values = tiny_config(streets, steps=1, model=model_config(2, out_channels=1, threshold=0.5, loss_decode=loss))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        values[loader]["dataset"] |= {"metainfo": {"classes": ["ground", "car"]}, "label_map": {1: 0, 2: 1}}
    assert fit(values, tmp_path / "run").finished


def test_auto_class_weights_need_training():
    import torch

    loss = MODELS.build({"type": "CrossEntropyLoss", "class_weight": "auto"})
    with pytest.raises(UserError, match="is computed when training starts"):
        loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))


def test_rare_classes_are_drawn_more_often():
    shown = np.zeros((50, 3), bool)
    shown[:, 0], shown[:10, 1], shown[3, 2] = True, True, True
    order = RareClassSampler(50, 5, shown, np.array([0.2, 0.3, 0.5]), seed=1)
    drawn = [index for number in range(40) for _, index in order.epoch(number)]
    assert drawn.count(3) / len(drawn) == pytest.approx(0.5 + 0.03 + 0.004, abs=0.03)
    epochs = [epoch for number in range(3) for epoch, _ in order.epoch(number)]
    assert len(set(epochs)) == len(epochs), "an image that comes twice is cropped twice"


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_rare_class_order_can_start_anywhere(by_epoch):
    shown = np.array([[True, False], [True, True], [False, True], [True, False], [True, False]])
    options = {"seed": 3, "by_epoch": by_epoch}
    order = RareClassSampler(5, 2, shown, np.array([0.4, 0.6]), **options)
    whole = list(itertools.islice(order, 12))
    for seen in range(1, 9):
        rest = RareClassSampler(5, 2, shown, np.array([0.4, 0.6]), start=order.position(seen), **options)
        assert list(itertools.islice(rest, 12 - seen)) == whole[seen:]


def test_rare_class_sampling_trains_and_resumes(streets, tmp_path, monkeypatch):
    from support.tiny import stop_at

    values = short_form(streets, rare_class_sampling=0.05, iterations=6, val_interval=6)
    whole = fit(values, tmp_path / "whole")
    assert "rare-class sampling: sky" in whole.log_path.read_text()
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert not fit(values, tmp_path / "parts").finished
    assert same_weights(whole.last, fit(values, tmp_path / "parts", resume=True).last)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weight": "automatic"}, "`auto` or a list of numbers"),
        ({"rare_class_sampling": "often"}, "rare_class_sampling must be .*, not 'often'"),
        ({"rare_class_sampling": -1}, "a temperature above 0, such as 0.01, not -1"),
    ],
)
def test_mistakes_in_the_settings(streets, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        fit(short_form(streets, **changes), tmp_path / "run")


@pytest.mark.parametrize("sampler", ["rare-class", {"type": "RareClassSampler", "temperature": 0.1}])
def test_samplers_of_a_whole_config(streets, tmp_path, sampler):
    values = tiny_config(streets, steps=1)
    values["train_dataloader"]["sampler"] = sampler
    assert "rare-class sampling" in fit(values, tmp_path / "run").log_path.read_text()


def test_data_that_is_open_is_not_opened_again(streets, monkeypatch):
    experiment = make_experiment(tiny_config(streets))
    opened = {name: open_dataset(getattr(experiment, name), 3, f"{name}_dataloader") for name in ("train", "val")}
    plain = check_experiment(experiment)
    monkeypatch.setattr(SegmentationDataset, "__init__", None)
    report = check_experiment(experiment, only=("train", "val"), opened=opened)
    assert [split.name for split in report.splits] == ["train", "val"]
    assert [len(split.entries) for split in report.splits] == [len(split.entries) for split in plain.splits]
    assert report.findings == plain.findings
