"""Pooling to a given output size: window i of P covers rows floor(i*H/P) to ceil((i+1)*H/P), end excluded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .checks import Array, as_float, check_shape
from .geometry import Pair
from .pooling import scatter_to_indices

Size = int | None | Sequence[int | None]


def _output_size(x: Array, output_size: Size) -> Pair:
    """One number serves both axes; None keeps the input's size."""
    as_float(x, "x", 4)
    sizes = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
    if len(sizes) != 2:
        raise ValueError(f"output_size must be a number or two, not {output_size!r}")
    height, width = (given if wanted is None else wanted for wanted, given in zip(sizes, x.shape[2:]))
    if min(height, width) < 1 or min(x.shape[2:]) < 1:
        raise ValueError(f"cannot pool {x.shape[2:]} to {(height, width)}: sizes must be positive")
    return height, width


def _bounds(size: int, count: int) -> list[Pair]:
    return [(i * size // count, -((i + 1) * size // -count)) for i in range(count)]


def _regions(x: Array, output: Pair) -> Iterator[tuple[int, int, Any]]:
    """Yield (p, q, index): x[index] (N,C,rows,columns) is the window of output (p, q)."""
    for p, (top, bottom) in enumerate(_bounds(x.shape[2], output[0])):
        for q, (left, right) in enumerate(_bounds(x.shape[3], output[1])):
            yield p, q, (..., slice(top, bottom), slice(left, right))


def adaptive_avg_pool2d(x: Array, output_size: Size) -> Array:
    """Average of each window: x (N,C,H,W) -> (N,C,P,Q), output_size = P = Q or (P, Q), None for the input's own.

    Raises ValueError for a size that is not positive.

    >>> adaptive_avg_pool2d(np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2)).tolist()
    [[[[1.5, 4.0]]]]
    """
    x = np.asarray(x)
    output = _output_size(x, output_size)
    y = np.empty((*x.shape[:2], *output), dtype=x.dtype)
    for p, q, index in _regions(x, output):
        y[..., p, q] = x[index].mean(axis=(2, 3))
    return y


def adaptive_avg_pool2d_backward(dy: Array, x: Array, output_size: Size) -> Array:
    """dx (N,C,H,W): each dy (N,C,P,Q) over its window's size goes to every element of the window.

    >>> adaptive_avg_pool2d_backward(np.ones((1, 1, 1, 2)), np.zeros((1, 1, 1, 3)), (1, 2)).tolist()
    [[[[0.5, 1.0, 0.5]]]]
    """
    x, dy = np.asarray(x), as_float(dy, "dy", 4)
    output = _output_size(x, output_size)
    check_shape(dy, (*x.shape[:2], *output), "dy")
    dx = np.zeros(x.shape, dtype=dy.dtype)
    for p, q, index in _regions(x, output):
        rows, columns = dx[index].shape[2:]
        dx[index] += dy[..., p, q, None, None] / (rows * columns)
    return dx


def _maximum(x: Array, output: Pair) -> tuple[Array, Array]:
    """Maximum of each window and its h*W + w; the first of equals wins, the last NaN before all."""
    y = np.empty((*x.shape[:2], *output), dtype=x.dtype)
    where = np.empty(y.shape, dtype=np.int64)
    plane = np.arange(x.shape[2] * x.shape[3]).reshape(x.shape[2:])
    for p, q, index in _regions(x, output):
        positions = plane[index].ravel()
        window = x[index].reshape(*x.shape[:2], positions.size)
        is_nan = np.isnan(window)
        last_nan = window.shape[2] - 1 - is_nan[..., ::-1].argmax(axis=2)
        best = np.where(is_nan.any(axis=2), last_nan, window.argmax(axis=2))
        y[..., p, q] = np.take_along_axis(window, best[..., None], axis=2)[..., 0]
        where[..., p, q] = positions[best]
    return y, where


def adaptive_max_pool2d(x: Array, output_size: Size, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """Largest element of each window: x (N,C,H,W) -> (N,C,P,Q), and with return_indices its h*W + w (int64).

    Raises ValueError for a size that is not positive.

    >>> adaptive_max_pool2d(np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2)).tolist()
    [[[[2.0, 6.0]]]]
    """
    x = np.asarray(x)
    y, where = _maximum(x, _output_size(x, output_size))
    return (y, where) if return_indices else y


def adaptive_max_pool2d_backward(dy: Array, x: Array, output_size: Size) -> Array:
    """dx (N,C,H,W): each dy (N,C,P,Q) goes to the element that was its window's maximum.

    >>> adaptive_max_pool2d_backward(np.ones((1, 1, 1, 2)), np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2)).tolist()
    [[[[0.0, 1.0, 1.0]]]]
    """
    x, dy = np.asarray(x), as_float(dy, "dy", 4)
    y, where = _maximum(x, _output_size(x, output_size))
    check_shape(dy, y.shape, "dy")
    return scatter_to_indices(dy, where, x.shape)
