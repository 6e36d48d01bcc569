"""Operations that move elements: flatten, cat, pixel shuffle, embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import Array, as_float, check_shape


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


def cat(arrays: Sequence[Array], dim: int = 0) -> Array:
    """Join arrays along `dim`; all other axes must agree (else ValueError).

    >>> cat([np.zeros((1, 2)), np.ones((1, 1))], dim=1).tolist()
    [[0.0, 0.0, 1.0]]
    """
    return np.concatenate(arrays, axis=dim)


def cat_backward(dy: Array, arrays: Sequence[Array], dim: int = 0) -> tuple[Array, ...]:
    """The part of dy that belongs to each array (of the arrays only the shapes matter). Errors as `cat`.

    >>> [part.tolist() for part in cat_backward(np.array([[1.0, 2.0, 3.0]]), [np.zeros((1, 2)), np.ones((1, 1))], 1)]
    [[[1.0, 2.0]], [[3.0]]]
    """
    dy = np.asarray(dy)
    check_shape(dy, cat(arrays, dim).shape, "dy")
    ends = np.cumsum([np.shape(array)[dim] for array in arrays])
    return tuple(np.split(dy, ends[:-1], axis=dim))


def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """x (N,C*r*r,H,W) -> (N,C,H*r,W*r): y[n, c, h*r + i, w*r + j] = x[n, c*r*r + i*r + j, h, w], r = upscale_factor.

    Raises ValueError when r*r does not divide the channels. Source: Shi et al., CVPR 2016.

    >>> pixel_shuffle(np.arange(4.0).reshape(1, 4, 1, 1), 2).tolist()
    [[[[0.0, 1.0], [2.0, 3.0]]]]
    """
    x, r = as_float(x, "x", 4), upscale_factor
    n, c, h, w = x.shape
    if r < 1 or c % (r * r):
        raise ValueError(f"upscale_factor {r} must be positive and its square divide the {c} channels of x {x.shape}")
    split = x.reshape(n, c // (r * r), r, r, h, w)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def pixel_shuffle_backward(dy: Array, upscale_factor: int) -> Array:
    """dx (N,C*r*r,H,W) for dy (N,C,H*r,W*r): the elements sent back.

    >>> pixel_shuffle_backward(np.arange(4.0).reshape(1, 1, 2, 2), 2).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    dy, r = as_float(dy, "dy", 4), upscale_factor
    n, c, height, width = dy.shape
    if r < 1 or height % r or width % r:
        raise ValueError(f"upscale_factor {r} must be positive and divide the image size of dy {dy.shape}")
    split = dy.reshape(n, c, height // r, r, width // r, r)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * r * r, height // r, width // r)


def _check_indices(indices: Array, count: int) -> Array:
    indices = np.asarray(indices)
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"indices must be integers, not {indices.dtype}")
    if indices.size and not (0 <= indices.min() and indices.max() < count):
        raise ValueError(f"indices go from {indices.min()} to {indices.max()}, but the table has {count} rows")
    return indices


def embedding(indices: Array, weight: Array, padding_idx: int | None = None) -> Array:
    """Rows of a table: indices (...) integers, weight (V,D) -> (..., D). padding_idx changes the gradient only.

    Raises ValueError for an index outside the table, TypeError for indices that are no integers.

    >>> embedding(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    weight = as_float(weight, "weight", 2)
    return weight[_check_indices(indices, weight.shape[0])]


def embedding_backward(dy: Array, indices: Array, weight: Array, padding_idx: int | None = None) -> Array:
    """dweight (V,D): the sum of dy (..., D) over the places where each row was used; 0 for row padding_idx.

    Of the weight only the shape matters. Errors as `embedding`.

    >>> embedding_backward(np.ones((3, 1)), np.array([0, 2, 2]), np.zeros((3, 1))).tolist()
    [[1.0], [0.0], [2.0]]
    """
    dy, weight = as_float(dy, "dy"), as_float(weight, "weight", 2)
    indices = _check_indices(indices, weight.shape[0])
    check_shape(dy, (*indices.shape, weight.shape[1]), "dy")
    dweight = np.zeros(weight.shape, dtype=dy.dtype)
    np.add.at(dweight, indices.ravel(), dy.reshape(-1, weight.shape[1]))
    if padding_idx is not None:
        dweight[padding_idx] = 0
    return dweight
