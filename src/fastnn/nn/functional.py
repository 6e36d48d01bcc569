"""torch.nn.functional's names: on symbolic tensors they record, on arrays they execute at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, TypeVar

from ..graph import Graph, Tensor
from ..trace import Compiled
from .parameter import Parameter

Function = TypeVar("Function", bound=Callable[..., Any])


@lru_cache(maxsize=256)
def _compiled(function: Callable[..., Any], tensors: tuple[str, ...], rest: tuple[tuple[str, Any], ...]) -> Compiled:
    def build(graph: Graph, *inputs: Tensor) -> Sequence[Tensor]:
        result = function(**dict(zip(tensors, inputs, strict=True)), **dict(rest))
        return result if isinstance(result, tuple) else (result,)

    return Compiled(build, [name in ("target", "indices") for name in tensors])


def _eager(*tensors: str) -> Callable[[Function], Function]:
    """Lets a function of tensors be called with arrays, too; names the arguments that are tensors."""

    def decorate(function: Function) -> Function:
        bind = signature(function).bind

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = bind(*args, **kwargs).arguments
            given = {name: bound[name] for name in tensors if bound.get(name) is not None}
            symbol = next((value for value in given.values() if isinstance(value, Tensor)), None)
            if symbol is not None:
                lifted = {n: v if isinstance(v, Tensor) else symbol.graph.constant(v) for n, v in given.items()}
                return function(**{**bound, **lifted})
            arrays = [value.data if isinstance(value, Parameter) else value for value in given.values()]
            rest = tuple((name, _hashable(value)) for name, value in bound.items() if name not in given)
            outputs = _compiled(function, tuple(given), rest)(*arrays)
            return outputs[0] if len(outputs) == 1 else outputs

        return call  # type: ignore[return-value]

    return decorate


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value


@_eager("input")
def relu(input: Any, inplace: bool = False) -> Any:
    """max(input, 0).

    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.], dtype=float32)
    """
    return input.graph.record("relu", input)


@_eager("input")
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """The axes start_dim to end_dim as one, in logical (N,C,H,W) order.

    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5)), 1).shape
    (2, 60)
    """
    return input.flatten(start_dim, end_dim)
