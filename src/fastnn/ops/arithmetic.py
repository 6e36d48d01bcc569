"""Elementwise arithmetic of two tensors under NumPy's broadcasting rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from ..variable import memory_order
from .elementwise import FLOATS_PER_NANOSECOND, elements

Axes = list[tuple[int, int, int]]
"""For each axis of the result, in memory order: its extent, and the distance of neighbours in either operand."""


def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """The shape of the result; ValueError when the shapes do not fit.

    >>> broadcast_shape((2, 3, 1, 1), (3, 4, 5))
    (2, 3, 4, 5)
    """
    rank = max(len(a), len(b))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (a, b)]
    if any(m != n and 1 not in (m, n) for m, n in zip(*padded, strict=True)):
        raise ValueError(f"shapes {a} and {b} do not broadcast: extents must be equal, or one of them 1")
    return tuple(n if m == 1 else m for m, n in zip(*padded, strict=True))


def _strides(shape: Shape, rank: int) -> tuple[int, ...]:
    """The distance in memory along each logical axis of a result of `rank` axes; 0 where the tensor is repeated."""
    strides = [0] * len(shape)
    distance = 1
    for axis in reversed(memory_order(shape)):
        strides[axis] = distance if shape[axis] != 1 else 0
        distance *= shape[axis]
    return (0,) * (rank - len(shape)) + tuple(strides)


def broadcast_axes(shape: Shape, a: Shape, b: Shape) -> Axes:
    """The axes of a result of the given shape, neighbours merged where both operands allow it.

    >>> broadcast_axes((2, 3, 4, 5), (2, 3, 4, 5), (3, 1, 1))  # images lie N,H,W,C; the channels of b are repeated
    [(40, 3, 0), (3, 1, 1)]
    >>> broadcast_axes((2, 3), (2, 3), ())
    [(6, 1, 0)]
    """
    strides = _strides(a, len(shape)), _strides(b, len(shape))
    axes: Axes = []
    for axis in memory_order(shape):
        if shape[axis] == 1:
            continue
        extent, inner = shape[axis], (strides[0][axis], strides[1][axis])
        if axes and axes[-1][1:] == (inner[0] * extent, inner[1] * extent):
            extent *= axes.pop()[0]
        axes.append((extent, *inner))
    if not axes or max(axes[-1][1:]) > 1:  # along the last axis the kernel wants distances of 0 or 1
        axes.append((1, 0, 0))
    return axes


def unbroadcast(gradient: Tensor, shape: Shape) -> Tensor:
    """The gradient summed over the axes along which a tensor of the given shape was repeated."""
    padded = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(axis for axis, (n, m) in enumerate(zip(padded, gradient.shape, strict=True)) if n != m)
    if axes:
        gradient = gradient.graph.record("sum", gradient, axes=axes)
    return gradient if gradient.shape == shape else gradient.reshape(shape)


class _Arithmetic(Op):
    """y = a operation b."""

    code: ClassVar[int]

    def infer(self, a: Tensor, b: Tensor) -> Spec:  # type: ignore[override]
        for tensor in (a, b):
            if tensor.dtype != "float32":
                raise TypeError(f"{self.name}: arithmetic works on float32 tensors, got {tensor.dtype}")
        return Spec(broadcast_shape(a.shape, b.shape))

    def partial(self, node: Node, operand: int, dy: Tensor) -> Tensor:
        """dy times the derivative with respect to an operand, in the shape of the result."""
        raise NotImplementedError

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [
            unbroadcast(self.partial(node, i, dy), tensor.shape) if needed[i] else None
            for i, tensor in enumerate(node.inputs)
        ]

    def in_place(self, node: Node) -> dict[int, int]:
        same = [i for i, tensor in enumerate(node.inputs) if tensor.shape == node.outputs[0].shape]
        return {0: same[0]} if same else {}

    def lower(self, node: Node, steps: Lowering) -> None:
        (a, b), (y,) = node.inputs, node.outputs
        axes = broadcast_axes(y.shape, a.shape, b.shape)
        steps.step(
            "arithmetic",
            elements(y) / FLOATS_PER_NANOSECOND,
            a=steps.pointer(a),
            b=steps.pointer(b),
            y=steps.pointer(y),
            axes=[number for axis in axes for number in axis],
            rank=len(axes),
            operation=self.code,
        )


@register
class Add(_Arithmetic):
    """y = a + b."""

    name = "add"
    code = 0

    def partial(self, node: Node, operand: int, dy: Tensor) -> Tensor:
        return dy

    def lower(self, node: Node, steps: Lowering) -> None:
        (a, b), (y,) = node.inputs, node.outputs
        if a.shape != b.shape:
            super().lower(node, steps)
            return
        count = elements(y)
        work = count / FLOATS_PER_NANOSECOND
        steps.step("add_forward", work, a=steps.pointer(a), b=steps.pointer(b), y=steps.pointer(y), count=count)


@register
class Subtract(_Arithmetic):
    """y = a - b."""

    name = "subtract"
    code = 1

    def partial(self, node: Node, operand: int, dy: Tensor) -> Tensor:
        return dy if operand == 0 else -dy


@register
class Multiply(_Arithmetic):
    """y = a * b."""

    name = "multiply"
    code = 2

    def partial(self, node: Node, operand: int, dy: Tensor) -> Tensor:
        return dy * node.inputs[1 - operand]


@register
class Divide(_Arithmetic):
    """y = a / b."""

    name = "divide"
    code = 3

    def partial(self, node: Node, operand: int, dy: Tensor) -> Tensor:
        quotient = dy / node.inputs[1]
        return quotient if operand == 0 else -(quotient * node.outputs[0])
