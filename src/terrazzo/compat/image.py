"""mmcv's functions of images, by OpenCV; images are BGR arrays (H, W, C)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}  # fmt: skip
cv2_interp_codes = INTERPOLATION
FLAGS = {"color": cv2.IMREAD_COLOR, "grayscale": cv2.IMREAD_GRAYSCALE, "unchanged": cv2.IMREAD_UNCHANGED}
BORDERS = {
    "constant": cv2.BORDER_CONSTANT, "edge": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}  # fmt: skip


def imfrombytes(content: bytes, flag: str = "color", channel_order: str = "bgr", backend: Any = None) -> np.ndarray:
    """Decode an image; palette images keep their indices with the flag "unchanged" and backend "pillow"."""
    if backend == "pillow" and flag == "unchanged":
        import io

        from PIL import Image

        return np.array(Image.open(io.BytesIO(content)))
    image = cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS.get(flag, flag))  # type: ignore[arg-type]
    return bgr2rgb(image) if channel_order == "rgb" and image.ndim == 3 else image  # type: ignore[return-value, union-attr]


def imread(
    img_or_path: Any, flag: str = "color", channel_order: str = "bgr", backend: Any = None, **kwargs: Any
) -> Any:
    """Read an image file; an array is returned as it is."""
    if isinstance(img_or_path, np.ndarray):
        return img_or_path
    path = Path(img_or_path)
    if not path.is_file():
        raise FileNotFoundError(f"img file does not exist: {path}")
    return imfrombytes(path.read_bytes(), flag, channel_order, backend)


def imwrite(img: np.ndarray, file_path: Any, params: Any = None, auto_mkdir: bool = True, **kwargs: Any) -> bool:
    """Write an image in the format that the file's suffix names."""
    if auto_mkdir:
        Path(file_path).parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(Path(file_path).suffix, img, params or [])
    Path(file_path).write_bytes(content.tobytes())
    return bool(done)


def imshow(img: Any, win_name: str = "", wait_time: int = 0) -> None:
    """Nothing: there may be no display."""


def use_backend(backend: str) -> None:
    """Nothing: OpenCV decodes."""


def imresize(
    img: np.ndarray, size: Any, return_scale: bool = False, interpolation: str = "bilinear", out: Any = None,
    backend: Any = None,
) -> Any:  # fmt: skip
    """Resize to (width, height)."""
    height, width = img.shape[:2]
    resized = cv2.resize(img, tuple(size), dst=out, interpolation=INTERPOLATION[interpolation])
    return (resized, size[0] / width, size[1] / height) if return_scale else resized


def imresize_like(img: np.ndarray, dst_img: np.ndarray, return_scale: bool = False, **kwargs: Any) -> Any:
    return imresize(img, dst_img.shape[1::-1], return_scale, **kwargs)


