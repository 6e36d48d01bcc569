"""Initial values, under torch.nn.init's names: each fills a parameter (or a float array) and returns it.

Numbers come from `generator`, by default the one that `fastnn.manual_seed` restarts. Fans: a weight (out, in, ...) has
fan_in = in * receptive field and fan_out = out * receptive field.
Sources: Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming), Saxe et al. 2014 (orthogonal).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ..random import default_generator
from ..variable import Array
from .parameter import Parameter

Target = TypeVar("Target", Parameter, Array)
Generator: TypeAlias = "np.random.Generator | None"


def empty(*shape: int) -> Array:
    """Zeros for a parameter that is about to be initialised."""
    return np.zeros(shape, np.float32)


def _fill(target: Target, values: Any) -> Target:
    if isinstance(target, Parameter):
        target.data = np.broadcast_to(values, target.shape)
    else:
        target[...] = values
    return target


def _generator(generator: Generator) -> np.random.Generator:
    return default_generator() if generator is None else generator


def _fans(target: Any, name: str) -> tuple[int, int]:
    shape = tuple(target.shape)
    if len(shape) < 2:
        raise ValueError(f"{name} needs a weight of at least two axes, (out, in, ...), got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer before this nonlinearity should enlarge its weights.

    nonlinearity : "linear", "conv1d", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu" (param: its slope, 0.01) or
    "selu". ValueError for another word.

    >>> calculate_gain("relu") == 2**0.5, calculate_gain("leaky_relu", 0.0) == 2**0.5
    (True, True)
    """
    gains = {
        "linear": 1.0,
        "conv1d": 1.0,
        "conv2d": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2.0),
        "selu": 0.75,
    }
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: {nonlinearity!r} is none of {', '.join([*gains, 'leaky_relu'])}")
    return gains[nonlinearity]


def constant_(tensor: Target, val: float) -> Target:
    """Every element val.

    >>> constant_(Parameter(np.zeros(2)), 3.0).data
    array([3., 3.], dtype=float32)
    """
    return _fill(tensor, val)


def zeros_(tensor: Target) -> Target:
    """Every element 0.

    >>> zeros_(np.ones(2))
    array([0., 0.])
    """
    return _fill(tensor, 0.0)


def ones_(tensor: Target) -> Target:
    """Every element 1.

    >>> ones_(np.zeros(2))
    array([1., 1.])
    """
    return _fill(tensor, 1.0)


def uniform_(tensor: Target, a: float = 0.0, b: float = 1.0, generator: Generator = None) -> Target:
    """Uniform between a and b.

    >>> values = uniform_(np.zeros(100), -1.0, 1.0)
    >>> bool((abs(values) <= 1.0).all())
    True
    """
    return _fill(tensor, _generator(generator).uniform(a, b, tensor.shape))


def normal_(tensor: Target, mean: float = 0.0, std: float = 1.0, generator: Generator = None) -> Target:
    """Normal with a mean and a standard deviation.

    >>> bool(abs(normal_(np.zeros(10000), 5.0).mean() - 5.0) < 0.1)
    True
    """
    return _fill(tensor, _generator(generator).normal(mean, std, tensor.shape))


def trunc_normal_(
    tensor: Target, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator = None
) -> Target:
    """Normal with a mean and a standard deviation, of which only what lies between a and b is kept.

    Raises ValueError when the interval is empty or holds next to nothing of the distribution.

    >>> values = trunc_normal_(np.zeros(1000), std=2.0, a=-1.0, b=1.0)
    >>> bool((abs(values) <= 1.0).all())
    True
    """
    share = (math.erf((b - mean) / (std * math.sqrt(2))) - math.erf((a - mean) / (std * math.sqrt(2)))) / 2
    if not share > 1e-4:
        raise ValueError(f"trunc_normal_: [{a}, {b}] holds next to nothing of a normal with mean {mean}, std {std}")
    source = _generator(generator)
    values = source.normal(mean, std, tensor.shape)
    outside = (values < a) | (values > b)
    while outside.any():
        values[outside] = source.normal(mean, std, int(outside.sum()))
        outside = (values < a) | (values > b)
    return _fill(tensor, values)


def xavier_uniform_(tensor: Target, gain: float = 1.0, generator: Generator = None) -> Target:
    """Uniform within gain * sqrt(6 / (fan_in + fan_out)). ValueError for fewer than two axes.

    >>> bool((abs(xavier_uniform_(np.zeros((2, 4)))) <= 1.0).all())
    True
    """
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor, "xavier_uniform_")))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Target, gain: float = 1.0, generator: Generator = None) -> Target:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)). ValueError for fewer than two axes.

    >>> xavier_normal_(np.zeros((2, 4))).shape
    (2, 4)
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor, "xavier_normal_"))), generator)


