"""Compares a function of arrays, and its pullback, with the reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import fastnn as fnn

Array = np.ndarray
SameBits = Callable[..., Any]
UNIT = 2.0**-24
"""Half a unit in the last place of 1, the error of one float32 rounding."""


class Results(NamedTuple):
    """What a function and its pullback gave."""

    y: Array
    dy: Array
    gradients: tuple[Array, ...]


def integers(rng: np.random.Generator, shape: Sequence[int], largest: int = 8) -> Array:
    """Small whole numbers, of which float32 sums are exact."""
    return rng.integers(-largest, largest + 1, tuple(shape)).astype(np.float32)


def normal(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    return rng.standard_normal(tuple(shape)).astype(np.float32)


def double(arrays: Sequence[Array]) -> list[Array]:
    return [np.asarray(array, np.float64) for array in arrays]


def differentiate(
    function: Callable[..., Any],
    arrays: Sequence[Array],
    make_dy: Callable[[tuple[int, ...]], Array],
    same_bits: SameBits,
) -> Results:
    """function(*arrays) and its gradients for dy = make_dy(shape), with the same bits for every team size."""
    dys: list[Array] = []

    def run() -> tuple[Array, ...]:
        y, pullback = fnn.vjp(function, *arrays)
        if not dys:
            dys.append(make_dy(y.shape))
        return (y, *pullback(dys[0]))

    y, *gradients = same_bits(run)
    return Results(y, dys[0], tuple(gradients))


def assert_equal(actual: Array, expected: Array) -> None:
    """Equal shape, and every element equal to the reference's number, which must be a float32; NaN equals NaN."""
    assert actual.shape == expected.shape
    rounded = expected.astype(np.float32)
    np.testing.assert_array_equal(rounded.astype(np.float64), expected)
    np.testing.assert_array_equal(actual, rounded)


def assert_within(actual: Array, expected: Array, bound: Any) -> None:
    """|actual - expected| <= bound + one rounding of expected, elementwise; the largest violation is shown."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    excess = np.abs(actual.astype(np.float64) - expected) - (bound + 2 * UNIT * np.abs(expected))
    assert excess.size == 0 or excess.max() <= 0, f"error exceeds its bound by up to {excess.max():.3e}"
