"""SegNeXt's head: global context as a low-rank reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.arguments import check_arguments
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import ConvBlock, Spec
from terrazzo.models.layers.fuse import fuse_levels
from terrazzo.registry import MODELS

DRAWN = 16  # images of a batch that have bases of their own


class MatrixDecomposition(nn.Module):
    """Non-negative matrix factorisation by multiplicative updates (Hamburger: Geng et al., ICLR 2021).

    The map's channels, in `MD_S` groups, are approximated by `MD_R` bases, which start at random: in training from the
    global generator, in evaluation always at the same draws, one for each image of a batch (of those beyond DRAWN the
    first ones again); with `rand_init=False` at a stored draw.
    """

    def __init__(
        self,
        channels: int,
        *,
        MD_S: int = 1,
        MD_R: int = 64,
        train_steps: int = 6,
        eval_steps: int = 7,
        inv_t: float = 100,  # published configs set it, but the factorisation has always run at 1
        rand_init: bool = True,
    ) -> None:
        super().__init__()
        self.groups, self.rank = MD_S, MD_R
        self.train_steps, self.eval_steps = train_steps, eval_steps
        if not rand_init:
            self.register_buffer("bases", F.normalize(torch.rand(MD_S, channels // MD_S, MD_R), dim=1))
        self.cached: dict[Any, Tensor] = {}  # for the last device

    bases: Tensor

    def initial_bases(self, x: Tensor, images: int) -> Tensor:
        """The bases (images * groups, D, rank) before the first update for x (images * groups, D, N), of length 1."""
        if hasattr(self, "bases"):
            return self.bases.repeat(images, 1, 1)
        shape = (x.shape[1], self.rank)
        if self.training:
            return F.normalize(torch.rand(images * self.groups, *shape, device=x.device), dim=1)
        drawn = self.fixed_bases((DRAWN, self.groups, *shape), x.device)
        return drawn[torch.arange(images, device=x.device) % DRAWN].flatten(0, 1)

    def fixed_bases(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """The bases (DRAWN, groups, D, rank) of a batch in evaluation; a traced graph holds them."""
        if torch.compiler.is_compiling():
            return F.normalize(fixed_draw(shape), dim=2).to(device)
        key = (shape, device)
        if key not in self.cached:
            with torch.inference_mode(False):  # they may be used with gradients later
                self.cached = {key: F.normalize(fixed_draw(shape), dim=2).to(device)}
        return self.cached[key]

    def forward(self, x: Tensor) -> Tensor:
        """Non-negative (N, C, H, W) -> its reconstruction; in single precision, where the products are safe."""
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.factorise(x.float())
        return self.factorise(x)

    def factorise(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        matrix = x.reshape(images * self.groups, channels // self.groups, height * width)  # D, N
        bases = self.initial_bases(matrix, images).to(matrix.dtype)  # D, R
        coefficients = (matrix.mT @ bases).softmax(dim=-1)  # N, R
        for _ in range(self.train_steps if self.training else self.eval_steps):
            coefficients = update(coefficients, matrix.mT @ bases, bases)
            bases = update(bases, matrix @ coefficients, coefficients)
        coefficients = update(coefficients, matrix.mT @ bases, bases)
        return (bases @ coefficients.mT).reshape(x.shape)


def fixed_draw(shape: tuple[int, ...]) -> Tensor:
    """Return the numbers that torch draws uniformly on a CPU at seed 0, as a tracer can record them: made by numpy.

    Both run the Mersenne Twister; the lower 24 bits of each number are a fraction.
    """
    bits = np.random.RandomState(0).randint(2**32, size=shape, dtype=np.uint32) & (2**24 - 1)
    return torch.from_numpy(bits.astype(np.float32) / np.float32(2**24))


# as torch.compiler.assume_constant_result does, which would load the whole compiler with this module
fixed_draw.__dict__["_dynamo_marked_constant"] = True


def update(factor: Tensor, product: Tensor, other: Tensor) -> Tensor:
    """One multiplicative step of `factor` towards matrix = factor @ other.mT, whose `product` is matrix @ other."""
    return factor * product / (factor @ (other.mT @ other) + 1e-6)


class Hamburger(nn.Module):
    """The factorisation ("ham") between two 1x1 convolutions ("bread"), with a shortcut."""

    def __init__(self, channels: int, ham_kwargs: Spec, norm_cfg: Spec | None) -> None:
        super().__init__()
        check_arguments(MatrixDecomposition, {"channels": channels} | ham_kwargs, "ham_kwargs", "decode_head")
        self.ham_in = ConvBlock(channels, channels, 1, norm_cfg=None, act_cfg=None)
        self.ham = MatrixDecomposition(channels, **ham_kwargs)
        self.ham_out = ConvBlock(channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.ham_out(self.ham(F.relu(self.ham_in(x)))))


@MODELS.register
class LightHamHead(DecodeHead):
    """SegNeXt's head (Guo et al., NeurIPS 2022): levels squeezed together at the finest one's size, then Hamburger."""

    def __init__(self, *, ham_channels: int = 512, ham_kwargs: Spec | None = None, **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        assert isinstance(self.in_channels, Sequence)
        self.squeeze = self.conv_block(sum(self.in_channels), ham_channels, 1)
        self.hamburger = Hamburger(ham_channels, ham_kwargs or {}, self.norm_cfg)
        self.align = self.conv_block(ham_channels, self.channels, 1)

    def features(self, inputs: Features) -> Tensor:
        x = fuse_levels(self.squeeze, self.select(inputs), align_corners=self.align_corners)
        return self.align(self.hamburger(x))
