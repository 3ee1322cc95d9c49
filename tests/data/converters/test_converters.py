"""Each converter on a small tree in its data set's published layout: loose, in archives, interrupted, damaged."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from support.paths import shared
from support.tiny import street
from terrazzo.cli.main import main
from terrazzo.data.build import build_dataset
from terrazzo.data.converters.arrays import cut, indices_of, windows
from terrazzo.data.converters.base import CONVERTERS
from terrazzo.data.converters.run import convert
from terrazzo.data.spec import dataset_spec
from terrazzo.errors import UserError
from terrazzo.transforms import read_label
from terrazzo.transforms.formats.raster import run_lengths

LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
NOISE = np.random.default_rng(0)


def save(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    if path.suffix == ".gz":
        path.write_bytes(b"")
        plain = save(path.with_suffix(""), array)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    else:
        Image.fromarray(array if array.dtype == np.uint16 else array.astype(np.uint8)).save(path)
    return path


def write(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)


def photo(height=12, width=16):
    return NOISE.integers(0, 256, (height, width, 3))


def halves(left, right, height=12, width=16):
    """A map whose left half has one value (or colour), the right half another."""
    left, right = np.asarray(left), np.asarray(right)
    return np.concatenate([np.tile(left, (height, width // 2, *[1] * left.ndim)),
                           np.tile(right, (height, width - width // 2, *[1] * right.ndim))], axis=1)  # fmt: skip


def chase_db1(raw):
    for name in ("01L", "01R", "10R", "11L"):
        save(raw / f"Image_{name}.jpg", photo())
        Image.fromarray(halves(0, 255).astype(np.uint8)).convert("1").save(raw / f"Image_{name}_1stHO.png")
        save(raw / f"Image_{name}_2ndHO.png", halves(255, 0))
    return {"train": (3, [0, 1]), "val": (1, [0, 1])}


def drive(raw):
    for folder, names in (("training", ("21", "22")), ("test", ("01",))):
        for name in names:
            save(raw / folder / "images" / f"{name}_{folder}.tif", photo())
            save(raw / folder / "1st_manual" / f"{name}_manual1.gif", halves(0, 255))
            save(raw / folder / "mask" / f"{name}_{folder}_mask.gif", halves(255, 255))
    return {"train": (2, [0, 1]), "val": (1, [0, 1])}


def hrf(raw):
    for name in ("01_h", "05_dr", "06_g", "15_dr"):
        save(raw / "images" / f"{name}{'.JPG' if 'dr' in name else '.jpg'}", photo())
        save(raw / "manual1" / f"{name}.tif", halves(0, 255))
        save(raw / "mask" / f"{name}_mask.tif", halves(255, 255))
    return {"train": (2, [0, 1]), "val": (2, [0, 1])}


def stare(raw):
    for name in ("im0001", "im0139", "im0162"):
        save(raw / "stare-images" / f"{name}.ppm.gz", photo())
        save(raw / "labels-ah" / f"{name}.ah.ppm.gz", halves(0, 255))
        save(raw / "labels-vk" / f"{name}.vk.ppm.gz", halves(255, 255))
    return {"train": (2, [0, 1]), "val": (1, [0, 1])}


def refuge(raw):
    for image, label in (
        ("Training400/Glaucoma/g0001", "Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001"),
        ("Training400/Non-Glaucoma/n0001", "Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma/n0001"),
        ("REFUGE-Validation400/V0001", "REFUGE-Validation400-GT/Disc_Cup_Masks/V0001"),
        ("REFUGE-Test400/T0001", "REFUGE-Test-GT/Disc_Cup_Masks/T0001"),
    ):
        save(raw / f"{image}.jpg", photo())
        mask = halves(255, 128)
        mask[:, -2:] = 0
        save(raw / f"{label}.bmp", mask)
    return {"train": (2, [0, 1, 2]), "val": (1, [0, 1, 2]), "test": (1, [0, 1, 2])}


def cityscapes(raw):
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "munster")):
        save(raw / f"leftImg8bit/{split}/{city}/{city}_000000_000019_leftImg8bit.png", photo())
        save(raw / f"gtFine/{split}/{city}/{city}_000000_000019_gtFine_labelIds.png", halves(7, 33))
        save(raw / f"gtFine/{split}/{city}/{city}_000000_000019_gtFine_color.png", photo())
    return {"train": (2, [0, 18]), "val": (1, [0, 18])}


def coco_stuff164k(raw):
    for split, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        save(raw / split / f"{name}.jpg", photo())
        mask = halves(0, 181)
        mask[0, 0] = 255
        save(raw / "stuffthingmaps" / split / f"{name}.png", mask)
    return {"train": (1, [0, 170, 255]), "val": (1, [0, 170, 255])}


def coco_stuff10k(raw):
    for split, name in (("train", "COCO_train2014_000000000077"), ("test", "COCO_train2014_000000000154")):
        save(raw / "images" / f"{name}.jpg", photo())
        (raw / "annotations").mkdir(exist_ok=True)
        savemat(raw / "annotations" / f"{name}.mat", {"S": halves(0, 13).astype(np.uint8)})  # 13: stop sign
        write(raw / "imageLists" / f"{split}.txt", f"{name}\n")
    return {"train10k": (1, [11, 255]), "val10k": (1, [11, 255])}


def isaid(raw):
    colours = dataset_spec("isaid").palette
    for split, size in (("train", (20, 30)), ("val", (1000, 900)), ("test", (20, 30))):
        save(raw / split / "images/images/P0001.png", photo(*size))
        if split != "test":
            mask = halves(colours[1], colours[15], *size)
            save(raw / split / "Semantic_masks/images/images/P0001_instance_color_RGB.png", mask)
    return {"train": (1, [1, 15, 255]), "val": (4, [1, 15]), "test": (1, None)}


def levircd(raw):
    for split in ("train", "val", "test"):
        for folder in ("A", "B"):
            save(raw / split / folder / f"{split}_1.png", photo(300, 512))
        save(raw / split / "label" / f"{split}_1.png", halves(0, 255, 300, 512))
    return dict.fromkeys(("train", "val", "test"), (4, [0, 1]))


def loveda(raw):
    for split, place, name in (
        ("Train", "Urban", 1366),
        ("Train", "Rural", 0),
        ("Val", "Rural", 2522),
        ("Test", "Urban", 9),
    ):
        save(raw / split / place / "images_png" / f"{name}.png", photo())
        if split != "Test":
            save(raw / split / place / "masks_png" / f"{name}.png", halves(0, 7))
    return {"train": (2, [6, 255]), "val": (1, [6, 255]), "test": (1, None)}


def potsdam(raw):
    for name in ("2_10", "6_13"):
        save(raw / "2_Ortho_RGB" / f"top_potsdam_{name}_RGB.tif", photo(600, 512))
        save(raw / f"top_potsdam_{name}_label_noBoundary.tif", halves((255, 0, 0), (0, 0, 0), 600, 512))
        save(raw / f"top_potsdam_{name}_label.tif", halves((0, 0, 255), (0, 0, 255), 600, 512))
    return {"train": (2, [5, 255]), "val": (2, [5, 255])}


def vaihingen(raw):
    for area in (1, 38):
        save(raw / "top" / f"top_mosaic_09cm_area{area}.tif", photo(600, 512))
        save(
            raw / "eroded" / f"top_mosaic_09cm_area{area}_noBoundary.tif", halves((255, 255, 255), (0, 0, 0), 600, 512)
        )
        save(raw / "gts_for_participants" / f"top_mosaic_09cm_area{area}.tif", photo(600, 512))
    return {"train": (2, [0, 255]), "val": (2, [0, 255])}


def nyu(raw):
    for folder in ("sync/kitchen_0028b", "official_splits/test/bathroom", "official_splits/train/bedroom"):
        save(raw / folder / "rgb_00045.jpg", photo())
        save(raw / folder / "sync_depth_00045.png", np.full((12, 16), 2500, np.uint16))
    save(raw / "sync/kitchen_0028b/rgb_00046.jpg", photo())  # without its depth
    return {"train": (1, None), "test": (1, None)}


def encode(runs: list[int]) -> str:
    """COCO's text of run lengths."""
    letters = []
    for index, run in enumerate(runs):
        value, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            group, value = value & 0x1F, value >> 5
            more = value != (-1 if group & 0x10 else 0)
            letters.append(chr((group | (0x20 if more else 0)) + 48))
    return "".join(letters)


