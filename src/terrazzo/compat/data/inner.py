"""The methods of official transforms that subclasses override and call, on `results` dicts in BGR order.

Where a subclass has its own of any of them, `_in_steps` makes the transform out of all.
"""

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from terrazzo.compat.data.structures import MAPS, SAME
from terrazzo.compat.registry import ORIGINALS, TRANSFORMS
from terrazzo.config.reading.section import Section, convert
from terrazzo.config.v0.pipeline import read_pad, scales_of
from terrazzo.sample import Sample, Target
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import symmetric_range
from terrazzo.transforms.crop import TRIES, Pad, is_varied
from terrazzo.transforms.erase import cover
from terrazzo.transforms.flip import RandomFlip, swap_classes
from terrazzo.transforms.geometry import flip, pad, resize, rotate
from terrazzo.transforms.photometric import as_bytes
from terrazzo.transforms.resize import RandomResize, Resize, ResizeShortestEdge, as_scale


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
    results["scale"] = self.scale or Resize(scale_factor=factor).pixels(*size_of(results))
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


# 0.x: RandomFlip, Resize and Pad, which keep what `results` say already


def flip_as_before(self: Any, results: Any) -> Any:
    if "flip" not in results:
        results["flip"] = bool(np.random.rand() < self.prob)
    direction = results.setdefault("flip_direction", self.direction)
    if results["flip"]:
        change_image(results, lambda image: flip(image, direction))
        change_maps(results, lambda array: flip(array, direction))
    return results


def scale_as_before(self: Any, results: Any) -> None:
    """Put the scale that is drawn into `results`, and its index if it is one of several."""
    several, drawn = self.img_scale or [], None
    if self.ratio_range is not None:
        base = several[0] if several else size_of(results)[::-1]
        drawn = self.random_sample_ratio(base, self.ratio_range)
    elif len(several) > 1:
        drawn = (self.random_sample if self.multiscale_mode == "range" else self.random_select)(several)
    results["scale"], results["scale_idx"] = drawn or (several[0], 0)


def resize_as_before(self: Any, results: Any) -> Any:
    if "scale" not in results:
        assert self.img_scale or self.ratio_range, "img_scale=(width, height) is missing"
        self._random_scale(results)
    return in_turn("_resize_img", "_resize_seg")(self, results)


def resize_image_as_before(self: Any, results: Any) -> None:
    height, width = size_of(results)
    if self.min_size is not None:
        shorter = ResizeShortestEdge(max(self.min_size, min(results["scale"])))
        results["scale"] = shorter.target_size(height, width, drawing())
    resize_image(self, results)
    (across, down), image = results["scale_factor"], results["img"]
    shape = (image[0] if isinstance(image, list) else image).shape
    results.update(scale_factor=np.array([across, down] * 2, np.float32), img_shape=shape, pad_shape=shape)


def several_as_before(self: Any, results: Any) -> dict[str, list[Any]]:
    """The results of each size and direction, in lists."""
    width, height = size_of(results)[::-1]
    scales = self.img_scale or [(int(width * ratio), int(height * ratio)) for ratio in self.img_ratios]
    views = itertools.product(scales, [False, True] if self.flip else [False], self.flip_direction)
    facts = [dict(zip(("scale", "flip", "flip_direction"), view, strict=True)) for view in views]
    made = []
    for fact in facts:
        item = results.copy()
        item.update(fact)
        made.append(self.transforms(item))
    return {key: [one[key] for one in made] for key in made[0]}


def sizes_as_before(self: Any) -> list[Any] | None:
    """`img_scale` as a list of scales."""
    mode, value = getattr(self, "multiscale_mode", "range"), self.img_scale
    assert mode in ("range", "value"), f"multiscale_mode is 'range' or 'value', not {mode!r}"
    assert value is None or isinstance(value, (list, tuple)), f"img_scale is (width, height), or several, not {value!r}"
    return [as_scale(scale, "img_scale", unbounded=True) for scale in scales_of(value)] or None


def views_as_before(self: Any) -> dict[str, Any]:
    """The sizes, directions and inner transforms of MultiScaleFlipAug, as lists."""
    scales, ratios = sizes_as_before(self), self.img_ratios
    ratios = [ratios] if isinstance(ratios, (int, float)) else ratios
    assert scales or ratios, "img_scale, img_ratios or both are needed"
    if scales and ratios:
        scales = [(int(across * ratio), int(down * ratio)) for across, down in scales for ratio in ratios]
    directions = [self.flip_direction] if isinstance(self.flip_direction, str) else self.flip_direction
    steps = ORIGINALS["transform"]("Compose")([built_as_before(step) for step in self.transforms])
    return {"img_scale": scales, "img_ratios": ratios, "flip_direction": directions, "transforms": steps}


