"""Sums and means over axes, and their gradients: broadcasting along axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering, Reference
from ..variable import memory_order
from .elementwise import FLOATS_PER_NANOSECOND, elements

UNITS = 64
"""Of csrc/kernels/reduction.c: units of work that a sum is cut into, at most, where there are fewer outer elements."""

Runs = list[tuple[int, int, int]]
"""(outer, middle, inner) extents, in memory order, around each run of neighbouring axes that is summed."""


def reduced_shape(shape: Shape, axes: Sequence[int]) -> Shape:
    """The shape with extent 1 in place of the axes.

    >>> reduced_shape((2, 3, 4), (1,))
    (2, 1, 4)
    """
    return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))


def _runs(shape: Shape, axes: Sequence[int]) -> Runs:
    """The sums, one run of axes at a time from the innermost, that make up a sum over axes.

    >>> _runs((2, 3, 4, 5), (2, 3))  # an image lies N,H,W,C
    [(2, 20, 3)]
    >>> _runs((2, 3, 4), (0, 2))
    [(6, 4, 1), (1, 2, 3)]
    """
    order = memory_order(shape)
    extents = [shape[axis] for axis in order]
    summed = [axis in axes for axis in order]
    runs: Runs = []
    end = len(order)
    while end:
        begin = end
        while begin and summed[begin - 1]:
            begin -= 1
        if begin < end:
            runs.append((math.prod(extents[:begin]), math.prod(extents[begin:end]), math.prod(extents[end:])))
            extents[begin:end] = [1] * (end - begin)
        end = begin - 1 if begin else 0
    return [run for run in runs if run[1] != 1] or [(1, 1, math.prod(extents))]


def _chain(
    first: Reference, last: Reference, sizes: Sequence[int], steps: Lowering
) -> Iterator[tuple[Reference, Reference]]:
    """(source, target) of each link of a chain that ends in `last`; `sizes`, in floats, of what lies between."""
    source = first
    for size in sizes:
        target = steps.workspace(size * 4)
        yield source, target
        source = target
    yield source, last


class _Reduction(Op):
    """y: x summed over `axes`, which keep extent 1, times a scale."""

    is_mean: ClassVar[bool]

    def infer(self, x: Tensor, axes: tuple[int, ...]) -> Spec:  # type: ignore[override]
        return Spec(reduced_shape(x.shape, axes))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        shape = node.inputs[0].shape
        return [dy.graph.record("spread", dy, shape=shape, axes=node.axes, scale=self._scale(node))]

    def _scale(self, node: Node) -> float:
        count = math.prod(node.inputs[0].shape[axis] for axis in node.axes)
        if not self.is_mean:
            return 1.0
        return 1.0 / count if count else float("nan")

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        runs = _runs(x.shape, node.axes)
        first, last = steps.pointer(x), steps.pointer(y)
        assert first is not None and last is not None
        sizes = [outer * inner for outer, _, inner in runs[:-1]]
        for i, (source, target) in enumerate(_chain(first, last, sizes, steps)):
            outer, middle, inner = runs[i]
            steps.step(
                "sum_axis",
                outer * middle * inner / FLOATS_PER_NANOSECOND,
                x=source,
                y=target,
                workspace=steps.workspace(4 * max(outer, UNITS) * inner),
                outer=outer,
                middle=middle,
                inner=inner,
                scale=self._scale(node) if i == len(runs) - 1 else 1.0,
            )


@register
class Sum(_Reduction):
    """The sum over axes."""

    name = "sum"
    is_mean = False


@register
class Mean(_Reduction):
    """The mean over axes."""

    name = "mean"
    is_mean = True


@register
class Spread(Op):
    """y of the given shape: scale * x for every position along `axes`, where x has extent 1."""

    name = "spread"

    def infer(self, x: Tensor, shape: Shape, axes: tuple[int, ...], scale: float) -> Spec:  # type: ignore[override]
        if x.shape != reduced_shape(shape, axes):
            raise ValueError(f"a tensor of shape {x.shape} does not spread over axes {axes} of {shape}")
        return Spec(shape)

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        if node.scale != 1.0:
            dy = dy * node.scale
        return [dy.graph.record("sum", dy, axes=node.axes)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        runs = _runs(y.shape, node.axes)[::-1]
        first, last = steps.pointer(x), steps.pointer(y)
        assert first is not None and last is not None
        sizes = [outer * middle * inner for outer, middle, inner in runs[:-1]]
        for i, (source, target) in enumerate(_chain(first, last, sizes, steps)):
            outer, middle, inner = runs[i]
            steps.step(
                "broadcast_axis",
                elements(y) / FLOATS_PER_NANOSECOND,
                x=source,
                y=target,
                outer=outer,
                middle=middle,
                inner=inner,
                scale=node.scale if i == 0 else 1.0,
            )
