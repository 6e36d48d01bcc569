"""Shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...axes import axis_index
from ...graph import Tensor
from ...trace import Compiled
from .eager import eager


@eager("input")
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """The axes start_dim to end_dim as one, in logical (N,C,H,W) order.

    Raises ValueError for an axis that is not there.

    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5)), 1).shape
    (2, 60)
    """
    return input.flatten(start_dim, end_dim)


@eager("input")
def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Any:
    """One axis as several, in logical order; one of the sizes may be -1. ValueError when they do not fit.

    >>> import numpy as np
    >>> unflatten(np.zeros((2, 60)), 1, (3, 4, -1)).shape
    (2, 3, 4, 5)
    """
    if input.ndim == 0:
        raise ValueError("unflatten: a single number has no axis; pass x.reshape(1) first")
    axis, extent, sizes = axis_index(dim, input.ndim), input.shape[dim], tuple(int(s) for s in sizes)
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(s < -1 for s in sizes):
        raise ValueError(f"unflatten: {sizes} are not sizes; they are at least 0, and one may be -1")
    if -1 in sizes and known and extent % known == 0:
        sizes = tuple(extent // known if s == -1 else s for s in sizes)
    elif known != extent or -1 in sizes:
        raise ValueError(f"unflatten: axis {dim} of {input.shape} has {extent} elements, which are not {sizes}")
    return input.reshape(*input.shape[:axis], *sizes, *input.shape[axis + 1 :])


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors one behind the other along axis `dim`; their other extents must be equal (ValueError otherwise).

    >>> import numpy as np
    >>> cat([np.zeros((2, 3, 4, 4)), np.zeros((2, 1, 4, 4))], dim=1).shape
    (2, 4, 4, 4)
    """
    if isinstance(tensors, (Tensor, np.ndarray)) or not tensors:
        raise TypeError("cat takes a sequence of at least one tensor")
    if any(isinstance(tensor, Tensor) for tensor in tensors):
        graph = next(tensor.graph for tensor in tensors if isinstance(tensor, Tensor))
        return _cat(*(t if isinstance(t, Tensor) else graph.constant(t) for t in tensors), dim=dim)
    return _compiled_cat(int(dim))(*tensors)[0]


def _cat(*tensors: Tensor, dim: int) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return tensors[0].graph.record("cat", *tensors, axis=axis_index(dim, tensors[0].ndim))


@lru_cache(maxsize=16)
def _compiled_cat(dim: int) -> Compiled:
    return Compiled(lambda graph, *tensors: (_cat(*tensors, dim=dim),))
