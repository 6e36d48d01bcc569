"""Powers with a constant exponent, as Lp pooling needs them."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements

LOGARITHMS_PER_NANOSECOND = 1.0
"""What one thread gets through where the exponent is no whole number, about."""


def _step(kernel: str, node: Node, steps: Lowering, count: int, **tensors: Tensor) -> None:
    pace = FLOATS_PER_NANOSECOND if float(node.exponent).is_integer() else LOGARITHMS_PER_NANOSECOND
    pointers = {name: steps.pointer(tensor) for name, tensor in tensors.items()}
    steps.step(kernel, count / pace, count=count, exponent=float(node.exponent), **pointers)


@register
class Power(Op):
    """y = x ** exponent; the gradient is 0 where x is 0 and the exponent below 1."""

    name = "power"

    def infer(self, x: Tensor, exponent: float) -> Spec:  # type: ignore[override]
        if x.dtype != "float32":
            raise TypeError(f"power works on float32 tensors, got {x.dtype}")
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("power_backward", dy, node.inputs[0], exponent=node.exponent)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        _step("power_forward", node, steps, elements(x), x=x, y=y)


@register
class PowerBackward(Op):
    """dx = dy * exponent * x ** (exponent - 1)."""

    name = "power_backward"

    def infer(self, dy: Tensor, x: Tensor, exponent: float) -> Spec:  # type: ignore[override]
        return dy.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, x), (dx,) = node.inputs, node.outputs
        _step("power_backward", node, steps, elements(x), dy=dy, x=x, dx=dx)
