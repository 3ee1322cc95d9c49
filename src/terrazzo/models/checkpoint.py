"""Reading checkpoints of terrazzo and other programs, and loading them into a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from terrazzo import recipes
from terrazzo.errors import UserError
from terrazzo.hub.cache import BUNDLED, find_cached, is_file
from terrazzo.hub.names import full_names, is_address
from terrazzo.models.naming import Weights, translate
from terrazzo.models.safe_pickle import MOST_VALUES, Skipped, load_pickle, plain_copy

KINDS = ("model", "ema")


@dataclass
class Checkpoint:
    """The content of a file: weights by name, and `meta` (classes, palette, config, ...) as far as it is known.

    `kind` is "model" for trained weights, "ema" for their moving average; `other` is the kind that the file contains
    in addition.
    """

    path: Path
    weights: Weights
    meta: dict[str, Any] = field(default_factory=dict)
    kind: str = "model"
    other: str | None = None
    sections: tuple[str, ...] = ()  # of the file: state_dict, optimizer, ...


@dataclass
class LoadReport:
    """The outcome for each tensor of a checkpoint and of a model; `str()` gives a readable summary."""

    path: Path
    missing: list[str]
    unexpected: list[str]
    loaded: list[str] = field(default_factory=list)
    reinitialised: list[str] = field(default_factory=list)  # in both, but with different shapes
    resized: list[str] = field(default_factory=list)  # positions for another image size
    adapted: list[str] = field(default_factory=list)  # first convolutions for another number of channels
    classes: list[str] = field(default_factory=list)  # whose rows were found by name, if the classes differ
    new_classes: list[str] = field(default_factory=list)  # left as initialised
    source: str = ""  # the release whose names were translated
    kind: str = "model"
    other: str | None = None

    def __str__(self) -> str:
        needed = [name for name in self.missing if not is_constant(name)]
        total = len(self.loaded) + len(needed) + len(self.reinitialised)
        average = " (averaged weights)" if self.kind == "ema" else ""
        lines = [f"loaded {len(self.loaded)} of {total} tensors from {self.path}{average}"]
        if self.other is not None:
            held = "averaged weights" if self.other == "ema" else "the weights before averaging"
            lines.append(f"  the file also contains {held}")
        if self.source:
            lines.append(f"  names: {self.source}, translated")
        if self.classes or self.new_classes:
            count = len(self.classes) + len(self.new_classes)
            new = listed(self.new_classes, "; new: ")
            lines.append(f"  {len(self.classes)} of {count} classes found by name{new}")
        for what, names in (
            ("resized", self.resized),
            ("adapted to the number of input channels", self.adapted),
            ("missing in the checkpoint", needed),
            ("unexpected in the checkpoint", [name for name in self.unexpected if not is_constant(name)]),
            ("with another shape, left as initialised", self.reinitialised),
        ):
            if names:
                lines.append(f"  {len(names)} {what}{listed(names, ': ')}")
        return "\n".join(lines)


def listed(names: Sequence[str], lead: str) -> str:
    """The first five names after `lead`; an empty string without names."""
    return f"{lead}{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else ""


def is_constant(name: str) -> bool:
    """Report whether a tensor is the same in every checkpoint, or only a counter."""
    return name.endswith(("num_batches_tracked", "relative_position_index"))


def read_checkpoint(path: str | Path, weights: str | None = None) -> Checkpoint:
    """Weights and meta of a `.pth` or `.safetensors` file.

    `path` may be anything that `find_weights` takes. `weights` is "model" or "ema", by default the weights that the
    program that saved the file tests with. Raises UserError for a damaged or an unsafe file, and for one without the
    requested weights.
    """
    if weights not in (None, *KINDS):
        raise UserError(f"weights: '{weights}' is neither 'model' (as trained) nor 'ema' (their average)")
    path = find_weights(path)
    if path.suffix == ".safetensors":
        if weights == "ema":
            raise UserError(f"{path} contains one set of weights: omit weights='ema'")
        return _read_safetensors(path)
    content = load_pickle(path)
    if isinstance(content, Skipped):
        raise UserError(f"{path} contains a whole pickled model, which is code: save its state_dict() instead")
    if not isinstance(content, dict):
        raise UserError(f"{path} contains no dict of tensors but a {type(content).__name__}")
    kinds = weights_by_kind(content)
    chosen = weights or next(iter(kinds))
    if chosen not in kinds:
        raise UserError(f"{path} contains no averaged weights: omit weights='ema'")
    if not kinds[chosen]:
        raise UserError(f"{path} contains no tensors; its keys are {', '.join(map(str, list(content)[:8]))}")
    other = next((kind for kind in kinds if kind != chosen), None)
    sections = tuple(str(key) for key, value in content.items() if not isinstance(value, Tensor))
    return Checkpoint(path, kinds[chosen], meta_of(content), chosen, other, sections)


def find_weights(name: str | Path) -> Path:
    """The file of a path, a run's folder (its best weights), a bundled model, or a name that is searched in the caches.

    Such a name is a URL, a `scheme://name`, a short name or a recipe, whose trained weights it means. Raises UserError.
    """
    path, text = Path(name), str(name)
    if path.is_dir():
        found = next((file for file in (path / "best.safetensors", path / "last.safetensors") if file.is_file()), None)
        if found is None:
            raise UserError(f"the folder {path} has no weights of a run (best.safetensors, last.safetensors)")
        return found
    if is_file(text):
        return path
    if is_address(text) or text in BUNDLED or full_names(text):
        return find_cached(text)
    if text in recipes.names():
        address = recipes.info(text).weights
        if address is None:
            raise UserError(f"no weights of the recipe '{text}' are published: it has to be trained")
        return find_cached(address)
    raise UserError(f"there is no checkpoint file {path}")


def meta_of(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The records of a file's run: its `meta`, or the progress in our own states, and MMEngine's best score."""
    meta = content["meta"] if isinstance(content.get("meta"), dict) else {}
    kept = {key: content[key] for key in ("step", "epoch", "iter", "metrics", "best_score") if key in content}
    hub = content.get("message_hub")
    runtime = hub.get("runtime_info") if isinstance(hub, dict) else None
    if isinstance(runtime, dict) and isinstance(runtime.get("best_score"), (int, float)):
        kept["best_score"] = runtime["best_score"]
    return described(kept | meta)


