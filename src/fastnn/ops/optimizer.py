"""Updates of parameters by an optimizer: operations with effects and no outputs; clipping of gradients before them,
averages of weights after them.

An update's inputs are parameter, gradient and `states` state arrays for each parameter in turn, all of its shape. A gradient
that is a product of matrices need not be made before: `factored` names the positions of such parameters, whose gradient is
dy^T x; dy stands in its place, and their x follow after all parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Facts, Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .rounding import ceil_div, round_up

MOST_STATES = 3
"""State arrays that a segment of the kernels' table has room for."""

PRODUCT_FLOATS = 1 << 16
"""Of csrc/kernels/product_update.h: floats of a piece of a product."""


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

    def infer(  # type: ignore[override]
        self, *inputs: Tensor, states: int, **attributes: Any
    ) -> tuple[Spec, ...]:
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
    def _first_x(node: Node) -> int:
        """Where the parameters' tensors end."""
        return len(node.inputs) - len(node.attributes.get("factored", ()))

    @classmethod
    def parameter_count(cls, node: Node) -> int:
        """How many parameters it updates."""
        return cls._first_x(node) // (2 + int(node.states))

    @staticmethod
    def factor(node: Node, position: int, x: Tensor, dy: Tensor) -> None:
        """Lets the gradient of the parameter at a position be the product of x (..., C) and dy (..., K)."""
        node.inputs[position * (2 + node.states) + 1] = dy
        node.inputs.append(x)
        node.attributes["factored"] = (*node.attributes.get("factored", ()), position)

    def _slots(self, node: Node) -> tuple[int, ...]:
        """The places of a parameter's states in the table."""
        return tuple(range(node.states))

    def _segments(self, node: Node, steps: Lowering) -> dict[str, Any]:
        """The table: parameter, gradient or dy, three states (or null), count, and x (or null) with its sizes for each
        parameter; and the run-time values."""
        group, end = 2 + node.states, self._first_x(node)
        factors = dict(zip(node.attributes.get("factored", ()), node.inputs[end:], strict=True))
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
        group = 2 + node.states
        floats = sum(elements(tensor) for tensor in node.inputs)
        products = [
            rows_of(node.inputs[position * group + 1]) * elements(node.inputs[position * group])
            for position in node.attributes.get("factored", ())
        ]
        return floats / FLOATS_PER_NANOSECOND + sum(products) / 16.0


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


SEGMENT_BLOCK = 4096
"""Elements of a block in the kernels over segments (csrc/kernels/segments.h)."""


def segment_blocks(tensors: Sequence[Tensor]) -> int:
    """Blocks of all tensors."""
    return sum(ceil_div(elements(tensor), SEGMENT_BLOCK) for tensor in tensors)


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
