"""Whole-slide images: at a given pixel size, without glass, and with one message for a level that is damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.transforms.loading import LoadImageFromFile
from terrazzo.transforms.slides import SlideScene

tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH, MICRONS = 512, 768, 0.25


@pytest.fixture
def slide(tmp_path) -> Path:
    """A pyramid of tiles with Aperio's description: glass, and tissue in its right half."""
    pytest.importorskip("tiffslide")
    image = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    image[:, WIDTH // 2 :] = (200, 90, 160)
    description = f"Aperio Image Library v11\r\n{WIDTH}x{HEIGHT} (256x256)|AppMag = 40|MPP = {MICRONS}"
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate", "metadata": None}
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as file:
        file.write(image, description=description, **options)
        file.write(image[::4, ::4], description=description, photometric="rgb", metadata=None)  # a thumbnail
        file.write(cv2.resize(image, (WIDTH // 4, HEIGHT // 4)), description=description, **options)
    return path


SIZES = [(None, (512, 768), 0), (0.5, (256, 384), 0), (1.0, (128, 192), 1)]


@pytest.mark.parametrize(("microns", "size", "level"), SIZES)
def test_a_slide_at_a_pixel_size(slide, microns, size, level):
    scene = SlideScene(slide, LoadImageFromFile(microns=microns))
    assert (scene.size, scene.level) == (size, level)
    image, valid = scene.read(0, size[0] // 2, size[1] // 4, size[1])
    assert image.shape == (size[0] // 2, size[1] - size[1] // 4, 3)
    assert (image[:, -4:] == (200, 90, 160)).all()
    assert valid is not None and valid[:, -4:].all() and not valid[:, :4].any()  # glass is left out


def test_a_slide_is_predicted_in_windows(slide, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    out = tmp_path / "out"
    assert main(["predict", str(slide), "--microns", "0.5", "--window", "256x256", "--out", str(out)]) == 0
    with rasterio.open(out / "a.tif") as file:
        labels = file.read(1)
    assert labels.shape == (256, 384)
    assert (labels[:, :150] == 255).all() and (labels[:, 230:] != 255).all()


def test_a_level_that_is_damaged(slide, tmp_path, capsys):
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as file:
        page = file.pages[2]
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            data[offset : offset + count] = b"\x55" * count
    slide.write_bytes(data)
    assert main(["predict", str(slide), "--microns", "1", "--out", str(tmp_path / "out")]) == 1
    assert "level 1 of 2 cannot be read" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("a*"))


def test_bands_are_not_those_of_a_slide(tmp_path):
    with pytest.raises(UserError, match="slide in RGB"):
        SlideScene(tmp_path / "a.svs", LoadImageFromFile(bands=[1, 2]))
