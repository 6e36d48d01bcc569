"""What monitors record into a training step: operations that look at tensors and change nothing that is computed."""

from __future__ import annotations

from typing import Any

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .rounding import ceil_div
from .segments import segment_blocks

UNITS_OF_A_WORD = 64


def _units(x: Tensor) -> int:
    """Elements of a sample of x (N,...); none where there is no sample."""
    return elements(x) // x.shape[0] if x.shape[0] else 0


def words_of_units(x: Tensor) -> int:
    """64-bit words with one bit for each element of a sample of x (N,...)."""
    return ceil_div(_units(x), UNITS_OF_A_WORD)


@register
class FiredUnits(Op):
    """Sets the bits of those elements of a sample of y (N,...) that are above 0 in any sample: y, bits (int64 words), in
    the order of memory."""

    name = "fired_units"
    has_effects = True

    def infer(self, y: Tensor, fired: Tensor) -> tuple[Spec, ...]:  # type: ignore[override]
        if fired.shape != (words_of_units(y),):
            raise ValueError(f"fired_units: words of shape {fired.shape} for a tensor of shape {y.shape}")
        return ()

    def writes(self, node: Node) -> tuple[int, ...]:
        return (1,)

    def lower(self, node: Node, steps: Lowering) -> None:
        y, fired = node.inputs
        steps.step(
            "fired_units",
            elements(y) / FLOATS_PER_NANOSECOND / 4,
            y=steps.pointer(y),
            fired=steps.pointer(fired),
            rows=y.shape[0],
            units=_units(y),
        )


@register
class TensorStatistics(Op):
    """Writes norm, largest magnitude and number of elements that are not finite of n tensors into a variable (n, 3), the
    last input."""

    name = "tensor_statistics"
    has_effects = True

    def infer(self, *inputs: Tensor) -> tuple[Spec, ...]:  # type: ignore[override]
        *tensors, figures = inputs
        if figures.shape != (len(tensors), 3):
            raise ValueError(f"tensor_statistics: figures of shape {figures.shape} for {len(tensors)} tensors")
        return ()

    def writes(self, node: Node) -> tuple[int, ...]:
        return (len(node.inputs) - 1,)

    def lower(self, node: Node, steps: Lowering) -> None:
        *tensors, figures = node.inputs
        table: list[Any] = []
        for tensor in tensors:
            table += [steps.pointer(tensor), elements(tensor)]
        steps.step(
            "tensor_statistics",
            sum(elements(tensor) for tensor in tensors) / FLOATS_PER_NANOSECOND,
            segments=table,
            segment_count=len(tensors),
            statistics=steps.pointer(figures),
            workspace=steps.workspace(24 * segment_blocks(tensors)),
        )
