"""Batch normalisation, and what all normalisations share.

All of them: x_hat = (x - mean) / sqrt(variance + eps), y = x_hat * weight + bias, with mean and *biased* variance
taken over some axes A of m elements. With g = dy * weight the gradient through the statistics is

    dx = (g - mean_A(g) - x_hat * mean_A(g * x_hat)) / sqrt(variance + eps)

The variance is computed from centred values, never as E[x^2] - E[x]^2.
Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .checks import Array, as_float, check_shape

Axes = tuple[int, ...]
Gradients = tuple[Array, Array, Array]


class Normalized(NamedTuple):
    """What `batch_norm` and `instance_norm` return.

    `output` has the shape of x; `mean` and `variance` (biased) are what x was normalised with; `running_mean` and
    `running_var` (C) are the statistics after this call (new arrays, or None where None was given).

    >>> Normalized(*range(5)).running_var
    4
    """

    output: Array
    mean: Array
    variance: Array
    running_mean: Array | None
    running_var: Array | None


def statistics(x: Array, axes: Axes) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, kept as axes of length one; zeros when x is empty."""
    if x.size == 0:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        return np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)
    mean = x.mean(axis=axes, keepdims=True)
    return mean, np.square(x - mean).mean(axis=axes, keepdims=True)


def normalize(x: Array, mean: Array, variance: Array, eps: float) -> Array:
    return (x - mean) / np.sqrt(variance + eps)


def gradient_through_statistics(g: Array, x: Array, axes: Axes, eps: float) -> Array:
    """The formula at the head of this file: g = dL/dx_hat -> dL/dx."""
    mean, variance = statistics(x, axes)
    x_hat = normalize(x, mean, variance, eps)
    if x.size == 0:
        return g * x_hat
    g_mean = g.mean(axis=axes, keepdims=True)
    g_x_hat_mean = (g * x_hat).mean(axis=axes, keepdims=True)
    return (g - g_mean - x_hat * g_x_hat_mean) / np.sqrt(variance + eps)


def per_channel(vector: Array | None, x: Array, name: str, default: float) -> Array:
    """(C) -> (1,C,1,...), broadcastable against x (N,C,...); None -> `default`."""
    channels = x.shape[1]
    if vector is None:
        vector = np.full(channels, default, dtype=x.dtype)
    vector = np.asarray(vector)
    check_shape(vector, (channels,), name)
    return vector.reshape(1, channels, *([1] * (x.ndim - 2)))


def as_channels_first(x: Array, name: str = "x") -> Array:
    x = as_float(x, name)
    if x.ndim < 2:
        raise ValueError(f"{name} must be (N, C, ...), but its shape is {x.shape}")
    return x


def update_running(running: Array | None, batch: Array, momentum: float) -> Array | None:
    """(1 - momentum) * running + momentum * batch: momentum is the weight of the new batch."""
    return None if running is None else (1 - momentum) * np.asarray(running) + momentum * batch


def variance_factor(count: int, estimator: str) -> float:
    """What turns a biased variance of `count` elements into the one that is kept as running_var."""
    if estimator == "biased":
        return 1.0
    if estimator == "unbiased":
        return count / (count - 1)
    raise ValueError(f'running_var_estimator must be "unbiased" or "biased", not {estimator!r}')


def batch_norm(
    x: Array, running_mean: Array | None, running_var: Array | None, weight: Array | None = None,
    bias: Array | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *,
    running_var_estimator: str = "unbiased",
) -> Normalized:  # fmt: skip
    """Batch normalisation of x (N,C,...) per channel; weight, bias, running_mean, running_var (C).

    training: normalise with the batch's mean and biased variance, and return the updated running statistics
    (momentum = weight of the new batch; running_var takes the unbiased variance, or the biased one as in Keras).
    Otherwise normalise with the running statistics. An empty batch leaves them as they are.
    Raises ValueError for one value per channel in training, or missing running statistics outside it.

    >>> y, mean, variance, _, running_var = batch_norm(np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1), training=True)
    >>> y.round(3).tolist(), mean.tolist(), variance.tolist(), running_var.round(3).tolist()
    ([[-1.0], [1.0]], [2.0], [1.0], [1.1])
    """
    x = as_channels_first(x)
    scale, shift = per_channel(weight, x, "weight", 1.0), per_channel(bias, x, "bias", 0.0)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm outside training needs running_mean and running_var")
        mean, variance = (
            per_channel(running_mean, x, "running_mean", 0.0),
            per_channel(running_var, x, "running_var", 1.0),
        )
        output = normalize(x, mean, variance, eps) * scale + shift
        return Normalized(output, mean.ravel(), variance.ravel(), running_mean, running_var)
    count = x.size // x.shape[1] if x.shape[1] else 0
    if count == 1:
        raise ValueError(f"batch_norm in training needs more than one value per channel, but x has shape {x.shape}")
    mean, variance = statistics(x, (0, *range(2, x.ndim)))
    output = normalize(x, mean, variance, eps) * scale + shift
    if count:
        running_mean = update_running(running_mean, mean.ravel(), momentum)
        factor = variance_factor(count, running_var_estimator)
        running_var = update_running(running_var, variance.ravel() * factor, momentum)
    return Normalized(output, mean.ravel(), variance.ravel(), running_mean, running_var)


def batch_norm_backward(
    dy: Array, x: Array, running_mean: Array | None = None, running_var: Array | None = None,
    weight: Array | None = None, training: bool = False, eps: float = 1e-5,
) -> Gradients:  # fmt: skip
    """Gradients of `batch_norm`: dy (N,C,...) -> dx (N,C,...), dweight (C), dbias (C).

    In training the gradient flows through the batch statistics; otherwise the statistics are constants.
    Raises ValueError when dy has not the shape of x, or statistics are missing outside training.

    >>> dy, x = np.array([[1.0], [0.0]]), np.array([[1.0], [3.0]])
    >>> dx, dweight, dbias = batch_norm_backward(dy, x, training=True, eps=0.0)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[0.0], [0.0]], [-1.0], [1.0])
    """
    dy, x = as_channels_first(dy, "dy"), as_channels_first(x)
    check_shape(dy, x.shape, "dy")
    axes = (0, *range(2, x.ndim))
    g = dy * per_channel(weight, x, "weight", 1.0)
    if training:
        mean, variance = statistics(x, axes)
        dx = gradient_through_statistics(g, x, axes, eps)
    else:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm_backward outside training needs running_mean and running_var")
        mean, variance = (
            per_channel(running_mean, x, "running_mean", 0.0),
            per_channel(running_var, x, "running_var", 1.0),
        )
        dx = g / np.sqrt(variance + eps)
    x_hat = normalize(x, mean, variance, eps)
    return dx, (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)
