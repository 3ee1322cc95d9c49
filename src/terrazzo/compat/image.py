"""mmcv's functions of images, by OpenCV; images are BGR arrays (H, W, C), sizes (width, height)."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
cv2_interp_codes = INTERPOLATION
FLAGS = {"color": cv2.IMREAD_COLOR, "grayscale": cv2.IMREAD_GRAYSCALE, "unchanged": cv2.IMREAD_UNCHANGED}
BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


def converted(code: int, img: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(img, code)


for _name in ["BGR2RGB", "RGB2BGR", "BGR2HSV", "HSV2BGR", "BGR2HLS", "HLS2BGR"]:
    globals()[_name.lower()] = functools.partial(converted, getattr(cv2, f"COLOR_{_name}"))
gray2bgr, gray2rgb = (functools.partial(converted, cv2.COLOR_GRAY2BGR) for _ in range(2))
bgr2rgb = functools.partial(converted, cv2.COLOR_BGR2RGB)


def bgr2gray(img: np.ndarray, keepdim: bool = False) -> np.ndarray:
    grey = converted(cv2.COLOR_BGR2GRAY, img)
    return grey[..., None] if keepdim else grey


def rgb2gray(img: np.ndarray, keepdim: bool = False) -> np.ndarray:
    return bgr2gray(img[..., ::-1], keepdim)


def imfrombytes(content: bytes, flag: str = "color", channel_order: str = "bgr", backend: Any = None) -> np.ndarray:
    """Decode an image; palette images keep their indices with the flag "unchanged" and backend "pillow"."""
    if backend == "pillow" and flag == "unchanged":
        return np.array(Image.open(io.BytesIO(content)))
    image: Any = cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS.get(flag, flag))  # type: ignore[arg-type]
    return bgr2rgb(image) if channel_order == "rgb" and image.ndim == 3 else image


def imread(img_or_path: Any, flag: str = "color", channel_order: str = "bgr", backend: Any = None, **_: Any) -> Any:
    """Read an image file; an array is returned as it is."""
    if isinstance(img_or_path, np.ndarray):
        return img_or_path
    if not Path(img_or_path).is_file():
        raise FileNotFoundError(f"img file does not exist: {img_or_path}")
    return imfrombytes(Path(img_or_path).read_bytes(), flag, channel_order, backend)


def imwrite(img: np.ndarray, file_path: Any, params: Any = None, auto_mkdir: bool = True, **_: Any) -> bool:
    """Write an image in the format that the file's suffix names."""
    if auto_mkdir:
        Path(file_path).parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(Path(file_path).suffix, img, params or [])
    Path(file_path).write_bytes(content.tobytes())
    return bool(done)


def imresize(
    img: np.ndarray, size: Any, return_scale: bool = False, interpolation: str = "bilinear", out: Any = None, **_: Any
) -> Any:
    """Resize to a size, with the two factors if asked for."""
    height, width = img.shape[:2]
    resized = cv2.resize(img, tuple(size), dst=out, interpolation=INTERPOLATION[interpolation])
    return (resized, size[0] / width, size[1] / height) if return_scale else resized


def _scale_size(size: Any, scale: Any) -> tuple[int, int]:
    scales = (scale, scale) if isinstance(scale, (int, float)) else scale
    return int(size[0] * scales[0] + 0.5), int(size[1] * scales[1] + 0.5)


def rescale_size(old_size: Any, scale: Any, return_scale: bool = False) -> Any:
    """A size scaled by a factor, or to fit into a pair of (long, short) sides."""
    factor = scale
    if not isinstance(scale, (int, float)):
        factor = min(max(scale) / max(old_size), min(scale) / min(old_size))
    new = _scale_size(old_size, factor)
    return (new, factor) if return_scale else new


