"""Updates of parameters by an optimizer, and averages of weights after them: operations with effects and no outputs.

An update's inputs are parameter, gradient and `states` state arrays for each parameter in turn, all of its shape. A gradient
that is a product of matrices need not be made before: `factored` names the positions of such parameters, whose gradient is
dy^T x; dy stands in its place, and their x follow after all parameters.
"""

from __future__ import annotations

from typing import Any

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Facts, Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .rounding import round_up

MOST_STATES = 3
"""State arrays that a segment of the kernels' table has room for."""

PRODUCT_FLOATS = 1 << 16
"""Of csrc/kernels/product_update.h: floats of a piece of a product."""

PRODUCTS_PER_NANOSECOND = 16.0
"""Multiply-adds that one thread gets through, about; see plan.SERIAL_WORK."""


def _product_workspace(batch: int, facts: Facts) -> int:
    """Floats that a thread needs, by csrc/kernels/product_update.h."""
    piece = PRODUCT_FLOATS + 2 * facts.gemm_rows * facts.gemm_columns
    return piece + batch * round_up(facts.gemm_rows, facts.lanes)


def rows_of(tensor: Tensor) -> int:
    """Rows of a matrix whose columns are the last axis."""
    return elements(tensor) // tensor.shape[-1]


class Update(Op):
    """What the updates share: checks, the table of segments, what is written."""

    has_effects = True

    def infer(self, *inputs: Tensor, states: int, **_: Any) -> tuple[Spec, ...]:  # type: ignore[override]
        group = 2 + states
        if len(inputs) % group:
            raise ValueError(
                f"{self.name}: {len(inputs)} tensors are no list of parameter, gradient and {states} states"
            )
        for i, tensor in enumerate(inputs):
            parameter = inputs[i - i % group]
            if tensor.shape != parameter.shape:
                raise ValueError(f"{self.name}: shape {tensor.shape} for a parameter of shape {parameter.shape}")
        return ()

    def writes(self, node: Node) -> tuple[int, ...]:
        return tuple(i for i in range(self._first_x(node)) if i % (2 + node.states) != 1)

    @staticmethod
    def _factored(node: Node) -> tuple[int, ...]:
        return node.attributes.get("factored", ())

    @classmethod
    def _first_x(cls, node: Node) -> int:
        """Where the parameters' tensors end."""
        return len(node.inputs) - len(cls._factored(node))

    @classmethod
    def parameter_count(cls, node: Node) -> int:
        """How many parameters it updates."""
        return cls._first_x(node) // (2 + int(node.states))

    @staticmethod
    def gradient_at(node: Node, position: int) -> int:
        """Which input is the gradient of the parameter at a position."""
        return position * (2 + int(node.states)) + 1

    @classmethod
    def factor(cls, node: Node, position: int, x: Tensor, dy: Tensor) -> None:
        """Lets the gradient of the parameter at a position be the product of x (..., C) and dy (..., K)."""
        node.inputs[cls.gradient_at(node, position)] = dy
        node.inputs.append(x)
        node.attributes["factored"] = (*cls._factored(node), position)

    def _slots(self, node: Node) -> tuple[int, ...]:
        """The places of a parameter's states in the table."""
        return tuple(range(node.states))

    def _segments(self, node: Node, steps: Lowering) -> dict[str, Any]:
        """The table: parameter, gradient or dy, three states (or null), count, and x (or null) with its sizes for each
        parameter; and the run-time values."""
        group, end = 2 + node.states, self._first_x(node)
        factors = dict(zip(self._factored(node), node.inputs[end:], strict=True))
        table: list[Any] = []
        for position, first in enumerate(range(0, end, group)):
            parameter, gradient, *states = node.inputs[first : first + group]
            places: list[Any] = [None] * MOST_STATES
            for slot, state in zip(self._slots(node), states, strict=True):
                places[slot] = steps.pointer(state)
            table += [steps.pointer(parameter), steps.pointer(gradient), *places, elements(parameter)]
            table += self._factor_slots(factors.get(position), steps)
        most = max((rows_of(x) for x in factors.values()), default=None)
        stride = 0 if most is None else _product_workspace(most, steps.facts)
        return {
            "segments": table,
            "segment_count": self.parameter_count(node),
            "workspace": steps.workspace(4 * max(stride * steps.facts.threads, 1)),
            "workspace_stride": stride,
            "step": steps.value(node.attributes["step"]),
            "lr": steps.value(node.lr),
        }

    @staticmethod
    def _factor_slots(x: Tensor | None, steps: Lowering) -> list[Any]:
        if x is None:
            return [None, None, 0, 0]
        batch, channels = rows_of(x), x.shape[-1]
        panels = steps.workspace(4 * batch * round_up(channels, steps.facts.lanes))
        return [steps.pointer(x), panels, batch, channels]

    def _work(self, node: Node) -> float:
        floats = sum(elements(tensor) for tensor in node.inputs)
        at = [self.gradient_at(node, position) for position in self._factored(node)]
        products = sum(rows_of(node.inputs[i]) * elements(node.inputs[i - 1]) for i in at)
        return floats / FLOATS_PER_NANOSECOND + products / PRODUCTS_PER_NANOSECOND


