"""The short form for people with their own images: a few lines of YAML that expand into a whole config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo import recipes
from terrazzo.config.classes import set_classes
from terrazzo.config.experiment import AMP_DTYPES, whole_number
from terrazzo.config.reading.merge import merge
from terrazzo.config.reading.section import DELETE_KEY, plain
from terrazzo.config.short_form.data import as_list, dataset
from terrazzo.config.short_form.images import ImageKind, image_kind, set_in_channels
from terrazzo.config.v0.upgrade import is_old, upgrade_config
from terrazzo.errors import UserError, nearest
from terrazzo.recipes.compose import tta_pipeline
from terrazzo.recipes.parts import IMAGENET

KEYS = (
    "recipe", "data", "crop", "batch", "iterations", "epochs", "lr", "seed", "amp", "ema", "class_weight",
    "val_interval", "checkpoint_interval", "log_interval", "pretrained", "workers", "resize", "ratio_range",
    "deterministic", "early_stopping", "time_limit", "skip_nan", "swa", "compile", "channels_last",
    "activation_checkpointing", "fsdp",
    "find_unused_parameters", "model", "optimizer", "custom_imports",
    "in_channels", "mean", "std", "rare_class_sampling",
    "track", "val_pictures",
)  # fmt: skip
SETTINGS = tuple(key for key in KEYS if key not in ("model", "custom_imports"))  # those of no whole config's names
SWITCHES = ("compile", "channels_last", "activation_checkpointing", "find_unused_parameters")
DATA_KEYS = (
    "root", "images", "labels", "train", "val", "test", "classes", "palette", "ignore", "label_map",
    "reduce_zero_label", "bands", "label_format", "image_suffix", "label_suffix", "exclude", "cache",
)  # fmt: skip


def is_short(values: Mapping[str, Any]) -> bool:
    """Whether a config is in the short form."""
    return "recipe" in values


def expand(values: Mapping[str, Any], path: Path | None = None) -> dict[str, Any]:
    """The short form in the 1.x vocabulary; `data.root` is relative to the file at `path`. Raises UserError."""
    check(values, KEYS, "")
    data = values.get("data")
    if not isinstance(data, Mapping):
        raise UserError(f"{where(path)} needs a section `data` with root, images, labels and classes")
    check(data, DATA_KEYS, "data.")
    check_data(data, path)
    crop = size(values.get("crop", "512x512"))
    images = image_kind(values, data)
    parts = recipe_parts(str(values["recipe"]), [str(name) for name in data["classes"]], crop)
    set_in_channels(parts["model"], images.channels)
    model = with_changes(parts["model"], values.get("model") or {})
    optimizer = dict(values.get("optimizer") or {})
    if "type" not in optimizer:  # another type does not take the recipe's arguments
        optimizer = parts["optimizer"] | optimizer
    if values.get("class_weight") is not None:
        set_class_weight(model, values["class_weight"], len(data["classes"]))
    by_epoch = "epochs" in values
    if by_epoch and "iterations" in values:
        raise UserError(f"{where(path)}: give `iterations` or `epochs`, not both")
    length = whole_number(values, "epochs" if by_epoch else "iterations", 20000, "")
    model["data_preprocessor"] = preprocessor(crop) | images.scale
    model["pretrained"] = None if values.get("pretrained") in (None, "none") else values["pretrained"]
    return {
        "model": model,
        **loaders(values, data, crop, path, by_epoch, images),
        "val_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        **run(values, optimizer, length, by_epoch),
        **{key: plain(values[key]) for key in ("custom_imports", "track", "val_pictures") if key in values},
    }


def with_changes(model: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's model with the user's keys over it; a part of another type takes nothing from the recipe's part."""
    marked = {}
    for key, value in changes.items():
        part = model.get(key)
        if (
            isinstance(part, Mapping)
            and isinstance(value, Mapping)
            and value.get("type") not in (None, part.get("type"))
        ):
            value = {**value, DELETE_KEY: True}
        marked[key] = value
    return plain(merge(model, marked, "model"))


