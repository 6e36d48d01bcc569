"""Elementwise operations."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering

FLOATS_PER_NANOSECOND = 4.0
"""What one thread gets through of a memory-bound kernel, about; see plan.SERIAL_WORK."""


def elements(tensor: Tensor) -> int:
    """Number of elements of a float tensor."""
    return tensor.spec.size // 4


@register
class ReLU(Op):
    """y = max(x, 0); the gradient needs the output alone."""

    name = "relu"

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("relu_backward", dy, node.outputs[0])]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        count = elements(x)
        steps.step("relu_forward", count / FLOATS_PER_NANOSECOND, x=steps.pointer(x), y=steps.pointer(y), count=count)


@register
class ReLUBackward(Op):
    """dx = dy where y > 0, else 0."""

    name = "relu_backward"

    def infer(self, dy: Tensor, y: Tensor) -> Spec:  # type: ignore[override]
        return dy.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, y), (dx,) = node.inputs, node.outputs
        count = elements(dy)
        steps.step(
            "relu_backward",
            count / FLOATS_PER_NANOSECOND,
            dy=steps.pointer(dy),
            y=steps.pointer(y),
            dx=steps.pointer(dx),
            count=count,
        )
