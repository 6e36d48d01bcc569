"""RReLU: slopes of the published stream, the same in the backward pass, their mean in inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, SameBits, assert_within, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference
from fastnn.differentiation import differentiate
from fastnn.trace import Compiled

KERNELS = {"random_rectifier"}

SHAPES = [(1,), (7, 13), (3, 5, 17), (2, 19, 5, 7), (5000,), (0, 4)]


@pytest.mark.parametrize("bounds", [(0.125, 1 / 3), (-0.5, 2.0), (0.25, 0.25)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_draws_the_reference_slopes(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], bounds: tuple[float, float]
) -> None:
    """Bound of random_rectifier.c: one rounding of |upper - lower| * |x|, three of the result; the bounds as float32."""
    x, dy = normal(rng, shape), normal(rng, shape)
    low, high = bounds

    def run() -> tuple[Any, ...]:
        fnn.manual_seed(77)
        y, pullback = fnn.vjp(lambda t: F.rrelu(t, low, high, training=True, layer=5), x)
        return y, *pullback(dy)

    y, dx = same_bits(run)
    slopes = reference.rrelu_slopes(shape, low, high, seed=77, layer=5, step=1)
    options = {"training": True, "slopes": slopes}
    reach = (high - low + abs(low)) * 2 * UNIT
    assert_within(y, reference.rrelu(x.astype(float), low, high, **options), reach * np.abs(x))
    expected = reference.rrelu_backward(dy.astype(float), x.astype(float), low, high, **options)
    assert_within(dx, expected, reach * np.abs(dy))


def test_inference_has_the_mean_slope(rng: np.random.Generator) -> None:
    x = normal(rng, (4, 50))
    layer = nn.RReLU(0.1, 0.4).eval()
    np.testing.assert_array_equal(layer(x), F.leaky_relu(x, 0.25))
    np.testing.assert_array_equal(F.rrelu(x, 0.1, 0.4), F.leaky_relu(x, 0.25))


def test_slopes_are_spread_evenly_and_never_repeat() -> None:
    """400,000 slopes: the mean's deviation is 0.29 / sqrt(400000) of the width, the variance's 1/12 * 0.0014: five each."""
    fnn.manual_seed(3)
    layers = [nn.RReLU(0.0, 1.0), nn.RReLU(0.0, 1.0)]
    assert [layer.layer for layer in layers] == [0, 1]
    x = np.full(400_000, -1.0, np.float32)
    first, second, third = (-layer(x) for layer in (layers[0], layers[0], layers[1]))
    for slopes in (first, second, third):
        assert slopes.min() >= 0 and slopes.max() < 1
        assert abs(slopes.mean() - 0.5) < 5 * 0.29 / np.sqrt(x.size)
        assert abs(slopes.var() - 1 / 12) < 5 * 0.0014 / 12
    for a, b in ((first, second), (first, third), (second, third)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(x.size)


def test_no_slope_is_stored() -> None:
    def build(graph: Any, x: Any) -> Any:
        y = F.rrelu(x, training=True)
        gradients = differentiate(graph, {y: y}, [x])
        return [gradients[x]]

    assert Compiled(build).plan([((64, 1000), "f", "memory")]).peak_bytes <= 64 * 1000 * 4


def test_errors_and_repr() -> None:
    with pytest.raises(ValueError, match="RReLU: lower must not be above upper, got 0.5 and 0.25"):
        nn.RReLU(0.5, 0.25)
    with pytest.raises(ValueError, match="lower must not be above upper"):
        F.rrelu(np.ones(2), 0.5, 0.25)
    with pytest.raises(ValueError, match="upper must be a finite number"):
        nn.RReLU(0.5, float("nan"))
    assert repr(nn.RReLU(0.25, 0.5)) == "RReLU(lower=0.25, upper=0.5)"
