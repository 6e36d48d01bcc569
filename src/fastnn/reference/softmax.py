"""Activations along an axis: softmax, log-softmax, gated linear unit."""

from __future__ import annotations

import numpy as np

from .checks import Array, as_float, check_shape
from .special import logistic


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


def _halves(x: Array, dim: int) -> tuple[Array, Array]:
    if x.ndim == 0 or x.shape[dim] % 2:
        raise ValueError(f"glu needs an even size along dim {dim}, but x has shape {x.shape}")
    first, second = np.split(x, 2, axis=dim)
    return first, second


def glu(x: Array, dim: int = -1) -> Array:
    """First half of x along `dim` times the sigmoid of the second half; that axis is halved.

    Raises ValueError for an odd size. Source: Dauphin et al., ICML 2017.

    >>> glu(np.array([3.0, 0.0])).tolist()
    [1.5]
    """
    value, gate = _halves(as_float(x, "x"), dim)
    return value * logistic(gate)


def glu_backward(dy: Array, x: Array, dim: int = -1) -> Array:
    """dx, the shape of x: dy * s for the first half, dy * value * s * (1 - s) for the second, s = sigmoid(gate).

    >>> glu_backward(np.ones(1), np.array([3.0, 0.0])).tolist()
    [0.5, 0.75]
    """
    value, gate = _halves(as_float(x, "x"), dim)
    check_shape(np.asarray(dy), value.shape, "dy")
    s = logistic(gate)
    return np.concatenate([dy * s, dy * value * s * logistic(-gate)], axis=dim)