@register
class SGDUpdate(Update):
    """One step of gradient descent for a group of parameters; see optim.SGD. State: the momentum buffer, if any."""

    name = "sgd_update"

    def lower(self, node: Node, steps: Lowering) -> None:
        steps.step(
            "sgd_step",
            self._work(node),
            **self._segments(node, steps),
            momentum=node.momentum,
            dampening=node.dampening,
            weight_decay=node.weight_decay,
            nesterov=int(node.nesterov),
            maximize=int(node.maximize),
        )


@register
class AdamUpdate(Update):
    """One step of Adam or AdamW for a group of parameters; see optim.Adam. States: the moments, with amsgrad the
    largest second moment."""

    name = "adam_update"

    def lower(self, node: Node, steps: Lowering) -> None:
        steps.step(
            "adam_step",
            self._work(node) * 2,
            **self._segments(node, steps),
            beta1=node.betas[0],
            beta2=node.betas[1],
            eps=node.eps,
            weight_decay=node.weight_decay,
            decoupled=int(node.decoupled),
            amsgrad=int(node.amsgrad),
            maximize=int(node.maximize),
        )


@register
class RMSpropUpdate(Update):
    """One step of RMSprop for a group of parameters; see optim.RMSprop. States: the mean square, the mean if centred, the
    momentum buffer if there is momentum."""

    name = "rmsprop_update"

    def _slots(self, node: Node) -> tuple[int, ...]:
        return (0, *((1,) if node.centered else ()), *((2,) if node.momentum else ()))

    def lower(self, node: Node, steps: Lowering) -> None:
        steps.step(
            "rmsprop_step",
            self._work(node) * 2,
            **self._segments(node, steps),
            alpha=node.alpha,
            eps=node.eps,
            weight_decay=node.weight_decay,
            momentum=node.momentum,
            centered=int(node.centered),
            maximize=int(node.maximize),
        )


@register
class AdagradUpdate(Update):
    """One step of Adagrad for a group of parameters; see optim.Adagrad. State: the sum of squares."""

    name = "adagrad_update"

    def lower(self, node: Node, steps: Lowering) -> None:
        steps.step(
            "adagrad_step",
            self._work(node) * 2,
            **self._segments(node, steps),
            lr_decay=node.lr_decay,
            eps=node.eps,
            weight_decay=node.weight_decay,
            maximize=int(node.maximize),
        )


@register
class AverageWeights(Op):
    """average += weight * (parameter - average) for pairs of them; weight is a run-time value."""

    name = "average_weights"
    has_effects = True

    def infer(self, *pairs: Tensor, weight: Any) -> tuple[Spec, ...]:  # type: ignore[override]
        for average, parameter in zip(pairs[::2], pairs[1::2], strict=True):
            if average.shape != parameter.shape:
                raise ValueError(f"an average of shape {average.shape} for a parameter of shape {parameter.shape}")
        return ()

    def writes(self, node: Node) -> tuple[int, ...]:
        return tuple(range(0, len(node.inputs), 2))

    def lower(self, node: Node, steps: Lowering) -> None:
        table: list[Any] = []
        for average, parameter in zip(node.inputs[::2], node.inputs[1::2], strict=True):
            table += [steps.pointer(average), steps.pointer(parameter), elements(parameter)]
        steps.step(
            "average_weights",
            sum(elements(tensor) for tensor in node.inputs) / FLOATS_PER_NANOSECOND,
            segments=table,
            segment_count=len(node.inputs) // 2,
            weight=steps.value(node.weight),
        )