def pascal_context(raw):
    images, regions = [], []
    for number, (name, phase) in enumerate((("2008_000002", "train"), ("2008_000003", "val"))):
        save(raw / f"VOC2010/JPEGImages/{name}.jpg", photo())
        images.append({"file_name": f"{name}.jpg", "image_id": number, "phase": phase, "height": 12, "width": 16})
        for label, runs in ((458, [0, 96, 96]), (2, [180, 12]), (1, [191, 1])):
            segmentation = {"size": [12, 16], "counts": encode(runs)}
            regions.append({"image_id": number, "category_id": label, "segmentation": segmentation})
    write(raw / "trainval_merged.json", json.dumps({"images": images, "annos_segmentation": regions}))
    return {"train": (1, [0, 1, 59]), "val": (1, [0, 1, 59])}


def voc_aug(raw):
    voc, sbd = raw / "VOCdevkit/VOC2012", raw / "benchmark_RELEASE/dataset"
    for name in ("2007_000032", "2007_000033", "2008_000002", "2008_000003"):
        save(voc / f"JPEGImages/{name}.jpg", photo())
    for split, name in (("train", "2007_000032"), ("val", "2007_000033")):
        save(voc / f"SegmentationClass/{name}.png", halves(20, 255))
        write(voc / f"ImageSets/Segmentation/{split}.txt", f"{name}\n")
    (sbd / "cls").mkdir(parents=True)
    for name in ("2007_000033", "2008_000002", "2008_000003"):  # the first validates already
        savemat(sbd / f"cls/{name}.mat", {"GTcls": {"Segmentation": halves(0, 20).astype(np.uint8), "Boundaries": []}})
    return {"train": (1, [20, 255]), "val": (1, [20, 255]), "aug": (2, [0, 20])}


