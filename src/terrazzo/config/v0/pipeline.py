"""0.x pipelines: normalising and padding become the model's preprocessing, the rest becomes 1.x transforms."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from terrazzo.config.reading.section import Section
from terrazzo.config.sections import check_keys
from terrazzo.errors import UserError

# Steps that turned arrays into tensors, which batching does now
DROPPED = ("DefaultFormatBundle", "ImageToTensor", "ToTensor", "Transpose", "ToDataContainer")
KEYS: dict[str, tuple[str, ...]] = {
    "Normalize": ("mean", "std", "to_rgb"),
    "Pad": ("size", "size_divisor", "pad_val", "seg_pad_val"),
    "Resize": ("img_scale", "multiscale_mode", "ratio_range", "keep_ratio", "min_size", "interpolation", "backend"),
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
NOT_NORMALISED = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}

Steps = list[Any]


def origin_of(section: Mapping[str, Any], key: str) -> str | None:
    """The origin of a key, if known."""
    return section.origin_of(key) if isinstance(section, Section) else None


def section_at(origin: str | None, **values: Any) -> Section:
    """A section whose keys all have one origin."""
    section = Section()
    for key, value in values.items():
        section.put(key, value, origin)
    return section


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
        if not isinstance(step, dict) or "type" not in step:
            raise UserError(f"{where}.{index}: a step of a pipeline is a dict with a `type`, not {step!r}")
        kind, here = bare_type(step), f"{where}.{index} ({bare_type(step)})"
        check_keys(step, ("type", *KEYS[kind]) if kind in KEYS else step, here)
        if kind == "Normalize":
            for key, value in step.items():
                if key != "type":
                    preprocessor.put("bgr_to_rgb" if key == "to_rgb" else key, value, origin_of(step, key))
            preprocessor.setdefault("bgr_to_rgb", True)
        elif kind == "Pad":
            read_pad(step, upgraded, preprocessor)
        elif kind == "Resize":
            upgraded.append(upgrade_resize(step, here))
        elif kind == "Collect":
            upgraded.append(pack(step))
        elif kind not in DROPPED:
            if kind in SEES_VALUES and "mean" in preprocessor:
                warnings.warn(f"{here} comes after Normalize, but now it sees the pixels before they are normalised")
            upgraded.append(renamed(step, RENAMED.get(kind, {})))
    return upgraded, preprocessor


def renamed(step: Mapping[str, Any], names: Mapping[str, str]) -> Section:
    """A step with new names for some of its arguments."""
    section = Section()
    for key, value in step.items():
        section.put(names.get(key, key), value, origin_of(step, key))
    if section.get("backend_args") and section["backend_args"].get("backend") == "disk":
        section["backend_args"]["backend"] = "local"
    return section


def read_pad(step: Mapping[str, Any], upgraded: Steps, preprocessor: Section) -> None:
    """Read a Pad: after Normalize it pads normalised images, as the preprocessing does; before, it stays a step."""
    values = {"pad_val": step.get("pad_val", 0), "seg_pad_val": step.get("seg_pad_val", 255)}
    origin = origin_of(step, "type")
    if "mean" in preprocessor:
        for key in ("pad_val", "seg_pad_val", "size", "size_divisor"):
            value = step.get(key, values.get(key))
            if value is not None:
                preprocessor.put(key, value, origin_of(step, key) or origin)
        return
    section = section_at(origin, type="Pad")
    if step.get("size") is not None:
        height, width = step["size"]
        section.put("size", (width, height), origin_of(step, "size"))
    if step.get("size_divisor") is not None:
        section.put("size_divisor", step["size_divisor"], origin_of(step, "size_divisor"))
    section.put("pad_val", section_at(origin, img=values["pad_val"], seg=values["seg_pad_val"]), origin)
    upgraded.append(section)


def pack(step: Mapping[str, Any]) -> Section:
    section = section_at(origin_of(step, "type"), type="PackSegInputs")
    if step.get("meta_keys"):
        section.put("meta_keys", step["meta_keys"], origin_of(step, "meta_keys"))
    return section


def scales_of(value: Any) -> list[tuple[int, int]]:
    """`img_scale`, one or several, as a list of (width, height)."""
    if value is None:
        return []
    return [tuple(scale) for scale in value] if isinstance(value[0], (list, tuple)) else [tuple(value)]


def upgrade_resize(step: Mapping[str, Any], where: str, scale: Any = None) -> Section:
    """Resize, RandomResize or RandomChoiceResize; `scale` comes from MultiScaleFlipAug.

    Raises UserError for a combination that has no counterpart.
    """
    scales = [scale] if scale is not None else scales_of(step.get("img_scale"))
    section = section_at(origin_of(step, "img_scale") or origin_of(step, "type"))
    keep = section_at(origin_of(step, "keep_ratio") or origin_of(step, "type"), keep_ratio=step.get("keep_ratio", True))
    ratio_range = step.get("ratio_range")
    if step.get("min_size") is not None:
        if len(scales) != 1 or ratio_range is not None or not keep["keep_ratio"]:
            raise UserError(f"{where}: min_size goes with one img_scale and keep_ratio=True only")
        shortest = max(int(step["min_size"]), min(scales[0]))
        return with_rest(section_at(origin_of(step, "min_size"), type="ResizeShortestEdge", scale=shortest), step)
    if ratio_range is not None:
        section = section_at(origin_of(step, "ratio_range"), type="RandomResize")
        section.put("scale", scales[0] if scales else None, origin_of(step, "img_scale"))
        section.put("ratio_range", ratio_range, origin_of(step, "ratio_range"))
    elif len(scales) == 1:
        section = section_at(origin_of(step, "img_scale") or origin_of(step, "type"), type="Resize", scale=scales[0])
    elif len(scales) > 1 and step.get("multiscale_mode", "range") == "value":
        section = section_at(origin_of(step, "img_scale"), type="RandomChoiceResize", scales=scales)
    elif len(scales) == 2:
        section = section_at(origin_of(step, "img_scale"), type="RandomResize", scale=scales)
    else:
        raise UserError(f"{where} needs img_scale=(width, height), two of them, or multiscale_mode='value' with a list")
    section.absorb(keep)
    return with_rest(section, step)


def with_rest(section: Section, step: Mapping[str, Any]) -> Section:
    for key in ("interpolation", "backend"):
        if key in step:
            section.put(key, step[key], origin_of(step, key))
    return section


# Test pipelines


def upgrade_test_pipeline(
    steps: Sequence[Any], where: str, annotations: Mapping[str, Any]
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
    inner = [step for step in several.get("transforms", ()) if bare_type(step) not in ("RandomFlip", "Resize")]
    resizes = [step for step in several.get("transforms", ()) if bare_type(step) == "Resize"]
    rest, preprocessor = upgrade_pipeline(inner, f"{here}.transforms")
    rest = with_annotations(rest, annotations)
    sizes = sized(several, here)
    plain = [resized(resizes[0], here, one_size(several, sizes))] if resizes and sizes else []
    choices: list[Steps] = []
    if resizes:
        choices.append([resized(resizes[0], here, size) for size in augmented_sizes(several, sizes)])
    choices += [flips(several), *[[step] for step in rest]]
    augmented = section_at(origin_of(several, "type"), type="TestTimeAug", transforms=choices)
    return [*first, *plain, *rest], [*first, augmented], for_test(preprocessor)


Size = tuple[tuple[int, int] | None, float]  # a scale and a factor of it; no scale: the image's own


def sized(several: Mapping[str, Any], where: str) -> list[Size]:
    """The sizes in MultiScaleFlipAug. Raises UserError if it has none."""
    scales = scales_of(several.get("img_scale"))
    ratios = several.get("img_ratios")
    if ratios is None:
        if not scales:
            raise UserError(f"{where} needs img_scale, img_ratios or both")
        return [(scale, 1.0) for scale in scales]
    ratios = [ratios] if isinstance(ratios, (int, float)) else list(ratios)
    return [(scales[0] if scales else None, float(ratio)) for ratio in ratios]


def one_size(several: Mapping[str, Any], sizes: list[Size]) -> Size:
    """The size for testing without augmentation; warns about a config that always augments."""
    if len(sizes) > 1 or several.get("flip"):
        warnings.warn(
            "MultiScaleFlipAug: the test pipeline augments; that is now `tta_pipeline` and done with `--tta` only"
        )
    return next((size for size in sizes if size[1] == 1.0), sizes[0])


def augmented_sizes(several: Mapping[str, Any], sizes: list[Size]) -> list[Size]:
    """The sizes of test-time augmentation: the config's own, else the usual factors of its only one."""
    if len(sizes) > 1 or several.get("flip"):
        return sizes
    return [(sizes[0][0], ratio) for ratio in AUGMENTED_RATIOS]


