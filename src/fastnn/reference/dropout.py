"""Dropout in its forms, with masks that are functions of (seed, layer, step, element) and are never stored.

The elements of a tensor are counted in memory order: N,H,W,C for 4-D input (N,C,H,W), which lies channels-last, the
plain order for every other rank. A dropped element is exactly 0, whatever x was. p = 0 changes nothing,
p = 1 drops all. The backward functions take the arguments of the forward call (without x) and multiply dy by the
same factors.
Source: Srivastava et al. 2014 (dropout and Gaussian); Tompson et al. 2015 (whole channels); Klambauer et al. 2017.
"""

from __future__ import annotations

import math

import numpy as np

from .checks import Array, as_float, check_probability
from .random import keep_mask, normal

_SELU_NEGATIVE_LIMIT = -1.7580993408473766
"""-lambda * alpha of SELU: what alpha dropout puts in place of a dropped element."""


def in_memory_order(values: Array, shape: tuple[int, ...]) -> Array:
    """Give a flat list the logical `shape`, its order being that of memory."""
    if len(shape) != 4:
        return values.reshape(shape)
    n, c, h, w = shape
    return np.moveaxis(values.reshape(n, h, w, c), -1, 1)


def dropout_mask(
    shape: tuple[int, ...], p: float = 0.5, *, seed: int = 0, layer: int = 0, step: int = 0, channels: bool = False
) -> Array:
    """Which elements of a tensor of `shape` are kept (bool).

    channels: one decision for each (n, c), number n*C + c, of shape (N,C,1,...).
    Raises ValueError for p outside [0, 1].

    >>> dropout_mask((2, 3), 1.0).any().item(), dropout_mask((2, 3, 4, 5), channels=True).shape
    (False, (2, 3, 1, 1))
    """
    if channels:
        n, c, *spatial = shape
        return keep_mask(n * c, p, seed, layer, step).reshape(n, c, *([1] * len(spatial)))
    return in_memory_order(keep_mask(int(np.prod(shape)), p, seed, layer, step), shape)


def _drop(
    x: Array, p: float, training: bool, seed: int, layer: int, step: int, mode: str, channels: bool = False
) -> Array:
    check_probability(p)
    if mode not in ("inverted", "classic"):
        raise ValueError(f'mode must be "inverted" or "classic", not {mode!r}')
    if not training:
        return x * np.asarray(1.0 - p, x.dtype) if mode == "classic" else x.copy()
    kept = dropout_mask(x.shape, p, seed=seed, layer=layer, step=step, channels=channels)
    scale = 1.0 / (1.0 - p) if mode == "inverted" and p < 1.0 else 1.0
    return np.where(kept, x * np.asarray(scale, x.dtype), np.zeros((), x.dtype))


def dropout(
    x: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0,
    mode: str = "inverted",
) -> Array:  # fmt: skip
    """Drop each element of x (any shape) with probability p; the others grow by 1/(1-p).

    mode="classic" leaves them as they are and multiplies by 1-p outside training instead, as first published.
    Raises ValueError for p outside [0, 1] or an unknown mode.

    >>> sorted(set(dropout(np.ones(100), 0.5).tolist()))
    [0.0, 2.0]
    """
    return _drop(as_float(x, "x"), p, training, seed, layer, step, mode)


def dropout_backward(
    dy: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0,
    mode: str = "inverted",
) -> Array:  # fmt: skip
    """dx of `dropout`: dy times the same mask and scale.

    >>> bool((dropout_backward(np.ones(9), 0.3, seed=5) == dropout(np.ones(9), 0.3, seed=5)).all())
    True
    """
    return _drop(as_float(dy, "dy"), p, training, seed, layer, step, mode)


def dropout1d(
    x: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0,
    mode: str = "inverted",
) -> Array:  # fmt: skip
    """Drop whole channels of x (N,C,L) with probability p, otherwise as `dropout`.

    Raises ValueError for another rank.

    >>> dropout1d(np.ones((2, 3, 4)), 0.5).std(axis=2).max().item()
    0.0
    """
    return _drop(as_float(x, "x", 3), p, training, seed, layer, step, mode, channels=True)


def dropout1d_backward(
    dy: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0,
    mode: str = "inverted",
) -> Array:  # fmt: skip
    """dx (N,C,L) of `dropout1d`.

    >>> dropout1d_backward(np.ones((1, 1, 2)), 0.0).tolist()
    [[[1.0, 1.0]]]
    """
    return _drop(as_float(dy, "dy", 3), p, training, seed, layer, step, mode, channels=True)


