"""Import of modules written by users, and advice on porting those written for MMSegmentation."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from terrazzo.errors import UserError

TOOLBOXES = ("mmseg", "mmengine", "mmcv", "mmdet", "mmpretrain", "mmcls")
# Modules whose classes and registries have counterparts here; the rest of mmcv and mmengine can be used unchanged.
REPLACED = (
    "mmseg", "mmdet", "mmpretrain", "mmcls", "mmengine.model", "mmengine.registry", "mmcv.cnn", "mmcv.runner",
    "mmcv.ops", "mmcv.transforms",
)  # fmt: skip
LAYERS = "terrazzo.models.layers"
DECLARE = (
    "a data set is declared, not written as a class: declare(name='MyDataset', **METAINFO, img_suffix=..., "
    "seg_map_suffix=...) in place of the class; or in the config, type='BaseSegDataset' with "
    "metainfo=dict(classes=..., palette=...)"
)
FindType = Callable[[str], Any]  # from a name to a registered type, or None

# name there -> (module, name, note on differences) here; heads, backbones and losses are in the registry
COUNTERPARTS: dict[str, tuple[str, str, str]] = {
    **dict.fromkeys(
        ("MODELS", "HEADS", "BACKBONES", "NECKS", "LOSSES", "SEGMENTORS"), ("terrazzo.registry", "MODELS", "")),
    "DATASETS": ("terrazzo.registry", "DATASETS", ""),
    "METRICS": ("terrazzo.registry", "METRICS", ""),
    "PIPELINES": ("terrazzo.registry", "TRANSFORMS", "a transform is called with (sample, rng): see terrazzo.sample"),
    "TRANSFORMS": ("terrazzo.registry", "TRANSFORMS", "a transform is called with (sample, rng): see terrazzo.sample"),
    **dict.fromkeys(("BaseSegDataset", "CustomDataset", "BaseCDDataset"), ("terrazzo.data.spec", "declare", DECLARE)),
    "BaseTransform": ("builtins", "object", "a transform is any callable of (sample, rng): see terrazzo.sample"),
    "BaseDecodeHead": ("terrazzo.models.heads.base", "DecodeHead", "its arguments are given by keyword"),
    "BaseSegmentor": ("torch.nn", "Module", "forward(images) gives logits, loss(images, labels) a dict of losses"),
    "BaseModule": ("torch.nn", "Module", "it takes no init_cfg, nothing calls init_weights: initialise in __init__"),
    "ModuleList": ("torch.nn", "ModuleList", ""),
    "Sequential": ("torch.nn", "Sequential", ""),
    "ConvModule": (LAYERS, "ConvBlock", ""),
    "DepthwiseSeparableConvModule": (LAYERS, "DepthwiseSeparableConvBlock", ""),
    "build_norm_layer": (LAYERS, "build_norm", "build_norm(norm_cfg, channels) gives the layer alone, without a name"),
    "build_conv_layer": (LAYERS, "build_conv", ""),
    "build_activation_layer": (LAYERS, "build_activation", ""),
    "build_upsample_layer": (LAYERS, "Upsample", "Upsample(scale_factor=...) is the layer itself"),
    "DropPath": (LAYERS, "DropPath", ""),
    "build_dropout": (LAYERS, "DropPath", "DropPath(rate) is the layer itself; for plain dropout take nn.Dropout"),
    "FFN": (LAYERS, "FeedForward", "check its arguments"),
    "MultiheadAttention": (LAYERS, "MultiheadAttention", "check its arguments"),
    "PatchEmbed": (LAYERS, "PatchEmbed", "check its arguments"),
    "NonLocal2d": (f"{LAYERS}.context_block", "NonLocal", "check its arguments"),
    "Scale": (f"{LAYERS}.self_attention", "Scale", ""),
    "SelfAttentionBlock": (f"{LAYERS}.self_attention", "SelfAttention", "check its arguments"),
    "resize": (LAYERS, "resize", "it is bilinear by default, and its first argument is x"),
    "Upsample": (LAYERS, "Upsample", ""),
    "nlc_to_nchw": (f"{LAYERS}.tokens", "as_map", ""),
    "nchw_to_nlc": (f"{LAYERS}.tokens", "as_tokens", ""),
    "DeformConv2d": (f"{LAYERS}.deform_conv", "DeformConv2d", "it makes its own offsets, as mmcv's Pack does"),
    "DeformConv2dPack": (f"{LAYERS}.deform_conv", "DeformConv2d", ""),
    "ModulatedDeformConv2d": (f"{LAYERS}.deform_conv", "ModulatedDeformConv2d", "it makes its own offsets and masks"),
    "ModulatedDeformConv2dPack": (f"{LAYERS}.deform_conv", "ModulatedDeformConv2d", ""),
    "MultiScaleDeformableAttention": (
        f"{LAYERS}.deformable_attention", "MultiScaleDeformableAttention", "check its arguments",
    ),
    "CrissCrossAttention": ("terrazzo.models.heads.cc", "CrissCrossAttention", ""),
    "point_sample": (f"{LAYERS}.points", "sample_points", "points are in 0..1"),
    "weight_reduce_loss": ("terrazzo.models.losses.base", "reduce", "reduce(values, weight, reduction, divisor)"),
    "get_class_weight": ("terrazzo.models.losses.base", "class_weights", "class_weights(values, like) gives a tensor"),
    "accuracy": ("terrazzo.models.losses.base", "accuracy", ""),
    "kaiming_init": ("torch.nn.init", "kaiming_normal_", "it takes a weight, not a module"),
    **{f"{name}_init": ("torch.nn.init", f"{name}_", "it takes a weight, not a module")
       for name in ("constant", "normal", "trunc_normal")},
    "trunc_normal_": ("torch.nn.init", "trunc_normal_", ""),
}  # fmt: skip
# further patterns in the lines of such a module -> their replacements
USES = (
    (r"\.register_module\((force=True)?\)", ".register"),
    (r"\.register_module\(", ".register("),
    (r"(?<=self)\.cls_seg\(", ".classify("),
    (r"(?<=self)\._transform_inputs\(", ".select("),
    (r"(?<=\bresize\()\s*input=", ""),
    (r",\s*warning=(True|False)", ""),
    (r"(?<=__init__\()(init_cfg=)?init_cfg(?=\))", ""),
)


@cache
def official_modules() -> frozenset[str]:
    """The modules of the releases of MMSegmentation's packages: `folder: names` a line of the table."""
    lines = Path(__file__).with_name("official.txt").read_text("utf-8").splitlines()
    listed = [line.split(": ") for line in lines]
    return frozenset(f"{folder}.{name}".removeprefix("-.") for folder, names in listed for name in names.split())


