"""ONNX forms of operators that torch's exporter lacks, or that it writes for the example's size alone."""

from __future__ import annotations

from typing import Any

import torch

from terrazzo.system.extras import import_extra

op = import_extra("onnxscript", "export", "ONNX exports").opset20


def bin_averages(length: Any, bins: Any) -> Any:
    """The matrix (bins, length) whose row i averages from floor(i * length / bins) to ceil((i + 1) * length / bins)."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    index = op.Unsqueeze(op.Range(zero, bins, one), op.Constant(value_ints=[1]))  # bins, 1
    start = op.Div(op.Mul(index, length), bins)
    stop = op.Div(op.Sub(op.Add(op.Mul(op.Add(index, one), length), bins), one), bins)
    position = op.Unsqueeze(op.Range(zero, length, one), op.Constant(value_ints=[0]))  # 1, length
    inside = op.And(op.GreaterOrEqual(position, start), op.Less(position, stop))
    return op.Div(op.Cast(inside, to=1), op.Cast(op.Sub(stop, start), to=1))


def adaptive_average(x: Any, output_size: Any) -> Any:
    """Average pooling (N, C, H, W) -> (N, C, rows, columns) as two matrix products."""
    shape = op.Shape(x)
    sizes = []
    for axis in (0, 1):
        length = op.Gather(shape, op.Constant(value_int=2 + axis))
        bins = output_size[axis]
        sizes.append(bin_averages(length, op.Constant(value_int=bins) if isinstance(bins, int) else op.Squeeze(bins)))
    rows, columns = (op.CastLike(matrix, x) for matrix in sizes)
    return op.MatMul(op.MatMul(rows, x), op.Transpose(columns, perm=[1, 0]))


def shift_right(x: Any, bits: int) -> Any:
    """`x >> bits` of numbers that are not negative; the format shifts unsigned ones alone."""
    return op.Div(x, op.CastLike(op.Constant(value_int=2**bits), x))


def resized_channels_last(x: Any, height: Any, width: Any, align_corners: bool) -> Any:
    """Bilinear resizing (N, C, h, w) -> (N, height, width, C), of the transposed input."""
    one = op.Constant(value_ints=[1])
    sizes = [
        op.Constant(value_ints=[size]) if isinstance(size, int) else op.Reshape(size, one) for size in (height, width)
    ]
    return op.Resize(
        op.Transpose(x, perm=[0, 2, 3, 1]),
        None,
        None,
        op.Concat(op.Shape(x, start=0, end=1), *sizes, op.Shape(x, start=1, end=2), axis=0),
        mode="linear",
        coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
    )


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten._adaptive_avg_pool2d.default: adaptive_average,
    torch.ops.aten.__rshift__.Scalar: shift_right,
    torch.ops.terrazzo.resize_channels_last.default: resized_channels_last,
}