def built_as_before(step: Any) -> Any:
    """A step of 0.x by its config."""
    options = dict(step)
    kind = options.pop("type")
    official = None if kind in TRANSFORMS.module_dict else ORIGINALS["transform"](f"0.x {kind}")
    return TRANSFORMS.build(step) if official is None else official(**options)


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
    step = self._step
    size, fill = step.padded_size(*size_of(results)), step.pad_val.get("img", 0)
    shape = change_image(results, lambda image: pad(image, size, fill, step.padding_mode))
    results.update(pad_shape=shape, pad_fixed_size=self.size, pad_size_divisor=self.size_divisor)
    if not self.older:
        results["img_shape"] = shape[:2]


def pad_maps(self: Any, results: Any) -> None:
    step = self._step
    size, fill = results["pad_shape"][1::-1], step.pad_val.get("seg", 255)
    change_maps(results, lambda array: pad(array, size, fill, step.padding_mode))


def pad_as_before(self: Any) -> Pad:
    """The Pad that one of 0.x is now."""
    steps: list[Any] = []
    read_pad(convert({"type": "Pad", **{key: getattr(self, key) for key in OLDER["Pad"]}}, Section), steps, Section())
    return Pad(**{key: value for key, value in steps[0].items() if key != "type"})


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
# class -> the order of its arguments there, where ours have another one
ORDERS = {
    "Resize": "scale scale_factor keep_ratio clip_object_border backend interpolation",
    "RandomResize": "scale ratio_range resize_type keep_ratio clip_object_border backend interpolation max_size",
    "RandomChoiceResize": "scales resize_type keep_ratio clip_object_border backend interpolation max_size",
    "Albu": "transforms keymap update_pad_shape",
    "BioMedicalGaussianBlur": "sigma_range prob prob_per_channel different_sigma_per_channel different_sigma_per_axis",
}
# class -> its arguments in 0.x, where they have another meaning or other defaults
OLDER: dict[str, dict[str, Any]] = {
    "Resize": {
        "img_scale": None,
        "multiscale_mode": "range",
        "ratio_range": None,
        "keep_ratio": True,
        "min_size": None,
    },
    "RandomFlip": {"prob": None, "direction": "horizontal"},
    "Pad": {"size": None, "size_divisor": None, "pad_val": 0, "seg_pad_val": 255},
    "MultiScaleFlipAug": {
        "transforms": (),
        "img_scale": None,
        "img_ratios": None,
        "flip": False,
        "flip_direction": "horizontal",
    },
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
    "0.x RandomFlip": {"_in_steps": flip_as_before},
    "0.x Resize": {
        "_in_steps": resize_as_before,
        "_random_scale": scale_as_before,
        "_resize_img": resize_image_as_before,
        "interpolation": "bilinear",
        "random_sample": staticmethod(
            lambda img_scales: (RandomResize(scale=img_scales).draw_scale(0, 0, drawing()), None)
        ),
        "random_sample_ratio": staticmethod(
            lambda img_scale, ratio_range: (
                RandomResize(scale=img_scale, ratio_range=ratio_range).draw_scale(0, 0, drawing()),
                None,
            )
        ),
        "random_select": staticmethod(
            lambda img_scales: (lambda index: (img_scales[index], index))(np.random.randint(len(img_scales)))
        ),
    },
    "0.x Pad": {"_step": property(pad_as_before)},
    "0.x MultiScaleFlipAug": {"_in_steps": several_as_before},
    "0.x LoadImageFromFile": {"takes": ("to_float32", "color_type", "file_client_args", "imdecode_backend")},
    "0.x LoadAnnotations": {
        "takes": ("reduce_zero_label", "file_client_args", "imdecode_backend"),
        "reduce_zero_label": False,
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
    "0.x Resize": lambda self: {"img_scale": sizes_as_before(self)},
    "0.x RandomFlip": lambda self: {"direction": RandomFlip(self.prob or 0.0, self.direction).direction},
    "0.x Pad": lambda self: {"padding_mode": self._step.padding_mode},
    "0.x MultiScaleFlipAug": views_as_before,
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
# class -> the facts that it changes in `results`; of others the image's size, where that is another one
RESIZED = "img_shape scale scale_factor keep_ratio"
CHANGED = {
    **dict.fromkeys(("Resize", "RandomResize", "RandomChoiceResize", "ResizeShortestEdge"), RESIZED),
    "ResizeToMultiple": "img_shape pad_shape",
    "RandomFlip": "flip flip_direction swap_seg_labels",
    "Pad": "img_shape pad_shape pad_fixed_size pad_size_divisor",
    "RandomCrop": "img_shape",
    "CenterCrop": "img_shape pad_shape pad_fixed_size pad_size_divisor",
    "RGB2Gray": "img_shape",
    "BioMedical3DPad": "img_shape pad_shape",
}
SHAPES = {  # which are with or without channels as another is
    "ResizeToMultiple": {"pad_shape": "img_shape"},
    "CenterCrop": {"pad_shape": "img_shape"},
    "RGB2Gray": {"img_shape": "pad_shape"},
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
