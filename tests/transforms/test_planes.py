"""Files that hold several images: TIFF stacks by their axes, whatever reads them; NIfTI volumes."""

from __future__ import annotations

import gzip
import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest

import terrazzo as tz
from support.scenes import save_model
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.transforms.decode import read_image, read_stored
from terrazzo.transforms.label_files import read_label
from terrazzo.transforms.planes import MOST_SLICES, images_in_pages, open_nifti, plane_paths
from terrazzo.transforms.volume import read_volume

tifffile = pytest.importorskip("tifffile")

SIZE = 20, 24


def planes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (*shape, *SIZE)).astype(np.uint8)


@pytest.fixture(params=["rasterio", "tifffile"])
def reader(request, monkeypatch):
    """Each library that reads TIFF, alone."""
    other = {"rasterio": "tifffile", "tifffile": "rasterio"}[request.param]
    found = importlib.util.find_spec
    monkeypatch.setattr("terrazzo.transforms.tiff.find_spec", lambda name: None if name == other else found(name))


@pytest.mark.parametrize(
    ("options", "shape", "images", "bands"),
    [
        ({"ome": True, "metadata": {"axes": "CYX"}}, (3,), 1, 3),
        ({"ome": True, "metadata": {"axes": "ZYX"}}, (5,), 5, 1),
        ({"ome": True, "metadata": {"axes": "TCYX"}}, (4, 2), 4, 2),
        ({"imagej": True, "metadata": {"axes": "ZCYX"}}, (2, 3), 2, 3),
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, (6,), 6, 1),
        ({"photometric": "minisblack"}, (4,), 1, 4),
    ],
)
def test_pages_are_bands_or_images_by_their_axes(tmp_path, reader, options, shape, images, bands):
    path, values = tmp_path / "stack.tif", planes(*shape)
    tifffile.imwrite(path, values, **options)
    paths = plane_paths(path)
    assert len(paths) == images
    expected = values.reshape(images, bands, *SIZE).transpose(0, 2, 3, 1)
    for one, wanted in zip(paths, expected, strict=True):
        assert (read_stored(one) == wanted).all()
    if images > 1:
        for read in (read_stored, read_image, read_label):
            with pytest.raises(UserError, match=rf"{images * bands} pages"):
                read(path)
    if images > 1 and bands in (1, 3):
        assert read_image(paths[0]).shape == (*SIZE, 3)


def test_a_page_of_another_size_is_not_left_out_in_silence(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(planes(1)[0])
        file.write(planes(1)[0, :7, :23])
    with pytest.raises(UserError, match="has 2 pages, 1 of them of another size than the first, 24x20"):
        read_image(path)


def test_a_description_that_does_not_fit_is_no_description():
    assert images_in_pages('<Pixels SizeC="2" SizeZ="3" SizeT="1">', [0, 1, 2], 1) == ((0, 1, 2),)


@pytest.fixture
def volumes(tmp_path) -> Path:
    """nnU-Net's layout: volumes of two channels in a file each, with labels."""
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    root, affine = tmp_path / "Dataset001_Box", np.diag([-1.5, 1.5, 3, 1.0])
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in range(3):
        label = np.zeros((48, 40, 3), np.uint8)  # X, Y, Z
        label[10 + case : 30, 8:32, 1:] = 1
        for channel in range(2):
            noise = rng.normal(0, 60, label.shape)
            image = (label.astype(int) * (500 - 300 * channel) + noise).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(image, affine), root / f"imagesTr/box_{case:02d}_{channel:04d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), root / f"labelsTr/box_{case:02d}.nii.gz")
    description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "box": 1}}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_a_config_for_nnunets_layout(volumes, tmp_path, capsys):
    assert main(["data", "init", str(volumes), "--out", str(tmp_path / "box.yaml")]) == 0
    text = capsys.readouterr().out
    for line in ("image_suffix: _0000.nii.gz", "classes: [background, box]", "bands: [1, 2]", "6 train + 3 val"):
        assert line in text
    assert main(["data", "check", str(tmp_path / "box.yaml")]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_a_volume_becomes_one(volumes, tmp_path):
    import nibabel

    model = save_model(tmp_path / "m.safetensors", bands=2)
    source = volumes / "imagesTr/box_01_0000.nii.gz"
    out = tmp_path / "out"
    assert main(["predict", str(source), "--model", str(model), "--out", str(out), "--confidence"]) == 0
    written, image = nibabel.load(out / "box_01.nii.gz"), nibabel.load(source)
    assert written.shape == image.shape
    assert np.allclose(written.affine, image.affine)
    labels = tz.load(model)(source).labels
    assert (np.asarray(written.dataobj) == labels.T).all()
    assert np.asarray(nibabel.load(out / "box_01_confidence.nii.gz").dataobj).max() <= 1
    first = tz.load(model)(read_stored(plane_paths(source)[0])).labels
    assert (labels[0] == first).all()


def test_without_its_library_a_volume_says_what_is_missing(volumes, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    source = volumes / "imagesTr/box_01_0000.nii.gz"
    assert main(["predict", str(source), "--out", str(volumes / "out")]) == 1
    assert 'pip install "terrazzo[medical]"' in capsys.readouterr().err
    assert main(["data", "init", str(volumes), "--out", str(volumes / "x.yaml")]) == 1
    assert 'pip install "terrazzo[medical]"' in capsys.readouterr().err


def damaged_volume(path: Path, content: bytes, places: dict[int, tuple[str, float]]) -> Path:
    """A volume whose header has other values at some places, by their struct formats."""
    data = bytearray(content)
    for place, (kind, value) in places.items():
        struct.pack_into(f"<{kind}", data, place, value)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))
    return path


LIES = {  # places in the header of NIfTI-1: 40 number of axes, 42 ... their lengths, 70 type, 108 offset of the values
    "a volume of 70 TB": (dict.fromkeys((42, 44, 46), ("h", 32767)), "32767x32767x32767 values, which it cannot"),
    "a negative size": ({42: ("h", -5)}, "-5x9x3 values, which it cannot hold"),
    "no slices": ({46: ("h", 0)}, "8x9x0 values, which it cannot hold"),
    "a row": ({40: ("h", 1)}, "has 1 axes"),
    "seven axes": ({40: ("h", 7)}, "has 7 axes"),
    "colours": ({70: ("h", 128), 72: ("h", 24)}, "values of the type"),
    "complex numbers": ({70: ("h", 32), 72: ("h", 64)}, "values of the type complex64"),
    "an unknown type": ({70: ("h", 999)}, "data code 999"),
    "values at no place": ({108: ("f", float("nan"))}, "cannot decode"),
    "values behind the end": ({108: ("f", 1e30)}, "cannot decode"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("case", LIES)
def test_a_volume_that_is_not_what_its_header_says_is_named(tmp_path, case, suffix):
    nibabel = pytest.importorskip("nibabel")
    content = nibabel.Nifti1Image(np.zeros((8, 9, 3), np.int16), np.eye(4)).to_bytes()
    places, message = LIES[case]
    path = damaged_volume(tmp_path / f"a{suffix}", content, places)
    for read in (lambda: read_image(plane_paths(path)[0]), lambda: read_volume(path, "nifti")):
        with pytest.raises(UserError, match=message):
            read()


def test_a_volume_has_a_number_of_slices_that_can_be_listed(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti2Image(np.zeros((1, 1, MOST_SLICES + 1), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UserError, match="has 32,769 slices, more than 32,768"):
        open_nifti(tmp_path / "a.nii")
