"""Losses that compare x with a target element by element.

x and target have one shape. `reduction` is "mean", "sum" or "none". The backward functions take the loss's gradient
first (a number, or for "none" an array of that shape) and return the gradient of x; targets and weights are constants.
Every function raises ValueError for shapes that differ or an unknown reduction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, as_float, check_shape
from .reduction import reduce, reduce_backward
from .special import log_one_plus_exp, logistic

_LOG_FLOOR = -100.0
_VARIANCE_FLOOR = 1e-12


def _operands(x: Array, target: Array) -> tuple[Array, Array]:
    x, target = as_float(x, "x"), as_float(target, "target")
    check_shape(target, x.shape, "target")
    return x, target


def _positive(value: float, name: str) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return value


def mse_loss(x: Array, target: Array, reduction: str = "mean") -> Array:
    """(x - target)^2.

    >>> float(mse_loss(np.array([1.0, 3.0]), np.array([0.0, 0.0])))
    5.0
    """
    x, target = _operands(x, target)
    return reduce(np.square(x - target), reduction)


def mse_loss_backward(dy: Any, x: Array, target: Array, reduction: str = "mean") -> Array:
    """dx = 2 * (x - target) * dy, over the number of elements for "mean".

    >>> mse_loss_backward(1.0, np.array([1.0, 3.0]), np.array([0.0, 0.0])).tolist()
    [1.0, 3.0]
    """
    x, target = _operands(x, target)
    return 2 * (x - target) * reduce_backward(dy, x, reduction)


def l1_loss(x: Array, target: Array, reduction: str = "mean") -> Array:
    """|x - target|.

    >>> float(l1_loss(np.array([1.0, 3.0]), np.array([2.0, 0.0]), "sum"))
    4.0
    """
    x, target = _operands(x, target)
    return reduce(np.abs(x - target), reduction)


def l1_loss_backward(dy: Any, x: Array, target: Array, reduction: str = "mean") -> Array:
    """dx = sign(x - target) * dy, 0 where they are equal.

    >>> l1_loss_backward(1.0, np.array([1.0, 3.0]), np.array([2.0, 0.0]), "sum").tolist()
    [-1.0, 1.0]
    """
    x, target = _operands(x, target)
    return np.sign(x - target) * reduce_backward(dy, x, reduction)


def huber_loss(x: Array, target: Array, reduction: str = "mean", delta: float = 1.0) -> Array:
    """d^2 / 2 where |d| <= delta, else delta * (|d| - delta/2), with d = x - target.

    Raises ValueError unless delta > 0. Source: Huber, "Robust estimation of a location parameter", 1964.

    >>> huber_loss(np.array([1.0, 4.0]), np.array([0.0, 0.0]), "none", delta=2.0).tolist()
    [0.5, 6.0]
    """
    x, target = _operands(x, target)
    delta, distance = _positive(delta, "delta"), np.abs(x - target)
    return reduce(np.where(distance <= delta, 0.5 * distance**2, delta * (distance - 0.5 * delta)), reduction)


def huber_loss_backward(dy: Any, x: Array, target: Array, reduction: str = "mean", delta: float = 1.0) -> Array:
    """dx = (x - target) clipped to [-delta, delta], times dy.

    >>> huber_loss_backward(1.0, np.array([1.0, 4.0]), np.array([0.0, 0.0]), "sum", delta=2.0).tolist()
    [1.0, 2.0]
    """
    x, target = _operands(x, target)
    delta = _positive(delta, "delta")
    return np.clip(x - target, -delta, delta) * reduce_backward(dy, x, reduction)


def smooth_l1_loss(x: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta/2: huber_loss / beta; beta = 0 is `l1_loss`.

    Raises ValueError for a negative beta.

    >>> smooth_l1_loss(np.array([1.0, 4.0]), np.array([0.0, 0.0]), "none", beta=2.0).tolist()
    [0.25, 3.0]
    """
    if beta == 0:
        return l1_loss(x, target, reduction)
    return huber_loss(x, target, reduction, _positive(beta, "beta")) / beta