TREES = {
    function.__name__: function
    for function in (
        *(chase_db1, drive, hrf, stare, refuge, cityscapes, coco_stuff164k, coco_stuff10k, isaid, levircd, loveda),
        *(potsdam, vaihingen, nyu, pascal_context, voc_aug),
    )
}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def check(name: str, out: Path, expected) -> None:
    """The declaration reads each split: so many images, with these label values after mapping."""
    spec = dataset_spec(CONVERTERS.get(name).dataset)
    for split, (count, values) in expected.items():
        section = spec.split(split, out)
        if values is None:
            section["data_prefix"].pop("seg_map_path", None)
        dataset = build_dataset(section | {"pipeline": LOAD[: 1 if values is None else 2]})
        assert len(dataset) == count, split
        seen = set()
        for index in range(count):
            sample = dataset[index]
            assert sample.image.shape[2] == 3
            seen |= set() if values is None else set(np.unique(sample.label).tolist())
        assert values is None or sorted(seen) == values, split


@pytest.mark.parametrize("name", TREES)
def test_makes_what_the_declaration_reads(name, tmp_path):
    (tmp_path / "raw").mkdir()
    expected = TREES[name](tmp_path / "raw")
    before = files(tmp_path / "raw")
    report = convert(name, tmp_path / "raw", tmp_path / "out", workers=1)
    assert report.images == {split: count for split, (count, _) in expected.items()}
    check(name, tmp_path / "out", expected)
    assert files(tmp_path / "raw") == before
    assert not [path for path in files(tmp_path / "out") if path.endswith(".tmp")]


@pytest.mark.parametrize("name", TREES)
def test_a_second_run_finds_all_done(name, tmp_path):
    (tmp_path / "raw").mkdir()
    TREES[name](tmp_path / "raw")
    convert(name, tmp_path / "raw", tmp_path / "out", workers=1)
    before = {path: when for path, when in files(tmp_path / "out").items() if not path.endswith((".txt", ".json"))}
    report = convert(name, tmp_path / "raw", tmp_path / "out", workers=1)
    after = files(tmp_path / "out")
    assert report.kept and {path: after[path] for path in before} == before


