"""Reference gradients against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

EPSILON = 1e-6
ATOL, RTOL = 1e-5, 1e-3


def numerical_gradient(function: Callable[[], Any], array: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """d sum(dy * function()) / d array, `function` reading `array`, whose elements are moved one at a time and back."""
    gradient = np.empty_like(array)
    for position in np.ndindex(array.shape):
        original = array[position]
        array[position] = original + EPSILON
        above = np.sum(dy * function())
        array[position] = original - EPSILON
        below = np.sum(dy * function())
        array[position] = original
        gradient[position] = (above - below) / (2 * EPSILON)
    return gradient


def assert_gradients(
    forward: Callable[..., Any], backward: Callable[..., Any], arrays: Sequence[np.ndarray], seed: int = 0
) -> None:
    """backward(dy, *arrays), one gradient or a tuple of one for each array, must be what forward(*arrays) does.

    The gradient must have the shape of its array, and must not be zero throughout (that would test nothing).
    """
    dy = np.asarray(np.random.default_rng(seed).standard_normal(np.shape(forward(*arrays))))
    gradients = backward(dy, *arrays)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(arrays)
    for position, (gradient, array) in enumerate(zip(gradients, arrays, strict=True)):
        assert gradient.shape == array.shape, f"argument {position}"
        expected = numerical_gradient(lambda: forward(*arrays), array, dy)
        assert np.abs(expected).max() > 10 * ATOL, f"argument {position} has no effect: the case tests nothing"
        np.testing.assert_allclose(gradient, expected, rtol=RTOL, atol=ATOL, err_msg=f"argument {position}")


def away_from(values: np.ndarray, kinks: Sequence[float], distance: float = 1e-2) -> np.ndarray:
    """Move every value that is closer to a kink than `distance` to that distance, on its own side."""
    values = values.copy()
    for kink in kinks:
        near = np.abs(values - kink) < distance
        values[near] = kink + np.where(values[near] < kink, -distance, distance)
    return values


def distinct(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Random values of which no two are closer than 0.01: maxima that a small step cannot change."""
    count = int(np.prod(shape))
    return (rng.permutation(count) * 0.01 + rng.uniform(0, 1e-3) - count * 0.005).reshape(shape)
