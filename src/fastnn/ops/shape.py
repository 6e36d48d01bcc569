"""Shapes and memory order. 4-D tensors are channels-last in memory; all other tensors lie in logical order."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements


def lies_in_logical_order(shape: Shape) -> bool:
    """Whether a tensor's memory order is its logical order: not for images of several channels and pixels."""
    return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1 or 0 in shape


def _lower_transpose(x: Tensor, y: Tensor, batch: int, rows: int, columns: int, steps: Lowering) -> None:
    """y[n, j, i] = x[n, i, j] for i in rows, j in columns."""
    work = elements(x) / FLOATS_PER_NANOSECOND * 2
    kernel = "transpose" if x.dtype == "float32" else "transpose_int64"
    steps.step(kernel, work, x=steps.pointer(x), y=steps.pointer(y), batch=batch, rows=rows, columns=columns)


def channels_last(x: Tensor, steps: Lowering) -> Tensor:
    """A copy, for this node's kernels alone, of an image that lies N,C,H,W in memory."""
    copied = steps.scratch(x)
    batch, channels, height, width = x.shape
    _lower_transpose(x, copied, batch, channels, height * width, steps)
    steps.steps[-1].flops = 0.0
    return copied


@register
class ToChannelsLast(Op):
    """An input that lies N,C,H,W in memory, as every other 4-D tensor lies: N,H,W,C."""

    name = "to_channels_last"

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        return [dys[0]]

    def lower(self, node: Node, steps: Lowering) -> None:
        batch, channels, height, width = node.inputs[0].shape
        _lower_transpose(node.inputs[0], node.outputs[0], batch, channels, height * width, steps)


@register
class Reshape(Op):
    """The same elements, in logical order, under another shape."""

    name = "reshape"

    def infer(self, x: Tensor, shape: Shape) -> Spec:  # type: ignore[override]
        if x.dtype not in ("float32", "int64"):
            raise TypeError(f"reshape works on float32 and int64 tensors, got {x.dtype}")
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
            batch, channels, height, width = x.shape
            _lower_transpose(x, y, batch, height * width, channels, steps)
        elif lies_in_logical_order(x.shape):
            batch, channels, height, width = y.shape
            _lower_transpose(x, y, batch, channels, height * width, steps)
        else:
            raise AssertionError("a reshape between images is recorded as two, through one axis")


@register
class MemoryView(Op):
    """The first input's memory as it lies, under another shape; recorded by passes only, hence without a gradient."""

    name = "memory_view"

    def infer(self, x: Tensor, shape: Shape) -> Spec:  # type: ignore[override]
        return Spec(shape, x.dtype)

    def is_view(self, node: Node) -> bool:
        return True


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
        steps.step("copy", x.spec.size / 16, x=steps.pointer(x), y=steps.pointer(y), count=elements(x))


@register
class Fill(Op):
    """A tensor of one value."""

    name = "fill"

    def infer(self, shape: Shape, value: float) -> Spec:  # type: ignore[override]
        return Spec(shape)

    def lower(self, node: Node, steps: Lowering) -> None:
        (y,) = node.outputs
        steps.step("fill", y.spec.size / 16, y=steps.pointer(y), count=elements(y), value=node.value)
