"""Activations with a kink: ReLU and its relatives, and the "hard" (piecewise linear) ones.

Every function maps x of any shape to y of that shape and raises TypeError unless the dtype is real floating;
`<name>_backward(dy, x, ...)` returns dx = dy * f'(x). At a kink the derivative is the one PyTorch takes.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, as_float, check_shape
from .dropout import in_memory_order
from .random import random_bits

_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


def _chain(dy: Array, derivative: Array) -> Array:
    """dy * derivative in the dtype of dy; shapes must be equal."""
    dy = as_float(dy, "dy")
    check_shape(dy, derivative.shape, "dy")
    return dy * derivative.astype(dy.dtype)


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN.

    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return np.maximum(as_float(x, "x"), 0)


def relu_backward(dy: Array, x: Array) -> Array:
    """dx = dy where x > 0, else 0.

    >>> relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 5.0]
    """
    x, dy = as_float(x, "x"), as_float(dy, "dy")
    check_shape(dy, x.shape, "dy")
    return np.where(x > 0, dy, np.zeros_like(dy))


def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x clipped to [min_val, max_val]; NaN stays NaN. Raises ValueError when min_val > max_val.

    >>> hardtanh(np.array([-2.0, 0.5, 2.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    if min_val > max_val:
        raise ValueError(f"min_val {min_val} must not be above max_val {max_val}")
    return np.clip(as_float(x, "x"), min_val, max_val)


def hardtanh_backward(dy: Array, x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """dx = dy where min_val < x < max_val, else 0.

    >>> hardtanh_backward(np.ones(3), np.array([-2.0, 0.5, 1.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    x = as_float(x, "x")
    return _chain(dy, (x > min_val) & (x < max_val))


def relu6(x: Array) -> Array:
    """x clipped to [0, 6].

    >>> relu6(np.array([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]
    """
    return hardtanh(x, 0.0, 6.0)


def relu6_backward(dy: Array, x: Array) -> Array:
    """dx = dy where 0 < x < 6, else 0.

    >>> relu6_backward(np.ones(3), np.array([-1.0, 2.0, 9.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    return hardtanh_backward(dy, x, 0.0, 6.0)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x where x > 0, else negative_slope * x.

    >>> leaky_relu(np.array([-1.0, 2.0]), 0.25).tolist()
    [-0.25, 2.0]
    """
    x = as_float(x, "x")
    return np.where(x > 0, x, negative_slope * x)


def leaky_relu_backward(dy: Array, x: Array, negative_slope: float = 0.01) -> Array:
    """dx = dy where x > 0, else negative_slope * dy.

    >>> leaky_relu_backward(np.ones(2), np.array([0.0, 2.0]), 0.25).tolist()
    [0.25, 1.0]
    """
    return _chain(dy, np.where(as_float(x, "x") > 0, 1.0, negative_slope))


def _slope_of_channel(x: Array, weight: Array) -> Array:
    """prelu's weight (1) or (C) -> broadcastable against x (N,C,...)."""
    weight = as_float(weight, "weight", 1)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.size not in (1, channels):
        raise ValueError(f"weight {weight.shape} must hold one slope or one for each channel of x {x.shape}")
    return weight.reshape(-1, *([1] * (x.ndim - 2))) if x.ndim > 1 else weight


def prelu(x: Array, weight: Array) -> Array:
    """x where x > 0, else weight * x: x (N,C,...), weight (1) or (C) learned. Raises ValueError for another size.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015.

    >>> prelu(np.array([[-1.0, -1.0]]), np.array([0.25, 0.5])).tolist()
    [[-0.25, -0.5]]
    """
    x = as_float(x, "x")
    return np.where(x > 0, x, _slope_of_channel(x, weight) * x)


def prelu_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """dx (N,C,...) = dy * (1 or weight), dweight (1) or (C) = sum of dy * x where x <= 0.

    >>> prelu_backward(np.ones((1, 2)), np.array([[-1.0, 2.0]]), np.array([0.25]))
    (array([[0.25, 1.  ]]), array([-1.]))
    """
    x, dy = as_float(x, "x"), as_float(dy, "dy")
    slope = _slope_of_channel(x, weight)
    dx = _chain(dy, np.where(x > 0, 1.0, slope))
    products = np.where(x > 0, 0, dy * x)
    if np.size(weight) == 1:
        return dx, products.sum(keepdims=True).reshape(1)
    return dx, products.sum(axis=(0, *range(2, x.ndim)))


def rrelu_slopes(
    shape: tuple[int, ...],
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    *,
    seed: int = 0,
    layer: int = 0,
    step: int = 0,
) -> Array:
    """The slopes (float64) that a layer draws for an input of `shape`: lower + (upper - lower) * u, u the upper 24 bits of
    the layer's words at a step as a number in [0, 1), the elements counted in memory order (see dropout).

    >>> slopes = rrelu_slopes((100,), 0.25, 0.75)
    >>> bool(0.25 <= slopes.min() and slopes.max() < 0.75)
    True
    """
    count = int(np.prod(shape))
    uniform = (random_bits(count, seed, layer, step) >> np.uint32(8)) * 2.0**-24
    return in_memory_order(lower + (upper - lower) * uniform, shape)


def rrelu(
    x: Array, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, *, slopes: Array | None = None
) -> Array:
    """Leaky ReLU with a slope drawn for each element in training (`slopes`, the shape of x), else (lower + upper)/2.

    Raises ValueError when training without slopes, or with slopes of another shape or outside [lower, upper].
    Source: Xu et al., "Empirical evaluation of rectified activations", 2015.

    >>> rrelu(np.array([-1.0, 2.0]), 0.25, 0.75).tolist()
    [-0.5, 2.0]
    """
    x = as_float(x, "x")
    return np.where(x > 0, x, _random_slopes(x, lower, upper, training, slopes) * x)


def _random_slopes(x: Array, lower: float, upper: float, training: bool, slopes: Array | None) -> Array:
    if lower > upper:
        raise ValueError(f"lower {lower} must not be above upper {upper}")
    if not training:
        return np.full(x.shape, (lower + upper) / 2, x.dtype)
    if slopes is None:
        raise ValueError("rrelu in training needs the slopes that were drawn")
    slopes = as_float(slopes, "slopes")
    check_shape(slopes, x.shape, "slopes")
    if slopes.size and not (lower <= slopes.min() and slopes.max() <= upper):
        raise ValueError(f"slopes must lie in [{lower}, {upper}]")
    return slopes


def rrelu_backward(
    dy: Array,
    x: Array,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    *,
    slopes: Array | None = None,
) -> Array:
    """dx = dy where x > 0, else the element's slope * dy. Errors as `rrelu`.

    >>> rrelu_backward(np.ones(2), np.array([-1.0, 2.0]), 0.25, 0.75).tolist()
    [0.5, 1.0]
    """
    x = as_float(x, "x")
    return _chain(dy, np.where(x > 0, 1.0, _random_slopes(x, lower, upper, training, slopes)))


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha * (exp(x) - 1). Source: Clevert, Unterthiner and Hochreiter 2016.

    >>> elu(np.array([-np.inf, 2.0])).tolist()
    [-1.0, 2.0]
    """
    x = as_float(x, "x")
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(dy: Array, x: Array, alpha: float = 1.0) -> Array:
    """dx = dy where x > 0, else dy * alpha * exp(x).

    >>> elu_backward(np.ones(2), np.array([0.0, 2.0]), 0.5).tolist()
    [0.5, 1.0]
    """
    x = as_float(x, "x")
    return _chain(dy, np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0))))


def celu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha * (exp(x / alpha) - 1): ELU whose slope is continuous. Raises ValueError for alpha = 0.

    Source: Barron, "Continuously differentiable exponential linear units", 2017.

    >>> celu(np.array([-np.inf, 2.0]), 0.5).tolist()
    [-0.5, 2.0]
    """
    x = as_float(x, "x")
    if alpha == 0:
        raise ValueError("alpha must not be zero")
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def celu_backward(dy: Array, x: Array, alpha: float = 1.0) -> Array:
    """dx = dy where x > 0, else dy * exp(x / alpha).

    >>> celu_backward(np.ones(2), np.array([0.0, 2.0]), 0.5).tolist()
    [1.0, 1.0]
    """
    x = as_float(x, "x")
    if alpha == 0:
        raise ValueError("alpha must not be zero")
    return _chain(dy, np.where(x > 0, 1.0, np.exp(np.minimum(x, 0) / alpha)))


def selu(x: Array) -> Array:
    """1.0507... * elu(x, 1.6732...), which keeps mean 0 and variance 1 over layers. Source: Klambauer et al. 2017.

    >>> selu(np.array([1.0])).round(4).tolist()
    [1.0507]
    """
    return _SELU_SCALE * elu(x, _SELU_ALPHA)


def selu_backward(dy: Array, x: Array) -> Array:
    """dx = 1.0507... * elu_backward(dy, x, 1.6732...).

    >>> selu_backward(np.ones(1), np.ones(1)).round(4).tolist()
    [1.0507]
    """
    return _SELU_SCALE * elu_backward(dy, x, _SELU_ALPHA)


def hardsigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6.

    >>> hardsigmoid(np.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return relu6(as_float(x, "x") + 3) / 6


def hardsigmoid_backward(dy: Array, x: Array) -> Array:
    """dx = dy / 6 where -3 < x < 3, else 0.

    >>> hardsigmoid_backward(np.array([6.0, 6.0]), np.array([-4.0, 0.0])).tolist()
    [0.0, 1.0]
    """
    x = as_float(x, "x")
    return _chain(dy, ((x > -3) & (x < 3)) / 6.0)


def hardswish(x: Array) -> Array:
    """x * relu6(x + 3) / 6. Source: Howard et al., "Searching for MobileNetV3", ICCV 2019.

    >>> hardswish(np.array([-1.5, 0.0, 4.0])).tolist()
    [-0.375, 0.0, 4.0]
    """
    x = as_float(x, "x")
    return x * hardsigmoid(x)


def hardswish_backward(dy: Array, x: Array) -> Array:
    """dx = 0 up to x = -3, dy from x = 3 on, dy * (x/3 + 1/2) between.

    >>> hardswish_backward(np.ones(3), np.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    x = as_float(x, "x")
    return _chain(dy, np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)))
