"""Initial values: distributions, bounds, seeds, and that layers start as PyTorch's do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.nn import init

SHAPE = (64, 32, 3, 5)
FAN_IN, FAN_OUT = 32 * 15, 64 * 15


def filled(function: Callable[..., Any], *args: Any, **kwargs: Any) -> np.ndarray:
    parameter = nn.Parameter(np.zeros(SHAPE))
    assert function(parameter, *args, **kwargs) is parameter
    return np.asarray(parameter.data, float)


def is_uniform(values: np.ndarray, low: float, high: float) -> bool:
    """Within the bounds, reaching them, and every tenth of the range equally full within five deviations."""
    counts, _ = np.histogram(values, 10, (low, high))
    expected = values.size / 10
    inside = values.min() >= low * (1 + 1e-6) and values.max() <= high * (1 + 1e-6)
    return bool(inside and counts.sum() == values.size and np.abs(counts - expected).max() < 5 * math.sqrt(expected))


def is_normal(values: np.ndarray, mean: float, deviation: float) -> bool:
    z = (values.ravel() - mean) / deviation
    count = z.size
    moments = [(z.mean(), 0.0, 1.0), ((z**2).mean(), 1.0, 2.0), ((z**3).mean(), 0.0, 15.0), ((z**4).mean(), 3.0, 96.0)]
    return all(abs(got - wanted) < 5 * math.sqrt(variance / count) for got, wanted, variance in moments)


@pytest.mark.parametrize(
    ("function", "arguments", "bound"),
    [
        (init.uniform_, (-2.0, 2.0), 2.0),
        (init.xavier_uniform_, (), math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (init.xavier_uniform_, (3.0,), 3 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (init.kaiming_uniform_, (), math.sqrt(6 / FAN_IN)),
        (init.kaiming_uniform_, (math.sqrt(5),), 1 / math.sqrt(FAN_IN)),
        (init.kaiming_uniform_, (0, "fan_out", "linear"), math.sqrt(3 / FAN_OUT)),
    ],
)
def test_uniform(function: Callable[..., Any], arguments: tuple[Any, ...], bound: float) -> None:
    assert is_uniform(filled(function, *arguments), -bound, bound)


@pytest.mark.parametrize(
    ("function", "arguments", "mean", "deviation"),
    [
        (init.normal_, (3.0, 0.5), 3.0, 0.5),
        (init.xavier_normal_, (), 0.0, math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (init.kaiming_normal_, (), 0.0, math.sqrt(2 / FAN_IN)),
        (init.kaiming_normal_, (0, "fan_out", "relu"), 0.0, math.sqrt(2 / FAN_OUT)),
    ],
)
def test_normal(function: Callable[..., Any], arguments: tuple[Any, ...], mean: float, deviation: float) -> None:
    assert is_normal(filled(function, *arguments), mean, deviation)


def test_truncated_normal() -> None:
    values = filled(init.trunc_normal_, 1.0, 2.0, -0.5, 3.0)
    assert -0.5 <= values.min() < -0.45
    assert 2.95 < values.max() <= 3.0
    counts, edges = np.histogram(values, 7, (-0.5, 3.0))
    cumulative = np.array([math.erf((edge - 1) / (2 * math.sqrt(2))) for edge in edges])
    expected = np.diff(cumulative) / (cumulative[-1] - cumulative[0]) * values.size
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
    with pytest.raises(ValueError, match="next to nothing"):
        init.trunc_normal_(np.zeros(3), 0.0, 1.0, 50.0, 60.0)


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (3, 30), (30, 3), (4, 4)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = init.orthogonal_(np.zeros(shape), 2.0).reshape(shape[0], -1)
    product = matrix @ matrix.T if shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
def test_eye(shape: tuple[int, int]) -> None:
    assert np.array_equal(init.eye_(np.full(shape, 7.0)), np.eye(*shape))
    with pytest.raises(ValueError, match=r"eye_ needs a matrix, got shape \(2, 3, 1\)"):
        init.eye_(np.zeros((2, 3, 1)))


@pytest.mark.parametrize(
    ("shape", "groups"), [((4, 4, 3, 3), 1), ((6, 4, 5, 3), 1), ((4, 2, 3, 3), 2), ((6, 2, 3, 1), 2)]
)
def test_dirac_hands_channels_on(shape: tuple[int, ...], groups: int) -> None:
    channels = shape[1] * groups
    layer = nn.Conv2d(channels, shape[0], shape[2:], padding="same", groups=groups, bias=False)
    assert init.dirac_(layer.weight, groups) is layer.weight
    x = np.random.default_rng(0).standard_normal((2, channels, 5, 6)).astype(np.float32)
    wanted = np.zeros((2, groups, shape[0] // groups, 5, 6), np.float32)
    handed = min(wanted.shape[2], shape[1])
    wanted[:, :, :handed] = x.reshape(2, groups, -1, 5, 6)[:, :, :handed]
    assert np.array_equal(layer(x), wanted.reshape(2, shape[0], 5, 6))


def test_dirac_refuses() -> None:
    with pytest.raises(ValueError, match=r"dirac_ needs filters .*got shape \(2, 3\)"):
        init.dirac_(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="groups=2 must be positive and divide the 3 filters"):
        init.dirac_(np.zeros((3, 2, 3)), groups=2)


@pytest.mark.parametrize("sparsity", [0.0, 0.35, 1.0])
def test_sparse(sparsity: float) -> None:
    values = init.sparse_(np.zeros((1000, 20)), sparsity, std=2.0, generator=np.random.default_rng(1))
    assert np.array_equal((values == 0).sum(axis=0), [math.ceil(sparsity * 1000)] * 20)
    left = values[values != 0]
    assert left.size == 0 or is_normal(left, 0.0, 2.0)
    with pytest.raises(ValueError, match=r"sparsity must lie in \[0, 1\], got 1.5"):
        init.sparse_(np.zeros((2, 2)), 1.5)
    with pytest.raises(ValueError, match="sparse_ needs a matrix"):
        init.sparse_(np.zeros(2), 0.5)


def test_constants() -> None:
    assert (filled(init.constant_, 2.5) == 2.5).all()
    assert (filled(init.ones_) == 1).all()
    assert (filled(init.zeros_) == 0).all()


def test_gains() -> None:
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("selu") == 0.75
    assert init.calculate_gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04)
    assert init.calculate_gain("leaky_relu") == math.sqrt(2 / (1 + 0.01**2))
    with pytest.raises(ValueError, match="is none of linear"):
        init.calculate_gain("other")


def test_fans_need_two_axes() -> None:
    for function in (
        init.xavier_uniform_,
        init.xavier_normal_,
        init.kaiming_uniform_,
        init.kaiming_normal_,
        init.orthogonal_,
    ):
        with pytest.raises(ValueError, match=r"needs a weight of at least two axes, .* got shape \(3,\)"):
            function(np.zeros(3))
    with pytest.raises(ValueError, match='mode must be "fan_in" or "fan_out"'):
        init.kaiming_uniform_(np.zeros((2, 3)), mode="other")


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Linear(200, 300), 200),
        (lambda: nn.Conv2d(24, 60, (3, 5), groups=2), 12 * 15),
        (lambda: nn.Conv1d(30, 80, 7), 210),
    ],
)
def test_layers_start_as_in_pytorch(layer: Callable[[], Any], fan_in: int) -> None:
    made = layer()
    bound = 1 / math.sqrt(fan_in)
    assert is_uniform(np.asarray(made.weight.data, float), -bound, bound)
    biases = np.concatenate([layer().bias.data for _ in range(20)])
    assert is_uniform(biases.astype(float), -bound, bound)


def test_a_seed_decides() -> None:
    fnn.manual_seed(3)
    first, second = nn.Linear(5, 7), nn.Linear(5, 7)
    assert not np.array_equal(first.weight.data, second.weight.data)
    fnn.manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(5, 7).weight.data, first.weight.data)
    own = [init.normal_(np.zeros(9), generator=np.random.default_rng(4)) for _ in range(2)]
    np.testing.assert_array_equal(*own)


def test_a_change_is_seen_by_the_next_call() -> None:
    layer = nn.Linear(2, 2, bias=False).eval()
    layer(np.ones((1, 2)))
    init.constant_(layer.weight, 1.5)
    np.testing.assert_array_equal(layer(np.ones((1, 2))), [[3.0, 3.0]])