def resized(step: Mapping[str, Any], where: str, size: Size) -> Section:
    """The step that resizes an image to one size."""
    scale, ratio = size
    if scale is not None:
        return upgrade_resize(step, where, tuple(int(edge * ratio) for edge in scale))
    section = section_at(
        origin_of(step, "type"), type="Resize", scale_factor=ratio, keep_ratio=step.get("keep_ratio", True)
    )
    return with_rest(section, step)


def flips(several: Mapping[str, Any]) -> Steps:
    """Unmirrored and mirrored; in 0.x every direction had its own unmirrored image."""
    directions = several.get("flip_direction", "horizontal")
    directions = [directions] if isinstance(directions, str) else list(directions)
    origin = origin_of(several, "flip")
    return [
        section_at(origin, type="RandomFlip", prob=probability, direction=direction)
        for probability in (0.0, 1.0)
        for direction in directions
    ]


def with_annotations(steps: Steps, options: Mapping[str, Any]) -> Steps:
    """Read labels before they are packed and after the image is resized: scores are computed at the label's size."""
    if any(bare_type(step) == "LoadAnnotations" for step in steps):
        return steps
    position = next((i for i, step in enumerate(steps) if bare_type(step) == "PackSegInputs"), len(steps))
    section = section_at(None, type="LoadAnnotations")
    section.absorb(options)
    return [*steps[:position], section, *steps[position:]]


