"""Powers within the bounds of power.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, run_kernel, same_results

KERNELS = {"power_forward", "power_backward"}

SameBits = Callable[..., Any]

EXPONENTS = [1.0, 2.0, 3.0, -2.0, 16.0, 17.0, 0.5, 1 / 3, 2.5, -0.5, 0.0, 0.25, -17.0]


def roundings(exponent: float, x: Array) -> Array:
    """The error of x ** exponent, in units of eps."""
    if float(exponent).is_integer() and abs(exponent) <= 16:
        return np.full(x.shape, abs(exponent) + 1)
    if exponent == 0.5:
        return np.ones(x.shape)
    with np.errstate(divide="ignore"):
        return 2 * np.abs(exponent * np.log(np.abs(x))) + 8


def values(rng: np.random.Generator, count: int, exponent: float) -> Array:
    """Both signs where the power takes them, over a few orders of magnitude."""
    x = np.exp(rng.uniform(-1.5, 1.5, count)).astype(np.float32)
    return np.where(rng.random(count) < 0.5, -x, x).astype(np.float32) if exponent.is_integer() else x


@pytest.mark.parametrize("count", [1, 17, 1024, 2051])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_power(isa: str, same_bits: SameBits, rng: np.random.Generator, exponent: float, count: int) -> None:
    x, dy = values(rng, count, exponent), rng.standard_normal(count, np.float32)
    exact, arguments = x.astype(np.float64), {"count": count, "exponent": exponent}
    y = same_results(same_bits, lambda: run_kernel("power_forward", {"y": ((count,), "f4")}, x=x, **arguments))["y"]
    expected = exact**exponent
    assert_within(y, expected, 1.01 * roundings(exponent, exact) * UNIT * np.abs(expected))
    outputs = {"dx": ((count,), "f4")}
    dx = same_results(same_bits, lambda: run_kernel("power_backward", outputs, dy=dy, x=x, **arguments))["dx"]
    slope = dy * exponent * exact ** (exponent - 1)
    assert_within(dx, slope, 1.01 * (roundings(exponent - 1, exact) + 3) * UNIT * np.abs(slope))


def test_special_values(isa: str) -> None:
    x = np.array([0.0, -1.0, np.inf, np.nan, -8.0], np.float32)

    def power(exponent: float) -> Array:
        return run_kernel("power_forward", {"y": ((5,), "f4")}, x=x, count=5, exponent=exponent)["y"]

    np.testing.assert_array_equal(power(2.0), [0, 1, np.inf, np.nan, 64])
    np.testing.assert_array_equal(power(0.5), [0, np.nan, np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(power(1.7)[:4], [0, np.nan, np.inf, np.nan])
    np.testing.assert_array_equal(power(-1.0), [np.inf, -1, 0, np.nan, -0.125])
    np.testing.assert_array_equal(power(17.0)[:4], [0, -1, np.inf, np.nan])
    dy = np.ones(5, np.float32)
    slope = run_kernel("power_backward", {"dx": ((5,), "f4")}, dy=dy, x=x, count=5, exponent=0.5)["dx"]
    assert slope[0] == 0