# Classes that a trusted config names by themselves, not by the text of their names

CLASSES: dict[str, Any] = {}


def class_text(item: Any) -> str:
    """A class or a function of a config as a text, which a checkpoint can hold."""
    text = f"<{item.__module__}.{item.__qualname__}>"
    CLASSES[text] = item
    return text


def named_class(text: Any) -> Any:
    """The class or function that such a text stands for: one of a trusted config, or a layer of torch.nn; else None."""
    if not isinstance(text, str) or not text.startswith("<"):
        return None
    if text not in CLASSES and text.startswith("<torch.nn."):
        import torch

        found = getattr(torch.nn, text[1:-1].rpartition(".")[2], None)
        return found if isinstance(found, type) and issubclass(found, torch.nn.Module) else None
    return CLASSES.get(text)


def import_user_module(name: str, where: str, model_type: FindType) -> ModuleType:
    """Import a module that a user wrote. Raises UserError for one that fails, or that must be ported.

    `model_type` gives the type of ours that a name in MMSegmentation's packages corresponds to.
    """
    if name in sys.modules:
        return sys.modules[name]
    with explained_import(name, where, model_type):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py") and not is_answered():
            check_ported(Path(spec.origin), model_type, alone="." not in name)
        return importlib.import_module(name)


@contextmanager
def explained_import(name: str, where: str = "", model_type: FindType = lambda name: None) -> Iterator[None]:
    """Turn what fails while a module is imported into a UserError with its file and line."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as problem:
        raise UserError(f"{problem.filename}:{problem.lineno}: importing '{name}' fails: {problem.msg}") from None
    except Exception as problem:
        frames = traceback.extract_tb(problem.__traceback__)
        raised = [frame for frame in frames if not imports_others(frame.filename)]
        if not raised and isinstance(problem, ModuleNotFoundError):
            raise UserError(f"{where}: {problem}; modules on PYTHONPATH are found too") from None
        file = raised[-1].filename if raised else name
        package = (problem.name or "").partition(".")[0] if isinstance(problem, ImportError) else ""
        if package in TOOLBOXES and not is_answered():
            check_ported(Path(file), model_type, TOOLBOXES)
        if isinstance(problem, ImportError) and "terrazzo's answer to" in str(problem):
            raise UserError(str(problem)) from None
        line = f":{raised[-1].lineno}" if raised else ""
        if "relative import" in str(problem):
            line += ": a module that custom_imports names alone is in no package, so it imports by whole names"
        raise UserError(f"{file}{line}: importing '{name}' fails: {type(problem).__name__}: {problem}") from problem


def imports_others(file: str) -> bool:
    """Report whether a frame of this file is one of an import itself: ours, or Python's."""
    return "importlib" in file or Path(file).is_relative_to(Path(__file__).parent)


