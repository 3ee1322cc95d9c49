"""mmcv's functions of images: their values, by Pillow where a script asks for it."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def test_images_are_bgr_whatever_reads_them(tmp_path):
    import mmcv

    Image.fromarray(IMAGE).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    for backend in (None, "cv2", "pillow"):
        assert (mmcv.imread(tmp_path / "x.png", "unchanged", backend=backend) == IMAGE[..., ::-1]).all()
        assert (mmcv.imfrombytes(content, backend=backend) == IMAGE[..., ::-1]).all()
    assert (mmcv.imfrombytes(content, "color_ignore_orientation", "rgb") == IMAGE).all()
    with_alpha, file = np.dstack([IMAGE, IMAGE[..., 0]]), io.BytesIO()
    Image.fromarray(with_alpha).save(file, "PNG")
    assert (mmcv.imfrombytes(file.getvalue(), "unchanged", backend="pillow") == with_alpha[..., [2, 1, 0, 3]]).all()
    label, file = IMAGE[..., 0], io.BytesIO()
    Image.fromarray(label).save(file, "PNG")
    assert (mmcv.imfrombytes(file.getvalue(), "unchanged", backend="pillow") == label).all()


def test_sizes_of_images():
    import mmcv

    by_pillow = np.asarray(Image.fromarray(IMAGE).resize((20, 30), Image.Resampling.BILINEAR))
    assert (mmcv.imresize(IMAGE, (20, 30), backend="pillow") == by_pillow).all()
    assert mmcv.imrescale(IMAGE, 0.5, backend="pillow").shape == (19, 27, 3)
    assert mmcv.rescale_size((40, 30), 1.5) == (60, 45)
    assert mmcv.rescale_size((40, 30), (100, 50), return_scale=True) == ((67, 50), 5 / 3)
    assert mmcv.imresize_like(IMAGE, np.zeros((10, 12))).shape == (10, 12, 3)


def test_crops_hold_the_last_pixel_and_are_filled_outside():
    import mmcv

    assert (mmcv.imcrop(IMAGE, np.array([2, 3, 20, 25])) == IMAGE[3:26, 2:21]).all()
    inside, whole = mmcv.imcrop(IMAGE, np.array([[2, 3, 20, 25], [0, 0, 60, 60]]))
    assert inside.shape == (23, 19, 3) and (whole == IMAGE).all()
    assert mmcv.imcrop(IMAGE, np.array([2, 3, 20, 25]), 1.5).shape == (31, 25, 3)
    filled = mmcv.imcrop(IMAGE, np.array([-2, -1, 9, 9]), pad_fill=7)
    assert (filled[1:, 2:] == IMAGE[:10, :10]).all() and (filled[:1] == 7).all() and (filled[:, :2] == 7).all()


def test_colours_of_images():
    import mmcv

    grey = mmcv.bgr2gray(IMAGE)
    assert grey.shape == (37, 53) and (mmcv.bgr2gray(IMAGE, keepdim=True)[..., 0] == grey).all()
    assert (mmcv.rgb2gray(IMAGE, True)[..., 0] == cv2.cvtColor(IMAGE, cv2.COLOR_RGB2GRAY)).all()
    assert (mmcv.adjust_color(IMAGE, 0.0) == grey[..., None]).all() and (mmcv.adjust_color(IMAGE, 1.0) == IMAGE).all()
    assert mmcv.adjust_color(IMAGE.astype(np.float32), 3.0).max() == 255
    assert (mmcv.iminvert(mmcv.iminvert(IMAGE)) == IMAGE).all()
    assert (mmcv.solarize(IMAGE, 100) == np.where(IMAGE < 100, IMAGE, 255 - IMAGE)).all()
    assert (mmcv.posterize(IMAGE, 4) == IMAGE // 16 * 16).all()