def for_test(preprocessor: Section) -> Section:
    """The preprocessing of a test pipeline: its size is only that of test images."""
    section = Section()
    sizes = Section()
    for key, value in preprocessor.items():
        (sizes if key in ("size", "size_divisor") else section).put(key, value, origin_of(preprocessor, key))
    if sizes:
        section.put("test_cfg", sizes, next(iter(sizes._origins.values())))
    return section


def join_preprocessors(train: Iterable[Section], test: Iterable[Section]) -> Section:
    """Join the parts of `data_preprocessor` from all pipelines; training wins, with a warning about differences."""
    joined = Section()
    for section in [*train, *test]:
        for key, value in section.items():
            if key not in joined:
                joined.put(key, value, origin_of(section, key))
            elif joined[key] != value and key in ("mean", "std", "bgr_to_rgb", "size", "size_divisor"):
                warnings.warn(f"the pipelines differ in {key}: {joined[key]} is used everywhere, {value} is dropped")
    if "mean" not in joined:
        joined.absorb(NOT_NORMALISED)
    if "size" in joined and "size_divisor" in joined:
        del joined["size_divisor"]  # 0.x took either
    section = section_at(origin_of(joined, "mean"), type="SegDataPreProcessor")
    section.absorb(joined)
    for key, value in (("pad_val", 0), ("seg_pad_val", 255)):
        if key not in section:
            section.put(key, value, origin_of(joined, "mean"))
    return section
