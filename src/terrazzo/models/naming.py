"""The names of an architecture's weights in other releases, and their translation into ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
Rule = tuple[str, "str | Callable[[re.Match[str]], str]"]  # as in re.sub
Finish = Callable[[Weights, Weights], Weights]


@dataclass(frozen=True)
class Naming:
    """The names of one release; a class lists the releases it can be loaded from in its attribute `namings`.

    `mark` is a pattern for a name that no other release of the architecture has; whatever precedes it is a prefix of
    all names. `rules` are applied in order; a new name `x#0` is the first part of `x`, joined with `x#1` along the
    first axis. `drop` is a pattern of unused names. `finish` gets the renamed weights and the original ones without the
    prefix, and makes the changes that renaming cannot.
    """

    source: str
    mark: str
    rules: tuple[Rule, ...] = ()
    drop: str = r"$^"
    finish: Finish = lambda weights, original: weights

    def prefixes(self, weights: Weights) -> list[str]:
        """The prefixes of names that match the mark; none if the release is another one."""
        pattern = re.compile(rf"(|.*\.){self.mark}")
        return [match[1] for name in weights if (match := pattern.fullmatch(name))]

    def rename(self, weights: Weights) -> Weights:
        """The weights, without their prefix, under our names."""
        renamed = {
            self.new_name(name): value
            for name, value in weights.items()
            if not re.match(rf"(?:{self.drop})", name) and not name.endswith("relative_position_index")
        }
        return self.finish(joined(renamed), weights)

    def new_name(self, name: str) -> str:
        """Our name for a weight."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name


def joined(weights: Weights) -> Weights:
    """The parts `x#0`, `x#1` ... as one `x`."""
    whole: dict[str, Any] = {}
    for name, value in weights.items():
        stem, mark, index = name.partition("#")
        if mark:
            whole.setdefault(stem, {})[int(index)] = value
        else:
            whole[name] = value
    return {
        name: torch.cat([value[index] for index in sorted(value)]) if isinstance(value, dict) else value
        for name, value in whole.items()
    }


def shifted(pattern: str, template: str, offset: int) -> Rule:
    """A rule that adds `offset` to the number in the pattern's first group; `{}` in the template is the sum."""
    return pattern, lambda match: match.expand(template.format(int(match[1]) + offset))


def translate(model: nn.Module, weights: Weights) -> tuple[Weights, str]:
    """Weights under the model's names and the release of the original names; unchanged and "" if none is recognised.

    Weights outside the translated part of a segmentor stay unchanged.
    """
    own = set(model.state_dict(keep_vars=True))
    best, source, most = weights, "", len(own.intersection(weights))
    for path, module in model.named_modules():
        for naming in getattr(module, "namings", ()):
            for prefix in dict.fromkeys(naming.prefixes(weights)):
                renamed = translated(weights, own, naming, prefix, f"{path}." if path else "")
                known = len(own.intersection(renamed))
                if known > most or (known == most > 0 and not source):
                    best, source, most = renamed, naming.source, known
    if not source:
        return within(own, weights)
    return {name: fitted(value, model, name) for name, value in best.items()}, source


def translated(weights: Weights, own: set[str], naming: Naming, prefix: str, path: str) -> Weights:
    """The weights below `prefix` under our names below `path`, and of the others those that the model has."""
    part = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    others = {name: value for name, value in weights.items() if name in own and not name.startswith(prefix)}
    return others | {path + name: value for name, value in naming.rename(part).items()}


def within(own: set[str], weights: Weights) -> tuple[Weights, str]:
    """A backbone's weights extracted from a whole model's, or under the names of a whole model."""
    inner = {name.removeprefix("backbone."): value for name, value in weights.items() if name.startswith("backbone.")}
    if inner and not own.intersection(weights) and own.intersection(inner):
        return inner, "the backbone of a whole model"
    outer = {f"backbone.{name}": value for name, value in weights.items()}
    if not own.intersection(weights) and own.intersection(outer):
        return outer, "a backbone alone"
    return weights, ""


def fitted(value: Tensor, model: nn.Module, name: str) -> Tensor:
    """A value in the shape of the model's if they differ only in axes of length one (a linear layer as 1x1)."""
    owner, _, leaf = name.rpartition(".")
    try:
        target = getattr(model.get_submodule(owner), leaf)
    except AttributeError:
        return value
    if not isinstance(target, Tensor) or without_ones(target) != without_ones(value):
        return value
    return value.reshape(target.shape)


def without_ones(value: Tensor) -> list[int]:
    """The lengths of a tensor's axes, except those of length one."""
    return [length for length in value.shape if length != 1]
