"""An optimizer's step as a call, ours and a peer's: all parameters updated, the gradients standing ready."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import optim
from ..graph import Graph, Tensor
from ..nn.parameter import Parameter
from ..trace import Compiled, argument, refresh_constants, runtime_values
from .cases import OptimizerCase
from .timing import Call


def _arrays(case: OptimizerCase) -> list[Any]:
    """The parameters' first values, the same for every library; the gradients are these as well."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape, np.float32) for shape in case.parameters]


def calls(case: OptimizerCase) -> tuple[Call, ...]:
    """Our step: the plan that a training step contains."""
    parameters = [Parameter(array) for array in _arrays(case)]
    optimizer = getattr(optim, case.optimizer)(parameters, **dict(case.options))

    def build(graph: Graph, *gradients: Tensor) -> list[Tensor]:
        optimizer.record(graph, dict(zip(parameters, gradients, strict=True)))
        return []

    gradients = [argument(array) for array in _arrays(case)]
    plan = Compiled(build).plan([gradient.key for gradient in gradients])
    refresh_constants(plan)
    optimizer.steps = 1
    values = runtime_values(plan, optimizer.runtime())
    return (partial(plan.program.run, tuple(gradient.data for gradient in gradients), values),)


def torch_calls(case: OptimizerCase) -> tuple[Call, ...]:
    """PyTorch's step."""
    import torch

    parameters = [torch.from_numpy(array).requires_grad_() for array in _arrays(case)]
    for parameter, gradient in zip(parameters, _arrays(case), strict=True):
        parameter.grad = torch.from_numpy(gradient)
    optimizer = getattr(torch.optim, case.optimizer)(parameters, **dict(case.options), **dict(case.peer_options))
    return (optimizer.step,)
