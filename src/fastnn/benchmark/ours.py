"""A case as calls into fastnn: the steps of its plan, nothing around them.

Arrays start on a cache line, as every tensor in the middle of a net does, in fastnn and in its peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import nn
from ..differentiation import differentiate
from ..graph import Graph, Tensor
from ..plan import Plan
from ..trace import Compiled, argument, refresh_constants, runtime_values
from ..variable import aligned_empty, logical_view, memory_shape
from .cases import Case
from .timing import Call


def random_input(case: Case) -> Any:
    """The case's input, the same for every library, channels-last in memory."""
    x = aligned_empty(memory_shape(case.shape))
    np.random.default_rng(0).standard_normal(dtype=np.float32, out=x)
    return logical_view(x)


def _ones(shape: tuple[int, ...]) -> Any:
    ones = aligned_empty(memory_shape(shape))
    ones.fill(1)
    return logical_view(ones)


def calls(case: Case) -> tuple[Call, Call]:
    """Forward alone, and the backward part alone with the gradients of the input (unless the case has none) and of
    all parameters, both as a training step runs them."""
    layer = case.layer(nn).train()
    parameters = [p.variable for p in layer.parameters()]

    def build(graph: Graph, x: Tensor, dy: Tensor) -> Sequence[Tensor]:
        y = layer(x)
        wanted = [*([x] if case.input_gradient else []), *(graph.variable(v) for v in parameters)]
        gradients = differentiate(graph, {y: dy}, wanted)
        return [gradients[t] for t in wanted]

    x = argument(random_input(case))
    forward_plan = layer.plan(case.shape)
    cotangent = argument(_ones(forward_plan.outputs[0].shape))
    both = Compiled(build, repeatable=True).plan([x.key, cotangent.key])
    return _forward(forward_plan, x.data), _backward(both, x.data, cotangent.data)


def _forward(plan: Plan, x: Any) -> Call:
    values, outputs = runtime_values(plan, None), plan.allocate_outputs()
    refresh_constants(plan)
    return lambda: plan.program.run((x, *outputs), values)


def _backward(plan: Plan, x: Any, dy: Any) -> Call:
    values, outputs = runtime_values(plan, None), plan.allocate_outputs()
    refresh_constants(plan)
    arrays = (x, dy, *outputs)
    instance = plan.program.begin()
    plan.program.run_part(instance, 0, plan.split, arrays, values)
    steps = plan.program.step_count - plan.program.prologue
    return lambda: plan.program.run_part(instance, plan.split, steps, arrays, values)
