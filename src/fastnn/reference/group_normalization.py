"""Layer, group and instance normalisation: the statistics of `normalization` over other axes.

Source: Ba, Kiros and Hinton 2016; Wu and He 2018; Ulyanov, Vedaldi and Lempitsky 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import Array, as_float, check_shape
from .normalization import (
    Gradients,
    Normalized,
    as_channels_first,
    gradient_through_statistics,
    normalize,
    per_channel,
    statistics,
    update_running,
    variance_factor,
)


def _layer_axes(x: Array, normalized_shape: int | Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape to normalise over as a tuple, and the (trailing) axes of x that have it."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"x {x.shape} must end with normalized_shape {shape}")
    return shape, tuple(range(x.ndim - len(shape), x.ndim))


def layer_norm(
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise x (..., *normalized_shape) over its trailing axes; weight and bias have normalized_shape.

    Raises ValueError when x does not end with normalized_shape.

    >>> layer_norm(np.array([[1.0, 3.0], [0.0, 10.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    x = as_float(x, "x")
    shape, axes = _layer_axes(x, normalized_shape)
    y = normalize(x, *statistics(x, axes), eps)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None:
            check_shape(np.asarray(vector), shape, name)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_norm_backward(
    dy: Array, x: Array, normalized_shape: int | Sequence[int], weight: Array | None = None, eps: float = 1e-5
) -> Gradients:
    """Gradients of `layer_norm`: dy of the shape of x -> dx, dweight and dbias (normalized_shape). Errors as there.

    >>> dx, dweight, dbias = layer_norm_backward(np.array([[1.0, 0.0]]), np.array([[1.0, 3.0]]), 2, eps=0.0)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[0.0, 0.0]], [-1.0, 0.0], [1.0, 0.0])
    """
    dy, x = as_float(dy, "dy"), as_float(x, "x")
    check_shape(dy, x.shape, "dy")
    _, axes = _layer_axes(x, normalized_shape)
    x_hat = normalize(x, *statistics(x, axes), eps)
    dx = gradient_through_statistics(dy if weight is None else dy * weight, x, axes, eps)
    leading = tuple(range(x.ndim - len(axes)))
    return dx, (dy * x_hat).sum(axis=leading), dy.sum(axis=leading)


def _grouped(x: Array, num_groups: int) -> Array:
    """(N,C,...) -> (N,G,C/G,...): every group's values, over which its statistics go, lie along the axes from 2 on."""
    n, c, *spatial = x.shape
    if num_groups < 1 or c % num_groups:
        raise ValueError(f"num_groups={num_groups} must be positive and divide the {c} channels of x {x.shape}")
    return x.reshape(n, num_groups, c // num_groups, *spatial)


def group_norm(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Normalise x (N,C,...) over each of `num_groups` groups of channels of each sample; weight, bias (C).

    Raises ValueError when num_groups does not divide C.

    >>> group_norm(np.array([[[1.0, 3.0], [5.0, 5.0]]]), 2, eps=1e-12).round(3).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]
    """
    x = as_channels_first(x)
    grouped = _grouped(x, num_groups)
    x_hat = normalize(grouped, *statistics(grouped, tuple(range(2, grouped.ndim))), eps).reshape(x.shape)
    return x_hat * per_channel(weight, x, "weight", 1.0) + per_channel(bias, x, "bias", 0.0)


def group_norm_backward(
    dy: Array, x: Array, num_groups: int, weight: Array | None = None, eps: float = 1e-5
) -> Gradients:
    """Gradients of `group_norm`: dy (N,C,...) -> dx (N,C,...), dweight (C), dbias (C). Errors as there.

    >>> group_norm_backward(np.array([[[1.0, 0.0]]]), np.array([[[1.0, 3.0]]]), 1, eps=0.0)[1].tolist()
    [-1.0]
    """
    dy, x = as_channels_first(dy, "dy"), as_channels_first(x)
    check_shape(dy, x.shape, "dy")
    grouped = _grouped(x, num_groups)
    axes = tuple(range(2, grouped.ndim))
    x_hat = normalize(grouped, *statistics(grouped, axes), eps).reshape(x.shape)
    g = _grouped(dy * per_channel(weight, x, "weight", 1.0), num_groups)
    dx = gradient_through_statistics(g, grouped, axes, eps).reshape(x.shape)
    summed = (0, *range(2, x.ndim))
    return dx, (dy * x_hat).sum(axis=summed), dy.sum(axis=summed)


def _instance_statistics(
    x: Array, running_mean: Array | None, running_var: Array | None, use_input_stats: bool
) -> tuple[Array, Array]:
    """(N,C,1,...) statistics of each plane, or the running ones as (1,C,1,...)."""
    if use_input_stats:
        if x.size // max(x.shape[0] * x.shape[1], 1) == 1:
            raise ValueError(f"instance_norm needs more than one value per channel, but x has shape {x.shape}")
        return statistics(x, tuple(range(2, x.ndim)))
    if running_mean is None or running_var is None:
        raise ValueError("instance_norm without use_input_stats needs running_mean and running_var")
    return per_channel(running_mean, x, "running_mean", 0.0), per_channel(running_var, x, "running_var", 1.0)


def instance_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Normalized:
    """Normalise each plane of x (N,C,...) by itself, or by the running statistics (C); weight, bias (C).

    With use_input_stats the running statistics, where given, take the average over the batch of the planes' means
    and unbiased variances. `mean` and `variance` of the result are (N,C), or (C) when they are the running ones.
    Raises ValueError for planes of one value, or missing running statistics when they are asked for.

    >>> instance_norm(np.array([[[1.0, 3.0], [0.0, 10.0]]]), eps=0.0).output.tolist()
    [[[-1.0, 1.0], [-1.0, 1.0]]]
    """
    x = as_channels_first(x)
    mean, variance = _instance_statistics(x, running_mean, running_var, use_input_stats)
    scale, shift = per_channel(weight, x, "weight", 1.0), per_channel(bias, x, "bias", 0.0)
    output = normalize(x, mean, variance, eps) * scale + shift
    if not use_input_stats:
        return Normalized(output, mean.ravel(), variance.ravel(), running_mean, running_var)
    mean, variance = mean.reshape(x.shape[:2]), variance.reshape(x.shape[:2])
    if x.size:
        factor = variance_factor(x.size // mean.size, "unbiased")
        running_mean = update_running(running_mean, mean.mean(axis=0), momentum)
        running_var = update_running(running_var, variance.mean(axis=0) * factor, momentum)
    return Normalized(output, mean, variance, running_mean, running_var)


def instance_norm_backward(
    dy: Array,
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    use_input_stats: bool = True,
    eps: float = 1e-5,
) -> Gradients:
    """Gradients of `instance_norm`: dy (N,C,...) -> dx (N,C,...), dweight (C), dbias (C). Errors as there.

    >>> instance_norm_backward(np.array([[[1.0, 0.0]]]), np.array([[[1.0, 3.0]]]), eps=0.0)[2].tolist()
    [1.0]
    """
    dy, x = as_channels_first(dy, "dy"), as_channels_first(x)
    check_shape(dy, x.shape, "dy")
    mean, variance = _instance_statistics(x, running_mean, running_var, use_input_stats)
    g = dy * per_channel(weight, x, "weight", 1.0)
    if use_input_stats:
        dx = gradient_through_statistics(g, x, tuple(range(2, x.ndim)), eps)
    else:
        dx = g / np.sqrt(variance + eps)
    summed = (0, *range(2, x.ndim))
    return dx, (dy * normalize(x, mean, variance, eps)).sum(axis=summed), dy.sum(axis=summed)
