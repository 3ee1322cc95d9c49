"""Parts of a model that training leaves as they are: their weights and, as in evaluation, their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import TypeVar

from torch import nn

from terrazzo.errors import UserError, nearest, some

T = TypeVar("T", bound="Freezable")


class Freezable(nn.Module):
    """A module that freezes parts of itself: the modules and parameters whose dotted names match `frozen`."""

    frozen: Sequence[str] = ()  # names, or patterns as in fnmatch

    def train(self: T, mode: bool = True) -> T:
        super().train(mode)
        for part in chain.from_iterable(named_parts(self, name) for name in self.frozen):
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()
        return self


def named_parts(module: nn.Module, pattern: str) -> list[nn.Module | nn.Parameter]:
    """The parts inside a module whose dotted names match a pattern."""
    named = chain(module.named_modules(), module.named_parameters())
    return [part for name, part in named if name and fnmatchcase(name, pattern)]


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Freeze the parts of a model that `names` lists, such as `backbone` or `backbone.layer[12]`.

    Raises UserError for a name that nothing in the model has.
    """
    if not names:
        return
    if not isinstance(model, Freezable):
        raise UserError(f"freeze: {type(model).__name__} cannot freeze parts; inherit from EncoderDecoder")
    for name in names:
        if not named_parts(model, name):
            known = [part for part, _ in model.named_modules() if part]
            parts = some((part for part, _ in model.named_children()), 8)
            raise UserError(f"freeze: the model has no part '{name}'{nearest(name, known)}; it consists of {parts}")
    model.frozen = (*model.frozen, *names)
    model.train()


def frozen_summary(model: nn.Module) -> str:
    """The outermost frozen parts and the number of weights that are trained; an empty string if all are."""
    trained = [parameter.requires_grad for parameter in model.parameters()]
    if all(trained):
        return ""
    if not any(trained):
        raise UserError("every part of the model is frozen, so there is nothing to train: see freeze, frozen_stages")
    return f"frozen: {some(frozen_names(model), 8)}; {sum(trained)} of {len(trained)} weight tensors are trained"


def frozen_names(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """The dotted names of the outermost parts all of whose parameters are frozen."""
    for name, parameter in module.named_parameters(recurse=False):
        if not parameter.requires_grad:
            yield prefix + name
    for name, child in module.named_children():
        trained = [parameter.requires_grad for parameter in child.parameters()]
        if trained and not any(trained):
            yield prefix + name
        elif not all(trained):
            yield from frozen_names(child, f"{prefix}{name}.")
