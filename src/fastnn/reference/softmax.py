"""Activations along an axis: softmax, log-softmax, gated linear unit."""

from __future__ import annotations

import numpy as np

from .checks import Array, as_float, check_shape


def softmax(x: Array, dim: int) -> Array:
    """exp(x) / sum of exp(x) along `dim`, shifted by the maximum so that nothing overflows. Shape of x.

    >>> softmax(np.array([1000.0, 1000.0]), 0).tolist()
    [0.5, 0.5]
    """
    x = as_float(x, "x")
    exponential = np.exp(x - x.max(axis=dim, keepdims=True)) if x.size else x.copy()
    return exponential / exponential.sum(axis=dim, keepdims=True)


def softmax_backward(dy: Array, x: Array, dim: int) -> Array:
    """dx = y * (dy - sum(dy * y)) along `dim`, with y = softmax(x).

    >>> softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), 0).tolist()
    [0.25, -0.25]
    """
    y = softmax(x, dim)
    check_shape(np.asarray(dy), y.shape, "dy")
    return y * (dy - (dy * y).sum(axis=dim, keepdims=True))


def log_softmax(x: Array, dim: int) -> Array:
    """x - log(sum of exp(x)) along `dim`, shifted by the maximum so that nothing overflows. Shape of x.

    >>> log_softmax(np.array([1000.0, 0.0]), 0).tolist()
    [0.0, -1000.0]
    """
    x = as_float(x, "x")
    if not x.size:
        return x.copy()
    shifted = x - x.max(axis=dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


def log_softmax_backward(dy: Array, x: Array, dim: int) -> Array:
    """dx = dy - softmax(x) * sum(dy) along `dim`.

    >>> log_softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), 0).tolist()
    [0.5, -0.5]
    """
    probability = softmax(x, dim)
    check_shape(np.asarray(dy), probability.shape, "dy")
    return dy - probability * np.sum(dy, axis=dim, keepdims=True)