def zip_folders(raw: Path) -> None:
    """Pack every folder of RAW, and its loose files together, as downloads come."""
    for entry in list(raw.iterdir()):
        if entry.is_dir():
            with zipfile.ZipFile(raw / f"{entry.name}.zip", "w") as packed:
                for path in entry.rglob("*"):
                    packed.write(path, path.relative_to(raw))
            shutil.rmtree(entry)
    loose = [path for path in raw.iterdir() if path.suffix != ".zip"]
    if loose:
        with tarfile.open(raw / "loose.tar.gz", "w:gz") as packed:
            for path in loose:
                packed.add(path, path.name)
                path.unlink()


@pytest.mark.parametrize("name", TREES)
def test_takes_archives_as_they_come(name, tmp_path):
    (tmp_path / "raw").mkdir()
    expected = TREES[name](tmp_path / "raw")
    zip_folders(tmp_path / "raw")
    before = files(tmp_path / "raw")
    convert(name, tmp_path / "raw", tmp_path / "out", workers=1)
    check(name, tmp_path / "out", expected)
    assert files(tmp_path / "raw") == before
    assert not (tmp_path / "out/.unpacked").exists()


def test_archives_in_an_archive(tmp_path):
    raw = tmp_path / "raw"
    (raw / "DRIVE").mkdir(parents=True)
    expected = drive(raw / "DRIVE")
    zip_folders(raw / "DRIVE")
    zip_folders(raw)
    convert("drive", raw / "DRIVE.zip", tmp_path / "out", workers=1)
    check("drive", tmp_path / "out", expected)


