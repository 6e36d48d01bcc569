"""Activations against the reference, within stated errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, SameBits, assert_within, differentiate, integers, normal

import fastnn.nn.functional as F
from fastnn import nn, reference

KERNELS = {"relu_forward", "relu_backward"}

SHAPES = [(), (7,), (5, 1031), (3, 17, 5), (2, 19, 7, 9), (0, 3), (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x = integers(rng, shape, 2)
    got = differentiate(F.relu, [x], lambda s: normal(rng, s), same_bits)
    np.testing.assert_array_equal(got.y, reference.relu(x))
    np.testing.assert_array_equal(got.gradients[0], reference.relu_backward(got.dy, x))


def test_relu_keeps_nan(isa: str) -> None:
    np.testing.assert_array_equal(F.relu(np.float32([np.nan, -np.inf, np.inf, -0.0])), [np.nan, 0, np.inf, 0])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((7,), 0), ((5, 1031), 1), ((5, 31), 0), ((3, 17, 5), -1), ((3, 17, 5), 1), ((3, 17, 5), 0), ((2, 19, 7, 9), 1),
     ((2, 19, 7, 9), 0), ((2, 19, 7, 9), 2), ((2, 19, 7, 9), 3), ((2, 3, 4, 5, 6), 2), ((0, 3), 1), ((4, 1), 1)],
    ids=str,
)  # fmt: skip
def test_softmax(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], dim: int, name: str
) -> None:
    """softmax.c: (columns + 10) eps + eps |x - max| of y, or absolutely for the logarithm; likewise of the gradient."""
    x = 5 * normal(rng, shape)
    got = differentiate(lambda t: getattr(F, name)(t, dim), [x], lambda s: normal(rng, s), same_bits)
    exact, dy = x.astype(float), got.dy.astype(float)
    y = getattr(reference, name)(exact, dim)
    probability = reference.softmax(exact, dim)
    length = (shape[dim] + 24 + 2 * np.abs(x).max(initial=0)) * UNIT
    assert_within(got.y, y, length * (probability if name == "softmax" else 1.0))
    gradient = getattr(reference, f"{name}_backward")(dy, exact, dim)
    terms = np.abs(dy).sum(axis=dim, keepdims=True)
    bound = probability * (np.abs(dy) + terms) if name == "softmax" else np.abs(dy) + probability * terms
    assert_within(got.gradients[0], gradient, 2 * length * bound)


def test_softmax_of_large_numbers(isa: str) -> None:
    x = np.float32([[1e30, 1e30, -1e30], [-np.inf, 0, 0]])
    np.testing.assert_array_equal(F.softmax(x, 1), [[0.5, 0.5, 0], [0, 0.5, 0.5]])


def test_the_axis_that_pytorch_chooses() -> None:
    for ndim in (1, 2, 3, 4):
        x = np.arange(np.prod(shape := (2, 3, 4, 5)[:ndim]), dtype=np.float32).reshape(shape)
        np.testing.assert_array_equal(F.softmax(x), F.softmax(x, 0 if ndim in (1, 3) else 1))


@pytest.mark.parametrize(
    ("layer", "text", "function"),
    [
        (nn.ReLU(), "ReLU()", F.relu),
        (nn.ReLU(inplace=True), "ReLU(inplace=True)", F.relu),
        (nn.Softmax(dim=1), "Softmax(dim=1)", lambda x: F.softmax(x, 1)),
        (nn.LogSoftmax(1), "LogSoftmax(dim=1)", lambda x: F.log_softmax(x, 1)),
    ],
    ids=str,
)
def test_layers(rng: np.random.Generator, layer: nn.Module, text: str, function: Any) -> None:
    x = normal(rng, (3, 5))
    assert repr(layer) == text
    np.testing.assert_array_equal(layer(x), function(x))


def test_axes_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"Softmax\(dim=2\): axis 2 is out of range for a tensor of 2 axes"):
        nn.Softmax(dim=2)(np.zeros((2, 3)))
