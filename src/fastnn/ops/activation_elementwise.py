"""Elementwise activations; the codes and their parameters a, b, c are those of csrc/kernels/activation.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import elements

EXPONENTIALS_PER_NANOSECOND = 1.0
"""What one thread gets through, about."""


class Kind(NamedTuple):
    """An activation's code, and whether its gradient is computed from its output (else from its input)."""

    code: int
    from_output: bool = False


KINDS = {
    "hardtanh": Kind(0, from_output=True),
    "leaky_relu": Kind(1),
    "elu": Kind(2),
    "sigmoid": Kind(3, from_output=True),
    "tanh": Kind(4, from_output=True),
    "logsigmoid": Kind(5),
    "softplus": Kind(6),
    "softsign": Kind(7),
    "silu": Kind(8),
    "mish": Kind(9),
    "gelu": Kind(10),
    "gelu_tanh": Kind(11),
    "hardsigmoid": Kind(12),
    "hardswish": Kind(13),
}


def _lower(kernel: str, kind: str, node: Node, steps: Lowering, **pointers: Any) -> None:
    count = elements(node.inputs[0])
    numbers = {"code": KINDS[kind].code, "a": node.a, "b": node.b, "c": node.c}
    steps.step(kernel, count / EXPONENTIALS_PER_NANOSECOND, **pointers, count=count, **numbers)


@register
class Activation(Op):
    """y = f(x); attributes kind, one of KINDS, and its parameters a, b, c."""

    name = "activation"

    def infer(self, x: Tensor, kind: str, a: float, b: float, c: float) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        saved = node.outputs[0] if KINDS[node.kind].from_output else node.inputs[0]
        return [dy.graph.record("activation_backward", dy, saved, **node.attributes)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        _lower("activation_forward", node.kind, node, steps, x=steps.pointer(x), y=steps.pointer(y))


@register
class ActivationBackward(Op):
    """dx from dy and what the kind saves: x or y."""

    name = "activation_backward"

    def infer(self, dy: Tensor, saved: Tensor, **_: Any) -> Spec:  # type: ignore[override]
        return dy.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, saved), (dx,) = node.inputs, node.outputs
        pointers = {"dy": steps.pointer(dy), "saved": steps.pointer(saved), "dx": steps.pointer(dx)}
        _lower("activation_backward", node.kind, node, steps, **pointers)


@register
class ReLU6(Op):
    """y = min(max(x, 0), 6): an op of its own, as it is done by the kernel before it where that can."""

    name = "relu6"

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("activation_backward", dy, node.outputs[0], kind="hardtanh", a=0.0, b=6.0, c=0.0)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        limits = Node(self, [x], {"a": 0.0, "b": 6.0, "c": 0.0})
        _lower("activation_forward", "hardtanh", limits, steps, x=steps.pointer(x), y=steps.pointer(y))


@register
class NegativePart(Op):
    """y = min(x, 0), with gradient 1 at 0: what a learned slope multiplies."""

    name = "negative_part"

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        above = dy.graph.record("activation_backward", dy, node.inputs[0], kind="leaky_relu", a=0.0, b=0.0, c=0.0)
        return [dy - above]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        limits = Node(self, [x], {"a": float("-inf"), "b": 0.0, "c": 0.0})
        _lower("activation_forward", "hardtanh", limits, steps, x=steps.pointer(x), y=steps.pointer(y))
