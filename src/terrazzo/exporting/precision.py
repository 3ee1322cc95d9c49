"""Precisions of an exported network, and the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terrazzo.errors import UserError, nearest

PRECISIONS = ("f32", "bf16", "int8", "auto")
LEFT_OUT = (0.1, 0.3)  # shares of the layers that "auto" leaves in f32, the most sensitive first
WHY = {
    "bf16": "ONNX Runtime computes no bfloat16 on processors: use --precision int8, or --to openvino",
    "int8": "a torch.export program has no form in 8-bit integers: use --to onnx or --to openvino",
}


@dataclass(frozen=True)
class Attempt:
    """A precision to try; of int8 a share of the layers, the most sensitive ones, stays in f32."""

    precision: str
    left_out: float = 0

    def __str__(self) -> str:
        return f"{self.precision} without the most sensitive {self.left_out:.0%}" if self.left_out else self.precision


def attempts(precision: str, possible: Sequence[str], gated: bool) -> list[Attempt]:
    """The precisions to try, in order. Raises UserError for one that is not `possible`, or not without a gate."""
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(f"--precision: '{precision}' is unknown{nearest(precision, PRECISIONS)}; give one of {known}")
    if precision != "auto":
        if precision not in possible:
            raise UserError(f"--precision {precision}: {WHY[precision]}")
        return [Attempt(precision)]
    if not gated:
        raise UserError("--precision auto takes the first that is good enough on labelled images: give --check CONFIG")
    found = []
    for name in possible:
        found.append(Attempt(name))
        found += [Attempt(name, share) for share in LEFT_OUT if name == "int8"]
    return found
