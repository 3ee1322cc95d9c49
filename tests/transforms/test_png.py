"""The faster PNG reader gives what OpenCV gives, and leaves to it what it does not know."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from terrazzo.errors import UserError
from terrazzo.transforms import decode, png, read_image, read_label


@pytest.fixture(params=[("pyspng",), ("pyspng", "isal")], ids=["pyspng", "pyspng and isal"])
def fast(request, monkeypatch) -> None:
    for name in request.param:
        pytest.importorskip(name, reason="needs pip install 'terrazzo[fast]'")
    monkeypatch.setattr(png, "installed", lambda name: name in request.param)


def picture(*shape: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return np.clip(np.indices(shape[:2])[1].reshape(*shape[:2], *[1] * (len(shape) - 2)) + noise, 0, 255).astype(
        np.uint8
    )


def save(path: Path, array: np.ndarray, **options) -> bytes:
    Image.fromarray(array).save(path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("shape", [(1, 1, 3), (200, 301, 3), (97, 131)])
def test_pictures_and_labels_are_the_same(fast, tmp_path, shape, monkeypatch):
    data = save(tmp_path / "a.png", picture(*shape))
    image = png.read_png(data)
    np.testing.assert_array_equal(np.squeeze(image), np.squeeze(picture(*shape)))
    results = {color_type: read_image(tmp_path / "a.png", color_type) for color_type in decode.CV2_FLAGS}
    label = read_label(tmp_path / "a.png") if len(shape) == 2 else None
    monkeypatch.setattr(decode, "read_png", lambda data: None)
    for color_type, result in results.items():
        np.testing.assert_array_equal(result, read_image(tmp_path / "a.png", color_type))
    if label is not None:
        np.testing.assert_array_equal(label, read_label(tmp_path / "a.png"))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def sixteen_bits(path: Path) -> None:
    cv2.imwrite(str(path), picture(20, 30).astype(np.uint16) * 200)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: Image.fromarray(picture(20, 30, 3)).convert("P").save(path),
        lambda path: Image.fromarray(picture(20, 30, 3)).convert("RGBA").save(path),
        lambda path: Image.fromarray(picture(20, 30, 3)).save(path, exif=exif(6)),
        lambda path: Image.fromarray(picture(20, 30, 3)).save(path, transparency=(1, 2, 3)),
        lambda path: Image.fromarray(picture(20, 30, 3)).save(path, format="JPEG"),
        sixteen_bits,
    ],
    ids=["palette", "alpha", "turned", "one transparent colour", "JPEG", "16 bits"],
)
def test_other_files_are_left_to_others(fast, tmp_path, write):
    write(tmp_path / "a.png")
    assert png.read_png((tmp_path / "a.png").read_bytes()) is None


def damage(data: bytes) -> dict[str, bytes]:
    """A PNG broken off, with a changed byte in its pixels, and with a header that promises far more of them."""
    middle = len(data) // 2
    return {
        "broken off": data[:middle],
        "no end": data[:-12],
        "changed": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
        "huge": data[:16] + b"\x00\x0f\x00\x00\x00\x0f\x00\x00" + data[24:],
        "header alone": data[:33],
    }


@pytest.mark.parametrize("kind", ["broken off", "no end", "changed", "huge", "header alone"])
def test_damaged_files(fast, tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(picture(200, 301, 3)).save(buffer, "PNG")
    data = damage(buffer.getvalue())[kind]
    assert png.read_png(data) is None
    (tmp_path / "a.png").write_bytes(data)
    if kind == "header alone":
        with pytest.raises(UserError, match=r"cannot decode .*a\.png"):
            read_image(tmp_path / "a.png")


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setattr(png, "installed", lambda name: False)
    data = save(tmp_path / "a.png", picture(20, 30, 3))
    assert png.read_png(data) is None
    assert read_image(tmp_path / "a.png").shape == (20, 30, 3)
