"""Label files of every depth, form and library: the values that are stored, or one message."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from terrazzo.errors import UserError
from terrazzo.transforms import read_image, read_label, tiff
from terrazzo.transforms.decode import file_orientation, has_fourth_band, read_size, read_stored
from terrazzo.transforms.formats.base import make_label_format
from terrazzo.transforms.label_files import read_label_file
from terrazzo.transforms.opening import load_numpy, open_picture

LABEL = np.repeat(np.arange(4, dtype=np.uint8), 12).reshape(6, 8)  # 0 to 3
MASK = (LABEL > 1).astype(np.uint8)
LIBRARIES = ("rasterio", "tifffile", "neither")


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch) -> str:
    """What reads TIFF beside Pillow."""
    for name in LIBRARIES[:2]:
        if request.param == name:
            pytest.importorskip(name)
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == request.param or None)
    return request.param


def png(path: Path, label: np.ndarray, bits: int, colours: int = 0) -> None:
    """Write a PNG of any depth; Pillow writes no grey of 2 or 4 bits."""
    rows = np.unpackbits(label.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(len(label), -1)
    content = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", label.shape[1], label.shape[0], bits, colours, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def grey_tiff(path: Path, label: np.ndarray, bits: int, white_is_zero: bool = False) -> None:
    """Write an uncompressed grey TIFF of any depth by hand."""
    rows = np.unpackbits(label.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(len(label), -1)
    content = b"".join(np.packbits(row).tobytes() for row in rows)
    height, width = label.shape
    tags = ((256, width), (257, height), (258, bits), (259, 1), (262, int(not white_is_zero)), (273, 8), (277, 1),
            (278, height), (279, len(content)))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    offset = 8 + len(content) + len(content) % 2
    path.write_bytes(
        b"II*\0" + struct.pack("<I", offset) + content.ljust(offset - 8, b"\0")
        + struct.pack("<H", len(tags)) + entries + bytes(4)
    )  # fmt: skip


def pillow_tiff(path: Path, label: np.ndarray, nodata: str | None = None, **tags: Any) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    if nodata is not None:
        info[42113] = nodata
    for key, value in tags.items():
        info[int(key[1:])] = value
    Image.fromarray(label).save(path, tiffinfo=info)


def geo_tiff(path: Path, label: np.ndarray, **options: Any) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, label, **{"photometric": "minisblack", "metadata": None, **options})


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colours", [0, 3])
def test_png_of_few_bits_is_not_scaled(tmp_path, bits, colours):
    label = LABEL & ((1 << bits) - 1)
    if colours == 0:
        png(tmp_path / "a.png", label, bits)
    else:
        image = Image.fromarray(label)
        image.putpalette([7, 7, 7, 90, 90, 90, 1, 2, 3, 3, 2, 1])
        image.save(tmp_path / "a.png", bits=bits)
    assert np.array_equal(read_label(tmp_path / "a.png"), label)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_few_bits_is_neither_scaled_nor_inverted(tmp_path, library, bits, white_is_zero):
    label = LABEL & ((1 << bits) - 1)
    grey_tiff(tmp_path / "a.tif", label, bits, white_is_zero)
    assert np.array_equal(read_label(tmp_path / "a.tif"), label)


WHOLE = (np.uint16, np.int16, np.int32, np.uint32, np.float32)


@pytest.mark.parametrize("kind", [np.int8, *WHOLE, np.int64, np.uint64, np.float64])
def test_numbers_of_any_type_are_classes(tmp_path, library, kind):
    geo_tiff(tmp_path / "a.tif", LABEL.astype(kind))
    if library == "neither" and np.dtype(kind).itemsize == 8:
        with pytest.raises(UserError, match=r"a\.tif.* without rasterio or tifffile.*pip install 'terrazzo\[geo\]'"):
            read_label(tmp_path / "a.tif")
    else:
        found = read_label(tmp_path / "a.tif")
        assert np.array_equal(found, LABEL) and found.dtype == np.uint8
    np.save(tmp_path / "a.npy", LABEL.astype(kind))
    assert np.array_equal(read_label(tmp_path / "a.npy"), LABEL)


@pytest.mark.parametrize(
    ("kind", "value", "declared"),
    [
        (np.uint8, 3, "3"),
        (np.uint16, 65535, "65535"),
        (np.uint16, 65535, "65535.0"),
        (np.int16, -9999, "-9999"),
        (np.int32, -(2**31), "-2147483648"),
        (np.int32, 2**31 - 1, "2147483647"),
        (np.uint32, 2**32 - 1, "4294967295"),
        (np.float32, np.nan, "nan"),
        (np.float32, np.nan, None),
        (np.float32, -3.4028234663852886e38, "-3.4028234663852886e+38"),
        (np.float32, 1e20, "1e20"),
        (np.int32, -1, None),
        (np.uint32, 2**32 - 1, None),
    ],
)
def test_no_data_is_ignored(tmp_path, library, kind, value, declared):
    stored = LABEL.astype(kind)
    stored[LABEL == 3] = value
    geo_tiff(tmp_path / "a.tif", stored, extratags=[(42113, 2, 0, declared, True)] if declared else None)
    assert np.array_equal(read_label(tmp_path / "a.tif"), np.where(LABEL == 3, 255, LABEL))


def test_a_declared_0_is_kept_and_said(tmp_path):
    pillow_tiff(tmp_path / "a.tif", LABEL, "0")
    found = read_label_file(tmp_path / "a.tif")
    assert np.array_equal(found.label, LABEL) and found.zero_is_no_data
    pillow_tiff(tmp_path / "b.tif", LABEL, "3")
    assert not read_label_file(tmp_path / "b.tif").zero_is_no_data


def test_no_data_that_a_file_beside_it_declares(tmp_path):
    pillow_tiff(tmp_path / "a.tif", LABEL)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><NoDataValue>3.0E+00</NoDataValue></PAMDataset>")
    assert np.array_equal(read_label(tmp_path / "a.tif"), np.where(LABEL == 3, 255, LABEL))


def test_the_mask_inside_a_geotiff(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    size = {"width": 8, "height": 6, "count": 1, "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size) as file,
    ):
        file.write(LABEL, 1)
        file.write_mask(LABEL != 3)
    assert np.array_equal(read_label(tmp_path / "a.tif"), np.where(LABEL == 3, 255, LABEL))


def test_compression_that_pillow_does_not_know(tmp_path, library):
    rasterio = pytest.importorskip("rasterio")
    options = {"width": 8, "height": 6, "count": 1, "dtype": "int32", "compress": "lerc"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **options) as file:
        file.write(LABEL.astype(np.int32), 1)
    if library == "rasterio":
        assert np.array_equal(read_label(tmp_path / "a.tif"), LABEL)
    else:
        with pytest.raises(UserError, match=r"a\.tif.*pip install 'terrazzo\[geo\]'"):
            read_label(tmp_path / "a.tif")


ONE_HOT = (LABEL[..., None] == np.arange(4)).astype(np.uint8)  # H, W, 4


@pytest.mark.parametrize(
    "stored", [ONE_HOT, ONE_HOT.transpose(2, 0, 1), ONE_HOT.astype(np.float32), ONE_HOT * 255, ONE_HOT.astype(bool)]
)
def test_a_channel_for_each_class(tmp_path, stored):
    np.save(tmp_path / "a.npy", stored)
    assert np.array_equal(read_label(tmp_path / "a.npy"), LABEL)


def test_a_band_for_each_class(tmp_path):
    wide = np.concatenate([ONE_HOT, np.zeros_like(ONE_HOT[..., :1])], axis=2)  # of the last class there is nothing
    geo_tiff(tmp_path / "a.tif", wide, planarconfig="contig")
    assert np.array_equal(read_label(tmp_path / "a.tif"), LABEL)


def with_alpha(label: np.ndarray, alpha: Any, mode: str = "LA") -> Image.Image:
    image = Image.fromarray(label).convert(mode)
    image.putalpha(Image.fromarray(np.broadcast_to(np.asarray(alpha, np.uint8), label.shape).copy()))
    return image


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("alpha", [255, 0, 255 * (LABEL > 0)])
def test_an_alpha_channel_that_says_nothing_is_dropped(tmp_path, mode, alpha):
    with_alpha(LABEL, alpha, mode).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png"), LABEL)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_shapes_in_the_alpha_channel(tmp_path, mode):
    with_alpha(LABEL * 0 + 9, MASK * 255, mode).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png are in its alpha channel: set `label_format: alpha`"):
        read_label(tmp_path / "a.png")
    reader = make_label_format("alpha", tmp_path, ["background", "leaf"])
    assert np.array_equal(reader.read(tmp_path / "a.png", None, (0, 0)), MASK)
    with pytest.raises(UserError, match="for two classes, not for 3"):
        make_label_format("alpha", tmp_path, ["a", "b", "c"]).read(tmp_path / "a.png", None, (0, 0))


def test_sixteen_bits_of_several_channels_keep_small_values(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(LABEL.astype(np.uint16)[..., None], 3, axis=2))
    assert np.array_equal(read_label(tmp_path / "a.png"), LABEL)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_label_is_turned_as_its_image_is(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    label = np.repeat(np.repeat(LABEL, 8, 0), 8, 1) * 60
    Image.fromarray(np.dstack([label] * 3)).save(tmp_path / f"image{suffix}", exif=exif, lossless=True)
    Image.fromarray(label).save(tmp_path / f"label{suffix}", exif=exif, lossless=True)
    found = read_label(tmp_path / f"label{suffix}")
    assert np.array_equal(found, read_image(tmp_path / f"image{suffix}")[..., 0])
    assert found.shape == read_size(tmp_path / f"image{suffix}")
    assert file_orientation(tmp_path / f"image{suffix}") == orientation


def pages(path: Path, count: int = 3) -> None:
    images = [Image.fromarray(LABEL) for _ in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:])


def test_several_pages_are_named(tmp_path, library):
    pages(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has 3 pages of 8x6; a label is one page"):
        read_label(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has 3 pages .*`bands: \[1, 2, 3\]`"):
        read_image(tmp_path / "a.tif")
    if library != "neither":
        assert np.array_equal(read_stored(tmp_path / "a.tif", [2, 3]), np.dstack([LABEL] * 2))


def test_overviews_are_no_pages(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=8, height=6, count=1, dtype="uint8") as file:
        file.write(LABEL, 1)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([2])
    assert np.array_equal(read_label(tmp_path / "a.tif"), LABEL)


def test_a_fourth_band_is_told_from_an_alpha_channel(tmp_path, library):
    measured = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    opaque = measured.copy()
    opaque[..., 3] = MASK * 255
    for name, image, extra in (("band", measured, "unspecified"), ("said", measured, "unassalpha")):
        geo_tiff(tmp_path / f"{name}.tif", image, photometric="rgb", extrasamples=[extra])
    Image.fromarray(measured).save(tmp_path / "band.png")
    Image.fromarray(opaque).save(tmp_path / "alpha.png")
    geo_tiff(tmp_path / "alpha.tif", opaque, photometric="rgb", extrasamples=["unassalpha"])
    found = {path.name: has_fourth_band(path) for path in tmp_path.iterdir()}
    assert found == {
        "band.tif": library != "neither", "said.tif": True, "band.png": True, "alpha.png": False, "alpha.tif": False,
    }  # fmt: skip


def lying_tiff(path: Path) -> None:
    grey_tiff(path, LABEL, 8)
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, 99)))


def claiming_array(path: Path) -> None:
    """An array of 7 TiB by its header."""
    np.save(path, LABEL)
    path.write_bytes(path.read_bytes().replace(b"(6, 8), }" + b" " * 14, b"(1000000, 8000000), }  "))


BROKEN: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "colours": ("a.png", lambda path: Image.new("RGB", (8, 6), (1, 2, 3)).save(path), "colour image.*: rgb"),
    "fractions": ("a.npy", lambda path: np.save(path, LABEL / 3), "fractions, such as 0.33"),
    "infinite": ("a.npy", lambda path: np.save(path, np.where(MASK, np.inf, 1)), "fractions, such as inf"),
    "too large": ("a.npy", lambda path: np.save(path, LABEL.astype(np.int64) << 40), "the value 3298534883328"),
    "scores": ("a.npy", lambda path: np.save(path, ONE_HOT * 0.5 + 0.1), r"6x8x4.*argmax"),
    "alpha and grey": ("a.png", lambda path: with_alpha(MASK, LABEL % 2 * 255).save(path), "transparent and in opaque"),
    "objects": ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "a.npy"),
    "texts": ("a.npy", lambda path: np.save(path, np.array([["a"]])), "rather than one array of numbers"),
    "several arrays": ("a.npy", lambda path: np.savez(path.open("wb"), a=LABEL), "several arrays"),
    "7 TiB": ("a.npy", claiming_array, "cannot decode"),
    "a TIFF that lies": ("a.tif", lying_tiff, "cannot decode"),
    "EPS": ("a.png", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\nshowpage\n"),
            "cannot decode .*a.png"),
    "VRT": ("a.tif", lambda path: path.write_text("<VRTDataset rasterXSize='8' rasterYSize='6'><VRTRasterBand band='1'>"
            "<SimpleSource><SourceFilename>/vsicurl/http://localhost:9/x.tif</SourceFilename></SimpleSource>"
            "</VRTRasterBand></VRTDataset>"), "cannot decode .*a.tif"),
    "nothing": ("a.png", lambda path: path.write_bytes(b""), "cannot decode"),
    "no file": ("a.tif", lambda path: None, "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_label_ends_in_one_message(tmp_path, library, case):
    name, write, message = BROKEN[case]
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        read_label(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_one_limit_of_pixels_for_every_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr("terrazzo.system.limits.MOST_PIXELS", 40)
    Image.fromarray(LABEL).convert("RGB").save(tmp_path / "a.jpg")
    pillow_tiff(tmp_path / "a.tif", LABEL)
    for open_file, name in (
        (open_picture, "a.jpg"),
        (read_label, "a.tif"),
        (read_label, "a.jpg"),
        (read_stored, "a.tif"),
    ):
        with pytest.raises(
            UserError, match=rf"{name[0]}\{name[1:]} has 8x6 pixels, more than the 40 .*TERRAZZO_MAX_PIXELS"
        ):
            open_file(tmp_path / name)


def test_a_label_of_200_million_pixels_is_no_bomb(tmp_path):
    png(tmp_path / "a.png", np.zeros((14_000, 14_000), np.uint8), 1)
    with open_picture(tmp_path / "a.png") as image:
        assert image.size == (14_000, 14_000)


def test_an_array_is_read_whole(tmp_path):
    np.save(tmp_path / "a.npy", LABEL)
    array = load_numpy(tmp_path / "a.npy")
    array[:] = 1  # it is not the file
    assert np.array_equal(load_numpy(tmp_path / "a.npy"), LABEL)
