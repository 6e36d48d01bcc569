"""Rows of a table by their numbers, and integers as floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements


@register
class Embedding(Op):
    """y (..., D): the rows of weight (V, D) that indices (...), of at most two axes, name.

    Attribute padding_index: a row without gradient, -1 for none.
    """

    name = "embedding"

    def infer(self, indices: Tensor, weight: Tensor, padding_index: int) -> Spec:  # type: ignore[override]
        assert indices.ndim <= 2  # the result lies as it looks
        return Spec((*indices.shape, weight.shape[1]))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        indices, weight = node.inputs
        if dy is None or not needed[1]:
            return [None, None]
        dweight = dy.graph.record(
            "embedding_backward", dy, indices, rows=weight.shape[0], padding_index=node.padding_index
        )
        return [None, dweight]

    def lower(self, node: Node, steps: Lowering) -> None:
        (indices, weight), (y,) = node.inputs, node.outputs
        steps.step(
            "embedding_forward",
            2 * elements(y) / FLOATS_PER_NANOSECOND,
            indices=steps.pointer(indices),
            weight=steps.pointer(weight),
            y=steps.pointer(y),
            count=math.prod(indices.shape),
            rows=weight.shape[0],
            columns=weight.shape[1],
        )


@register
class EmbeddingBackward(Op):
    """dweight (rows, D): the sum of dy (..., D) over the places where indices (...) name each row."""

    name = "embedding_backward"

    def infer(self, dy: Tensor, indices: Tensor, rows: int, padding_index: int) -> Spec:  # type: ignore[override]
        return Spec((rows, dy.shape[-1]))

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, indices), (dweight,) = node.inputs, node.outputs
        steps.step(
            "embedding_backward",
            (elements(dweight) + 3 * elements(dy)) / FLOATS_PER_NANOSECOND,
            dy=steps.pointer(dy),
            indices=steps.pointer(indices),
            dweight=steps.pointer(dweight),
            count=math.prod(indices.shape),
            rows=node.rows,
            columns=dy.shape[-1],
            padding_index=node.padding_index,
        )


@register
class ToFloat(Op):
    """Integers (int64) as float32, rounded to nearest."""

    name = "to_float"

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return Spec(x.shape)

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        return [None]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        count = elements(y)
        steps.step("convert_int64", count / FLOATS_PER_NANOSECOND, x=steps.pointer(x), y=steps.pointer(y), count=count)
