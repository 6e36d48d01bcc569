"""Softmax and what is made along an axis."""

from __future__ import annotations

import math
from typing import Any

from ...axes import axis_index
from ...graph import Tensor
from .eager import eager


def _along(operation: str, input: Tensor, dim: int | None) -> Tensor:
    """Records an operation over the innermost axis in memory for another axis, too."""
    axis = axis_index(_default_dim(input.ndim) if dim is None else dim, input.ndim)
    innermost = 1 if input.ndim == 4 else input.ndim - 1
    if axis == innermost or input.ndim == 0:
        return input.graph.record(operation, input)
    before, extent, behind = input.shape[:axis], input.shape[axis], input.shape[axis + 1 :]
    image = input.reshape(math.prod(before), extent, 1, math.prod(behind))
    return input.graph.record(operation, image).reshape(*input.shape)


def _default_dim(ndim: int) -> int:
    """PyTorch's rule for dim=None."""
    return 0 if ndim in (0, 1, 3) else 1


@eager("input")
def softmax(input: Any, dim: int | None = None) -> Any:
    """exp(input) / sum of exp(input) along `dim`, shifted by the maximum so that nothing overflows.

    input : any shape. dim : None means 1, for inputs of one or three axes 0, as in PyTorch.

    >>> import numpy as np
    >>> softmax(np.array([[1000.0, 1000.0]]), 1)
    array([[0.5, 0.5]], dtype=float32)
    """
    return _along("softmax", input, dim)


@eager("input")
def log_softmax(input: Any, dim: int | None = None) -> Any:
    """input - log(sum of exp(input)) along `dim`, shifted by the maximum so that nothing overflows.

    input : any shape. dim : None means 1, for inputs of one or three axes 0, as in PyTorch.

    >>> import numpy as np
    >>> log_softmax(np.array([[1000.0, 0.0]]), 1)
    array([[    0., -1000.]], dtype=float32)
    """
    return _along("log_softmax", input, dim)


@eager("input")
def glu(input: Any, dim: int = -1) -> Any:
    """The first half along `dim` times the sigmoid of the second half. ValueError for an odd extent.

    Source: Dauphin et al., "Language modeling with gated convolutional networks", ICML 2017.

    >>> import numpy as np
    >>> glu(np.array([3.0, 0.0]))
    array([1.5], dtype=float32)
    """
    axis = axis_index(dim, input.ndim)
    if input.ndim == 0 or input.shape[axis] % 2:
        raise ValueError(f"glu halves axis {dim}, whose extent must be even, got an input of shape {input.shape}")
    return input.graph.record("glu", input, axis=axis)
