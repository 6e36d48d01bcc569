"""Losses over classes: cross-entropy and negative log-likelihood.

`reduction` is "mean", "sum" or "none". The backward functions take the loss's gradient first (a number, or for "none"
an array of the loss's shape) and return the gradient of x; targets and weights are constants.
Letters: N batch, C classes, ... further axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, as_float, check_shape
from .reduction import reduce, reduce_backward
from .softmax import log_softmax, softmax


def _class_weights(weight: Array | None, x: Array) -> Array:
    """(C) -> (1,C,1,...); None -> ones."""
    weight = np.ones(x.shape[1], x.dtype) if weight is None else np.asarray(weight)
    check_shape(weight, (x.shape[1],), "weight")
    return weight.reshape(1, -1, *([1] * (x.ndim - 2)))


def _one_hot(target: Array, x: Array, ignore_index: int) -> Array:
    """Class indices (N,...) -> 1 at the class, 0 elsewhere and wherever ignored, (N,C,...). Checks shape and range."""
    check_shape(target, (x.shape[0], *x.shape[2:]), "target")
    ignored = target == ignore_index
    wrong = ~ignored & ((target < 0) | (target >= x.shape[1]))
    if wrong.any():
        raise ValueError(f"target {target[wrong][0]} is not a class of x {x.shape}: 0 to {x.shape[1] - 1}")
    classes = np.arange(x.shape[1]).reshape(1, -1, *([1] * (x.ndim - 2)))
    return ((classes == target[:, None]) & ~ignored[:, None]).astype(x.dtype)


def _coefficients(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Any]:
    """Write cross-entropy as -sum over c of q * log_softmax(x): return q (N,C,...) and what "mean" divides by."""
    if x.ndim < 2:
        raise ValueError(f"x must be (N, C, ...), but its shape is {x.shape}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0 and 1, not {label_smoothing}")
    weights, classes = _class_weights(weight, x), x.shape[1]
    if np.issubdtype(target.dtype, np.floating):
        check_shape(target, x.shape, "target")
        smooth = target * (1 - label_smoothing) + label_smoothing / classes
        return smooth * weights, np.asarray(x.size // classes, x.dtype)
    if not np.issubdtype(target.dtype, np.integer):
        raise TypeError(f"target must be class indices or probabilities, not {target.dtype}")
    hot = _one_hot(target, x, ignore_index)
    labelled = hot.sum(axis=1, keepdims=True)  # 0 where ignored
    q = weights * ((1 - label_smoothing) * hot + label_smoothing / classes * labelled)
    return q, (weights * hot).sum()


def _weighted_sum(q: Array, log_probability: Array) -> Array:
    """-sum over c of q * log_probability, where a zero q also silences an infinite logarithm."""
    return -np.where(q == 0, 0, q * np.where(q == 0, 0, log_probability)).sum(axis=1)


def cross_entropy(
    x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    """Cross-entropy of softmax(x), x (N,C,...) logits, with target classes (N,...) or probabilities (N,C,...).

    -sum_c q_c log_softmax(x)_c, with q the (smoothed) target times the class weight (C). "mean" divides by the sum of
    the target classes' weights, or by the number of rows for probabilities. Rows with ignore_index count nowhere.
    Raises ValueError for shapes that do not fit and for a class out of range.

    >>> float(cross_entropy(np.zeros((2, 4)), np.array([1, 3]))) == float(np.log(4))
    True
    """
    x, target = as_float(x, "x"), np.asarray(target)
    q, divisor = _coefficients(x, target, weight, ignore_index, label_smoothing)
    return reduce(_weighted_sum(q, log_softmax(x, 1)), reduction, divisor)


def cross_entropy_backward(
    dy: Any, x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    """dx (N,C,...) = dy / divisor * (softmax(x) * sum_c q - q). Errors as `cross_entropy`.

    >>> cross_entropy_backward(1.0, np.zeros((1, 2)), np.array([0])).tolist()
    [[-0.5, 0.5]]
    """
    x, target = as_float(x, "x"), np.asarray(target)
    q, divisor = _coefficients(x, target, weight, ignore_index, label_smoothing)
    rows = reduce_backward(dy, x[:, 0], reduction, divisor)
    return rows[:, None] * (softmax(x, 1) * q.sum(axis=1, keepdims=True) - q)


def nll_loss(
    x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """Negative log-likelihood of target classes (N,...), x (N,C,...) being log-probabilities.

    -weight[target] * x[target]; "mean" divides by the sum of the target classes' weights. Errors as `cross_entropy`.

    >>> float(nll_loss(np.array([[-0.5, -2.0]]), np.array([1])))
    2.0
    """
    x, target = as_float(x, "x"), np.asarray(target)
    _check_indices(target)
    q, divisor = _coefficients(x, target, weight, ignore_index, 0.0)
    return reduce(_weighted_sum(q, x), reduction, divisor)


def nll_loss_backward(
    dy: Any, x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """dx (N,C,...) = -dy / divisor * weight at the target class, 0 elsewhere. Errors as `nll_loss`.

    >>> nll_loss_backward(1.0, np.array([[-0.5, -2.0]]), np.array([1])).tolist()
    [[0.0, -1.0]]
    """
    x, target = as_float(x, "x"), np.asarray(target)
    _check_indices(target)
    q, divisor = _coefficients(x, target, weight, ignore_index, 0.0)
    rows = reduce_backward(dy, x[:, 0], reduction, divisor)
    return np.where(q == 0, 0, -q) * rows[:, None]


def _check_indices(target: Array) -> None:
    if not np.issubdtype(target.dtype, np.integer):
        raise TypeError(f"target of nll_loss must be class indices, not {target.dtype}")
