"""The short form for people with their own images: a few lines of YAML that expand into a whole config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrazzo import recipes
from terrazzo.config.classes import set_classes
from terrazzo.config.experiment import AMP_DTYPES
from terrazzo.config.reading.section import Section
from terrazzo.config.sections import SECTIONS, VARIABLES
from terrazzo.config.short_form.data import (
    ImageKind,
    data_problems,
    dataset,
    image_kind,
    image_problems,
    set_in_channels,
)
from terrazzo.config.short_form.messages import Problem, problems_of, report
from terrazzo.config.short_form.model import set_class_weight, suit_momentum, with_changes
from terrazzo.config.short_form.origins import UNCHANGED, with_origins
from terrazzo.config.v0.upgrade import is_old, upgrade_config
from terrazzo.errors import UserError, nearest
from terrazzo.hub.encoders import scale_of
from terrazzo.recipes.compose import tta_pipeline
from terrazzo.recipes.encoders import WORDS, compose, encoder_of, optimizer
from terrazzo.recipes.parts import init, preprocessor

if TYPE_CHECKING:
    from terrazzo.config.short_form.schema import DataKeys, ShortForm

NETWORK = ("model", "model.backbone", "model.head")  # words of an encoder and a head, in place of a recipe
HEAD = "fpn"
SHARED = ("model", "custom_imports")  # sections of both, with the same keys
DEFAULT_LENGTH = 20000
LOG_INTERVAL = 50  # steps
LEAST_INTERVAL = 10  # steps between validations and between checkpoints of a short run


def is_short(values: Mapping[str, Any]) -> bool:
    """Return whether a config is in the short form: it names a recipe, or a backbone or head by a word."""
    model = values.get("model")
    return "recipe" in values or (
        isinstance(model, Mapping) and ("head" in model or isinstance(model.get("backbone"), str))
    )


def network_name(model: Mapping[str, Any]) -> str:
    """Return the name of a network without a recipe: its head and backbone."""
    backbone = model["backbone"]
    return f"{model.get('head', HEAD)}_{backbone if isinstance(backbone, str) else backbone.get('type')}"


def is_setting(name: str) -> bool:
    """Return whether a top-level key belongs in the short form rather than in the config that it expands into.

    So does a key that neither has: the short form rejects it.
    """
    from terrazzo.config.short_form.schema import ShortForm

    return name not in SHARED if name in ShortForm.model_fields else name not in (*SECTIONS, *VARIABLES)


def expand(values: Mapping[str, Any], path: Path | None = None) -> Section:
    """Return the short form in the 1.x vocabulary; `data.root` is relative to the file at `path`.

    The result records the line that sets each key. Raises UserError that lists every mistake.
    """
    form = read_form(values, path)
    crop, images = form.crop, image_kind(form)
    try:
        parts, changes = network(form)
    except UserError as problem:
        key = "model" if form.recipe is None else "recipe"
        raise report([Problem(key, str(problem))], values, path) from None

    # the recipe's model and optimizer for these images and classes, under the user's changes
    set_in_channels(parts["model"], images.channels)
    suit_momentum(parts["model"], length_of(form))
    model = with_changes(with_origins({"model": parts["model"]}, values)["model"], changes)
    if isinstance(backbone := model.get("backbone"), dict) and "in_channels" not in backbone:
        set_in_channels(model, images.channels)  # of a backbone that replaces the recipe's
    if form.class_weight is not None:
        set_class_weight(model, form.class_weight)
    model["data_preprocessor"] = preprocessor(crop) | parts.get("scale", {}) | dict(images.scale)
    model["pretrained"] = None if form.pretrained in (None, "none") else form.pretrained

    expanded = {
        "model": model,
        **loaders(form, images, path),
        "val_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        **training_sections(form, optimizer_section(form, parts["optimizer"])),
        **given(form, UNCHANGED),
    }
    return with_origins(expanded, values)


def read_form(values: Mapping[str, Any], path: Path | None = None) -> ShortForm:
    """Return a short form in its typed form. Raises UserError that lists every mistake."""
    from pydantic import ValidationError

    from terrazzo.config.short_form.schema import ShortForm

    try:
        form = ShortForm.model_validate(values)
    except ValidationError as error:
        raise report(problems_of(error, values, ShortForm), values, path) from None
    problems = list(contradictions(form))
    if problems:
        raise report(problems, values, path)
    return form


def read_data(values: Mapping[str, Any], path: Path | None = None) -> DataKeys:
    """Return a section `data` in its typed form. Raises UserError that lists every mistake."""
    return read_form({"recipe": "fastscnn", "mean": "none", "data": values}, path).data


def contradictions(form: ShortForm) -> Iterator[Problem]:
    """Yield the mistakes that concern several keys."""
    yield from data_problems(form.data)
    yield from image_problems(form)
    yield from network_problems(form)
    if form.iterations is not None and form.epochs is not None:
        yield Problem("epochs", "give `iterations` or `epochs`, not both")
    if form.ema and form.swa:
        yield Problem("swa", "give `ema` or `swa`, not both")
    if form.data.unlabelled == "teacher" and form.teacher is None:
        text = "`data.unlabelled` leaves images without labels to the teacher; name its weights in `teacher`"
        yield Problem("data.unlabelled", text)
    if form.photometric not in (None, "none") and not image_kind(form).is_picture:
        yield Problem("photometric", "`photometric` is for 8-bit RGB or grey images, not for `bands`; omit it")
    for name in form.rare_class_crops or ():
        if name not in form.data.classes:
            text = f"`rare_class_crops` names '{name}', which is not one of `data.classes`"
            yield Problem("rare_class_crops", text + nearest(name, form.data.classes))
    if form.class_weight not in (None, "auto") and len(form.class_weight) != len(form.data.classes):
        text = f"class_weight must be `auto` or a list of {len(form.data.classes)} numbers, one for each class"
        yield Problem("class_weight", text)


def network_problems(form: ShortForm) -> Iterator[Problem]:
    """Yield contradictions about the network: there is a recipe, or else a backbone and a head."""
    head, backbone = ((form.model or {}).get(key) for key in ("head", "backbone"))
    if form.recipe is None and backbone is None:
        text = (
            "name a family or a recipe of `terrazzo recipe list`, or `model: {backbone: timm/convnext_tiny, head: fpn}`"
        )
        yield Problem("model.backbone" if head else "recipe", f"recipe is empty: {text}")
    elif form.recipe is not None and head is not None:
        yield Problem("model.head", "`recipe` and `model.head` both choose a network: omit one of them")
    elif head is not None and not isinstance(head, str):
        yield Problem("model.head", f"`model.head` must be one of {', '.join(WORDS)}, not {head!r}")
    elif form.recipe is None and not isinstance(backbone, (str, dict)):
        yield Problem("model.backbone", f"`model.backbone` must be a name such as timm/convnext_tiny, not {backbone!r}")


def optimizer_section(form: ShortForm, usual: Mapping[str, Any]) -> Section:
    """Return the optimizer's arguments; one of another type does not take the recipe's."""
    section, changes = Section(), form.optimizer or {}
    for part in (changes,) if "type" in changes else (usual, changes):
        section.absorb(part)
    if form.lr is not None:
        section.put("lr", form.lr, None)
    return section


def network(form: ShortForm) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts of the recipe, or of an encoder and a head, and the user's changes of its model.

    The parts are "model" and "optimizer", and of an encoder "scale", its mean and std.
    """
    changes = Section()
    changes.absorb(form.model or {})
    is_auto = form.pretrained == "auto"
    if form.recipe is not None:
        parts = recipe_parts(form.recipe, form.data.classes, form.crop, keep_weights=is_auto)
        if is_auto and (name := parts["model"].pop("pretrained", None)):
            parts["model"]["backbone"]["init_cfg"] = init(name)
        return parts, changes
    encoder = encoder_of(changes.pop("backbone"))
    model = compose(changes.pop("head", HEAD), encoder, len(form.data.classes))
    if encoder.size is not None and list(encoder.size) != form.crop:
        size = "x".join(map(str, encoder.size))
        raise UserError(f"{encoder.name} takes images of {size} pixels only: crop: {size}")
    if is_auto and encoder.weights:
        model["backbone"]["init_cfg"] = init(encoder.weights)
    has_weights = form.pretrained not in (None, "none") or form.load_from is not None
    return {"model": model, "optimizer": optimizer(has_weights), "scale": dict(scale_of(encoder))}, changes


