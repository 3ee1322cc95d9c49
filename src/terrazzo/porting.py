"""Porting of modules written for MMSegmentation to terrazzo's own terms, by their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError

# Modules whose classes and registries have counterparts here; the rest of mmcv and mmengine can be used unchanged.
REPLACED = (
    "mmseg", "mmdet", "mmpretrain", "mmcls", "mmengine.model", "mmengine.registry", "mmcv.cnn", "mmcv.runner",
    "mmcv.ops", "mmcv.transforms",
)  # fmt: skip
LAYERS = "terrazzo.models.layers"
FindType = Callable[[str], Any]  # from a name to a registered type, or None

# name there -> (module, name, note on differences) here; heads, backbones and losses are in the registry
COUNTERPARTS: dict[str, tuple[str, str, str]] = {
    **dict.fromkeys(
        ("MODELS", "HEADS", "BACKBONES", "NECKS", "LOSSES", "SEGMENTORS"), ("terrazzo.registry", "MODELS", "")),
    "DATASETS": ("terrazzo.registry", "DATASETS", ""),
    "METRICS": ("terrazzo.registry", "METRICS", ""),
    "PIPELINES": ("terrazzo.registry", "TRANSFORMS", "a transform is called with (sample, rng): see terrazzo.sample"),
    "TRANSFORMS": ("terrazzo.registry", "TRANSFORMS", "a transform is called with (sample, rng): see terrazzo.sample"),
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
    "DropPath": (LAYERS, "DropPath", ""),
    "FFN": (LAYERS, "FeedForward", "check its arguments"),
    "MultiheadAttention": (LAYERS, "MultiheadAttention", "check its arguments"),
    "PatchEmbed": (LAYERS, "PatchEmbed", "check its arguments"),
    "NonLocal2d": (f"{LAYERS}.context_block", "NonLocal", "check its arguments"),
    "Scale": (f"{LAYERS}.self_attention", "Scale", ""),
    "SelfAttentionBlock": (f"{LAYERS}.self_attention", "SelfAttention", "check its arguments"),
    "resize": (LAYERS, "resize", "its mode and scale_factor are given by keyword"),
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
    "trunc_normal_": ("torch.nn.init", "trunc_normal_", ""),
    **dict.fromkeys(
        ("ConfigType", "OptConfigType", "MultiConfig", "OptMultiConfig", "SampleList", "OptSampleList", "TensorDict",
         "TensorList", "ForwardResults"), ("typing", "Any", "")),
}  # fmt: skip
# name there -> what a person writes instead, {} being the first argument
DECIDED: dict[str, str] = {
    "kaiming_init": "write nn.init.kaiming_normal_({}.weight, mode='fan_out')",
    "xavier_init": "write nn.init.xavier_normal_({}.weight)",
    "caffe2_xavier_init": "write nn.init.kaiming_uniform_({}.weight, a=1, mode='fan_in')",
    "constant_init": "write nn.init.constant_({}.weight, value)",
    "normal_init": "write nn.init.normal_({}.weight, mean, std)",
    "trunc_normal_init": "write nn.init.trunc_normal_({}.weight, mean, std, a, b)",
    "uniform_init": "write nn.init.uniform_({}.weight, a, b)",
    "build_upsample_layer": "write terrazzo.models.layers.Upsample(scale_factor=...), the layer itself",
    "build_dropout": "write terrazzo.models.layers.DropPath(rate), the layer itself, or nn.Dropout(rate)",
    **dict.fromkeys(
        ("BaseSegDataset", "CustomDataset", "BaseCDDataset"),
        "a data set is declared, not written as a class: terrazzo.data.spec.declare(name='MyDataset', **METAINFO, "
        "img_suffix=..., seg_map_suffix=...) in place of the class; or in the config, type='BaseSegDataset' with "
        "metainfo=dict(classes=..., palette=...)",
    ),
}
BIAS = ", and nn.init.constant_({}.bias, 0) where it has a bias"  # as the functions above that end in `_init`
# name there -> its arguments in their order there -> here, empty where there is none
KEYWORDS: dict[str, dict[str, str]] = {
    "build_norm_layer": {"cfg": "norm_cfg", "num_features": "channels", "postfix": ""},
    "build_conv_layer": {"cfg": "conv_cfg"},
    "build_activation_layer": {"cfg": "act_cfg"},
    "resize": {"input": "x", "size": "size", "scale_factor": "scale_factor", "mode": "mode",
               "align_corners": "align_corners", "warning": ""},
}  # fmt: skip
METHODS = {"cls_seg": "classify", "_transform_inputs": "select"}  # of heads
# method that a subclass overrides there -> what to do, where nothing calls it here
UNCALLED: dict[str, str] = {
    "init_weights": "initialise in __init__",
    "loss_by_feat": "override losses(logits, labels) instead, labels N, H, W",
    "predict_by_feat": "override predict(inputs, size) instead, which gives logits",
    "_forward_feature": "override features(inputs) instead",
    "cls_seg": "override classify(features) instead",
    "_transform_inputs": "override select(inputs) instead",
    **dict.fromkeys(("extract_feat", "_forward"), "override encode(images) instead"),
    **dict.fromkeys(
        ("encode_decode", "inference", "whole_inference", "slide_inference", "postprocess_result"),
        "override decode(images) instead, which gives logits",
    ),
    **dict.fromkeys(
        ("forward_train", "_decode_head_forward_train", "_auxiliary_head_forward_train"),
        "override loss(inputs, labels) instead",
    ),
    **dict.fromkeys(
        ("forward_test", "simple_test", "aug_test", "train_step", "val_step", "test_step", "show_result"),
        "leave it out",
    ),
    "transform": "name it __call__, which is given (sample, rng): see terrazzo.sample",
}
# method that is called here with other arguments
CALLED: dict[str, str] = {
    "loss": "it is called as loss(inputs, labels), labels N, H, W",
    "losses": "it is called as losses(logits, labels), labels N, H, W",
    "predict": "it is called as predict(inputs, size), and gives logits",
}


@dataclass(frozen=True)
class Change:
    """A change of a module: its line, what is there, and what is there then, or (what a person must decide)."""

    line: int
    old: str
    new: str

    @property
    def open(self) -> bool:
        return any(part.startswith("(") for part in self.new.split("; "))


@dataclass
class Port:
    """The changes that port a module: for people, as edits of its bytes (from, to, new), and notes."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def open(self) -> list[Change]:
        """The changes that a person must make: what has no counterpart."""
        return [change for change in self.changes if change.open]


