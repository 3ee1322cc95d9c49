"""The recipe book: configs by name, composed when they are asked for."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from terrazzo.errors import UserError, nearest
from terrazzo.recipes import datasets
from terrazzo.recipes import names_v0 as older
from terrazzo.recipes import names_v1 as official
from terrazzo.recipes.methods import all_families, find_method
from terrazzo.recipes.parts import Spec, ohem, preprocessor, sgd
from terrazzo.recipes.plan import Plan
from terrazzo.recipes.published import RecipeInfo, RecipeRecord, describe
from terrazzo.recipes.words import Words, parse

WORDS = tuple(item.name for item in fields(Words))
OFTEN_NONE = ("load_from",)  # keys for which None is a value; elsewhere it omits a section
FAST = {"fastscnn": 0.05}  # families whose official rate is not for training from random weights


def plan_of(words: Words, data: datasets.Data | None = None) -> Plan:
    """The plan of a name's words, on `data` or on the dataset that they name. Raises UserError."""
    found = find_method(words.model)
    if found is None:
        raise UserError(f"there is no model '{words.model}'")
    family, groups = found
    plan = start(words, data or datasets.dataset(words.dataset))
    family.build(plan, **groups)
    add_options(plan)
    return plan


def start(words: Words, data: datasets.Data) -> Plan:
    """A plan before its family completes it."""
    plan = Plan(words, data)
    plan.iterations = words.iterations or plan.iterations
    plan.batch = words.batch or (2 if data.light else 4)
    plan.workers = 2 if data.light and plan.batch == 2 else 4
    plan.preprocessor = preprocessor(plan.crop)
    plan.train_pipeline = datasets.train_pipeline(data, words.read_crop or words.crop)
    plan.test_pipeline = datasets.test_pipeline(data, words.read_crop or words.crop)
    plan.optimizer = plan.usual_optimizer()
    plan.schedule = plan.steps() if "adamw" in words.options else plan.poly()
    return plan


def add_options(plan: Plan) -> None:
    """Apply the options of a name to the model."""
    for option in plan.words.options:
        if option == "ohem":
            heads = [plan.model[key] for key in ("decode_head", "auxiliary_head") if plan.model.get(key)]
            for head in (part for item in heads for part in (item if isinstance(item, list) else [item])):
                head.setdefault("sampler", ohem(thresh=0.7, min_kept=10000))
        elif option.startswith("ce-"):
            entropy, dice = (float(part) for part in option.split("-")[1::2])
            first = {"type": "CrossEntropyLoss", "loss_name": "loss_ce", "loss_weight": entropy}
            second = {"type": "DiceLoss", "loss_name": "loss_dice", "loss_weight": dice}
            plan.model["decode_head"]["loss_decode"] = [first, second]


def loaders(plan: Plan) -> Spec:
    """The three loaders; the test set is the validation set unless the name has another."""
    data = plan.data if not plan.repeat else replace(plan.data, repeat=plan.repeat)
    in_order = {"type": "DefaultSampler", "shuffle": False}
    test = datasets.split(plan.data, 1, plan.test_pipeline)
    other = datasets.night_dataset(plan.words.test) if plan.words.test else test
    train = datasets.train_dataset(data, plan.train_pipeline)
    shuffled = {"type": "InfiniteSampler", "shuffle": True}
    loader = {"batch_size": 1, "num_workers": 4, "persistent_workers": True, "sampler": in_order}
    training = {"batch_size": plan.batch, "num_workers": plan.workers, "sampler": shuffled, "dataset": train}
    evaluation = {"val_dataloader": loader | {"dataset": test}, "test_dataloader": loader | {"dataset": other}}
    return {"train_dataloader": loader | training, **evaluation}


def tta_pipeline() -> list[Spec]:
    """Six scales, each as it is and mirrored."""
    scales = [{"type": "Resize", "scale_factor": quarters / 4, "keep_ratio": True} for quarters in range(2, 8)]
    flips = [{"type": "RandomFlip", "prob": chance, "direction": "horizontal"} for chance in (0.0, 1.0)]
    steps = [scales, flips, [{"type": "LoadAnnotations"}], [{"type": "PackSegInputs"}]]
    return [{"type": "LoadImageFromFile", "backend_args": None}, {"type": "TestTimeAug", "transforms": steps}]


def runtime(plan: Plan) -> Spec:
    """Sections that are the same in nearly every recipe."""
    interval = plan.interval or plan.iterations // 10
    backends = [{"type": "LocalVisBackend"}]
    evaluator = {"type": "IoUMetric", "iou_metrics": [plan.data.metric]}
    loop = {"type": "IterBasedTrainLoop", "max_iters": plan.iterations, "val_interval": interval}
    hooks = {"timer": {"type": "IterTimerHook"},
        "logger": {"type": "LoggerHook", "interval": 50, "log_metric_by_epoch": False},
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": interval} | plan.checkpoint,
        "sampler_seed": {"type": "DistSamplerSeedHook"}, "visualization": {"type": "SegVisualizationHook"}}  # fmt: skip
    processes = {"mp_start_method": "fork", "opencv_num_threads": 0}
    return {"val_evaluator": evaluator, "test_evaluator": evaluator, "default_scope": "mmseg",
        "env_cfg": {"cudnn_benchmark": True, "mp_cfg": processes, "dist_cfg": {"backend": "nccl"}},
        "vis_backends": backends,
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": backends, "name": "visualizer"},
        "log_processor": {"by_epoch": False}, "log_level": "INFO", "load_from": None, "resume": False,
        "tta_model": {"type": "SegTTAModel"}, "tta_pipeline": tta_pipeline() if plan.data.tta else None,
        "optim_wrapper": plan.optimizer, "param_scheduler": plan.schedule, "train_cfg": loop | plan.loop,
        "val_cfg": {"type": "ValLoop"}, "test_cfg": {"type": "TestLoop"}, "default_hooks": hooks}  # fmt: skip