def is_answered() -> bool:
    """Report whether MMSegmentation's packages are answered with our own parts, so that nothing needs porting."""
    compat = sys.modules.get("terrazzo.compat.finder")
    return compat is not None and compat.Finder in sys.meta_path


@dataclass(frozen=True)
class Port:
    """The changes that port a module of MMSegmentation: (first line, last line, old, new) of each, and notes."""

    changes: list[tuple[int, int, str, str]]
    notes: list[str]

    @property
    def open(self) -> list[tuple[int, int, str, str]]:
        """The changes that a person must make: what has no counterpart."""
        return [change for change in self.changes if change[3].startswith("(")]


def port(path: Path, model_type: FindType, modules: tuple[str, ...] = REPLACED, *, alone: bool = False) -> Port:
    """The changes that a file needs if it imports any of `modules`.

    A file that is `alone`, in no package, was copied out of one if it imports relatively what has a counterpart.
    """
    text = path.read_text(encoding="utf-8")
    found = list(statements(ast.parse(text, str(path))))
    imports = [node for node in found if names_any(node, modules) or (alone and is_relative(node))]
    changes: list[tuple[int, int, str, str]] = []
    notes: list[str] = []
    for node in imports:
        replacement, hints = counterpart(node, model_type)
        changes.append((node.lineno, node.end_lineno or node.lineno, ast.unparse(node), replacement))
        notes += hints
    imported = {number for first, last, *_ in changes for number in range(first, last + 1)}
    for number, line in enumerate(text.splitlines() if imports else (), 1):
        changed = line
        for pattern, replacement in USES:
            changed = re.sub(pattern, replacement, changed)
        if changed != line and number not in imported:
            changes.append((number, number, line.strip(), changed.strip()))
    return Port(sorted(changes), list(dict.fromkeys(notes)))


def check_ported(path: Path, model_type: FindType, modules: tuple[str, ...] = REPLACED, *, alone: bool = False) -> None:
    """Raise UserError with the lines to change if a file imports any of `modules`; see `port`."""
    found = port(path, model_type, modules, alone=alone)
    if not found.changes:
        return
    width = len(str(found.changes[-1][0]))
    advice = [f"  line {n:<{width}}  {old}\n  {'->':>{width + 5}}  {new}" for n, _, old, new in found.changes]
    advice += [f"  note: {note}" for note in found.notes]
    raise UserError(
        f"{path} is written for MMSegmentation's packages, which terrazzo does not use; change these lines:\n"
        + "\n".join(advice)
    )


def ported_text(text: str, found: Port) -> str:
    """A module's text with those changes made that have a counterpart."""
    lines = text.splitlines(keepends=True)
    for first, last, old, new in reversed(found.changes):
        if new.startswith("("):
            continue
        before = lines[first - 1]
        indent = before[: len(before) - len(before.lstrip())]
        parts = new.split("; ") if first != last or old.startswith(("import ", "from ")) else [new]
        lines[first - 1 : last] = [indent + part + "\n" for part in parts if not part.startswith("(")]
    return "".join(lines)


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a file, except those inside a `try`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not isinstance(node, ast.Try):
            yield from statements(node)


def is_relative(node: ast.Import | ast.ImportFrom) -> bool:
    """Report whether an import is relative and names something that has a counterpart here."""
    relative = isinstance(node, ast.ImportFrom) and node.level > 0
    return relative and any(alias.name in COUNTERPARTS for alias in node.names)


def names_any(node: ast.Import | ast.ImportFrom, modules: tuple[str, ...]) -> bool:
    """Report whether an import statement names one of the modules, or something inside it."""
    if isinstance(node, ast.ImportFrom):
        named = [f"{node.module}.{alias.name}" for alias in node.names] if not node.level else []
    else:
        named = [alias.name for alias in node.names]
    return any(f"{name}.".startswith(f"{module}.") for name in named for module in modules)


def counterpart(node: ast.Import | ast.ImportFrom, model_type: FindType) -> tuple[str, list[str]]:
    """The statements that replace an import, and notes on differences in behaviour."""
    if isinstance(node, ast.Import):
        return "(import the names that are used, one by one)", []
    new, notes = [], []
    for alias in node.names:
        module, name, note = COUNTERPARTS.get(alias.name) or registered(model_type(alias.name))
        kept = alias.asname or alias.name
        if not module:
            new.append(f"(terrazzo has no {alias.name}: omit it)")
        elif module != "builtins":
            new.append(f"from {module} import {name}" + (f" as {kept}" if kept != name else ""))
        else:
            new.append(f"{kept} = {name}")
        if note:
            notes.append(f"{alias.name}: {note}")
    return "; ".join(dict.fromkeys(new)), notes


def registered(item: Any) -> tuple[str, str, str]:
    """The module and the name of a model type; empty strings for None."""
    return ("", "", "") if item is None else (item.__module__, item.__name__, "")
