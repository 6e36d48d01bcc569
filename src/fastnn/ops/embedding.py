"""Rows of a table by their numbers, and integers as floats."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements


@register
class Embedding(Op):
    """y (count, D): the rows of weight (V, D) that indices (count) name; attribute padding_index: a row without gradient,
    -1 for none."""

    name = "embedding"

    def infer(self, indices: Tensor, weight: Tensor, padding_index: int) -> Spec:  # type: ignore[override]
        return Spec((indices.shape[0], weight.shape[1]))

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
            count=indices.shape[0],
            rows=weight.shape[0],
            columns=weight.shape[1],
        )


@register
class EmbeddingBackward(Op):
    """dweight (rows, D): the sum of dy (count, D) over the places where indices (count) name each row."""

    name = "embedding_backward"

    def infer(self, dy: Tensor, indices: Tensor, rows: int, padding_index: int) -> Spec:  # type: ignore[override]
        return Spec((rows, dy.shape[1]))

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, indices), (dweight,) = node.inputs, node.outputs
        steps.step(
            "embedding_backward",
            (elements(dweight) + 3 * elements(dy)) / FLOATS_PER_NANOSECOND,
            dy=steps.pointer(dy),
            indices=steps.pointer(indices),
            dweight=steps.pointer(dweight),
            count=indices.shape[0],
            rows=node.rows,
            columns=dy.shape[1],
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