def check(section: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    """Raise UserError for an unknown key, with the nearest names."""
    for key in section:
        if key not in known:
            raise UserError(f"the short form has no key '{prefix}{key}'{nearest(str(key), known)}")


def check_data(data: Mapping[str, Any], path: Path | None) -> None:
    """Raise UserError for classes, palette, ignored values or a label map that are not what they should be."""
    classes, palette = data.get("classes"), data.get("palette")
    if not isinstance(classes, (list, tuple)) or not classes:
        raise UserError(f"{where(path)} needs `data.classes`, the list of class names in the order of the label values")
    repeated = [name for name, count in Counter(map(str, classes)).items() if count > 1]
    if repeated:
        raise UserError(
            f"{where(path)}: `data.classes` names '{repeated[0]}' twice; to join two label values: label_map"
        )
    if palette is not None and not (len(palette) == len(classes) and all(is_colour(colour) for colour in palette)):
        raise UserError(f"{where(path)}: `data.palette` must be {len(classes)} colours [red, green, blue], one a class")
    has_names = data.get("label_format") is not None
    if not all(isinstance(value, (int, str) if has_names else int) for value in as_list(data.get("ignore"))):
        raise UserError(f"{where(path)}: `data.ignore` must be a list of label values, not {data['ignore']!r}")
    label_map = data.get("label_map") or {}
    if not isinstance(label_map, Mapping) or not all(
        (has_names or str(old).isdecimal())
        and ((isinstance(new, int) and (new < len(classes) or new == 255)) or (has_names and new in classes))
        for old, new in label_map.items()
    ):
        raise UserError(
            f"{where(path)}: `data.label_map` must map label values to classes 0 to {len(classes) - 1} (255: leave "
            f"out), such as {{7: 1}}, not {label_map!r}"
        )


def is_colour(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(0 <= channel <= 255 for channel in value)


def number(values: Mapping[str, Any], key: str) -> float:
    """A number, also where YAML reads `1e-3` as a text. Raises UserError for anything else."""
    try:
        return float(values[key])
    except (TypeError, ValueError):
        raise UserError(f"{key} must be a number, not {values[key]!r}") from None


def where(path: Path | None) -> str:
    return "the short form" if path is None else str(path)


def size(value: Any, key: str = "crop") -> list[int]:
    """`360x480` (height x width), `[360, 480]` or one number -> [height, width]."""
    try:
        if isinstance(value, str):
            value = [int(part) for part in value.lower().split("x")]
        pair = [int(value), int(value)] if isinstance(value, int) else [int(part) for part in value]
        if len(pair) != 2 or min(pair) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(f"{key}: {value!r} is not height x width, such as 360x480") from None
    return pair


def preprocessor(crop: list[int]) -> dict[str, Any]:
    return {"type": "SegDataPreProcessor", **IMAGENET, "pad_val": 0, "seg_pad_val": 255, "size": crop}


def recipe_parts(name: str, classes: list[str], crop: list[int]) -> dict[str, Any]:
    """`{"model", "optimizer"}` of a family, or of any recipe, for the classes."""
    if name.replace("_", "") in {family.replace("_", "") for family in recipes.families()}:
        return recipes.family(name, len(classes), (crop[0], crop[1]))
    config = recipes.recipe(name)
    if is_old(config):
        config = upgrade_config(config)
    model = config["model"]
    set_classes(model, classes)
    return {"model": model, "optimizer": dict(config["optim_wrapper"]["optimizer"])}


def set_class_weight(spec: Any, weights: Any, count: int) -> None:
    """Give every cross-entropy of a model the class weights; `auto` is worked out when training starts."""
    if weights != "auto" and (not isinstance(weights, (list, tuple)) or len(weights) != count):
        raise UserError(f"class_weight must be `auto` or a list of {count} numbers, one for each class")
    if isinstance(spec, (list, tuple)):
        for item in spec:
            set_class_weight(item, weights, count)
    elif isinstance(spec, dict):
        if spec.get("type") == "CrossEntropyLoss":
            spec["class_weight"] = weights if weights == "auto" else [float(weight) for weight in weights]
        for value in spec.values():
            set_class_weight(value, weights, count)


def loaders(
    values: Mapping[str, Any],
    data: Mapping[str, Any],
    crop: list[int],
    path: Path | None,
    by_epoch: bool,
    images: ImageKind,
) -> dict[str, Any]:
    """The three data sections and the steps of test-time augmentation; `test` falls back on `val`."""
    ratio = as_list(values.get("ratio_range", [0.5, 2.0]))
    if len(ratio) != 2 or not all(isinstance(factor, (int, float)) and factor > 0 for factor in ratio):
        raise UserError(f"ratio_range must be two factors, such as [0.5, 2.0], not {values['ratio_range']!r}")
    load, label = {"type": "LoadImageFromFile", **images.loading}, {"type": "LoadAnnotations"}
    scale = None if values.get("resize") is None else size(values["resize"], "resize")[::-1]
    resized = [] if scale is None else [{"type": "Resize", "scale": scale, "keep_ratio": True}]
    augment = [
        load,
        label,
        {"type": "RandomResize", "scale": scale, "ratio_range": ratio, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        *([{"type": "PhotoMetricDistortion"}] if images.is_picture else []),
        {"type": "PackSegInputs"},
    ]
    plain = [load, *resized, label, {"type": "PackSegInputs"}]
    workers = whole_number(values, "workers", 4, "", least=0)
    test = "test" if data.get("test") else "val"
    return {
        "train_dataloader": {
            "batch_size": whole_number(values, "batch", 8, ""),
            "num_workers": workers,
            "drop_last": by_epoch,
            "sampler": sampler(values.get("rare_class_sampling"), by_epoch),
            "dataset": dataset(data, "train", path) | {"pipeline": augment},
        },
        **{
            f"{name}_dataloader": {
                "batch_size": 1,
                "num_workers": workers,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "dataset": dataset(data, split, path) | {"pipeline": plain},
            }
            for name, split in (("val", "val"), ("test", test))
        },
        "tta_model": {"type": "SegTTAModel"},
        "tta_pipeline": [load, *resized, *tta_pipeline()[1:]],
    }


def sampler(rare: Any, by_epoch: bool) -> dict[str, Any]:
    """The order of training samples; `rare_class_sampling` is true, or the temperature of rare-class sampling."""
    if rare in (None, False):
        return {"type": "DefaultSampler" if by_epoch else "InfiniteSampler", "shuffle": True}
    temperature = {} if rare is True else {"temperature": number({"rare_class_sampling": rare}, "rare_class_sampling")}
    return {"type": "RareClassSampler", **temperature}


def run(values: Mapping[str, Any], optimizer: dict[str, Any], length: int, by_epoch: bool) -> dict[str, Any]:
    """Optimizer, schedule, length and intervals."""
    if values.get("lr") is not None:
        optimizer["lr"] = number(values, "lr")
    amp = values.get("amp")
    wrapper: dict[str, Any] = {"type": "AmpOptimWrapper" if amp else "OptimWrapper", "optimizer": optimizer}
    if amp in AMP_DTYPES:
        wrapper["dtype"] = AMP_DTYPES[amp]
    elif amp not in (None, True, False):
        raise UserError(f"amp: '{amp}' is neither bf16 nor fp16")
    unit: dict[str, Any] = {"by_epoch": by_epoch}
    if by_epoch:
        unit["convert_to_iter_based"] = True
    warmup = max(1, length // 20)
    val_interval = whole_number(values, "val_interval", max(1, length // 20), "")
    interval = whole_number(values, "checkpoint_interval", val_interval, "")
    settings: dict[str, Any] = {
        **{key: bool(values[key]) for key in SWITCHES if key in values},
        "optim_wrapper": wrapper,
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": warmup, **unit},
            {"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "begin": warmup, "end": length, **unit},
        ],
        "train_cfg": {
            "type": "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop",
            "max_epochs" if by_epoch else "max_iters": length,
            "val_interval": val_interval,
            **{key: values[key] for key in ("time_limit", "skip_nan") if values.get(key) is not None},
        },
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": whole_number(values, "log_interval", 50, "")},
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": interval,
                "by_epoch": by_epoch,
                "save_best": "mIoU",
            },
        },
        "randomness": {
            "seed": whole_number(values, "seed", 0, "", least=0),
            "deterministic": bool(values.get("deterministic", False)),
        },
    }
    if values.get("fsdp"):
        settings["strategy"] = {"type": "FSDPStrategy"}
    return settings | hooks(values, length)


def hooks(values: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Averages of the weights, and when the run ends early."""
    found: list[dict[str, Any]] = []
    if values.get("ema") and values.get("swa"):
        raise UserError("the short form: give `ema` or `swa`, not both")
    if values.get("ema"):
        momentum = 0.001 if values["ema"] is True else 1 - number(values, "ema")
        if not 0 < momentum < 1:
            raise UserError(f"ema is the share of the old average that is kept, such as 0.999, not {values['ema']!r}")
        found.append({"type": "EMAHook", "momentum": momentum})
    if values.get("swa"):
        share = 0.75 if values["swa"] is True else number(values, "swa")
        if not 0 <= share < 1:
            raise UserError(f"swa is the share of the run after which weights are averaged, not {values['swa']!r}")
        begin = round(share * length)
        average = {"type": "EMAHook", "ema_type": "StochasticWeightAverage", "begin_iter": begin, "begin_epoch": begin}
        found.append(average)
    if values.get("early_stopping"):
        rule = values["early_stopping"]
        rule = dict(rule) if isinstance(rule, Mapping) else {"patience": rule}
        check(rule, ("patience", "min_delta"), "early_stopping.")
        found.append({"type": "EarlyStoppingHook", "monitor": "mIoU", "min_delta": 0.0, **rule})
    return {"custom_hooks": found} if found else {}
