"""Shapes and memory order. 4-D tensors are channels-last in memory; all other tensors lie in logical order."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements


def lies_in_logical_order(shape: Shape) -> bool:
    """Whether a tensor's memory order is its logical order: not for images of several channels and pixels."""
    return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1 or 0 in shape


class _Transpose(Op):
    """Between N,C,H,W and N,H,W,C in memory; `lower` of both directions."""

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def lower(self, node: Node, steps: Lowering) -> None:
        _lower_transpose(self.name, node.inputs[0], node.outputs[0], node.inputs[0].shape, steps)


def _lower_transpose(kernel: str, x: Tensor, y: Tensor, shape: Shape, steps: Lowering) -> None:
    batch, channels, height, width = shape
    steps.step(
        kernel,
        elements(x) / FLOATS_PER_NANOSECOND * 2,
        x=steps.pointer(x),
        y=steps.pointer(y),
        batch=batch,
        channels=channels,
        positions=height * width,
    )


@register
class ToChannelsLast(_Transpose):
    """An input that lies N,C,H,W in memory, as every other 4-D tensor lies: N,H,W,C."""

    name = "to_channels_last"


@register
class Reshape(Op):
    """The same elements, in logical order, under another shape."""

    name = "reshape"

    def infer(self, x: Tensor, shape: Shape) -> Spec:  # type: ignore[override]
        return Spec(shape, x.dtype)

    def is_view(self, node: Node) -> bool:
        before, after = node.inputs[0].shape, node.outputs[0].shape
        return before == after or (lies_in_logical_order(before) and lies_in_logical_order(after))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("reshape", dy, shape=node.inputs[0].shape)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        if lies_in_logical_order(y.shape):
            _lower_transpose("to_channels_first", x, y, x.shape, steps)
        elif lies_in_logical_order(x.shape):
            _lower_transpose("to_channels_last", x, y, y.shape, steps)
        else:
            raise AssertionError("a reshape between images is recorded as two, through one axis")


@register
class Copy(Op):
    """y = x in memory of its own."""

    name = "copy"

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        return [dys[0]]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        size = x.spec.size
        steps.step("copy", size / 16, x=steps.pointer(x), y=steps.pointer(y), size=size)