def dropout2d(
    x: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0,
    mode: str = "inverted",
) -> Array:  # fmt: skip
    """Drop whole channels of x (N,C,H,W) with probability p, otherwise as `dropout`.

    Raises ValueError for another rank.

    >>> dropout2d(np.ones((2, 3, 4, 5)), 0.5).std(axis=(2, 3)).max().item()
    0.0
    """
    return _drop(as_float(x, "x", 4), p, training, seed, layer, step, mode, channels=True)


def dropout2d_backward(
    dy: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0,
    mode: str = "inverted",
) -> Array:  # fmt: skip
    """dx (N,C,H,W) of `dropout2d`.

    >>> dropout2d_backward(np.ones((1, 1, 1, 2)), 1.0).tolist()
    [[[[0.0, 0.0]]]]
    """
    return _drop(as_float(dy, "dy", 4), p, training, seed, layer, step, mode, channels=True)


def gaussian_dropout(
    x: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0
) -> Array:
    """Multiply each element of x by noise of N(1, p/(1-p)) in training; the identity otherwise.

    noise = 1 + sqrt(p/(1-p)) * z with z from `normal`. Raises ValueError unless 0 <= p < 1.

    >>> gaussian_dropout(np.ones(3), 0.0).tolist()
    [1.0, 1.0, 1.0]
    """
    x = as_float(x, "x")
    if check_probability(p) == 1.0:
        raise ValueError("gaussian_dropout needs p < 1: its noise has variance p/(1-p)")
    if not training or p == 0.0:
        return x.copy()
    z = in_memory_order(normal(x.size, seed, layer, step), x.shape)
    return x * (1.0 + np.sqrt(p / (1.0 - p)) * z).astype(x.dtype)


def gaussian_dropout_backward(
    dy: Array, p: float = 0.5, training: bool = True, *, seed: int = 0, layer: int = 0, step: int = 0
) -> Array:
    """dx of `gaussian_dropout`: dy times the same noise.

    >>> gaussian_dropout_backward(np.ones(2), training=False).tolist()
    [1.0, 1.0]
    """
    return gaussian_dropout(as_float(dy, "dy"), p, training, seed=seed, layer=layer, step=step)


def _alpha_scale(p: float) -> float:
    """a in y = a*(x or limit) + b that keeps mean 0 and variance 1: ((1-p) * (1 + p*limit^2))^(-1/2)."""
    return 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _SELU_NEGATIVE_LIMIT**2))


def alpha_dropout(
    x: Array, p: float = 0.5, training: bool = False, *, seed: int = 0, layer: int = 0, step: int = 0
) -> Array:
    """Set elements of x to SELU's negative limit with probability p, then scale and shift to keep mean 0, variance 1.

    y = a * (x where kept, limit where dropped) - a * limit * p; the identity outside training; zeros for p = 1.
    Raises ValueError for p outside [0, 1].

    >>> alpha_dropout(np.ones(2), training=False).tolist()
    [1.0, 1.0]
    """
    x = as_float(x, "x")
    if not training or check_probability(p) == 0.0:
        return x.copy()
    if p == 1.0:
        return np.zeros_like(x)
    a = _alpha_scale(p)
    kept = dropout_mask(x.shape, p, seed=seed, layer=layer, step=step)
    dropped_value = a * _SELU_NEGATIVE_LIMIT * (1.0 - p)
    shift = -a * _SELU_NEGATIVE_LIMIT * p
    return np.where(kept, a * x + shift, np.asarray(dropped_value, x.dtype)).astype(x.dtype)


def alpha_dropout_backward(
    dy: Array, p: float = 0.5, training: bool = False, *, seed: int = 0, layer: int = 0, step: int = 0
) -> Array:
    """dx of `alpha_dropout`: a * dy where kept, 0 where dropped.

    >>> alpha_dropout_backward(np.ones(2), 1.0, training=True).tolist()
    [0.0, 0.0]
    """
    dy = as_float(dy, "dy")
    if not training or check_probability(p) == 0.0:
        return dy.copy()
    if p == 1.0:
        return np.zeros_like(dy)
    kept = dropout_mask(dy.shape, p, seed=seed, layer=layer, step=step)
    return np.where(kept, np.asarray(_alpha_scale(p), dy.dtype) * dy, np.zeros((), dy.dtype))
