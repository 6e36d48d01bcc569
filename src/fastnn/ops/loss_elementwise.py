"""Elementwise losses; the codes and their parameters a, b are those of csrc/kernels/pointwise_loss.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .rounding import ceil_div

CODES = {
    "squared_error": 0,
    "absolute_error": 1,
    "huber": 2,
    "cross_entropy": 3,
    "logit_entropy": 4,
    "divergence": 5,
    "log_divergence": 6,
}

BLOCK = 256
"""LOSS_BLOCK of csrc/kernels/pointwise_loss.h: losses that are added up to one double."""

OF_DIFFERENCE = ("squared_error", "absolute_error", "huber")
"""Losses of x - target: the gradient of the target is the negative one of x."""


def _arguments(node: Node, operands: Sequence[Tensor], steps: Lowering) -> dict[str, Any]:
    x, target, *optional = operands
    named = dict(zip(node.given, optional, strict=True))
    return {
        "x": steps.pointer(x),
        "target": steps.pointer(target),
        "weight": steps.pointer(named.get("weight")),
        "pos_weight": steps.pointer(named.get("pos_weight")),
        "count": elements(x),
        "code": CODES[node.kind],
        "a": node.a,
        "b": node.b,
        "reduction": int(node.reduced),
        "scale": node.scale,
    }


@register
class ElementwiseLoss(Op):
    """scale times the sum of the losses of all elements if `reduced`, else each of them.

    Inputs: x, target and those that `given` names, weight and pos_weight, all of one shape. Attributes: kind, one of
    CODES, with its parameters a, b; reduced; scale.
    """

    name = "elementwise_loss"

    def infer(self, x: Tensor, target: Tensor, *optional: Tensor, reduced: bool, **_: Any) -> Spec:  # type: ignore[override]
        return Spec(()) if reduced else x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dloss,) = dys
        assert dloss is not None
        if any(needed[2:]) or (needed[1] and node.kind not in OF_DIFFERENCE):
            raise TypeError(f"{node.kind} has no gradient with respect to its target or weights")
        dx = dloss.graph.record("elementwise_loss_backward", dloss, *node.inputs, **node.attributes)
        return [dx, -dx if needed[1] else None, *[None] * len(node.inputs[2:])]

    def lower(self, node: Node, steps: Lowering) -> None:
        (loss,) = node.outputs
        count = elements(node.inputs[0])
        steps.step(
            "pointwise_loss_forward",
            count / FLOATS_PER_NANOSECOND * 2,
            loss=steps.pointer(loss),
            workspace=steps.workspace(8 * ceil_div(count, BLOCK)),
            **_arguments(node, node.inputs, steps),
        )


@register
class ElementwiseLossBackward(Op):
    """dx from dloss and the forward pass's inputs."""

    name = "elementwise_loss_backward"

    def infer(self, dloss: Tensor, x: Tensor, *operands: Tensor, **_: Any) -> Spec:  # type: ignore[override]
        return x.spec

    def lower(self, node: Node, steps: Lowering) -> None:
        dloss, *operands = node.inputs
        steps.step(
            "pointwise_loss_backward",
            elements(node.outputs[0]) / FLOATS_PER_NANOSECOND * 2,
            dloss=steps.pointer(dloss),
            dx=steps.pointer(node.outputs[0]),
            **_arguments(node, operands, steps),
        )
