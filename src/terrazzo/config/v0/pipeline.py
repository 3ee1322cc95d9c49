"""0.x pipelines: normalising and padding become the model's preprocessing, the rest becomes 1.x transforms."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from terrazzo.arguments import check_keys
from terrazzo.config.reading.section import Section
from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS

# Steps that turned arrays into tensors, which batching does now
DROPPED = ("DefaultFormatBundle", "ImageToTensor", "ToTensor", "Transpose", "ToDataContainer")
RESIZE = ("img_scale", "multiscale_mode", "ratio_range", "keep_ratio", "min_size", "interpolation", "backend")
KEYS: dict[str, tuple[str, ...]] = {
    "Normalize": ("mean", "std", "to_rgb"),
    "Pad": ("size", "size_divisor", "pad_val", "seg_pad_val"),
    "Resize": RESIZE,
    "AlignResize": (*RESIZE, "size_divisor"),  # SegFormer's: Resize, then up to multiples of 32
    "Collect": ("keys", "meta_keys"),
    "RandomFlip": ("prob", "flip_ratio", "direction"),
    "MultiScaleFlipAug": ("transforms", "img_scale", "img_ratios", "flip", "flip_direction"),
}
RENAMED: dict[str, dict[str, str]] = {
    "RandomFlip": {"flip_ratio": "prob"},
    "LoadImageFromFile": {"file_client_args": "backend_args"},
    "LoadAnnotations": {"file_client_args": "backend_args"},
}
# Steps that depend on pixel values, or paint pixels: after Normalize they had another effect
SEES_VALUES = (
    "PhotoMetricDistortion", "CLAHE", "AdjustGamma", "RGB2Gray", "Rerange", "RandomRotate", "RandomCutOut",
    "RandomMosaic",
)  # fmt: skip
AUGMENTED_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # set by `--aug-test` of 0.x
RESAMPLING = ("interpolation", "backend")
NOT_NORMALISED = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}

Steps = list[Any]


@contextmanager
def upgrading(where: str) -> Iterator[None]:
    """Name the section in which a value of the wrong kind, such as a number for a list, was found. Raises UserError."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        raise UserError(f"{where} has a value of the wrong kind: {problem}") from problem


def bare_type(step: Mapping[str, Any]) -> str:
    """A step's type without its scope."""
    return str(step.get("type", "")).rpartition(".")[2]


def is_pipeline(value: Any) -> bool:
    """Check for a list of steps."""
    return isinstance(value, list) and bool(value) and all(isinstance(step, dict) and "type" in step for step in value)


def upgrade_pipeline(steps: Sequence[Any], where: str) -> tuple[Steps, Section]:
    """Return a training pipeline as 1.x steps, and its part of `data_preprocessor`. Raises UserError."""
    upgraded: Steps = []
    preprocessor = Section()
    for index, step in enumerate(steps):
        if not isinstance(step, Section) or "type" not in step:
            raise UserError(f"{where}.{index}: a step of a pipeline is a dict with a `type`, not {step!r}")
        kind, here = bare_type(step), f"{where}.{index} ({bare_type(step)})"
        if kind in TRANSFORMS.raw and kind != "Normalize":  # a user's own of that name
            upgraded.append(step)
            continue
        check_keys(step, ("type", *KEYS[kind]) if kind in KEYS else step, here)
        if kind == "Normalize":
            preprocessor.absorb(renamed(step, {"to_rgb": "bgr_to_rgb"}))
            del preprocessor["type"]
            preprocessor.setdefault("bgr_to_rgb", True)
        elif kind == "Pad":
            read_pad(step, upgraded, preprocessor)
        elif kind in ("Resize", "AlignResize"):
            upgraded += [upgrade_resize(step, here), *aligned(step)]
        elif kind == "Collect":
            upgraded.append(new_step(step, "PackSegInputs", ["meta_keys"] if step.get("meta_keys") else []))
        elif kind not in DROPPED:
            if kind in SEES_VALUES and "mean" in preprocessor:
                warnings.warn(f"{here} comes after Normalize, but now it sees the pixels before they are normalised")
            upgraded.append(renamed(step, RENAMED.get(kind, {})))
    return upgraded, preprocessor


