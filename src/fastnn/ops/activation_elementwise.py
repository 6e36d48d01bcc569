"""Elementwise activations; the codes and their parameters a, b, c are those of csrc/kernels/activation.h."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from ..variable import memory_order
from .elementwise import EXPONENTIALS_PER_NANOSECOND, FLOATS_PER_NANOSECOND, elements
from .rounding import ROW_BLOCKS


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


def _lower(
    kernel: str, kind: str, steps: Lowering, a: float = 0.0, b: float = 0.0, c: float = 0.0, **tensors: Tensor
) -> None:
    count = elements(next(iter(tensors.values())))
    pointers = {name: steps.pointer(tensor) for name, tensor in tensors.items()}
    numbers = {"count": count, "code": KINDS[kind].code, "a": a, "b": b, "c": c}
    steps.step(kernel, count / EXPONENTIALS_PER_NANOSECOND, **pointers, **numbers)


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
        _lower("activation_forward", steps=steps, **node.attributes, x=x, y=y)


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
        _lower("activation_backward", steps=steps, **node.attributes, dy=dy, saved=saved, dx=dx)


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
        _lower("activation_forward", "hardtanh", steps, 0.0, 6.0, x=x, y=y)


@register
class GLU(Op):
    """y = a * sigmoid(b), a and b the halves of x along `axis`, whose extent is even."""

    name = "glu"

    def infer(self, x: Tensor, axis: int) -> Spec:  # type: ignore[override]
        return Spec((*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :]))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("glu_backward", dy, node.inputs[0], axis=node.axis)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        work = elements(y) * 2 / EXPONENTIALS_PER_NANOSECOND
        steps.step("glu_forward", work, x=steps.pointer(x), y=steps.pointer(y), **_halves(x, node.axis))


@register
class GLUBackward(Op):
    """dx from dy and x."""

    name = "glu_backward"

    def infer(self, dy: Tensor, x: Tensor, axis: int) -> Spec:  # type: ignore[override]
        return x.spec

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, x), (dx,) = node.inputs, node.outputs
        pointers = {"dy": steps.pointer(dy), "x": steps.pointer(x), "dx": steps.pointer(dx)}
        steps.step("glu_backward", elements(x) / EXPONENTIALS_PER_NANOSECOND, **pointers, **_halves(x, node.axis))


def _halves(x: Tensor, axis: int) -> dict[str, int]:
    """x as rows of two halves each, as it lies in memory."""
    order = memory_order(x.shape)
    at = order.index(axis)
    before, inside = ([x.shape[a] for a in axes] for axes in (order[:at], order[at:]))
    return {"rows": math.prod(before), "columns": math.prod(inside) // 2}


@register
class PReLU(Op):
    """y = x where positive, else slope * x; slopes (1), or one for each channel along the innermost axis in memory."""

    name = "prelu"

    def infer(self, x: Tensor, slopes: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        wanted = tuple(name for name, need in zip(("x", "slopes"), needed, strict=True) if need)
        recorded = dy.graph.record("prelu_backward", dy, *node.inputs, wanted=wanted)
        gradients = dict(zip(wanted, recorded, strict=True))
        return [gradients.get("x"), gradients.get("slopes")]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x, slopes), (y,) = node.inputs, node.outputs
        pointers = {"x": steps.pointer(x), "slopes": steps.pointer(slopes), "y": steps.pointer(y)}
        steps.step("prelu_forward", elements(x) / FLOATS_PER_NANOSECOND, **pointers, **_channels(x, slopes))


@register
class PReLUBackward(Op):
    """Gradients of x and slopes, those that `wanted` names."""

    name = "prelu_backward"

    def infer(self, dy: Tensor, x: Tensor, slopes: Tensor, wanted: tuple[str, ...]) -> tuple[Spec, ...]:  # type: ignore[override]
        return tuple(x.spec if name == "x" else slopes.spec for name in wanted)

    def in_place(self, node: Node) -> dict[int, int]:
        return {node.wanted.index("x"): 0} if "x" in node.wanted else {}

    def lower(self, node: Node, steps: Lowering) -> None:
        dy, x, slopes = node.inputs
        gradients: dict[str, Any] = {n: steps.pointer(t) for n, t in zip(node.wanted, node.outputs, strict=True)}
        sizes = _channels(x, slopes)
        steps.step(
            "prelu_backward",
            elements(x) / FLOATS_PER_NANOSECOND * 2,
            dy=steps.pointer(dy),
            x=steps.pointer(x),
            slopes=steps.pointer(slopes),
            dx=gradients.get("x"),
            dslopes=gradients.get("slopes"),
            workspace=steps.workspace(4 * ROW_BLOCKS * sizes["channels"]),
            **sizes,
        )


def _channels(x: Tensor, slopes: Tensor) -> dict[str, int]:
    """x as a matrix with a slope for each column; a single slope lets it have any columns, whole vectors for preference."""
    count, slope_count = elements(x), slopes.shape[0]
    if slope_count == 1:
        channels = 64 if count % 64 == 0 else 1 if x.ndim == 0 else x.shape[memory_order(x.shape)[-1]]
    else:
        channels = slope_count
    return {"rows": count // channels if channels else 0, "channels": channels, "slope_count": slope_count}


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
        _lower("activation_forward", "hardtanh", steps, float("-inf"), 0.0, x=x, y=y)