def imrescale(
    img: np.ndarray, scale: Any, return_scale: bool = False, interpolation: str = "bilinear", **_: Any
) -> Any:
    """Resize with the ratio of the sides kept."""
    size, factor = rescale_size(img.shape[1::-1], scale, True)
    resized = imresize(img, size, interpolation=interpolation)
    return (resized, factor) if return_scale else resized


def imflip(img: np.ndarray, direction: str = "horizontal") -> np.ndarray:
    axes: Any = {"horizontal": 1, "vertical": 0, "diagonal": (0, 1)}[direction]
    return np.flip(img, axes)


def imrotate(
    img: np.ndarray, angle: float, center: Any = None, scale: float = 1.0, border_value: Any = 0,
    interpolation: str = "bilinear", auto_bound: bool = False, border_mode: str = "constant",
) -> np.ndarray:  # fmt: skip
    """Rotate clockwise by degrees."""
    height, width = img.shape[:2]
    center = center or ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, -angle, scale)
    if auto_bound:
        cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
        new_width, new_height = height * sin + width * cos, height * cos + width * sin
        matrix[:, 2] += [(new_width - width) / 2, (new_height - height) / 2]
        width, height = round(new_width), round(new_height)
    return cv2.warpAffine(
        img, matrix, (width, height), flags=INTERPOLATION[interpolation], borderMode=BORDERS[border_mode],
        borderValue=border_value,
    )  # fmt: skip


def impad(
    img: np.ndarray, *, shape: Any = None, padding: Any = None, pad_val: Any = 0, padding_mode: str = "constant"
) -> np.ndarray:
    """Pad to a shape (height, width) on the right and below, or by (left, top, right, bottom)."""
    if shape is not None:
        padding = (0, 0, max(shape[1] - img.shape[1], 0), max(shape[0] - img.shape[0], 0))
    elif isinstance(padding, int):
        padding = (padding,) * 4
    left, top, right, bottom = padding if len(padding) == 4 else (*padding, *padding)
    return cv2.copyMakeBorder(img, top, bottom, left, right, BORDERS[padding_mode], value=pad_val)