class Source:
    """A module's text, its tree, and the places of its nodes among the bytes."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, str(path))
        indexed = [node for node in ast.walk(self.tree) if isinstance(node, ast.Subscript)]
        self.second = {node.value for node in indexed if ast.unparse(node.slice) == "1"}  # of which `[1]` is taken
        self.bytes = self.text.encode()
        self.starts = [0]
        for line in self.bytes.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)

    def span(self, node: Any) -> tuple[int, int]:
        """The bytes of a node: from, to."""
        first, last = self.starts[node.lineno - 1], self.starts[node.end_lineno - 1]
        return first + node.col_offset, last + node.end_col_offset

    def line_of(self, place: int) -> int:
        return next(number for number, start in enumerate(self.starts) if start > place)

    def edited(self, edits: list[tuple[int, int, str]], first: int = 0, last: int | None = None) -> str:
        """The text of a range of bytes with the edits that lie in it."""
        last = len(self.bytes) if last is None else last
        result = self.bytes[first:last]
        for start, end, new in sorted(edits, reverse=True):
            if first <= start and end <= last:
                result = result[: start - first] + new.encode() + result[end - first :]
        return result.decode()


def port(
    path: Path,
    model_type: FindType,
    modules: tuple[str, ...] = REPLACED,
    *,
    alone: bool = False,
    inside_try: bool = False,
) -> Port:
    """The changes that a file needs if it imports any of `modules`, also `inside_try` statements where that is asked.

    A file that is `alone`, in no package, was copied out of one if it imports relatively what has a counterpart.
    """
    source, found = Source(path), Port()
    imports = list(statements(source.tree, inside_try))
    imports = [node for node in imports if names_any(node, modules) or (alone and is_relative(node))]
    bound: dict[str, str] = {}  # name in the file -> name there
    for node in imports:
        port_import(node, source, model_type, found)
        bound |= {alias.asname or alias.name: alias.name for alias in node.names}
    if imports:
        uses = Port()
        for use in ast.walk(source.tree):
            port_use(use, source, bound, uses)
        found.changes += uses.changes + shown(uses.edits, source)
        found.edits += uses.edits
    found.changes.sort(key=lambda change: change.line)
    found.notes = list(dict.fromkeys(found.notes))
    return found


def check_ported(path: Path, model_type: FindType, modules: tuple[str, ...] = REPLACED, *, alone: bool = False) -> None:
    """Raise UserError with the lines to change if a file imports any of `modules`; see `port`."""
    found = port(path, model_type, modules, alone=alone)
    if not found.changes:
        return
    width = len(str(found.changes[-1].line))
    advice = [f"  line {one.line:<{width}}  {one.old}\n  {'->':>{width + 5}}  {one.new}" for one in found.changes]
    advice += [f"  note: {note}" for note in found.notes]
    raise UserError(
        f"{path} is written for MMSegmentation's packages, which terrazzo does not use; change these lines:\n"
        + "\n".join(advice)
    )


def ported_text(path: Path, found: Port) -> str:
    """A module's text with the changes that have a counterpart; imports without one are comments that say why."""
    return Source(path).edited(found.edits)