def smooth_l1_loss_backward(dy: Any, x: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    """dx = (x - target) / beta clipped to [-1, 1], times dy.

    >>> smooth_l1_loss_backward(1.0, np.array([1.0, 4.0]), np.array([0.0, 0.0]), "sum", beta=2.0).tolist()
    [0.5, 1.0]
    """
    if beta == 0:
        return l1_loss_backward(dy, x, target, reduction)
    return huber_loss_backward(dy, x, target, reduction, _positive(beta, "beta")) / beta


def binary_cross_entropy(x: Array, target: Array, weight: Array | None = None, reduction: str = "mean") -> Array:
    """-weight * (target * log(x) + (1 - target) * log(1 - x)), x in [0, 1]; a logarithm is never below -100.

    weight broadcasts against x. Raises ValueError for x outside [0, 1].

    >>> binary_cross_entropy(np.array([0.0, 0.5]), np.array([1.0, 1.0]), reduction="none").round(4).tolist()
    [100.0, 0.6931]
    """
    x, target = _operands(x, target)
    _check_unit_interval(x)
    with np.errstate(divide="ignore"):
        log_x, log_rest = np.maximum(np.log(x), _LOG_FLOOR), np.maximum(np.log1p(-x), _LOG_FLOOR)
    loss = -(target * log_x + (1 - target) * log_rest)
    return reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_backward(
    dy: Any, x: Array, target: Array, weight: Array | None = None, reduction: str = "mean"
) -> Array:
    """dx = dy * weight * (x - target) / (x * (1 - x)), the divisor being at least 1e-12.

    >>> binary_cross_entropy_backward(1.0, np.array([0.5]), np.array([1.0])).tolist()
    [-2.0]
    """
    x, target = _operands(x, target)
    _check_unit_interval(x)
    dx = reduce_backward(dy, x, reduction) * (x - target) / np.maximum(x * (1 - x), _VARIANCE_FLOOR)
    return dx if weight is None else dx * weight


def _check_unit_interval(x: Array) -> None:
    if ((x < 0) | (x > 1)).any():
        raise ValueError("x of binary_cross_entropy must lie in [0, 1]: pass probabilities, or use the one with logits")


def binary_cross_entropy_with_logits(
    x: Array, target: Array, weight: Array | None = None, reduction: str = "mean", pos_weight: Array | None = None
) -> Array:
    """-weight * (pos_weight * target * log(s) + (1 - target) * log(1 - s)), s = sigmoid(x), without overflow.

    weight and pos_weight broadcast against x.

    >>> float(binary_cross_entropy_with_logits(np.array([-1000.0]), np.array([1.0])))
    1000.0
    """
    x, target = _operands(x, target)
    positive = target if pos_weight is None else target * pos_weight
    loss = positive * log_one_plus_exp(-x) + (1 - target) * log_one_plus_exp(x)
    return reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits_backward(
    dy: Any,
    x: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """dx = dy * weight * ((1 - target) * sigmoid(x) - pos_weight * target * sigmoid(-x)).

    >>> binary_cross_entropy_with_logits_backward(1.0, np.array([0.0]), np.array([1.0])).tolist()
    [-0.5]
    """
    x, target = _operands(x, target)
    positive = target if pos_weight is None else target * pos_weight
    dx = reduce_backward(dy, x, reduction) * ((1 - target) * logistic(x) - positive * logistic(-x))
    return dx if weight is None else dx * weight


def _batch_mean(x: Array, reduction: str) -> tuple[str, int | None]:
    """ "batchmean" is the sum over the first axis's length."""
    if reduction != "batchmean":
        return reduction, None
    if x.ndim == 0:
        raise ValueError('reduction="batchmean" needs a batch axis, but x is a number')
    return "mean", x.shape[0]


def kl_div(x: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    """Kullback-Leibler divergence, elementwise target * (log(target) - x), x being log-probabilities.

    0 where target is 0. log_target: target holds logarithms, exp(target) * (target - x). Besides the usual reductions
    there is "batchmean", the sum over the batch size, which is the divergence itself.

    >>> float(kl_div(np.log(np.array([[0.5, 0.5]])), np.array([[1.0, 0.0]]), "batchmean")) == float(np.log(2))
    True
    """
    x, target = _operands(x, target)
    reduction, divisor = _batch_mean(x, reduction)
    if log_target:
        return reduce(np.exp(target) * (target - x), reduction, divisor)
    positive = target > 0
    logarithm = np.log(np.where(positive, target, 1))
    return reduce(np.where(positive, target * (logarithm - x), 0), reduction, divisor)


def kl_div_backward(dy: Any, x: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    """dx = -dy * target (0 where target is 0), or -dy * exp(target) with log_target.

    >>> kl_div_backward(1.0, np.log(np.array([[0.5, 0.5]])), np.array([[1.0, 0.0]]), "sum").tolist()
    [[-1.0, 0.0]]
    """
    x, target = _operands(x, target)
    reduction, divisor = _batch_mean(x, reduction)
    probability = np.exp(target) if log_target else np.maximum(target, 0)
    return 0 - probability * reduce_backward(dy, x, reduction, divisor)