def imresize_to_multiple(
    img: np.ndarray, divisor: Any, size: Any = None, scale_factor: Any = None, keep_ratio: bool = False,
    return_scale: bool = False, interpolation: str = "bilinear", **kwargs: Any,
) -> Any:  # fmt: skip
    """Resize, the sides rounded up to multiples of `divisor`."""
    height, width = img.shape[:2]
    if size is None:
        size = _scale_size((width, height), scale_factor)
    elif keep_ratio:
        size = rescale_size((width, height), size)
    steps = (divisor, divisor) if isinstance(divisor, int) else divisor
    return imresize(
        img, tuple(-(-n // step) * step for n, step in zip(size, steps, strict=True)), return_scale, interpolation
    )


def _scale_size(size: Any, scale: Any) -> tuple[int, int]:
    scales = (scale, scale) if isinstance(scale, (int, float)) else scale
    return int(size[0] * scales[0] + 0.5), int(size[1] * scales[1] + 0.5)


def rescale_size(old_size: Any, scale: Any, return_scale: bool = False) -> Any:
    """(width, height) scaled by a factor, or to fit into a pair of (long, short) sides."""
    width, height = old_size
    if isinstance(scale, (int, float)):
        factor = scale
    else:
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    new = _scale_size((width, height), factor)
    return (new, factor) if return_scale else new


def imrescale(
    img: np.ndarray, scale: Any, return_scale: bool = False, interpolation: str = "bilinear", backend: Any = None
) -> Any:
    """Resize with the ratio kept."""
    size, factor = rescale_size(img.shape[1::-1], scale, return_scale=True)
    resized = imresize(img, size, interpolation=interpolation)
    return (resized, factor) if return_scale else resized


def imflip(img: np.ndarray, direction: str = "horizontal") -> np.ndarray:
    axes: Any = {"horizontal": 1, "vertical": 0, "diagonal": (0, 1)}[direction]
    return np.flip(img, axis=axes)


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


def imcrop(img: np.ndarray, bboxes: Any, scale: float = 1.0, pad_fill: Any = None) -> Any:
    """The parts of an image in boxes (left, top, right, bottom), both ends inside."""
    boxes = np.asarray(bboxes).reshape(-1, 4).astype(int)
    parts = [img[max(y, 0) : y2 + 1, max(x, 0) : x2 + 1] for x, y, x2, y2 in boxes]
    return parts[0] if np.ndim(bboxes) == 1 else parts


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
    return imnormalize_(img.astype(np.float32), mean, std, to_rgb)


def imnormalize_(img: np.ndarray, mean: Any, std: Any, to_rgb: bool = True) -> np.ndarray:
    image = img[..., ::-1] if to_rgb else img
    return ((image - np.float64(mean).reshape(1, -1)) / np.float64(std).reshape(1, -1)).astype(np.float32)


def imdenormalize(img: np.ndarray, mean: Any, std: Any, to_bgr: bool = True) -> np.ndarray:
    image = (img * np.float64(std).reshape(1, -1) + np.float64(mean).reshape(1, -1)).astype(np.float32)
    return image[..., ::-1].copy() if to_bgr else image


def conversion(code: int) -> Any:
    return lambda img: cv2.cvtColor(img, code)


bgr2rgb, rgb2bgr = conversion(cv2.COLOR_BGR2RGB), conversion(cv2.COLOR_RGB2BGR)
bgr2hsv, hsv2bgr = conversion(cv2.COLOR_BGR2HSV), conversion(cv2.COLOR_HSV2BGR)
bgr2hls, hls2bgr = conversion(cv2.COLOR_BGR2HLS), conversion(cv2.COLOR_HLS2BGR)


def bgr2gray(img: np.ndarray, keepdim: bool = False) -> np.ndarray:
    gray = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)
    return gray[..., None] if keepdim else gray


rgb2gray = bgr2gray


def gray2bgr(img: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(img, cv2.COLOR_GRAY2BGR)


gray2rgb = gray2bgr


def lut_transform(img: np.ndarray, lut_table: np.ndarray) -> np.ndarray:
    return cv2.LUT(np.array(img, dtype=np.uint8), lut_table)


def clahe(img: np.ndarray, clip_limit: float = 40.0, tile_grid_size: Any = (8, 8)) -> np.ndarray:
    return cv2.createCLAHE(clip_limit, tile_grid_size).apply(np.array(img, dtype=np.uint8))


def adjust_brightness(img: np.ndarray, factor: float = 1.0, **kwargs: Any) -> np.ndarray:
    return np.clip(img.astype(np.float32) * factor, 0, 255).astype(img.dtype)


def tensor2imgs(tensor: torch.Tensor, mean: Any = None, std: Any = None, to_rgb: bool = True) -> list[np.ndarray]:
    """Normalised images (N, C, H, W) as stored ones."""
    count = tensor.shape[1]
    images = tensor.detach().cpu().numpy().transpose(0, 2, 3, 1)
    mean, std = (np.zeros(count) if mean is None else mean), (np.ones(count) if std is None else std)
    return [np.ascontiguousarray(imdenormalize(image, mean, std, to_rgb).astype(np.uint8)) for image in images]
