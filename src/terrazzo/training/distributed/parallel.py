"""One model on several devices: gradients are averaged (DDP), or weights, gradients and moments sharded (FSDP2)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from terrazzo.models.protocols import Segmentor
from terrazzo.system.process_group import ProcessGroup

SHARDED = ("backbone", "neck")  # called as modules; heads are called by their methods and remain with the whole model


class Losses(nn.Module):
    """A model whose forward pass returns its losses, as wrappers of modules need it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        return cast(Segmentor, self.model).loss(images, labels, **targets)


class Parallel:
    """A model trained by several processes together; with one process, the model itself.

    `loss(images, labels, **targets)` gives the losses of this process's part of the batch; `find_unused` allows weights
    without a gradient. FSDP: Zhao et al., VLDB 2023.
    """

    def __init__(
        self,
        model: nn.Module,
        group: ProcessGroup,
        device: torch.device,
        *,
        shard: bool = False,
        find_unused: bool = False,
    ) -> None:
        self.model, self.group, self.is_sharded = model, group, shard and group.size > 1
        self.plain = copy.deepcopy(model) if self.is_sharded else None
        self.loss: Callable[..., dict[str, Tensor]] = Losses(model)
        if self.is_sharded:
            shard_model(model)
        elif group.size > 1:
            for value in model.state_dict().values():
                torch.distributed.broadcast(value, 0)
            known = inspect.signature(DistributedDataParallel).parameters  # torch 2.13 renamed an argument
            buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            options: dict[str, Any] = {buffers: False, "find_unused_parameters": find_unused}
            devices = [device] if device.type == "cuda" else None
            self.loss = DistributedDataParallel(Losses(model), device_ids=devices, **options)

    def compile(self) -> None:
        """Compile the losses; steps are faster from the second one on."""
        torch.compiler.reset()  # what an earlier run compiled may lack this one's hooks, which nothing else guards
        self.loss = torch.compile(self.loss)

    def synchronised(self, enabled: bool) -> AbstractContextManager[Any]:
        """Average the gradients of the steps inside now, or later with those of other steps."""
        if self.is_sharded:
            sharded: Any = self.model
            sharded.set_requires_gradient_sync(enabled)
        if isinstance(self.loss, DistributedDataParallel) and not enabled:
            return self.loss.no_sync()
        return nullcontext()

    def whole(self, model: nn.Module) -> nn.Module:
        """The model, or an average of it, as a module that this process can run alone."""
        if self.plain is None:
            self.group.share_buffers(model)
            return model
        self.plain.load_state_dict(gathered(model.state_dict()))
        return self.plain


def shard_model(model: nn.Module) -> None:
    """Shard weights in place; each group is gathered when it is used."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for name in SHARDED:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module) and any(True for _ in part.parameters()):
            fully_shard(part)
    fully_shard(model)
    register_fsdp_forward_method(model, "loss")


def gathered(value: Any) -> Any:
    """A nested state with every sharded tensor gathered; every process calls it."""
    if isinstance(value, Mapping):
        return {key: gathered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [gathered(item) for item in value]
    return value.full_tensor() if is_sharded(value) else value


def sharded_like(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, sharded as `example` is."""
    if not is_sharded(example):
        return value
    from torch.distributed.tensor import distribute_tensor

    own: Any = example
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def is_sharded(value: Any) -> bool:
    """Return whether this is a tensor of which each process holds a part."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")