def settings(plan: Plan) -> Spec:
    """The whole config of a plan, in the 1.x vocabulary."""
    model = {"data_preprocessor": dict(plan.preprocessor)} | plan.model
    config = {"data_preprocessor": plan.preprocessor, "model": model, **loaders(plan), **runtime(plan), **plan.settings}
    return {key: value for key, value in config.items() if value is not None or key in OFTEN_NONE}


def families() -> list[str]:
    """The families' names: those of the official folders."""
    return sorted({family.folder for family in all_families()})


def family(name: str, num_classes: int = 19, crop: tuple[int, int] = (512, 512), *, keep_weights: bool = False) -> Spec:
    """`{"model": ..., "optimizer": ...}` for training from random weights, of a family.

    Its name may be without underscores. `keep_weights` keeps the names of published weights. Raises UserError.
    """
    by_name = {item.folder.replace("_", ""): item for item in reversed(all_families())}
    chosen = by_name.get(name.replace("_", ""))
    if chosen is None:
        raise UserError(f"no recipe or family is called '{name}'{nearest(name, families())}")
    words = Words(name, chosen.usual, "data", crop)
    plan = plan_of(words, replace(datasets.dataset("data"), num_classes=num_classes))
    optimizer = dict(plan.optimizer["optimizer"])
    if chosen.folder in FAST:
        optimizer = sgd(FAST[chosen.folder])
    without = () if keep_weights else ("pretrained", "init_cfg")
    model = fresh(plan.model | {"test_cfg": {"mode": "whole"}}, without)
    return {"model": model, "optimizer": fresh(optimizer)}


def fresh(part: Any, without: tuple[str, ...] = ()) -> Any:
    """Copy a value so that it shares nothing with the tables, and no part of it with another."""
    if isinstance(part, (list, tuple)):
        return [fresh(item, without) for item in part]
    if not isinstance(part, dict):
        return part
    return {key: fresh(value, without) for key, value in part.items() if key not in without}


def recipe(name: str, vocabulary: str | None = None) -> Spec:
    """The config of a recipe's name, official or of the same parts. Raises UserError.

    A name of 0.x gives the 0.x vocabulary, as its official file is written. The one name of both versions is of 1.x,
    unless `vocabulary="0.x"`.
    """
    return expand_recipe(name, vocabulary)[0]


def expand_recipe(name: str, vocabulary: str | None = None) -> tuple[Spec, RecipeRecord]:
    """The config of a recipe's name, and the record of what it was expanded from. Raises UserError."""
    words, changes, _ = meaning(name, vocabulary)
    try:
        plan = plan_of(words)
    except UserError as problem:
        raise UserError(f"no recipe is called '{name}', {problem}{nearest(name, names())}") from None
    record = RecipeRecord(name, words.devices, words.batch, plan.optimizer.get("accumulative_counts", 1))
    config = fresh(older.written(plan) if words.older else settings(plan))
    for key, value in changes.items():
        if key not in WORDS:
            change(config, key, value)
    return config, record


def info(name: str, vocabulary: str | None = None) -> RecipeInfo:
    """The meaning of a name and the published facts. Raises UserError."""
    words, _, note = meaning(name, vocabulary)
    return describe(words, note)


def meaning(name: str, vocabulary: str | None = None) -> tuple[Words, Spec, str]:
    """The words of a name, the config's differences from them, and the reason. Raises UserError."""
    if vocabulary not in (None, "0.x", "1.x"):
        raise UserError(f"vocabulary: '{vocabulary}' is neither '0.x' nor '1.x'")
    words, table = parse(official.SPELLINGS.get(name, name)), official.exceptions
    if vocabulary == "0.x" or (words is None and vocabulary is None):
        twin = older.twins().get(name, "")
        words, table = parse(official.SPELLINGS.get(twin, twin)), older.exceptions
    if words is None and is_family(name):
        raise UserError(f"'{name}' is a family of recipes: `terrazzo recipe list --method {name}` lists them")
    if words is None:
        raise UserError(f"no recipe is called '{name}'{nearest(name, [*names(), *families()])}")
    changes, why = table().get(name, ({}, ""))
    changed = {key: value for key, value in changes.items() if key in WORDS}
    return replace(words, name=name, older=table is older.exceptions, **changed), changes, why


def change(config: Spec, key: str, value: Any) -> None:
    """Set a dotted key, whose numbers are indices of lists, or delete it."""
    *path, last = key.split(".")
    target: Any = config
    for step in path:
        target = target[int(step) if isinstance(target, list) else step]
    if value is official.GONE:
        del target[last]
    else:
        target[int(last) if isinstance(target, list) else last] = fresh(value)


def names() -> list[str]:
    """Every official name, of 1.x and of 0.x."""
    return list(official_names())


@lru_cache(maxsize=1)
def official_names() -> dict[str, None]:
    """The official names as keys: to look one up composes nothing."""
    return dict.fromkeys((*official.names(), *older.twins()))


def is_family(name: str) -> bool:
    """Check for the name of a family, with or without its underscores."""
    return name.replace("_", "") in {folder.replace("_", "") for folder in families()}