def test_context_from_mat_files(tmp_path):
    raw = tmp_path / "raw"
    for name, split in (("2008_000002", "train"), ("2008_000003", "val")):
        save(raw / f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg", photo())
        write(raw / f"VOCdevkit/VOC2010/ImageSets/Main/{split}.txt", f"{name}\n")
        (raw / "trainval").mkdir(exist_ok=True)
        savemat(raw / f"trainval/{name}.mat", {"LabelMap": halves(2, 459).astype(np.uint16)})
    convert("pascal_context", raw, tmp_path / "out", workers=1)
    check("pascal_context", tmp_path / "out", {"train": (1, [0, 1]), "val": (1, [0, 1])})


def test_synapse_volumes_become_slices(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for number in ("0001", "0005"):
        for kind, left, right in (("img", -1000.0, 275.0), ("label", 8.0, 5.0)):
            path = tmp_path / f"raw/Training/{kind}/{kind}{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            volume = np.stack([halves(left, right).T] * 3, axis=-1).astype(np.float32)  # x, y, z
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    report = convert("synapse", tmp_path / "raw", tmp_path / "out", workers=1)
    assert report.images == {"train": 3, "val": 3}
    check("synapse", tmp_path / "out", {"train": (3, [0, 1]), "val": (3, [0, 1])})
    assert (tmp_path / "out/img_dir/val/case0001_slice002.jpg").exists()
    image = np.asarray(Image.open(tmp_path / "out/img_dir/train/case0005_slice000.jpg"))
    assert image.shape == (12, 16) and image[0, 0] == 0 and image[0, -1] == 255


def test_every_converter_is_tested():
    assert {*TREES, "synapse", "parquet"} == set(CONVERTERS)


def test_several_processes_and_a_bar(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    expected = cityscapes(tmp_path / "raw")
    out = tmp_path / "out"
    assert main(["data", "convert", "cityscapes", str(tmp_path / "raw"), str(out), "--workers", "2"]) == 0
    check("cityscapes", out, expected)
    said = capsys.readouterr().out
    assert "2 train, 1 val" in said and str(out) in said
    assert "2 of 2975 published images" in said


def test_an_interrupted_run_goes_on(tmp_path):
    (tmp_path / "raw").mkdir()
    expected = levircd(tmp_path / "raw")
    out = tmp_path / "out"
    first = convert("levircd", tmp_path / "raw", out, workers=1)
    lost = next((out / "train/B").iterdir())
    lost.unlink()
    report = convert("levircd", tmp_path / "raw", out, workers=1)
    assert report.written == 1 and report.kept == first.written - 1 and lost.exists()
    check("levircd", out, expected)


def test_a_damaged_file_is_named_and_the_rest_is_done(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    hrf(raw)
    broken = raw / "images/06_g.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"1 of 8 conversions failed(.|\n)*06_g\.jpg"):
        convert("hrf", raw, out, workers=1)
    assert (out / "images/validation/15_dr.png").exists() and not (out / "images/validation/06_g.png").exists()
    broken.write_bytes(whole)
    assert convert("hrf", raw, out, workers=1).written == 1


def test_links_instead_of_copies(tmp_path):
    (tmp_path / "raw").mkdir()
    expected = loveda(tmp_path / "raw")
    convert("loveda", tmp_path / "raw", tmp_path / "out", workers=1, link=True)
    assert (tmp_path / "out/img_dir/train/0.png").is_symlink()
    check("loveda", tmp_path / "out", expected)


def test_what_was_unpacked_is_copied_even_when_linking(tmp_path):
    (tmp_path / "raw").mkdir()
    expected = loveda(tmp_path / "raw")
    zip_folders(tmp_path / "raw")
    convert("loveda", tmp_path / "raw", tmp_path / "out", workers=1, link=True)
    check("loveda", tmp_path / "out", expected)


def test_tiles_of_another_size(tmp_path):
    (tmp_path / "raw").mkdir()
    potsdam(tmp_path / "raw")
    report = convert("potsdam", tmp_path / "raw", tmp_path / "out", workers=1, tile=256, stride=128)
    assert report.images == {"train": 12, "val": 12}
    with pytest.raises(UserError, match="other settings"):
        convert("potsdam", tmp_path / "raw", tmp_path / "out", workers=1)


def test_tiles_lie_where_their_names_say(tmp_path):
    (tmp_path / "raw").mkdir()
    potsdam(tmp_path / "raw")
    convert("potsdam", tmp_path / "raw", tmp_path / "out", workers=1)
    whole = np.asarray(Image.open(tmp_path / "raw/2_Ortho_RGB/top_potsdam_2_10_RGB.tif"))
    names = sorted(path.name for path in (tmp_path / "out/img_dir/train").iterdir())
    assert names == ["2_10_0_0_512_512.png", "2_10_0_88_512_600.png"]
    assert np.array_equal(Image.open(tmp_path / "out/img_dir/train" / names[1]), whole[88:600])


def make_raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    drive(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda raw: shutil.rmtree(raw / "training"), r"no train images.*training\.zip and test\.zip"),
        (lambda raw: (raw / "training/1st_manual/22_manual1.gif").unlink(), "1 of 2 train images have no label: 22"),
        (lambda raw: shutil.rmtree(raw), "there is no"),
        (lambda raw: (shutil.rmtree(raw / "training"), (raw / "training.zip").write_bytes(b"PK?")), "damaged"),
    ],
    ids=["images missing", "label missing", "nothing", "broken archive"],
)
def test_says_what_is_missing(tmp_path, break_it, message):
    raw = make_raw(tmp_path)
    break_it(raw)
    with pytest.raises(UserError, match=message):
        convert("drive", raw, tmp_path / "out", workers=1)


@pytest.mark.parametrize("out", ["raw", "raw/converted"])
def test_never_writes_into_raw(tmp_path, out):
    raw = make_raw(tmp_path)
    before = files(raw)
    with pytest.raises(UserError, match="only read"):
        convert("drive", raw, tmp_path / out, workers=1)
    assert files(raw) == before


def test_files_that_are_not_of_the_conversion_are_noticed(tmp_path):
    raw = make_raw(tmp_path)
    save(tmp_path / "out/images/training/stranger.png", photo())
    save(tmp_path / "out/annotations/training/stranger_manual1.png", halves(0, 1))
    with pytest.raises(UserError, match="holds 3 images, but RAW gives 2"):
        convert("drive", raw, tmp_path / "out", workers=1)


def test_a_test_half_without_labels_is_noted(tmp_path):
    raw = make_raw(tmp_path)
    shutil.rmtree(raw / "test/1st_manual")
    report = convert("drive", raw, tmp_path / "out", workers=1)
    assert "val: images without labels" in report.notes


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["drives"], "did you mean 'drive'"),
        (["drive", "--tile", "256"], "does not cut tiles"),
        (["potsdam", "--tile", "256", "--stride", "512"], "would leave gaps"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, arguments, message):
    name, *options = arguments
    make_raw(tmp_path)
    assert main(["data", "convert", name, str(tmp_path / "raw"), str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err


def test_real_chase_files(tmp_path):
    source = shared("data", "chase_db1")
    for name in ("Image_01L", "Image_10R"):
        (tmp_path / "raw").mkdir(exist_ok=True)
        shutil.copy(source / "images" / f"{name}.jpg", tmp_path / "raw")
        save(tmp_path / "raw" / f"{name}_1stHO.png", 255 * read_label(source / "labels" / f"{name}.png"))
    report = convert("chase_db1", tmp_path / "raw", tmp_path / "out", workers=1)
    assert report.images == {"train": 2}
    label = read_label(tmp_path / "out/annotations/training/Image_01L_1stHO.png")
    assert np.array_equal(label, read_label(source / "labels/Image_01L.png"))


@pytest.mark.parametrize("size, count", [((512, 512), 1), ((6000, 6000), 144), ((500, 513), 2), ((10, 10), 1)])
def test_windows_cover_the_image(size, count):
    boxes = windows(*size, 512, 512)
    covered = np.zeros(size, bool)
    for top, left, bottom, right in boxes:
        covered[top:bottom, left:right] = True
    assert len(boxes) == count and covered.all()


def test_small_tiles_are_padded():
    tile = next(cut(np.ones((3, 4), np.uint8), [(0, 0, 3, 4)], least=5, fill=255))
    assert tile.shape == (5, 5) and (tile[:3, :4] == 1).all() and (tile[3:] == 255).all()


def test_colours_to_indices():
    colours = [(255, 255, 255), (0, 0, 255), (255, 0, 0)]
    image = np.array([[(255, 0, 0), (255, 255, 255), (1, 2, 3), (0, 0, 255)]], np.uint8)
    assert indices_of(image, colours, other=0, first=1).tolist() == [[3, 1, 0, 2]]


@pytest.mark.parametrize("runs", [[0, 192], [5, 100, 87], [70, 3, 1, 40, 78], [0, 1, 190, 1]])
def test_run_lengths_as_numbers_and_as_text(runs):
    mask = run_lengths(encode(runs), 12, 16)
    assert np.array_equal(mask, run_lengths(runs, 12, 16))
    assert np.array_equal(mask.T.ravel(), np.repeat(np.arange(len(runs)) % 2 == 1, runs))


def test_parquet_files_of_the_hugging_face_hub(tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    (tmp_path / "hub/data").mkdir(parents=True)
    for split, count in (("train", 3), ("validation", 2)):
        streets = [street(number) for number in range(count)]
        columns = {
            "image": [{"bytes": cv2.imencode(".jpg", image)[1].tobytes(), "path": None} for image, _ in streets],
            "annotation": [{"bytes": cv2.imencode(".png", label)[1].tobytes(), "path": None} for _, label in streets],
            "scene_category": [0] * count,
        }
        parquet.write_table(pyarrow.table(columns), tmp_path / f"hub/data/{split}-00000-of-00001.parquet", 2)
    (tmp_path / "hub/id2label.json").write_text('{"0": "sky", "1": "road", "2": "car"}')
    assert main(["data", "convert", "parquet", str(tmp_path / "hub"), str(tmp_path / "out")]) == 0
    assert "3 train, 2 val images" in capsys.readouterr().out
    assert (read_label(tmp_path / "out/labels/val/000001.png") == street(1)[1]).all()
    assert main(["data", "init", str(tmp_path / "out"), "--out", str(tmp_path / "a.yaml")]) == 0
    assert "classes: [sky, road, car]  # from id2label.json" in capsys.readouterr().out


def test_parquet_files_without_the_library_that_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r'need pyarrow .*: pip install "terrazzo\[parquet\]"'):
        convert("parquet", tmp_path / "raw", tmp_path / "out")
