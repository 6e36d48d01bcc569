"""Operations that move elements: flatten, cat, pixel shuffle, embedding."""

from __future__ import annotations

import numpy as np

from .checks import Array, check_shape


def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Merge the axes start_dim to end_dim of x into one, in logical (N,C,H,W) order. A copy in C order.

    Raises ValueError when start_dim comes after end_dim.

    >>> flatten(np.zeros((2, 3, 4, 5)), 1).shape
    (2, 60)
    """
    x = np.asarray(x)
    rank = max(x.ndim, 1)
    start, end = (axis + rank if axis < 0 else axis for axis in (start_dim, end_dim))
    if not 0 <= start <= end < rank:
        raise ValueError(f"cannot flatten axes {start_dim} to {end_dim} of shape {x.shape}")
    merged = int(np.prod(x.shape[start : end + 1]))
    return np.array(x, order="C").reshape(*x.shape[:start], merged, *x.shape[end + 1 :])


def flatten_backward(dy: Array, x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """dx: dy in the shape of x (of x only the shape matters). Errors as `flatten`.

    >>> flatten_backward(np.zeros((2, 60)), np.zeros((2, 3, 4, 5)), 1).shape
    (2, 3, 4, 5)
    """
    x, dy = np.asarray(x), np.asarray(dy)
    check_shape(dy, flatten(x, start_dim, end_dim).shape, "dy")
    return dy.reshape(x.shape)