def recipe_parts(name: str, classes: list[str], crop: list[int], *, keep_weights: bool = False) -> dict[str, Any]:
    """Return `{"model", "optimizer"}` of a family, or of any recipe, for the classes."""
    if name.replace("_", "") in {family.replace("_", "") for family in recipes.families()}:
        return recipes.family(name, len(classes), (crop[0], crop[1]), keep_weights=keep_weights)
    config = recipes.recipe(name)
    if is_old(config):
        config = upgrade_config(config)
    model = config["model"]
    set_classes(model, classes)
    return {"model": model, "optimizer": dict(config["optim_wrapper"]["optimizer"])}


def loaders(form: ShortForm, images: ImageKind, path: Path | None) -> dict[str, Any]:
    """Return the three data sections and the steps of test-time augmentation; `test` falls back on `val`."""
    # the steps of training and of evaluation
    load, label = {"type": "LoadImageFromFile", **images.loading}, {"type": "LoadAnnotations"}
    if "resolution" in images.loading:
        label["resolution"] = images.loading["resolution"]
    scale = None if form.resize is None else form.resize[::-1]
    resized = [] if scale is None else [{"type": "Resize", "scale": scale, "keep_ratio": True}]
    colours: list[dict[str, Any]] = []
    if images.is_picture and form.photometric != "none":
        colours = [{"type": "PhotoMetricDistortion", **(form.photometric or {})}]
    augment = [
        load,
        label,
        {"type": "RandomResize", "scale": scale, "ratio_range": form.ratio_range, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": form.crop, "cat_max_ratio": 0.75, **rare_classes(form)},
        {"type": "RandomFlip", "prob": 0.5},
        *colours,
        {"type": "PackSegInputs"},
    ]
    evaluate = [load, *resized, label, {"type": "PackSegInputs"}]

    # the data sets
    test = "test" if form.data.test else "val"
    by_epoch = form.epochs is not None
    return {
        "train_dataloader": {
            "batch_size": form.batch,
            "num_workers": form.workers,
            "drop_last": by_epoch,
            "sampler": sampler(form.rare_class_sampling, by_epoch),
            "dataset": dataset(form.data, "train", path) | {"pipeline": augment},
        },
        **{
            f"{name}_dataloader": {
                "batch_size": 1,
                "num_workers": form.workers,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "dataset": dataset(form.data, split, path) | {"pipeline": evaluate},
            }
            for name, split in (("val", "val"), ("test", test))
        },
        "tta_model": {"type": "SegTTAModel"},
        "tta_pipeline": [load, *resized, *tta_pipeline()[1:]],
    }


def rare_classes(form: ShortForm) -> dict[str, Any]:
    """Return the numbers of the classes around which crops are taken."""
    names = form.rare_class_crops
    return {"rare_classes": [form.data.classes.index(name) for name in names]} if names else {}


def sampler(rare: bool | float, by_epoch: bool) -> dict[str, Any]:
    """Return the order of training samples; `rare` is true, or the temperature of rare-class sampling."""
    if not rare:
        return {"type": "DefaultSampler" if by_epoch else "InfiniteSampler", "shuffle": True}
    return {"type": "RareClassSampler", **({} if rare is True else {"temperature": rare})}


def training_sections(form: ShortForm, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return optimizer, schedule, length, intervals and the other settings of a training run."""
    # mixed precision
    wrapper: dict[str, Any] = {"type": "AmpOptimWrapper" if form.amp else "OptimWrapper", "optimizer": optimizer}
    if isinstance(form.amp, str):
        wrapper["dtype"] = AMP_DTYPES[form.amp]

    # lengths and intervals, in steps or epochs
    by_epoch = form.epochs is not None
    length = length_of(form)
    unit: dict[str, Any] = {"by_epoch": by_epoch}
    if by_epoch:
        unit["convert_to_iter_based"] = True
    warmup = max(1, length // 20)
    val_interval = form.val_interval or max(1 if by_epoch else min(length, LEAST_INTERVAL), length // 20)

    settings: dict[str, Any] = {
        "optim_wrapper": wrapper,
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": warmup, **unit},
            {"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "begin": warmup, "end": length, **unit},
        ],
        "train_cfg": {
            "type": "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop",
            "max_epochs" if by_epoch else "max_iters": length,
            "val_interval": val_interval,
            **given(form, ("time_limit", "skip_nan")),
        },
        "default_hooks": {
            "logger": {
                "type": "LoggerHook",
                "interval": form.log_interval
                or (LOG_INTERVAL if by_epoch else max(1, min(LOG_INTERVAL, length // 20))),
            },
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": form.checkpoint_interval or val_interval,
                "by_epoch": by_epoch,
                "save_best": "mIoU",
            },
        },
        "randomness": {"seed": form.seed, "deterministic": form.deterministic},
    }
    if form.fsdp:
        settings["strategy"] = {"type": "FSDPStrategy"}
    hooks = list(custom_hooks(form, length))
    return settings | ({"custom_hooks": hooks} if hooks else {})


def length_of(form: ShortForm) -> int:
    """Return the length of a run, in steps or epochs."""
    return form.epochs or form.iterations or DEFAULT_LENGTH


def given(form: ShortForm, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the keys that have a value."""
    return {key: value for key in keys if (value := getattr(form, key)) is not None}


def custom_hooks(form: ShortForm, length: int) -> Iterator[dict[str, Any]]:
    """Yield averages of the weights, and the rule that ends a run early."""
    if form.ema:
        yield {"type": "EMAHook", "momentum": 0.001 if form.ema is True else 1 - form.ema}
    if form.swa:
        begin = round((0.75 if form.swa is True else form.swa) * length)
        yield {"type": "EMAHook", "ema_type": "StochasticWeightAverage", "begin_iter": begin, "begin_epoch": begin}
    if form.early_stopping is not None:
        rule = form.early_stopping.model_dump(exclude_unset=True)
        yield {"type": "EarlyStoppingHook", "monitor": "mIoU", "min_delta": 0.0, **rule}