def _kaiming_deviation(tensor: Any, a: float, mode: str, nonlinearity: str, name: str) -> float:
    fan_in, fan_out = _fans(tensor, name)
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'{name}: mode must be "fan_in" or "fan_out", got {mode!r}')
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(
    tensor: Target, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator = None
) -> Target:
    """Uniform within gain * sqrt(3 / fan); a : the slope of a leaky ReLU that follows. ValueError as xavier_uniform_.

    >>> kaiming_uniform_(Parameter(np.zeros((2, 4)))).shape
    (2, 4)
    """
    bound = math.sqrt(3.0) * _kaiming_deviation(tensor, a, mode, nonlinearity, "kaiming_uniform_")
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Target, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator = None
) -> Target:
    """Normal with standard deviation gain / sqrt(fan); a : the slope of a leaky ReLU that follows.

    >>> kaiming_normal_(Parameter(np.zeros((2, 4, 3, 3)))).shape
    (2, 4, 3, 3)
    """
    return normal_(tensor, 0.0, _kaiming_deviation(tensor, a, mode, nonlinearity, "kaiming_normal_"), generator)


def orthogonal_(tensor: Target, gain: float = 1.0, generator: Generator = None) -> Target:
    """gain times a random matrix (out, everything else) with orthonormal rows or columns, whichever are fewer.

    >>> q = orthogonal_(np.zeros((3, 5)))
    >>> bool(np.allclose(q @ q.T, np.eye(3)))
    True
    """
    _fans(tensor, "orthogonal_")
    shape = tuple(tensor.shape)
    rows, columns = shape[0], math.prod(shape[1:])
    normal = _generator(generator).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform over orthogonal matrices (Mezzadri 2007)
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(shape))


def eye_(tensor: Target) -> Target:
    """The identity matrix, as far as a matrix of another shape has one. ValueError unless it has two axes.

    >>> eye_(np.ones((2, 3)))
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    if len(tensor.shape) != 2:
        raise ValueError(f"eye_ needs a matrix, got shape {tuple(tensor.shape)}")
    return _fill(tensor, np.eye(*tensor.shape))


def dirac_(tensor: Target, groups: int = 1) -> Target:
    """The filters (out, in, ...) of a convolution that hands on its channels, as many as it can, in each of the groups.

    ValueError for fewer than three or more than five axes, or groups that do not divide the filters.

    >>> dirac_(np.ones((2, 2, 3)))[0]
    array([[0., 1., 0.],
           [0., 0., 0.]])
    """
    shape: tuple[int, ...] = tuple(tensor.shape)
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"dirac_ needs filters (out, in, ...) of a 1-d to 3-d convolution, got shape {shape}")
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"dirac_: groups={groups} must be positive and divide the {shape[0]} filters")
    values = np.zeros(shape)
    centre: list[int] = [size // 2 for size in shape[2:]]
    each = shape[0] // groups
    for channel in range(min(each, shape[1])):
        index: Any = (slice(channel, None, each), channel, *centre)
        values[index] = 1.0
    return _fill(tensor, values)


def sparse_(tensor: Target, sparsity: float, std: float = 0.01, generator: Generator = None) -> Target:
    """Normal with mean 0, and in each column a share `sparsity` of the elements, rounded up, zero (Martens 2010).

    ValueError unless it has two axes and sparsity lies in [0, 1].

    >>> (sparse_(np.ones((10, 3)), 0.35) == 0).sum(axis=0)
    array([4, 4, 4])
    """
    if len(tensor.shape) != 2:
        raise ValueError(f"sparse_ needs a matrix, got shape {tuple(tensor.shape)}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must lie in [0, 1], got {sparsity}")
    source = _generator(generator)
    values = source.normal(0.0, std, tensor.shape)
    zeros = math.ceil(sparsity * tensor.shape[0])
    for column in values.T:
        column[source.permutation(len(column))[:zeros]] = 0.0
    return _fill(tensor, values)


def reset_linear_map(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default for convolutions and linear layers: weight and bias uniform within 1/sqrt(fan_in)."""
    fan_in, _ = _fans(weight, "reset_linear_map")
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1.0 / math.sqrt(fan_in)
        uniform_(bias, -bound, bound)
