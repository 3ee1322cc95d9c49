"""mmcv's functions of images, by OpenCV; images are BGR arrays (H, W, C), sizes (width, height)."""

import functools
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

INTERPOLATION = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC,
                 "area": cv2.INTER_AREA, "lanczos": cv2.INTER_LANCZOS4}  # fmt: skip
FLAGS = {"color": cv2.IMREAD_COLOR, "grayscale": cv2.IMREAD_GRAYSCALE, "unchanged": cv2.IMREAD_UNCHANGED,
         "color_ignore_orientation": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
         "grayscale_ignore_orientation": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION}  # fmt: skip
BORDERS = {"constant": cv2.BORDER_CONSTANT, "edge": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101,
           "symmetric": cv2.BORDER_REFLECT}  # fmt: skip
FLIPS: dict[str, Any] = {"horizontal": 1, "vertical": 0, "diagonal": (0, 1)}


def imfrombytes(content: bytes, flag: str = "color", channel_order: str = "bgr", backend: Any = None) -> np.ndarray:
    if backend == "pillow" and flag == "unchanged":
        image: Any = np.array(Image.open(io.BytesIO(content)))
        return np.dstack([image[..., 2::-1], image[..., 3:]]) if image.ndim == 3 else image
    image = cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS.get(flag, flag))  # type: ignore[arg-type]
    is_rgb = channel_order == "rgb" and str(flag).startswith("color")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if is_rgb else image


def imread(img_or_path: Any, flag: str = "color", channel_order: str = "bgr", backend: Any = None, **_: Any) -> Any:
    if isinstance(img_or_path, np.ndarray):
        return img_or_path
    if not Path(img_or_path).is_file():
        raise FileNotFoundError(f"img file does not exist: {img_or_path}")
    return imfrombytes(Path(img_or_path).read_bytes(), flag, channel_order, backend)


def imwrite(img: np.ndarray, file_path: Any, params: Any = None, auto_mkdir: bool = True, **_: Any) -> bool:
    if auto_mkdir:
        Path(file_path).parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(Path(file_path).suffix, img, params or [])
    Path(file_path).write_bytes(content.tobytes())
    return bool(done)


def imresize(
    img: np.ndarray, size: Any, return_scale: bool = False, interpolation: str = "bilinear", out: Any = None,
    backend: Any = None,
) -> Any:  # fmt: skip
    height, width = img.shape[:2]
    if backend == "pillow":
        resized = np.array(Image.fromarray(img).resize(tuple(size), Image.Resampling[interpolation.upper()]))
    else:
        resized = cv2.resize(img, tuple(size), dst=out, interpolation=INTERPOLATION[interpolation])
    return (resized, size[0] / width, size[1] / height) if return_scale else resized


def _scale_size(size: Any, scale: Any) -> tuple[int, int]:
    scales = (scale, scale) if isinstance(scale, (int, float)) else scale
    return int(size[0] * scales[0] + 0.5), int(size[1] * scales[1] + 0.5)


def rescale_size(old_size: Any, scale: Any, return_scale: bool = False) -> Any:
    """A size times a number, or as large as the sides of `scale` let it be."""
    factor = scale
    if not isinstance(scale, (int, float)):
        factor = min(max(scale) / max(old_size), min(scale) / min(old_size))
    elif scale <= 0:
        raise ValueError(f"the scale must be positive, not {scale}")
    return (_scale_size(old_size, factor), factor) if return_scale else _scale_size(old_size, factor)


def imrescale(img: np.ndarray, scale: Any, return_scale: bool = False, **options: Any) -> Any:
    size, factor = rescale_size(img.shape[1::-1], scale, return_scale=True)
    resized = imresize(img, size, **options)
    return (resized, factor) if return_scale else resized


def imcrop(img: np.ndarray, bboxes: Any, scale: float = 1.0, pad_fill: Any = None) -> Any:
    """The parts of an image in boxes (left, top, right, bottom), the last pixels included, enlarged by `scale`."""
    patches = []
    for left, top, right, bottom in np.atleast_2d(bboxes).astype(float):
        more = (scale - 1) / 2 * np.array([right - left + 1, bottom - top + 1])
        box = np.array([left - more[0], top - more[1], right + more[0], bottom + more[1]]).astype(int)
        low, high = np.maximum(box[:2], 0), np.minimum(box[2:], (img.shape[1] - 1, img.shape[0] - 1))
        patch = img[low[1] : high[1] + 1, low[0] : high[0] + 1]
        if pad_fill is not None:
            value = pad_fill if np.ndim(pad_fill) else (pad_fill,) * 4
            patch = impad(patch, padding=[*map(int, (*(low - box[:2]), *(box[2:] - high)))], pad_val=value)
        patches.append(patch)
    return patches if np.ndim(bboxes) > 1 else patches[0]


def tensor2imgs(tensor: Any, mean: Any = None, std: Any = None, to_rgb: bool = True) -> list[np.ndarray]:
    scale, shift = np.asarray(std or 1, np.float32), np.asarray(mean or 0, np.float32)
    images = tensor.permute(0, 2, 3, 1).cpu().numpy() * scale + shift
    return [np.ascontiguousarray(image[..., :: -1 if to_rgb else 1].astype(np.uint8)) for image in images]


