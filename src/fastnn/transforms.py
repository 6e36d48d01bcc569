"""Gradients of functions of arrays: vjp and value_and_grad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .differentiation import differentiate
from .graph import Graph, Tensor
from .habits import kind_of
from .naming import naming
from .nn.module import Module
from .trace import (
    Argument,
    Compiled,
    Integers,
    argument,
    as_array,
    check_limits,
    refresh_constants,
    runtime_values,
)
from .variable import Array, logical_view, weights_clock


def zeros_like(graph: Graph, tensor: Tensor) -> Tensor:
    """A gradient of zeros, for what a result does not depend on."""
    return graph.record("fill", shape=tensor.shape, value=0.0)


def _single(result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise TypeError(f"the differentiated function returned {type(result).__name__}, not one tensor")
    return result


class Vjp:
    """The compiled forward and backward part of one function; see `vjp`."""

    def __init__(self, function: Callable[..., Any], integers: Integers = False) -> None:
        self._function = function
        self._integers = integers
        self._forward = Compiled(lambda graph, *tensors: (_single(function(*tensors)),))
        self._compiled = Compiled(self._build, repeatable=True)

    def _build(self, graph: Graph, *tensors: Tensor) -> Sequence[Tensor]:
        inputs, dy = tensors[:-1], tensors[-1]
        y = _single(self._function(*inputs))
        result = graph.record("copy", y)  # the caller's array; the gradients read the plan's own
        gradients = differentiate(graph, {y: dy}, inputs)
        return [result, *(gradients[x] if x in gradients else zeros_like(graph, x) for x in inputs)]

    def __call__(self, *arrays: Any) -> tuple[Array, Callable[[Any], tuple[Array, ...]]]:
        arguments = [_own(argument(value, self._integers), value) for value in arrays]
        output = self._forward.plan([a.key for a in arguments]).outputs[0]
        cotangent = argument(np.broadcast_to(np.float32(0), output.shape))
        plan = self._compiled.plan([*(a.key for a in arguments), cotangent.key])
        check_limits(plan, [*arguments, cotangent])
        values = runtime_values(plan, None)
        refresh_constants(plan)
        instance = plan.program.begin()
        results = plan.allocate_outputs()
        inputs = tuple(a.data for a in arguments)
        arrays = (*inputs, cotangent.data, *results)
        plan.program.run_part(instance, 0, plan.split, arrays, values, weights_clock, plan.written)
        made = weights_clock.now
        fixed = set(plan.read).difference(plan.written)

        def pullback(dy: Any) -> tuple[Array, ...]:
            """The gradient of sum(dy * y) with respect to each array."""
            if any(variable.changed > made for variable in fixed):
                raise RuntimeError("pullback: weights have changed since the value was computed; call vjp again")
            seed = argument(_channels_last(dy))
            if seed.key != cotangent.key:
                raise ValueError(f"pullback: dy has shape {seed.key[0]}, the result has shape {output.shape}")
            gradients = plan.allocate_outputs()
            steps = plan.program.step_count - plan.program.prologue
            plan.program.run_part(instance, plan.split, steps, (*inputs, seed.data, *gradients), values)
            return tuple(logical_view(gradient) for gradient in gradients[1:])

        return logical_view(results[0]), pullback


def _own(given: Argument, value: Any) -> Argument:
    """A copy where the argument is still the caller's memory, which may change before the pullback runs."""
    if isinstance(value, np.ndarray) and np.shares_memory(given.data, value):
        return Argument(given.data.copy(), given.key)
    return given


def _channels_last(value: Any) -> Array:
    """An image in the one layout that the backward part was compiled for."""
    array = as_array(value)
    return logical_view(np.ascontiguousarray(array.transpose(0, 2, 3, 1))) if array.ndim == 4 else array


def vjp(function: Callable[..., Any], *arrays: Any, **kwargs: Any) -> tuple[Array, Callable[[Any], tuple[Array, ...]]]:
    """The value of a function of arrays, and the map from a gradient of its result to the gradients of its arguments.

    Parameters
    ----------
    function : a Module (used in its current mode) or a function made of `fastnn.nn.functional` that returns one array.
    arrays : its arguments, float; integer arrays are cast, unless the function is a Module that takes indices: then they
        stay integers, and their gradients are zeros.
    kwargs : further arguments, passed on as they are.

    Returns
    -------
    y : the value.
    pullback : `pullback(dy)` with dy of y's shape returns a tuple, for each array the gradient of sum(dy * y).
        It may be called any number of times; RuntimeError if weights that it needs have changed since.

    Raises ValueError or TypeError that names the layer for arrays that do not fit; pullback does for a dy of another shape.

    >>> import numpy as np, fastnn.nn.functional as F
    >>> y, pullback = vjp(F.relu, np.array([-1.0, 2.0]))
    >>> pullback(np.array([10.0, 10.0]))
    (array([ 0., 10.], dtype=float32),)
    """
    if isinstance(function, Module):
        compiled = function.__dict__.get("_vjp")
        if compiled is None or kwargs:
            compiled = Vjp(partial(function, **kwargs), function.keeps_integers)
        if not kwargs:
            object.__setattr__(function, "_vjp", compiled)
        with naming(function._title):
            return compiled(*arrays)
    return Vjp(partial(function, **kwargs))(*arrays)


class ValueAndGrad:
    """A compiled loss with the gradients of a model's parameters; see `value_and_grad`."""

    def __init__(self, model: Module, loss: Callable[[Any, Any], Any]) -> None:
        self._model = model
        self._loss = loss
        self._names: list[str] = []
        self._compiled = Compiled(self._build, (model.keeps_integers, True))

    def _build(self, graph: Graph, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        value = _single(self._loss(self._model(x), y))
        if value.shape != ():
            raise ValueError(
                f"value_and_grad: the loss has shape {value.shape}; it must be one number (reduction='mean')"
            )
        trained = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        tensors = {name: graph.variable(p.variable) for name, p in trained.items()}
        gradients = differentiate(graph, {value: graph.constant(1.0)}, tensors.values())
        self._names = list(trained)
        return [value, *(gradients[t] if t in gradients else zeros_like(graph, t) for t in tensors.values())]

    def __call__(self, x: Any, y: Any) -> tuple[float, dict[str, Array]]:
        value, *gradients = self._compiled(x, y)
        return float(value), dict(zip(self._names, gradients, strict=True))


def value_and_grad(model: Module, loss: Callable[[Any, Any], Any]) -> ValueAndGrad:
    """A function (x, y) -> (loss(model(x), y), {parameter name: gradient}), in the model's current mode.

    Gradients are fresh arrays with the shapes of the parameters; parameters with `requires_grad=False` are left out.

    Raises ValueError when the loss is not one number, and what the layers raise for arrays that do not fit.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> model = nn.Linear(2, 3)
    >>> value, gradients = value_and_grad(model, nn.CrossEntropyLoss())(np.ones((4, 2)), np.zeros(4, np.int64))
    >>> sorted((name, gradient.shape) for name, gradient in gradients.items())
    [('bias', (3,)), ('weight', (3, 2))]
    """
    if not isinstance(model, Module):
        raise TypeError(f"value_and_grad: model must be a Module, not {kind_of(model)}")
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"value_and_grad: loss must be a loss of fastnn.nn or a function, not {kind_of(loss)}")
    return ValueAndGrad(model, loss)