def impad_to_multiple(img: np.ndarray, divisor: int, pad_val: Any = 0) -> np.ndarray:
    shape = tuple(-(-side // divisor) * divisor for side in img.shape[:2])
    return impad(img, shape=shape, pad_val=pad_val)


def imnormalize(img: np.ndarray, mean: Any, std: Any, to_rgb: bool = True) -> np.ndarray:
    """Subtract the mean and divide by the deviation, in RGB order with `to_rgb`."""
    image = img[..., ::-1] if to_rgb else img
    return ((image - np.float64(mean).reshape(1, -1)) / np.float64(std).reshape(1, -1)).astype(np.float32)


def imdenormalize(img: np.ndarray, mean: Any, std: Any, to_bgr: bool = True) -> np.ndarray:
    """The inverse of `imnormalize`."""
    image = img * np.float64(std).reshape(1, -1) + np.float64(mean).reshape(1, -1)
    return np.ascontiguousarray(image[..., ::-1] if to_bgr else image, dtype=np.float32)


def tensor2imgs(tensor: Any, mean: Any = None, std: Any = None, to_rgb: bool = True) -> list[np.ndarray]:
    """Normalised images (N, C, H, W) as arrays (H, W, C) of bytes."""
    count = tensor.shape[1]
    mean, std = mean if mean is not None else (0,) * count, std if std is not None else (1,) * count
    arrays = tensor.detach().cpu().numpy().transpose(0, 2, 3, 1)
    return [np.ascontiguousarray(imdenormalize(x, mean, std, to_rgb).clip(0, 255).astype(np.uint8)) for x in arrays]


def imresize_like(img: np.ndarray, dst_img: np.ndarray, *args: Any, **kwargs: Any) -> Any:
    return imresize(img, dst_img.shape[1::-1], *args, **kwargs)


def imresize_to_multiple(
    img: np.ndarray, divisor: Any, size: Any = None, scale_factor: Any = None, keep_ratio: bool = False, **kwargs: Any
) -> Any:
    """Resize to a size, or by a factor, rounded up to multiples of `divisor`."""
    own = img.shape[1::-1]
    size = size if scale_factor is None else _scale_size(own, scale_factor)
    size = rescale_size(own, size) if keep_ratio else size
    divisors = (divisor, divisor) if isinstance(divisor, int) else divisor
    return imresize(img, tuple(-(-n // d) * d for n, d in zip(size, divisors, strict=True)), **kwargs)


def imcrop(img: np.ndarray, bboxes: np.ndarray, scale: float = 1.0, pad_fill: Any = None) -> Any:
    """The parts of an image in boxes (x1, y1, x2, y2), their ends included."""
    boxes = np.atleast_2d(bboxes).astype(float)
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2] + 1) * scale
    crops = []
    for (x, y), (width, height) in zip(centers, sides, strict=True):
        left, top, right, bottom = (
            round(v) for v in (x - (width - 1) / 2, y - (height - 1) / 2, x + (width - 1) / 2, y + (height - 1) / 2)
        )
        part = img[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
        if pad_fill is not None:
            gaps = [max(gap, 0) for gap in (-left, -top, right + 1 - img.shape[1], bottom + 1 - img.shape[0])]
            part = impad(part, padding=tuple(gaps), pad_val=pad_fill)
        crops.append(part)
    return crops[0] if np.ndim(bboxes) == 1 else crops


def cutout(img: np.ndarray, shape: Any, pad_val: Any = 0) -> np.ndarray:
    """An image with a random window of `shape` (height, width) filled."""
    height, width = (shape, shape) if isinstance(shape, int) else shape
    y, x = np.random.uniform(0, img.shape[0]), np.random.uniform(0, img.shape[1])
    top, left = int(max(y - height / 2, 0)), int(max(x - width / 2, 0))
    made = img.copy()
    made[top : min(img.shape[0], top + height), left : min(img.shape[1], left + width)] = pad_val
    return made


def adjusted(kind: str) -> Any:
    """A function of an image and a factor, by Pillow's enhancer of this kind."""

    def adjust(img: np.ndarray, factor: float = 1.0, *_: Any, **__: Any) -> np.ndarray:
        enhanced = getattr(ImageEnhance, kind)(Image.fromarray(np.ascontiguousarray(img[..., ::-1]))).enhance(factor)
        return np.ascontiguousarray(np.asarray(enhanced)[..., ::-1]).astype(img.dtype)

    return adjust


adjust_brightness, adjust_contrast = adjusted("Brightness"), adjusted("Contrast")
adjust_color, adjust_sharpness = adjusted("Color"), adjusted("Sharpness")


def iminvert(img: np.ndarray) -> np.ndarray:
    return np.full_like(img, 255) - img


def solarize(img: np.ndarray, thr: int = 128) -> np.ndarray:
    return np.where(img < thr, img, 255 - img)


def posterize(img: np.ndarray, bits: int) -> np.ndarray:
    return np.left_shift(np.right_shift(img, 8 - bits), 8 - bits)


def imequalize(img: np.ndarray) -> np.ndarray:
    return np.asarray(ImageOps.equalize(Image.fromarray(img)))


def auto_contrast(img: np.ndarray, cutoff: Any = 0) -> np.ndarray:
    return np.asarray(ImageOps.autocontrast(Image.fromarray(img), cutoff))


def use_backend(backend: str) -> None:
    """Nothing: OpenCV and Pillow read, whichever a file needs."""


def lut_transform(img: np.ndarray, lut_table: np.ndarray) -> np.ndarray:
    return cv2.LUT(np.array(img, dtype=np.uint8), lut_table)


def clahe(img: np.ndarray, clip_limit: float = 40.0, tile_grid_size: Any = (8, 8)) -> np.ndarray:
    return cv2.createCLAHE(clip_limit, tile_grid_size).apply(np.array(img, dtype=np.uint8))
