"""Parts of a tensor along one axis: slices and concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering, Reference
from ..variable import memory_order, memory_shape
from .elementwise import FLOATS_PER_NANOSECOND


def around(shape: Shape, axis: int) -> tuple[int, int]:
    """How many elements of the shape lie before an axis, and behind it, in memory order.

    >>> around((2, 3, 4, 5), 1)  # an image lies N,H,W,C
    (40, 1)
    """
    extents, place = memory_shape(shape), memory_order(shape).index(axis)
    return math.prod(extents[:place]), math.prod(extents[place + 1 :])


def _offset(tensor: Tensor, axis: int, start: int, steps: Lowering) -> Reference:
    """A tensor from position `start` of an axis to its end; of an empty batch that is nothing, at its beginning."""
    offset = min(4 * start * around(tensor.shape, axis)[1], tensor.spec.size)
    return steps.part(tensor, offset, tensor.spec.size - offset)


def _copy_rows(x: Reference, y: Reference, part: Shape, axis: int, whole: tuple[int, int], steps: Lowering) -> None:
    """Copies a tensor of the shape `part`; `whole` are the extents of the axis in x and in y."""
    before, behind = around(part, axis)
    steps.step(
        "copy_rows",
        before * part[axis] * behind / FLOATS_PER_NANOSECOND,
        x=x,
        y=y,
        rows=before,
        columns=part[axis] * behind,
        x_stride=whole[0] * behind,
        y_stride=whole[1] * behind,
    )


@register
class Slice(Op):
    """Positions start to stop of one axis."""

    name = "slice"

    def infer(self, x: Tensor, axis: int, start: int, stop: int) -> Spec:  # type: ignore[override]
        if x.dtype != "float32":
            raise TypeError(f"slices are taken of float32 tensors, not of {x.dtype}")
        return Spec((*x.shape[:axis], stop - start, *x.shape[axis + 1 :]))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        extent = node.inputs[0].shape[node.axis]
        parts = [(node.start, None), (node.stop - node.start, dy), (extent - node.stop, None)]
        pieces = [_zeros(dy, node.axis, count) if piece is None else piece for count, piece in parts if count]
        return [dy.graph.record("cat", *pieces, axis=node.axis) if len(pieces) > 1 else pieces[0]]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        target = steps.pointer(y)
        assert target is not None
        whole = x.shape[node.axis], y.shape[node.axis]
        _copy_rows(_offset(x, node.axis, node.start, steps), target, y.shape, node.axis, whole, steps)


def _zeros(like: Tensor, axis: int, count: int) -> Tensor:
    shape = (*like.shape[:axis], count, *like.shape[axis + 1 :])
    return like.graph.record("fill", shape=shape, value=0.0)


@register
class Cat(Op):
    """Tensors one behind the other along an axis."""

    name = "cat"

    def infer(self, *tensors: Tensor, axis: int) -> Spec:  # type: ignore[override]
        first = tensors[0].shape
        if not first:
            raise ValueError("cat: single numbers have no axis; pass each as x.reshape(1)")
        for tensor in tensors:
            others = [n for i, n in enumerate(tensor.shape) if i != axis]
            if tensor.ndim != len(first) or others != [n for i, n in enumerate(first) if i != axis]:
                raise ValueError(f"cat: shapes {first} and {tensor.shape} differ in more than axis {axis}")
            if tensor.dtype != "float32":
                raise TypeError(f"cat works on float32 tensors, got {tensor.dtype}")
        return Spec((*first[:axis], sum(t.shape[axis] for t in tensors), *first[axis + 1 :]))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        gradients: list[Tensor | None] = []
        start = 0
        for tensor, need in zip(node.inputs, needed, strict=True):
            stop = start + tensor.shape[node.axis]
            gradients.append(dy.graph.record("slice", dy, axis=node.axis, start=start, stop=stop) if need else None)
            start = stop
        return gradients

    def lower(self, node: Node, steps: Lowering) -> None:
        (y,) = node.outputs
        start = 0
        for x in node.inputs:
            source = steps.pointer(x)
            assert source is not None
            whole = x.shape[node.axis], y.shape[node.axis]
            _copy_rows(source, _offset(y, node.axis, start, steps), x.shape, node.axis, whole, steps)
            start += x.shape[node.axis]
