"""The methods of official transforms that subclasses override and call, on `results` dicts in BGR order.

Where a subclass has its own of any of them, `_in_steps` makes the transform out of all.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from terrazzo.compat.data.structures import MAPS, SAME
from terrazzo.compat.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import symmetric_range
from terrazzo.transforms.crop import TRIES, is_varied
from terrazzo.transforms.erase import cover
from terrazzo.transforms.flip import swap_classes
from terrazzo.transforms.geometry import flip, pad, resize, rotate
from terrazzo.transforms.photometric import as_bytes
from terrazzo.transforms.resize import RandomResize, Resize


def drawing() -> np.random.Generator:
    """A generator of terrazzo's that goes on from numpy's."""
    return np.random.default_rng(np.random.randint(2**31))


def map_keys(results: Any) -> list[str]:
    """The names of the maps in `results`."""
    names, there = dict.fromkeys([*MAPS.values(), *SAME, *results.get("seg_fields", [])]), {*results}
    return [key for key in names if key in there and isinstance(results[key], np.ndarray)]


def change_maps(results: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for key in map_keys(results):
        results[key] = change(results[key])


def change_image(results: Any, change: Callable[[np.ndarray], np.ndarray]) -> tuple[int, ...]:
    """Replace the image, or each of several, and return its shape."""
    images = results["img"] if isinstance(results["img"], list) else [results["img"]]
    changed = [change(image) for image in images]
    results["img"] = changed if isinstance(results["img"], list) else changed[0]
    return changed[0].shape


def in_turn(*names: str) -> Any:
    """A transform that calls methods one after the other."""

    def composed(self: Any, results: Any) -> Any:
        for name in names:
            getattr(self, name)(results)
        return results

    return composed


def size_of(results: Any) -> tuple[int, int]:
    image = results["img"]
    return (image[0] if isinstance(image, list) else image).shape[:2]  # type: ignore[no-any-return]


# RandomFlip


def flip_on_direction(self: Any, results: Any) -> None:
    direction = self._choose_direction()
    results.update(flip=direction is not None, flip_direction=direction)
    if direction is not None:
        self._flip(results)


def flip_results(self: Any, results: Any) -> None:
    direction = results["flip_direction"]
    change_image(results, lambda image: flip(image, direction))
    change_maps(results, lambda array: self._flip_seg_map(array, direction=direction))
    results["swap_seg_labels"] = self.swap_seg_labels


def flip_map(self: Any, seg_map: np.ndarray, direction: str) -> np.ndarray:
    flipped = flip(seg_map, direction)
    swaps = self.swap_seg_labels and direction == "horizontal"
    return swap_classes(flipped, self.swap_seg_labels) if swaps else flipped


# Resize


def resize_results(self: Any, results: Any) -> Any:
    factor = None if self.scale is not None else self.scale_factor
    results["scale"] = self.scale or Resize(scale_factor=factor).target_size(*size_of(results), drawing())
    return in_turn("_resize_img", "_resize_bboxes", "_resize_seg", "_resize_keypoints")(self, results)


def resize_image(self: Any, results: Any) -> None:
    height, width = size_of(results)
    step = Resize(results["scale"], keep_ratio=self.keep_ratio, interpolation=self.interpolation)
    size = step.target_size(height, width, drawing())
    shape = change_image(results, lambda image: resize(image, size, self.interpolation))
    results.update(img_shape=shape[:2], scale_factor=(size[0] / width, size[1] / height), keep_ratio=self.keep_ratio)


def resize_maps(self: Any, results: Any) -> None:
    step = Resize(results["scale"], keep_ratio=self.keep_ratio, interpolation="nearest")
    change_maps(results, lambda array: step(Sample(array), drawing()).pixels)


def inner_resize(self: Any) -> dict[str, Any]:
    """The transform that resizes to what another draws, and its config."""
    own = ("scale", "scales", "ratio_range", "resize_type")
    config = {"type": self.resize_type, **{key: value for key, value in self._given.items() if key not in own}}
    return {"resize_cfg": config, "resize": TRANSFORMS.build({"scale": 1, **config})}


def random_scale(self: Any) -> Any:
    several = isinstance(self.scale[0], (list, tuple))
    return self._random_sample(self.scale) if several else self._random_sample_ratio(self.scale, self.ratio_range)


def resize_at_random(self: Any, results: Any) -> Any:
    """A resize to a scale that a method draws, by the inner transform."""
    drawn = self._random_scale() if hasattr(self, "_random_scale") else self._random_select()
    results["scale"], *index = (drawn,) if hasattr(self, "_random_scale") else drawn
    results.update(zip(("scale_idx",), index, strict=False))
    self.resize.scale = results["scale"]
    return self.resize(results)


# RandomCrop and Pad


def crop_to(self: Any, results: Any, box: Any) -> Any:
    shape = change_image(results, lambda image: self.crop(image, box))
    results["img_shape"] = shape if self.older else shape[:2]
    change_maps(results, lambda array: self.crop(array, box))
    return results


def draw_box(self: Any, size: Any, label: Any = None) -> tuple[int, int, int, int]:
    """A box (top, bottom, left, right) for an image of a size, which its label may decide upon."""

    def label_in(box: Any) -> Any:
        return self.crop(label, (box[0], box[2], box[1], box[3]))

    top, left, bottom, right = self._step.draw_box(*size, drawing(), None if label is None else label_in)
    return top, bottom, left, right


def crop_as_before(self: Any, results: Any) -> Any:
    """A crop of 0.x, whose box does not depend on the label: others are tried."""
    image = results["img"][0] if isinstance(results["img"], list) else results["img"]
    box, label = self.get_crop_bbox(image), results.get("gt_semantic_seg")
    for _ in range(TRIES if self.cat_max_ratio < 1 and label is not None else 0):
        if is_varied(self.crop(label, box), self.cat_max_ratio, self.ignore_index):
            break
        box = self.get_crop_bbox(image)
    return crop_to(self, results, box)


def pad_image(self: Any, results: Any) -> None:
    width, height = self._step.padded_size(*size_of(results))
    fill = self.pad_val.get("img", 0)
    shape = change_image(results, lambda image: pad(image, (width, height), fill, self.padding_mode))
    results.update(img_shape=shape[:2], pad_shape=shape, pad_fixed_size=self.size, pad_size_divisor=self.size_divisor)


def pad_maps(self: Any, results: Any) -> None:
    size, fill = results["pad_shape"][1::-1], self.pad_val.get("seg", 255)
    change_maps(results, lambda array: pad(array, size, fill, self.padding_mode))


# PhotoMetricDistortion


def distort(self: Any, results: Any) -> Any:
    change_image(results, self.brightness)
    contrast_first = np.random.randint(2)
    for name in ("contrast", "saturation", "hue") if contrast_first else ("saturation", "hue", "contrast"):
        change_image(results, getattr(self, name))
    return results


def every_other_time(change: Callable[[Any, np.ndarray], np.ndarray]) -> Any:
    return lambda self, img: change(self, img) if np.random.randint(2) else img


def in_hsv(image: np.ndarray, channel: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """An image with one of hue, saturation and value changed."""
    bands = [*cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))]
    bands[channel] = change(bands[channel])
    return cv2.cvtColor(cv2.merge(bands), cv2.COLOR_HSV2BGR)


def turn_hue(self: Any, img: np.ndarray) -> np.ndarray:
    shift = np.random.randint(-self.hue_delta, self.hue_delta)
    return in_hsv(img, 0, lambda hue: ((hue.astype(int) + shift) % 180).astype(np.uint8))


def uniform(self: Any, name: str) -> float:
    return np.random.uniform(getattr(self, f"{name}_lower"), getattr(self, f"{name}_upper"))


# RandomRotate and RandomCutOut


def rotate_results(self: Any, results: Any) -> Any:
    turned, angle = self.generate_degree()
    if turned:
        options = (angle, self.center, self.auto_bound)
        change_image(results, lambda image: rotate(image, "bilinear", self.pad_val, *options))
        change_maps(results, lambda array: rotate(array, "nearest", self.seg_pad_val, *options))
    return results


def generate_patches(self: Any, results: Any) -> tuple[Any, ...]:
    """A decision, and of each hole its left and top edge and the index of its size."""
    covered, (height, width) = self.do_cutout(), size_of(results)
    count = np.random.randint(self.n_holes[0], self.n_holes[1] + 1) if covered else 0
    draws = ([np.random.randint(end) for _ in range(count)] for end in (width, height, len(self.candidates)))
    return covered, count, *draws


def cut_out(self: Any, results: Any) -> Any:
    covered, _, *holes = self.generate_patches(results)
    if not covered:
        return results
    height, width = size_of(results)
    boxes = []
    for left, top, index in zip(*holes, strict=True):
        wide, high = self.candidates[index]
        wide, high = (int(wide * width), int(high * height)) if self.with_ratio else (wide, high)
        boxes.append((top, left, min(top + high, height), min(left + wide, width)))

    def covered_map(array: np.ndarray) -> Any:
        sample = Sample(np.zeros((height, width, 1)), {"label": Target(array)})
        return cover(sample, boxes, 0, self.seg_fill_in, drawing()).label

    change_image(results, lambda image: cover(Sample(image), boxes, self.fill_in, None, drawing()).image)  # type: ignore[arg-type,return-value]
    if self.seg_fill_in is not None:
        change_maps(results, covered_map)
    return results


def _nothing(self: Any, results: Any) -> None:
    """A method about boxes or key points, which a segmentation has none of."""


DRAWN = {
    "_random_sample": staticmethod(lambda scales: RandomResize(scale=scales).draw_scale(0, 0, drawing())),
    "_random_sample_ratio": staticmethod(
        lambda scale, ratio_range: RandomResize(scale=scale, ratio_range=ratio_range).draw_scale(0, 0, drawing())
    ),
}
# class -> its methods; `_in_steps` is the transform made of them. "0.x <class>" where the vocabularies differ
METHODS: dict[str, dict[str, Any]] = {
    "RandomFlip": {
        "_in_steps": in_turn("_flip_on_direction"),
        "_flip_on_direction": flip_on_direction,
        "_choose_direction": lambda self: self._step.draw_direction(drawing()),
        "_flip": flip_results,
        "_flip_seg_map": flip_map,
    },
    "Resize": {
        "_in_steps": resize_results,
        "_resize_img": resize_image,
        "_resize_bboxes": _nothing,
        "_resize_seg": resize_maps,
        "_resize_keypoints": _nothing,
    },
    "RandomResize": {"_in_steps": resize_at_random, "_random_scale": random_scale, **DRAWN},
    "RandomChoiceResize": {
        "_in_steps": resize_at_random,
        "_random_select": lambda self: (lambda index: (self.scales[index], index))(np.random.randint(len(self.scales))),
    },
    "RandomCrop": {
        "_in_steps": lambda self, results: crop_to(self, results, self.crop_bbox(results)),
        "crop_bbox": lambda self, results: draw_box(self, size_of(results), results.get("gt_seg_map")),
        "crop": lambda self, img, crop_bbox: img[crop_bbox[0] : crop_bbox[1], crop_bbox[2] : crop_bbox[3], ...],
    },
    "0.x RandomCrop": {
        "_in_steps": crop_as_before,
        "get_crop_bbox": lambda self, img: draw_box(self, img.shape[:2]),
        "crop": lambda self, img, crop_bbox: img[crop_bbox[0] : crop_bbox[1], crop_bbox[2] : crop_bbox[3], ...],
    },
    "Pad": {"_in_steps": in_turn("_pad_img", "_pad_seg"), "_pad_img": pad_image, "_pad_seg": pad_maps},
    "PhotoMetricDistortion": {
        "_in_steps": distort,
        "convert": lambda self, img, alpha=1, beta=0: as_bytes(img.astype(np.float32) * alpha + beta),
        "brightness": every_other_time(
            lambda self, img: self.convert(img, beta=np.random.uniform(-self.brightness_delta, self.brightness_delta))
        ),
        "contrast": every_other_time(lambda self, img: self.convert(img, alpha=uniform(self, "contrast"))),
        "saturation": every_other_time(
            lambda self, img: in_hsv(img, 1, lambda band: self.convert(band, alpha=uniform(self, "saturation")))
        ),
        "hue": every_other_time(turn_hue),
    },
    "RandomRotate": {
        "_in_steps": rotate_results,
        "generate_degree": lambda self: (np.random.rand() < self.prob, np.random.uniform(*self.degree)),
    },
    "RandomCutOut": {
        "_in_steps": cut_out,
        "do_cutout": lambda self: np.random.rand() < self.prob,
        "generate_patches": generate_patches,
    },
}
# class -> attributes that subclasses read there
ATTRIBUTES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Resize": lambda self: {
        name: as_pair(value, f"Resize's {name}")
        for name in ("scale", "scale_factor")
        if isinstance(value := getattr(self, name), (int, float))
    },
    **dict.fromkeys(("RandomResize", "RandomChoiceResize"), lambda self: inner_resize(self)),
    "RandomCrop": lambda self: {"crop_size": as_pair(self.crop_size, "RandomCrop's crop_size")},
    "Pad": lambda self: {} if isinstance(self.pad_val, dict) else {"pad_val": {"img": self.pad_val, "seg": 255}},
    "PhotoMetricDistortion": lambda self: {
        f"{name}_{end}": value
        for name in ("contrast", "saturation")
        for end, value in zip(("lower", "upper"), getattr(self, f"{name}_range"), strict=True)
    },
    "RandomRotate": lambda self: {"degree": symmetric_range(self.degree, "degree"), "pal_val": self.pad_val},
    "RandomCutOut": lambda self: {
        "n_holes": as_pair(self.n_holes, "n_holes"),
        "with_ratio": self.cutout_shape is None,
        "candidates": (lambda sizes: sizes if isinstance(sizes[0], (list, tuple)) else [sizes])(
            self.cutout_shape or self.cutout_ratio
        ),
    },
}
# methods of official classes that nothing here calls
NOT_CALLED = {
    "RandomFlip": "_flip_bbox _flip_keypoints",
    "CenterCrop": "_crop_img _crop_seg_map _crop_bboxes _crop_keypoints",
    "RandomRotFlip": "random_rot_flip random_rotate",
    "ResizeShortestEdge": "_get_output_shape",
    "RandomMosaic": "do_mosaic generate_mosaic_center get_indices get_indexes _mosaic_combine _mosaic_transform_img "
    "_mosaic_transform_seg",
    "Albu": "albu_builder mapper",
    "BioMedical3DRandomCrop": "crop generate_margin random_generate_crop_bbox random_sample_location",
    "BioMedical3DPad": "_pad_img _pad_seg _to_pad",
    "BioMedical3DRandomFlip": "_do_flip _flip _swap_label",
    "BioMedicalGaussianBlur": "_gaussian_blur _get_valid_sigma",
    "BioMedicalRandomGamma": "_adjust_gamma _do_gamma",
}
