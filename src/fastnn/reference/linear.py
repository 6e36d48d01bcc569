"""The affine map of a dense layer."""

from __future__ import annotations

import numpy as np

from .checks import Array, as_float, check_shape


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y = x @ weight.T + bias: x (..., C), weight (K,C), bias (K) -> (..., K).

    Raises ValueError when the last axis of x is not C.

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 0.0])).tolist()
    [[11.5, 17.0]]
    """
    x, weight = as_float(x, "x"), as_float(weight, "weight", 2)
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"the last axis of x {x.shape} must match weight {weight.shape}: (..., {weight.shape[1]})")
    y = x @ weight.T
    if bias is not None:
        check_shape(np.asarray(bias), weight.shape[:1], "bias")
        y = y + bias
    return y


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of `linear`: dy (..., K) -> dx = dy @ weight (..., C), dweight = dy.T @ x (K,C), dbias (K).

    Raises ValueError when dy has not the shape of the output.

    >>> linear_backward(np.array([[2.0]]), np.array([[1.0, 3.0]]), np.array([[4.0, 5.0]]))
    (array([[ 8., 10.]]), array([[2., 6.]]), array([2.]))
    """
    dy, x, weight = as_float(dy, "dy"), as_float(x, "x"), as_float(weight, "weight", 2)
    check_shape(dy, (*x.shape[:-1], weight.shape[0]), "dy")
    rows_dy, rows_x = dy.reshape(-1, weight.shape[0]), x.reshape(-1, weight.shape[1])
    return dy @ weight, rows_dy.T @ rows_x, rows_dy.sum(axis=0)
