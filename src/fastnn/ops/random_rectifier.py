"""Leaky ReLU with random slopes, which are drawn again in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, RuntimeValue, Spec, Tensor, register
from ..plan import Lowering
from ..random import RANDOM_SEED, RANDOM_STEP
from .elementwise import FLOATS_PER_NANOSECOND, elements


@register
class RandomRectifier(Op):
    """values where x > 0, else values * slope, from values and x; forward both are the layer's input.

    Attributes: lower, upper (of the slopes), layer (its number in the random stream). The gradient with respect to
    values is the op on dy; x only chooses.
    """

    name = "random_rectifier"

    def infer(self, values: Tensor, x: Tensor, lower: float, upper: float, layer: int) -> Spec:  # type: ignore[override]
        if values.shape != x.shape:
            raise ValueError(f"random_rectifier: values of shape {values.shape} for an input of shape {x.shape}")
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("random_rectifier", dy, node.inputs[1], **node.attributes), None]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (values, x), (y,) = node.inputs, node.outputs
        attributes = node.attributes
        steps.step(
            "random_rectifier",
            elements(x) / FLOATS_PER_NANOSECOND,
            values=steps.pointer(values),
            x=steps.pointer(x),
            y=steps.pointer(y),
            count=elements(x),
            lower=attributes["lower"],
            upper=attributes["upper"],
            layer=attributes["layer"],
            seed=steps.value(RuntimeValue(RANDOM_SEED)),
            step=steps.value(RuntimeValue(RANDOM_STEP)),
        )