def described(value: Any) -> Any:
    """A record of values that JSON has: a tensor of one number as such, any other object by its type's name."""
    plain = (str, int, float, type(None))
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items() if isinstance(key, plain)}
    if isinstance(value, (list, tuple)):
        items = [described(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.item()
    return value if isinstance(value, plain) else f"an object of type {type(value).__name__}"


def weights_by_kind(content: Mapping[Any, Any]) -> dict[str, Weights]:
    """The sets of weights in a file's content; first the one that its program tests with."""
    inner = {key: value for key, value in content.items() if isinstance(value, dict)}
    weights = tensors(next((inner[key] for key in ("state_dict", "model", "module") if key in inner), content))
    if "ema_state_dict" in inner:  # MMEngine exchanges the two when it saves
        return {"ema": weights, "model": tensors(inner["ema_state_dict"])}
    if "ema" in inner:  # our own states
        return {"ema": tensors(inner["ema"]), "model": weights}
    for key in ("state_dict_ema", "model_ema"):
        if key in inner:
            return {"model": weights, "ema": tensors(inner[key])}
    buffers = {f"ema_{name.replace('.', '_')}": name for name in weights}  # the averages of MMCV 1.x
    averages = {buffers[name]: value for name, value in weights.items() if name in buffers}
    if averages:
        own = {name: value for name, value in weights.items() if name not in buffers}
        return {"model": own, "ema": own | averages}
    return {"model": weights}


def tensors(content: Mapping[Any, Any]) -> Weights:
    """The tensors of a dict under their names without the prefixes of DataParallel and torch.compile."""
    found = {
        str(name).removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    if any(str(name).startswith("module.") for name in content):
        found.pop("steps", None)  # of the average, not of the model
    return found


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            meta = plain_copy({key: from_json(value) for key, value in texts.items()}, iter(range(MOST_VALUES)))
            return Checkpoint(path, tensors({name: file.get_tensor(name) for name in file.keys()}), meta)  # noqa: SIM118
    except (SafetensorError, OSError, UnpicklingError) as problem:
        raise UserError(f"{path} cannot be read as a checkpoint: it is damaged or cut off ({problem})") from None


def from_json(text: str) -> Any:
    """The value of a text in a safetensors file's description; the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or beyond what a description needs
        return text


def load_checkpoint(
    model: nn.Module,
    path: str | Path | Checkpoint,
    *,
    strict: bool = False,
    weights: str | None = None,
    classes: Sequence[str] | None = None,
    adapt_input: bool = False,
) -> LoadReport:
    """Load the tensors that fit by name and shape, and report the rest. Raises UserError if none fits.

    Names of other releases are translated; positions and relative positions of another image size are resized.
    `weights` is as in `read_checkpoint`. With `classes`, those of the model, the heads' rows are matched by class name.
    `adapt_input` spreads the first convolution's three channels over another number of them.
    `strict` also raises UserError if a tensor that inference needs is missing or has another shape.
    """
    # the weights under the model's names
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path, weights)
    own = model.state_dict()
    found, source = translate(model, checkpoint.weights)
    report = LoadReport(
        checkpoint.path,
        missing=[name for name in own if name not in found],
        unexpected=[name for name in found if name not in own],
        source=source,
        kind=checkpoint.kind,
        other=checkpoint.other,
    )

    # those that fit, some after a change of shape
    rows = ClassRows.of(legend_of(checkpoint)[0], classes)
    fitting = {}
    for name in (name for name in found if name in own):
        value = fit(model, name, found[name], own[name], rows, adapt_input, report)
        if value is not None:
            fitting[name] = value
            report.loaded.append(name)
        elif not is_constant(name):  # the model's own suits its size
            report.reinitialised.append(name)

    # what is missing
    lacking = needed_names(model) & {*report.missing, *report.reinitialised}
    if not fitting or (strict and lacking):
        details = "; ".join(line.strip() for line in str(report).splitlines())
        raise UserError(f"{checkpoint.path} does not fit this model; it was saved from another one: {details}")
    model.load_state_dict(fitting, strict=False)
    return report


def fit(
    model: nn.Module,
    name: str,
    value: Tensor,
    target: Tensor,
    rows: ClassRows | None,
    adapt_input: bool,
    report: LoadReport,
) -> Tensor | None:
    """A checkpoint's value in the model's shape, recorded in the report; None if it cannot be fitted."""
    if rows is not None and (selected := rows.select(name, value, target)) is not None:
        report.classes, report.new_classes = rows.shared, rows.new
        return selected
    if value.shape == target.shape:
        return value
    owner, _, leaf = name.rpartition(".")
    resize = getattr(model.get_submodule(owner), "resize_weight", None)
    if resize is not None and (resized := resize(leaf, value)) is not None and resized.shape == target.shape:
        report.resized.append(name)
        return resized
    if adapt_input and is_first_convolution(value, target):
        report.adapted.append(name)
        channels = target.shape[1]
        return value.mean(1, keepdim=True).expand(-1, channels, -1, -1) * (value.shape[1] / channels)
    return None


def is_first_convolution(value: Tensor, target: Tensor) -> bool:
    """Report whether two weights of convolutions differ only in the input's channels, and the first reads RGB."""
    other_axes = (value.shape[:1] + value.shape[2:], target.shape[:1] + target.shape[2:])
    return value.ndim == target.ndim == 4 and value.shape[1] == 3 and other_axes[0] == other_axes[1]


# parts of heads with a row for each class: convolutions and linear layers, and the class embeddings of Segmenter
CLASS_ROWS = re.compile(
    r"(decode_head|auxiliary_head)\.(.*\.)?"
    r"((\w*conv_seg|\w*cls_seg|fc_seg|cls_embed|se_layer|mask_norm)\.(weight|bias)|cls_emb)"
)


@dataclass
class ClassRows:
    """The rows of a model's classes among those of a checkpoint with other classes or another order."""

    names: list[str]
    known: list[str]

    @classmethod
    def of(cls, known: Iterable[str], names: Iterable[str] | None) -> ClassRows | None:
        """The rows for `names`; None if either list is empty or both are the same."""
        known, names = [name.lower() for name in known], [name.lower() for name in names or ()]
        return None if not known or not names or known == names else cls(names, known)

    @property
    def shared(self) -> list[str]:
        return [name for name in self.names if name in self.known]

    @property
    def new(self) -> list[str]:
        return [name for name in self.names if name not in self.known]

    def select(self, name: str, value: Tensor, target: Tensor) -> Tensor | None:
        """The target with the rows of shared classes from the value; None for a tensor without such rows."""
        axis = 1 if name.endswith(".cls_emb") else 0
        more = value.shape[axis] - len(self.known) if value.ndim else -1  # a row for "no object"
        expected = list(value.shape)
        expected[axis : axis + 1] = [len(self.names) + more]
        if not CLASS_ROWS.fullmatch(name) or more not in (0, 1) or list(target.shape) != expected:
            return None
        selected = target.clone()
        pairs = [(row, self.known.index(name)) for row, name in enumerate(self.names) if name in self.known]
        pairs += [(len(self.names), len(self.known))] * more
        if pairs:
            own, foreign = (torch.tensor(indices, device=value.device) for indices in zip(*pairs, strict=True))
            selected.index_copy_(axis, own.to(target.device), value.index_select(axis, foreign).to(target))
        return selected


def legend_of(checkpoint: Checkpoint) -> tuple[list[str], list[list[int]]]:
    """Classes and palette in a checkpoint of terrazzo or either MMSegmentation; empty without them."""
    meta = checkpoint.meta
    known = meta["dataset_meta"] if isinstance(meta.get("dataset_meta"), Mapping) else meta
    found = [[known.get(key), known.get(key.upper())] for key in ("classes", "palette")]
    lists = ([value for value in values if isinstance(value, (list, tuple)) and value] for values in found)
    classes, palette = (values[0] if values else () for values in lists)
    colours = [list(colour) for colour in palette if is_colour(colour)]
    return [str(name) for name in classes], colours if len(colours) == len(palette) else []


def is_colour(value: Any) -> bool:
    """Report whether a value is [red, green, blue], each from 0 to 255."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    return all(isinstance(channel, int) and 0 <= channel <= 255 for channel in value)


def needed_names(model: nn.Module) -> set[str]:
    """The tensors that inference needs: parameters and running statistics, except those of auxiliary heads."""
    statistics = {name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    names = {name for name, _ in model.named_parameters()} | statistics
    return {name for name in names if not name.startswith("auxiliary_head.")}
