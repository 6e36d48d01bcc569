"""Dropout: masks are functions of (seed, layer, step, element), computed again in the backward pass, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, RuntimeValue, Spec, Tensor, register
from ..plan import Lowering
from ..random import RANDOM_SEED, RANDOM_STEP
from .elementwise import FLOATS_PER_NANOSECOND, elements


@register
class Dropout(Op):
    """y = x * scale where kept, 0 where dropped; its own gradient rule, as the map is linear.

    Attributes: probability, scale, layer (the number of the layer in the random stream), channels (whether one
    decision stands for a whole channel of x (N,C,H,W)).
    """

    name = "dropout"

    def infer(self, x: Tensor, probability: float, scale: float, layer: int, channels: bool) -> Spec:  # type: ignore[override]
        if channels and x.ndim != 4:
            raise ValueError(f"whole channels are dropped of an input (N,C,H,W), got {x.ndim} axes in {x.shape}")
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("dropout", dy, **node.attributes)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        if node.channels:
            batch, channels, height, width = x.shape
            extents = {"batch": batch, "positions": height * width, "channels": channels}
        else:
            extents = {"count": elements(x)}
        steps.step(
            "dropout_channels" if node.channels else "dropout",
            elements(x) / FLOATS_PER_NANOSECOND,
            x=steps.pointer(x),
            y=steps.pointer(y),
            probability=node.probability,
            scale=node.scale,
            **_stream(node, steps),
            **extents,
        )


def _stream(node: Node, steps: Lowering) -> dict[str, Any]:
    """Where in the random numbers the kernel stands."""
    return {
        "seed": steps.value(RuntimeValue(RANDOM_SEED)),
        "layer": node.layer,
        "step": steps.value(RuntimeValue(RANDOM_STEP)),
    }


@register
class GaussianDropout(Op):
    """y = x * (1 + deviation * z), z standard normal; its own gradient rule, as the map is linear."""

    name = "gaussian_dropout"

    def infer(self, x: Tensor, deviation: float, layer: int) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("gaussian_dropout", dy, **node.attributes)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        steps.step(
            "gaussian_dropout",
            elements(x) * 3.0,
            x=steps.pointer(x),
            y=steps.pointer(y),
            count=elements(x),
            deviation=node.deviation,
            **_stream(node, steps),
        )


@register
class AlphaDropout(Op):
    """y = scale * x + shift where kept, `dropped` where dropped; the gradient is dropout's."""

    name = "alpha_dropout"

    def infer(self, x: Tensor, probability: float, scale: float, shift: float, dropped: float, layer: int) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        same = {"probability": node.probability, "scale": node.scale, "layer": node.layer}
        return [dy.graph.record("dropout", dy, channels=False, **same)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        steps.step(
            "alpha_dropout",
            elements(x) / FLOATS_PER_NANOSECOND,
            x=steps.pointer(x),
            y=steps.pointer(y),
            count=elements(x),
            **{name: node.attributes[name] for name in ("probability", "scale", "shift", "dropped")},
            **_stream(node, steps),
        )
