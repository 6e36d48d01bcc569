"""The `reduction` argument of the losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, check_shape


def _check(reduction: str) -> None:
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f'reduction must be "none", "sum" or "mean", not {reduction!r}')


def reduce(values: Array, reduction: str, divisor: Any = None) -> Array:
    """Return the values themselves ("none"), their sum, or their sum over `divisor` (None: their number).

    A mean of nothing is NaN, as in PyTorch. Raises ValueError for another word.

    >>> float(reduce(np.array([1.0, 3.0]), "mean"))
    2.0
    """
    _check(reduction)
    if reduction == "none":
        return values
    total = values.sum()
    if reduction == "sum":
        return total
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / np.asarray(values.size if divisor is None else divisor, values.dtype)


def reduce_backward(dy: Any, values: Array, reduction: str, divisor: Any = None) -> Array:
    """Gradient of `reduce` for the values (of which shape and dtype matter), in their shape.

    Raises ValueError when reduction is "none" and dy has not the shape of the values.

    >>> reduce_backward(1.0, np.zeros(4), "mean").tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    _check(reduction)
    dy = np.asarray(dy, dtype=values.dtype)
    check_shape(dy, values.shape if reduction == "none" else (), "dy")
    if reduction == "mean":
        with np.errstate(invalid="ignore", divide="ignore"):
            dy = np.divide(dy, np.asarray(values.size if divisor is None else divisor, values.dtype))
    return np.broadcast_to(dy, values.shape)