def new_step(old: Section, kind: str, keys: Sequence[str] = (), **values: Any) -> Section:
    """A step of another type at the line of the old one, with those of its `keys` that it has."""
    step = Section()
    step.absorb({"type": kind, **values}, old.origin_of("type"))
    for key in keys:
        if key in old:
            step.take(old, key)
    return step


def renamed(step: Section, names: Mapping[str, str]) -> Section:
    """A step with new names for some of its arguments."""
    section = Section()
    for key in step:
        section.take(step, key, names.get(key))
    if section.get("backend_args") and section["backend_args"].get("backend") == "disk":
        section["backend_args"]["backend"] = "local"
    return section


def read_pad(step: Section, upgraded: Steps, preprocessor: Section) -> None:
    """Read a Pad: after Normalize it pads normalised images, as the preprocessing does; before, it stays a step."""
    given = [key for key in KEYS["Pad"] if step.get(key) is not None]
    pad = new_step(step, "Pad", given, pad_val=0, seg_pad_val=255)
    if "mean" in preprocessor:
        del pad["type"]
        preprocessor.absorb(pad)
        return
    if "size" in pad:
        height, width = pad["size"]
        pad["size"] = width, height
    pad["pad_val"] = {"img": pad["pad_val"], "seg": pad.pop("seg_pad_val")}
    upgraded.append(pad)


def scales_of(value: Any) -> list[tuple[int, ...]]:
    """`img_scale`, one or several, as a list of (width, height)."""
    if value is None:
        return []
    return [tuple(scale) for scale in value] if isinstance(value[0], (list, tuple)) else [tuple(value)]


def upgrade_resize(step: Section, where: str, scale: tuple[int, ...] | None = None) -> Section:
    """Resize, RandomResize or RandomChoiceResize; `scale` comes from MultiScaleFlipAug.

    Raises UserError for a combination that has no counterpart.
    """
    scales = [scale] if scale is not None else scales_of(step.get("img_scale"))
    kind, name, value = "Resize", "scale", scales[0] if len(scales) == 1 else scales or None
    if step.get("min_size") is not None:
        if len(scales) != 1 or step.get("ratio_range") is not None or not step.get("keep_ratio", True):
            raise UserError(f"{where}: min_size goes with one img_scale and keep_ratio=True only")
        shortest = max(int(step["min_size"]), min(scales[0]))
        return new_step(step, "ResizeShortestEdge", RESAMPLING, scale=shortest)
    if step.get("ratio_range") is not None:
        kind, value = "RandomResize", scales[0] if scales else None
    elif len(scales) > 1 and step.get("multiscale_mode", "range") == "value":
        kind, name = "RandomChoiceResize", "scales"
    elif len(scales) == 2:
        kind = "RandomResize"
    elif len(scales) != 1:
        raise UserError(f"{where} needs img_scale=(width, height), two of them, or multiscale_mode='value' with a list")
    resize = new_step(step, kind, ("keep_ratio", *RESAMPLING), **{name: value}, keep_ratio=True)
    if step.get("ratio_range") is not None:
        resize.take(step, "ratio_range")
    if "img_scale" in step:
        resize.put(name, value, step.origin_of("img_scale"))
    return resize


def aligned(step: Section) -> Steps:
    """The step that enlarges what an AlignResize has resized."""
    is_aligned = bare_type(step) == "AlignResize"
    return [new_step(step, "ResizeToMultiple", ["size_divisor"], size_divisor=32)] if is_aligned else []


# Test pipelines


