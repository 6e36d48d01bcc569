"""Smooth activations: sigmoid, tanh, softplus and what is made of them.

Every function maps x of any shape to y of that shape and raises TypeError unless the dtype is real floating;
`<name>_backward(dy, x, ...)` returns dx = dy * f'(x).
"""

from __future__ import annotations

import math

import numpy as np

from .checks import Array, as_float, check_shape
from .special import erfc, log_one_plus_exp, logistic

_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_OVER_PI = math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715


def _operands(dy: Array, x: Array) -> tuple[Array, Array]:
    dy, x = as_float(dy, "dy"), as_float(x, "x")
    check_shape(dy, x.shape, "dy")
    return dy, x


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)).

    >>> sigmoid(np.array([-1000.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    return logistic(as_float(x, "x"))


def sigmoid_backward(dy: Array, x: Array) -> Array:
    """dx = dy * y * (1 - y), with y = sigmoid(x).

    >>> sigmoid_backward(np.ones(1), np.zeros(1)).tolist()
    [0.25]
    """
    dy, x = _operands(dy, x)
    return dy * logistic(x) * logistic(-x)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent.

    >>> tanh(np.array([0.0, 100.0])).tolist()
    [0.0, 1.0]
    """
    return np.tanh(as_float(x, "x"))


def tanh_backward(dy: Array, x: Array) -> Array:
    """dx = dy * (1 - y^2), with y = tanh(x).

    >>> tanh_backward(np.ones(1), np.zeros(1)).tolist()
    [1.0]
    """
    dy, x = _operands(dy, x)
    return dy * (1 - np.square(np.tanh(x)))


def logsigmoid(x: Array) -> Array:
    """log(sigmoid(x)), without overflow or loss for large |x|.

    >>> logsigmoid(np.array([-1000.0])).tolist()
    [-1000.0]
    """
    return -log_one_plus_exp(-as_float(x, "x"))


def logsigmoid_backward(dy: Array, x: Array) -> Array:
    """dx = dy * sigmoid(-x).

    >>> logsigmoid_backward(np.ones(1), np.zeros(1)).tolist()
    [0.5]
    """
    dy, x = _operands(dy, x)
    return dy * logistic(-x)


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold. Raises ValueError for beta = 0.

    >>> softplus(np.array([-1000.0, 1000.0])).tolist()
    [0.0, 1000.0]
    """
    x = as_float(x, "x")
    if beta == 0:
        raise ValueError("beta must not be zero")
    return np.where(x * beta > threshold, x, log_one_plus_exp(beta * x) / beta)


def softplus_backward(dy: Array, x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """dx = dy * sigmoid(beta * x), and dy where beta * x > threshold.

    >>> softplus_backward(np.ones(2), np.array([0.0, 1000.0])).tolist()
    [0.5, 1.0]
    """
    dy, x = _operands(dy, x)
    return np.where(x * beta > threshold, dy, dy * logistic(beta * x))


def softsign(x: Array) -> Array:
    """x / (1 + |x|).

    >>> softsign(np.array([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """
    x = as_float(x, "x")
    return x / (1 + np.abs(x))


def softsign_backward(dy: Array, x: Array) -> Array:
    """dx = dy / (1 + |x|)^2.

    >>> softsign_backward(np.ones(1), np.array([-1.0])).tolist()
    [0.25]
    """
    dy, x = _operands(dy, x)
    return dy / np.square(1 + np.abs(x))


def silu(x: Array) -> Array:
    """x * sigmoid(x), also called swish. Source: Elfwing, Uchibe and Doya 2018.

    >>> silu(np.array([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    x = as_float(x, "x")
    return x * logistic(x)


def silu_backward(dy: Array, x: Array) -> Array:
    """dx = dy * s * (1 + x * (1 - s)), with s = sigmoid(x).

    >>> silu_backward(np.ones(1), np.zeros(1)).tolist()
    [0.5]
    """
    dy, x = _operands(dy, x)
    return dy * logistic(x) * (1 + x * logistic(-x))


def mish(x: Array) -> Array:
    """x * tanh(log(1 + exp(x))). Source: Misra 2020.

    >>> mish(np.array([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    x = as_float(x, "x")
    return x * np.tanh(log_one_plus_exp(x))


def mish_backward(dy: Array, x: Array) -> Array:
    """dx = dy * (t + x * (1 - t^2) * sigmoid(x)), with t = tanh(log(1 + exp(x))).

    >>> mish_backward(np.ones(1), np.zeros(1)).round(12).tolist()
    [0.6]
    """
    dy, x = _operands(dy, x)
    t = np.tanh(log_one_plus_exp(x))
    return dy * (t + x * (1 - np.square(t)) * logistic(x))


def _normal_distribution(x: Array) -> Array:
    """Probability that a standard normal number is below x, accurate in the far tail as well."""
    return 0.5 * erfc(-x * _SQRT_HALF)


def _check_approximate(approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise ValueError(f'approximate must be "none" or "tanh", not {approximate!r}')


def gelu(x: Array, approximate: str = "none") -> Array:
    """x * P(standard normal < x), or with approximate="tanh" x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    Raises ValueError for another word. Source: Hendrycks and Gimpel 2016.

    >>> gelu(np.array([0.0, 1.0])).round(4).tolist(), gelu(np.array([1.0]), "tanh").round(4).tolist()
    ([0.0, 0.8413], [0.8412])
    """
    x = as_float(x, "x")
    _check_approximate(approximate)
    if approximate == "none":
        return x * _normal_distribution(x)
    return x * logistic(2 * _SQRT_TWO_OVER_PI * (x + _GELU_CUBIC * x**3))


def gelu_backward(dy: Array, x: Array, approximate: str = "none") -> Array:
    """dx = dy * (P(x) + x * p(x)), with the normal distribution P and its density p; "tanh": the formula's derivative.

    (1 + tanh(u))/2 is the logistic function of 2u, which is how the approximation is written here.

    >>> gelu_backward(np.ones(1), np.zeros(1)).tolist(), gelu_backward(np.ones(1), np.zeros(1), "tanh").tolist()
    ([0.5], [0.5])
    """
    dy, x = _operands(dy, x)
    _check_approximate(approximate)
    if approximate == "none":
        density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        return dy * (_normal_distribution(x) + x * density)
    u = 2 * _SQRT_TWO_OVER_PI * (x + _GELU_CUBIC * x**3)
    du = 2 * _SQRT_TWO_OVER_PI * (1 + 3 * _GELU_CUBIC * x * x)
    return dy * logistic(u) * (1 + x * du * logistic(-u))
