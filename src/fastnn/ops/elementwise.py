"""Elementwise operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering

FLOATS_PER_NANOSECOND = 4.0
"""What one thread gets through of a memory-bound kernel, about; see plan.SERIAL_WORK."""

EXPONENTIALS_PER_NANOSECOND = 1.0
"""The same of a kernel that takes an exponential for each element."""


ACTIVATIONS = {None: 0, "relu": 1, "relu6": 2}
"""What other kernels can apply to their result: enum fnn_activation of csrc/kernels/gemm.h."""


def elements(tensor: Tensor) -> int:
    """Number of elements of a float tensor."""
    return tensor.spec.size // 4


class ByOutput(Op):
    """y of the shape of x. The gradient, the operation of the same name and "_backward", needs y alone."""

    rate: ClassVar[float] = FLOATS_PER_NANOSECOND
    """Elements a nanosecond."""

    @staticmethod
    def extents(x: Tensor) -> dict[str, int]:
        """The sizes that the kernels of both directions ask for."""
        return {"count": elements(x)}

    def infer(self, x: Tensor) -> Spec:  # type: ignore[override]
        return x.spec

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record(f"{self.name}_backward", dy, node.outputs[0])]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        work = elements(x) / self.rate
        steps.step(f"{self.name}_forward", work, x=steps.pointer(x), y=steps.pointer(y), **self.extents(x))


class ByOutputBackward(Op):
    """dx from dy and y."""

    rate: ClassVar[float] = FLOATS_PER_NANOSECOND
    extents = staticmethod(ByOutput.extents)

    def infer(self, dy: Tensor, y: Tensor) -> Spec:  # type: ignore[override]
        return dy.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, y), (dx,) = node.inputs, node.outputs
        steps.step(
            self.name,
            elements(dy) / self.rate,
            dy=steps.pointer(dy),
            y=steps.pointer(y),
            dx=steps.pointer(dx),
            **self.extents(dy),
        )


@register
class ReLU(ByOutput):
    """y = max(x, 0)."""

    name = "relu"


@register
class ReLUBackward(ByOutputBackward):
    """dx = dy where y > 0, else 0."""

    name = "relu_backward"