def shown(edits: list[tuple[int, int, str]], source: Source) -> list[Change]:
    """Edits as changes of whole lines, those of one line together."""
    lines: list[tuple[int, int]] = []
    for start, end, _ in sorted(edits):
        first, last = source.line_of(start), source.line_of(end)
        if lines and first <= lines[-1][1]:
            first, last = lines[-1][0], max(last, lines.pop()[1])
        lines.append((first, last))
    changes = []
    for first, last in lines:
        start, end = source.starts[first - 1], source.starts[last] - 1
        old, new = source.edited([], start, end), source.edited(edits, start, end)
        changes.append(Change(first, " ".join(old.split()), " ".join(new.split())))
    return changes


# Imports


def statements(tree: ast.AST, inside_try: bool = False) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a file; those inside a `try` only where that is asked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif inside_try or not isinstance(node, ast.Try):
            yield from statements(node, inside_try)


def is_relative(node: ast.Import | ast.ImportFrom) -> bool:
    """Report whether an import is relative and names something that has a counterpart here."""
    relative = isinstance(node, ast.ImportFrom) and node.level > 0
    return relative and any(alias.name in COUNTERPARTS or alias.name in DECIDED for alias in node.names)


def names_any(node: ast.Import | ast.ImportFrom, modules: tuple[str, ...]) -> bool:
    """Report whether an import statement names one of the modules, or something inside it."""
    if isinstance(node, ast.ImportFrom):
        named = [f"{node.module}.{alias.name}" for alias in node.names] if not node.level else []
    else:
        named = [alias.name for alias in node.names]
    return any(f"{name}.".startswith(f"{module}.") for name in named for module in modules)


def port_import(node: ast.Import | ast.ImportFrom, source: Source, model_type: FindType, found: Port) -> None:
    """Replace an import by the counterparts of its names; what has none becomes a comment."""
    new, open_names, reasons = counterpart(node, model_type, found.notes)
    start, end = source.span(node)
    line_end = source.starts[node.end_lineno or node.lineno] - 1
    before = source.bytes[source.starts[node.lineno - 1] : start].decode()
    after = source.bytes[end:line_end].decode().strip()
    found.changes.append(Change(node.lineno, ast.unparse(node), "; ".join([*new, *(f"({one})" for one in reasons)])))
    if before.strip() or after[:1] not in ("", "#"):  # beside other statements
        found.edits.append((start, end, "; ".join(new) or "pass"))
        return
    if reasons:
        begin = f"from {'.' * node.level}{node.module} " if isinstance(node, ast.ImportFrom) else ""
        comment = f"# {begin}import {', '.join(open_names)}  ({'; '.join(reasons)})"
        new = [*new, comment] if new or not before else [f"pass  {comment}"]
    found.edits.append((start, end, f"\n{before}".join(new)))


