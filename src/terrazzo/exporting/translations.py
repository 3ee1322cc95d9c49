"""ONNX forms of operators that torch's exporter lacks, or that it writes for the example's size alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import terrazzo.exporting.largest  # noqa: F401 - it defines the operators
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
    batch, channels = op.Shape(x, start=0, end=1), op.Shape(x, start=1, end=2)
    return resized(op.Transpose(x, perm=[0, 2, 3, 1]), (batch, height, width, channels), align_corners)


def resized(x: Any, sizes: Sequence[Any], align_corners: bool) -> Any:
    """Bilinear resizing to the size of each axis, which is a number or a tensor."""
    one = op.Constant(value_ints=[1])
    parts = [op.Constant(value_ints=[size]) if isinstance(size, int) else op.Reshape(size, one) for size in sizes]
    mode = "align_corners" if align_corners else "half_pixel"
    return op.Resize(x, None, None, op.Concat(*parts, axis=0), mode="linear", coordinate_transformation_mode=mode)


def classes_of_resized(x: Any, height: Any, width: Any, align_corners: bool, last: bool) -> Any:
    """The classes (N, height, width) of logits (N, K, h, w) resized bilinearly, of those alone that can be the largest.

    `last` compares the logits of a pixel side by side.
    """
    classes = possible_classes(x)
    x = op.Gather(x, classes, axis=1)
    if last:
        place = op.ArgMax(resized_channels_last(x, height, width, align_corners), axis=3, keepdims=0)
    else:
        batch, count = op.Shape(x, start=0, end=1), op.Shape(classes)
        place = first_of_largest(resized(x, (batch, count, height, width), align_corners), count)
    return op.Gather(classes, place)


def first_of_largest(x: Any, count: Any) -> Any:
    """The place (N, H, W) of the first of the largest along the second axis of x (N, count, H, W)."""
    channels = op.Constant(value_ints=[1])
    falling = op.Range(op.Cast(op.Squeeze(count), to=1), op.Constant(value_float=0.0), op.Constant(value_float=-1.0))
    falling = op.Reshape(falling, op.Constant(value_ints=[1, -1, 1, 1]))
    largest = op.GreaterOrEqual(x, op.ReduceMax(x, channels, keepdims=1))
    found = op.ReduceMax(op.Where(largest, falling, op.Constant(value_float=1.0)), channels, keepdims=0)
    return op.Sub(count, op.Cast(found, to=7))


def possible_classes(x: Any) -> Any:
    """The numbers of the classes that can be the largest where logits (N, K, h, w) are interpolated; 0 and 1 as well.

    Between four neighbours no logit is above the largest of its corners, and the largest of all classes is at least the
    smallest corner of each. Windows of 3x3 at every other place hold all such fours, at a quarter of the comparisons of
    windows of 2x2. OpenVINO turns tensors around whose channels could be fewer than two.
    """
    around = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 2, 2]}
    (above, _), (below, _) = op.MaxPool(x, **around), op.MaxPool(op.Neg(x), **around)
    reached = op.GreaterOrEqual(above, op.ReduceMax(op.Neg(below), op.Constant(value_ints=[1]), keepdims=1))
    somewhere = op.ReduceMax(op.Cast(reached, to=1), op.Constant(value_ints=[0, 2, 3]), keepdims=0)
    found = op.Squeeze(op.NonZero(somewhere), op.Constant(value_ints=[0]))
    return op.Concat(op.Constant(value_ints=[0, 1]), found, axis=0)


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten._adaptive_avg_pool2d.default: adaptive_average,
    torch.ops.aten.__rshift__.Scalar: shift_right,
    torch.ops.terrazzo.classes_of_resized.default: classes_of_resized,
    torch.ops.terrazzo.resize_channels_last.default: resized_channels_last,
}