def imrotate(
    img: np.ndarray, angle: float, center: Any = None, scale: float = 1.0, border_value: Any = 0,
    interpolation: str = "bilinear", auto_bound: bool = False, border_mode: str = "constant",
) -> np.ndarray:  # fmt: skip
    height, width = img.shape[:2]
    matrix = cv2.getRotationMatrix2D(center or ((width - 1) / 2, (height - 1) / 2), -angle, scale)
    if auto_bound:
        cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
        new_width, new_height = height * sin + width * cos, height * cos + width * sin
        matrix[:, 2] += [(new_width - width) / 2, (new_height - height) / 2]
        width, height = round(new_width), round(new_height)
    options: Any = {"borderMode": BORDERS[border_mode], "borderValue": border_value}
    return cv2.warpAffine(img, matrix, (width, height), flags=INTERPOLATION[interpolation], **options)


def _warped(img: np.ndarray, matrix: Any, border_value: Any, interpolation: str) -> np.ndarray:
    value: Any = border_value if isinstance(border_value, (tuple, list)) else (border_value,) * 4
    size = img.shape[1::-1]
    return cv2.warpAffine(img, np.float32(matrix), size, flags=INTERPOLATION[interpolation], borderValue=value)  # type: ignore[arg-type]


def imshear(
    img: np.ndarray, magnitude: float, direction: str = "horizontal", border_value: Any = 0,
    interpolation: str = "bilinear",
) -> np.ndarray:  # fmt: skip
    rows = [[1, magnitude, 0], [0, 1, 0]] if direction == "horizontal" else [[1, 0, 0], [magnitude, 1, 0]]
    return _warped(img, rows, border_value, interpolation)


def imtranslate(
    img: np.ndarray, offset: float, direction: str = "horizontal", border_value: Any = 0,
    interpolation: str = "bilinear",
) -> np.ndarray:  # fmt: skip
    across = direction == "horizontal"
    return _warped(img, [[1, 0, offset * across], [0, 1, offset * (not across)]], border_value, interpolation)


def impad(
    img: np.ndarray, *, shape: Any = None, padding: Any = None, pad_val: Any = 0, padding_mode: str = "constant"
) -> np.ndarray:
    if shape is not None:
        padding = (0, 0, max(shape[1] - img.shape[1], 0), max(shape[0] - img.shape[0], 0))
    elif isinstance(padding, int):
        padding = (padding,) * 4
    left, top, right, bottom = padding if len(padding) == 4 else (*padding, *padding)
    return cv2.copyMakeBorder(img, top, bottom, left, right, BORDERS[padding_mode], value=pad_val)


def imnormalize(img: np.ndarray, mean: Any, std: Any, to_rgb: bool = True) -> np.ndarray:
    image = img[..., ::-1] if to_rgb else img
    return ((image - np.float64(mean).reshape(1, -1)) / np.float64(std).reshape(1, -1)).astype(np.float32)


def _mixed(img: np.ndarray, other: Any, factor: float) -> np.ndarray:
    """An image, as much as `factor` says, and another."""
    mixed = cv2.addWeighted(img.astype(np.float32), factor, np.full_like(img, other, np.float32), 1 - factor, 0)
    return np.clip(mixed, 0, 255).astype(img.dtype)


def _grey(img: np.ndarray, keepdim: bool = False, code: Any = cv2.COLOR_BGR2GRAY) -> np.ndarray:
    grey = cv2.cvtColor(img, code)
    return grey[..., None] if keepdim else grey


COLOURS = "bgr2rgb rgb2bgr bgr2hsv hsv2bgr bgr2hls hls2bgr gray2bgr gray2rgb"
TABLE: dict[str, Any] = {
    **{name: functools.partial(cv2.cvtColor, code=getattr(cv2, f"COLOR_{name.upper()}")) for name in COLOURS.split()},
    "bgr2gray": _grey,
    "rgb2gray": functools.partial(_grey, code=cv2.COLOR_RGB2GRAY),
    "imnormalize_": imnormalize,
    "iminvert": lambda img: np.full_like(img, 255) - img,
    "solarize": lambda img, thr=128: np.where(img < thr, img, 255 - img),
    "posterize": lambda img, bits: np.left_shift(np.right_shift(img, 8 - bits), 8 - bits),
    "imresize_like": lambda img, dst_img, *args, **options: imresize(img, dst_img.shape[1::-1], *args, **options),
    "adjust_color": lambda img, alpha=1, beta=None, gamma=0, backend=None: np.clip(
        cv2.addWeighted(img, alpha, np.repeat(_grey(img, True), 3, 2), 1 - alpha if beta is None else beta, gamma),
        0,
        255,
    ),
    "adjust_brightness": lambda img, factor=1.0, backend=None: _mixed(img, 0.0, factor),
    "adjust_contrast": lambda img, factor=1.0, backend=None: _mixed(
        img, round(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY).mean()), factor
    ),
    "imdenormalize": lambda img, mean, std, to_bgr=True: (
        img * np.float64(std).reshape(1, -1) + np.float64(mean).reshape(1, -1)
    )[..., :: -1 if to_bgr else 1],
    "imflip": lambda img, direction="horizontal": np.flip(img, FLIPS[direction]),
    "lut_transform": lambda img, lut_table: cv2.LUT(np.array(img, dtype=np.uint8), lut_table),
    "clahe": lambda img, limit=40.0, grid=(8, 8): cv2.createCLAHE(limit, grid).apply(np.array(img, dtype=np.uint8)),
    "impad_to_multiple": lambda img, divisor, pad_val=0: impad(
        img, shape=[-(-side // divisor) * divisor for side in img.shape[:2]], pad_val=pad_val
    ),
}