def counterpart(
    node: ast.Import | ast.ImportFrom, model_type: FindType, notes: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """The statements that replace an import, the names that have no counterpart, and what to do about these.

    Differences go into the notes.
    """
    if isinstance(node, ast.Import):
        return [], list(map(ast.unparse, node.names)), ["import the names that are used, one by one"]
    new, open_names, reasons = [], [], []
    for alias in node.names:
        module, name, note = COUNTERPARTS.get(alias.name) or registered(model_type(alias.name))
        kept = alias.asname or alias.name
        if alias.name in DECIDED or not (module or node.level):
            open_names.append(ast.unparse(alias))
        if alias.name in DECIDED:
            reasons.append(f"{alias.name}: {DECIDED[alias.name].format('layer')}")
        elif not module and node.level:  # a module beside the file
            new.append(f"from {'.' * node.level}{node.module or ''} import {ast.unparse(alias)}")
        elif not module:
            reasons.append(f"terrazzo has no {alias.name}: omit it")
        elif module != "builtins":
            new.append(f"from {module} import {name}" + (f" as {kept}" if kept != name else ""))
        else:
            new.append(f"{kept} = {name}")
        if note:
            notes.append(f"{alias.name}: {note}")
    return list(dict.fromkeys(new)), open_names, reasons


def registered(item: Any) -> tuple[str, str, str]:
    """The module and the name of a model type; empty strings for None."""
    return ("", "", "") if item is None else (item.__module__, item.__name__, "")


# Uses of what is imported


def port_use(node: ast.AST, source: Source, bound: dict[str, str], found: Port) -> None:
    """Port a call, an index or a class, if it uses what the file imports: `bound`, name in the file -> name there."""
    if isinstance(node, ast.Subscript) and norm_call(node.value, bound) and node.value in source.second:
        opening = source.bytes.rindex(b"[", source.span(node.value)[1], source.span(node.slice)[0])
        found.edits.append((opening, source.span(node)[1], ""))
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and node.attr in METHODS:
        end = source.span(node)[1]
        found.edits.append((end - len(node.attr), end, METHODS[node.attr]))
    elif isinstance(node, ast.ClassDef) and any(ast.unparse(base) in bound for base in node.bases):
        port_class(node, source, found)
    elif isinstance(node, ast.Call):
        port_call(node, source, bound, found)


def norm_call(node: ast.AST, bound: dict[str, str]) -> bool:
    """Report whether a node is a call of build_norm_layer."""
    return isinstance(node, ast.Call) and bound.get(ast.unparse(node.func)) == "build_norm_layer"


def port_call(node: ast.Call, source: Source, bound: dict[str, str], found: Port) -> None:
    """Port the arguments of a call; a call whose result or whose arguments are others is for a person."""
    name = bound.get(ast.unparse(node.func), "")
    if isinstance(node.func, ast.Attribute) and node.func.attr == "register_module":
        if bound.get(ast.unparse(node.func.value)) in COUNTERPARTS:
            port_register(node, source, found)
    elif name in DECIDED and node.args:
        advice = DECIDED[name] + (BIAS if name.endswith("_init") else "")
        found.changes.append(
            Change(node.lineno, ast.unparse(node), f"({advice.format(*[ast.unparse(node.args[0])] * 2)})")
        )
    elif name in KEYWORDS:
        port_arguments(node, name, source, found)
        if norm_call(node, bound) and node not in source.second:
            found.changes.append(Change(node.lineno, ast.unparse(node), "(it gives the layer alone, without its name)"))


def port_arguments(node: ast.Call, name: str, source: Source, found: Port) -> None:
    """Rename the keywords of a call, and take out the arguments that do not exist here."""
    arguments: list[Any] = [*node.args, *node.keywords]
    order = list(KEYWORDS[name])
    for position, (before, argument) in enumerate(zip([node.func, *arguments], arguments, strict=False)):
        is_keyword = isinstance(argument, ast.keyword)
        key: str = (argument.arg or "") if is_keyword else order[position] if position < len(order) else ""
        new = KEYWORDS[name].get(key, key)
        start, end = source.span(argument)
        if key and not new:
            found.edits.append((source.bytes.rindex(b",", source.span(before)[1], start), end, ""))
        elif is_keyword and new != key:
            found.edits.append((start, start + len(key), new))
    if name == "resize" and len(node.args) < 4 and not {"mode", None} & {one.arg for one in node.keywords}:
        found.edits.append((source.span(arguments[-1])[1],) * 2 + (', mode="nearest"',))  # its default there


def port_register(node: ast.Call, source: Source, found: Port) -> None:
    """`register_module(...)` as `register`, whose further names are aliases; ours has no `force`."""
    given = [f"name={ast.unparse(argument)}" for argument in node.args[:1]]
    for keyword in node.keywords:
        if keyword.arg == "module":
            given.insert(0, ast.unparse(keyword.value))
        elif keyword.arg == "name" and isinstance(keyword.value, (ast.List, ast.Tuple)):
            names = [ast.unparse(item) for item in keyword.value.elts]
            given += [f"name={names[0]}", f"aliases=({', '.join(names[1:])},)"]
        elif keyword.arg == "name":
            given.append(ast.unparse(keyword))
    start = source.span(node.func)[1] - len("register_module")
    found.edits.append((start, source.span(node)[1], "register" + (f"({', '.join(given)})" if given else "")))


def port_class(node: ast.ClassDef, source: Source, found: Port) -> None:
    """Take `init_cfg` out of a class, and list the methods that nothing calls here, or with other arguments."""
    own_calls = {
        part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self"
    }
    for method in node.body:
        name = getattr(method, "name", "")
        if name in UNCALLED and name not in own_calls:
            found.changes.append(Change(method.lineno, f"def {name}", f"(nothing here calls it: {UNCALLED[name]})"))
        elif name in CALLED:
            found.changes.append(Change(method.lineno, f"def {name}", f"({CALLED[name]})"))
    for call in ast.walk(node):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"):
            continue
        values: list[Any] = [*call.args, *(one for one in call.keywords if one.arg == "init_cfg")]
        own = [one for one in values if ast.unparse(one) in ("init_cfg", "init_cfg=init_cfg")]
        given: list[Any] = [*call.args, *call.keywords]
        for argument in own:
            start, end = source.span(argument)
            if argument is not given[0]:
                start = source.bytes.rindex(b",", 0, start)
            elif len(given) > 1:
                end = source.span(given[1])[0]
            found.edits.append((start, end, ""))
        for argument in values:
            if argument not in own and isinstance(argument, ast.keyword):
                found.changes.append(
                    Change(argument.lineno, ast.unparse(argument), "(nothing reads it: initialise in __init__)")
                )