def upgrade_test_pipeline(
    steps: Sequence[Any], where: str, annotations: Section
) -> tuple[Steps, Steps | None, Section]:
    """Return a test pipeline as (1.x steps, steps of test-time augmentation, its part of `data_preprocessor`).

    `annotations` are the arguments of LoadAnnotations, which 0.x ran outside of the pipeline.
    """
    at = next((i for i, step in enumerate(steps) if bare_type(step) == "MultiScaleFlipAug"), None)
    if at is None:
        upgraded, preprocessor = upgrade_pipeline(steps, where)
        return with_annotations(upgraded, annotations), None, for_test(preprocessor)
    first, _ = upgrade_pipeline(steps[:at], where)
    several, here = steps[at], f"{where}.{at} (MultiScaleFlipAug)"
    check_keys(several, ("type", *KEYS["MultiScaleFlipAug"]), here)
    inner = several.get("transforms", ())
    resize = next((step for step in inner if bare_type(step) in ("Resize", "AlignResize")), None)
    others = [step for step in inner if bare_type(step) not in ("RandomFlip", "Resize", "AlignResize")]
    rest, preprocessor = upgrade_pipeline(others, f"{here}.transforms")
    rest = with_annotations(rest, annotations)

    # one size for testing as it is, every size and direction for test-time augmentation
    sizes = sizes_of(several, here)
    plain, choices = [], []
    if len(sizes) > 1 or several.get("flip"):
        warnings.warn(
            "MultiScaleFlipAug: the test pipeline augments; that is now `tta_pipeline`, done with `--tta` only"
        )
        augmented_sizes = sizes
    else:
        augmented_sizes = [(sizes[0][0], ratio) for ratio in AUGMENTED_RATIOS]
    if resize is not None:
        plain = [resized(resize, here, next((size for size in sizes if size[1] == 1.0), sizes[0])), *aligned(resize)]
        choices = [[resized(resize, here, size) for size in augmented_sizes], *([step] for step in aligned(resize))]
    choices += [flips(several), *[[step] for step in rest]]
    return (
        [*first, *plain, *rest],
        [*first, new_step(several, "TestTimeAug", transforms=choices)],
        for_test(preprocessor),
    )


Size = tuple["tuple[int, ...] | None", float]  # a scale and a factor of it; no scale: the image's own


def sizes_of(several: Section, where: str) -> list[Size]:
    """The sizes in MultiScaleFlipAug. Raises UserError if it has none."""
    scales = scales_of(several.get("img_scale"))
    ratios = several.get("img_ratios")
    if ratios is None:
        if not scales:
            raise UserError(f"{where} needs img_scale, img_ratios or both")
        return [(scale, 1.0) for scale in scales]
    ratios = [ratios] if isinstance(ratios, (int, float)) else ratios
    return [(scales[0] if scales else None, float(ratio)) for ratio in ratios]


def resized(step: Section, where: str, size: Size) -> Section:
    """The step that resizes an image to one size."""
    scale, ratio = size
    if scale is not None:
        return upgrade_resize(step, where, tuple(int(edge * ratio) for edge in scale))
    return new_step(step, "Resize", ("keep_ratio", *RESAMPLING), scale_factor=ratio, keep_ratio=True)


def flips(several: Section) -> Steps:
    """Unmirrored and mirrored; in 0.x every direction had its own unmirrored image."""
    directions = several.get("flip_direction", "horizontal")
    directions = [directions] if isinstance(directions, str) else list(directions)
    return [
        new_step(several, "RandomFlip", prob=probability, direction=direction)
        for probability in (0.0, 1.0)
        for direction in directions
    ]


def with_annotations(steps: Steps, options: Section) -> Steps:
    """Read labels before they are packed and after the image is resized: scores are computed at the label's size."""
    kinds = [bare_type(step) for step in steps]
    if "LoadAnnotations" in kinds:
        return steps
    position = kinds.index("PackSegInputs") if "PackSegInputs" in kinds else len(steps)
    section = Section(type="LoadAnnotations")
    section.absorb(options)
    return [*steps[:position], section, *steps[position:]]


def for_test(preprocessor: Section) -> Section:
    """The preprocessing of a test pipeline: its size is only that of test images."""
    section = Section()
    for key in preprocessor:
        section.take(preprocessor, key, f"test_cfg.{key}" if key in ("size", "size_divisor") else None)
    return section


def join_preprocessors(parts: Sequence[Section]) -> Section:
    """Join the parts of `data_preprocessor` from all pipelines; the first wins, with a warning about differences."""
    joined = Section(type="SegDataPreProcessor")
    for section in parts:
        for key, value in section.items():
            if key not in joined:
                joined.take(section, key)
            elif joined[key] != value and key in ("mean", "std", "bgr_to_rgb", "size", "size_divisor"):
                warnings.warn(f"the pipelines differ in {key}: {joined[key]} is used everywhere, {value} is dropped")
    if "mean" not in joined:
        joined.absorb(NOT_NORMALISED)
    if "size" in joined:
        joined.pop("size_divisor", None)  # 0.x took either
    joined.setdefault("pad_val", 0)
    joined.setdefault("seg_pad_val", 255)
    return joined
