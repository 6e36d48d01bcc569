"""What is done to gradients between the backward pass and the update: penalties are added, then all are clipped."""

from __future__ import annotations

from typing import Any

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .segments import segment_blocks


@register
class PenaltyGradient(Op):
    """gradient + l1 * sign(parameter) + 2 * l2 * parameter."""

    name = "penalty_gradient"

    def infer(self, gradient: Tensor, parameter: Tensor, l1: float, l2: float) -> Spec:  # type: ignore[override]
        if gradient.shape != parameter.shape:
            raise ValueError(f"penalty: a gradient of shape {gradient.shape} for a parameter of {parameter.shape}")
        return gradient.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (gradient, parameter), (y,) = node.inputs, node.outputs
        count = elements(gradient)
        steps.step(
            "penalty_gradient",
            count / FLOATS_PER_NANOSECOND,
            gradient=steps.pointer(gradient),
            parameter=steps.pointer(parameter),
            y=steps.pointer(y),
            count=count,
            l1=node.l1,
            l2=node.l2,
        )


class _Clip(Op):
    """What the clippings share: any number of gradients, and as many outputs of their shapes."""

    def infer(self, *gradients: Tensor, **_: Any) -> tuple[Spec, ...]:
        return tuple(gradient.spec for gradient in gradients)

    def in_place(self, node: Node) -> dict[int, int]:
        return {i: i for i in range(len(node.inputs))}

    def _segments(self, node: Node, steps: Lowering) -> dict[str, Any]:
        table: list[Any] = []
        for gradient, clipped in zip(node.inputs, node.outputs, strict=False):
            table += [steps.pointer(gradient), steps.pointer(clipped), elements(gradient)]
        return {"segments": table, "segment_count": len(node.inputs)}

    def _work(self, node: Node) -> float:
        return sum(elements(tensor) for tensor in node.inputs) / FLOATS_PER_NANOSECOND


@register
class ClipGradientNorm(_Clip):
    """All gradients times min(1, max_norm / norm), and behind them the norm (1); `order`: 1, 2 or 0, the largest
    magnitude."""

    name = "clip_gradient_norm"

    def infer(self, *gradients: Tensor, **_: Any) -> tuple[Spec, ...]:
        return (*super().infer(*gradients), Spec((1,)))

    def lower(self, node: Node, steps: Lowering) -> None:
        steps.step(
            "clip_gradient_norm",
            self._work(node) * 2,
            **self._segments(node, steps),
            order=node.order,
            max_norm=steps.value(node.max_norm),
            norm=steps.pointer(node.outputs[-1]),
            workspace=steps.workspace(8 * segment_blocks(node.inputs)),
        )


@register
class ClipGradientValue(_Clip):
    """min(max(gradient, -limit), limit) of all gradients."""

    name = "clip_gradient_value"

    def lower(self, node: Node, steps: Lowering) -> None:
        steps.step(
            "clip_gradient_value", self._work(node), **self._segments(node, steps), limit=steps.value(node.limit)
        )
