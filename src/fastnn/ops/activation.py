"""Activations along the innermost axis in memory: the last one, of images (N,C,H,W) the channels."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import elements

EXPONENTIALS_PER_NANOSECOND = 1.0
"""What one thread gets through, about."""


def rows_and_columns(x: Tensor) -> dict[str, int]:
    """A tensor as a matrix whose rows run along its innermost axis."""
    columns = 1 if x.ndim == 0 else x.shape[1 if x.ndim == 4 else -1]
    return {"rows": elements(x) // columns if columns else 0, "columns": columns}


class _Forward(Op):
    """y of the shape of x; the gradient needs y alone."""

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record(f"{self.name}_backward", dy, node.outputs[0])]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        work = elements(x) / EXPONENTIALS_PER_NANOSECOND
        steps.step(f"{self.name}_forward", work, x=steps.pointer(x), y=steps.pointer(y), **rows_and_columns(x))


class _Backward(Op):
    """dx from dy and y."""

    def infer(self, dy: Tensor, y: Tensor) -> Spec:  # type: ignore[override]
        return dy.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, y), (dx,) = node.inputs, node.outputs
        steps.step(
            self.name,
            elements(dy) / EXPONENTIALS_PER_NANOSECOND,
            dy=steps.pointer(dy),
            y=steps.pointer(y),
            dx=steps.pointer(dx),
            **rows_and_columns(dy),
        )


@register
class Softmax(_Forward):
    """y = exp(x) / sum exp(x)."""

    name = "softmax"


@register
class SoftmaxBackward(_Backward):
    """dx = y * (dy - sum(dy * y))."""

    name = "softmax_backward"


@register
class LogSoftmax(_Forward):
    """y = x - log(sum exp(x))."""

    name = "log_softmax"


@register
class LogSoftmaxBackward(_Backward):
    """dx = dy - exp(y) * sum(dy)."""

    name = "log_softmax_backward"
