"""Functions of tensors that also take arrays: on symbolic tensors they record, on arrays they execute at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, TypeVar

import numpy as np

from ...graph import Graph, Tensor
from ...naming import FUNCTION, naming
from ...trace import Compiled
from ...variable import Variable
from ..parameter import Buffer, Parameter

Function = TypeVar("Function", bound=Callable[..., Any])


def eager(*tensors: str, integers: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Lets a function of tensors be called with arrays, too; names the arguments that are tensors.

    Integers given for `integers` (class labels, positions) stay integers, all others become float32. The wrapped
    function always sees symbolic tensors. Buffers are not turned into inputs but stay variables, so that
    running statistics can be updated. Errors name the function, unless it is called in a layer's forward.
    """

    def decorate(function: Function) -> Function:
        parameters = signature(function)

        def name() -> str:
            return function.__name__

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = parameters.bind(*args, **kwargs).arguments
            given = {name: bound[name] for name in tensors if bound.get(name) is not None}
            symbol = next((value for value in given.values() if isinstance(value, Tensor)), None)
            if symbol is not None and symbol.graph.origin:  # inside a layer, which names itself
                return function(**{**bound, **_lifted(symbol.graph, given, integers)})
            with naming(name, FUNCTION):
                if symbol is not None:
                    return function(**{**bound, **_lifted(symbol.graph, given, integers)})
                return _execute(function, bound, given, integers)

        return call  # type: ignore[return-value]

    return decorate


def _lifted(graph: Graph, given: dict[str, Any], integers: tuple[str, ...]) -> dict[str, Any]:
    """The tensor arguments as tensors of the graph; arrays among them become constants."""
    lifted = {
        name: value if isinstance(value, Tensor) else _constant(graph, value, name in integers)
        for name, value in given.items()
    }
    for name, tensor in lifted.items():
        if tensor.dtype == "int64" and name not in integers and tensor.variable is None:  # counters stay what they are
            lifted[name] = graph.record("to_float", tensor)
    return lifted


def _constant(graph: Graph, value: Any, integer: bool) -> Tensor:
    if integer and not isinstance(value, Parameter):
        array = np.asarray(value)
        if array.dtype.kind in "iu":
            return graph.variable(Variable(array, np.int64))
    return graph.constant(value)


def _execute(
    function: Callable[..., Any], bound: dict[str, Any], given: dict[str, Any], integers: tuple[str, ...]
) -> Any:
    arrays = {name: value for name, value in given.items() if not isinstance(value, Buffer)}
    rest = tuple((name, _hashable(value)) for name, value in bound.items() if name not in arrays)
    buffers = tuple(name for name in given if name not in arrays)
    values = [value.data if isinstance(value, Parameter) else value for value in arrays.values()]
    outputs = _compiled(function, tuple(arrays), buffers, rest, integers)(*values)
    return outputs[0] if len(outputs) == 1 else outputs


@lru_cache(maxsize=256)
def _compiled(
    function: Callable[..., Any], arrays: tuple[str, ...], buffers: tuple[str, ...], rest: tuple[tuple[str, Any], ...],
    integers: tuple[str, ...],
) -> Compiled:  # fmt: skip
    def build(graph: Graph, *inputs: Tensor) -> Sequence[Tensor]:
        arguments = {**dict(rest), **dict(zip(arrays, inputs, strict=True))}
        arguments.update({name: graph.constant(arguments[name]) for name in buffers})
        result = function(**arguments)
        return result if isinstance(result, tuple) else (result,)

    return Compiled(build, [name in integers for name in arrays])


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value
