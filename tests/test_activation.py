"""Activations against the reference, within stated errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, SameBits, assert_within, differentiate, integers, normal

import fastnn.nn.functional as F
from fastnn import nn, reference

KERNELS = {"relu_forward", "relu_backward", "glu_forward", "glu_backward", "prelu_forward", "prelu_backward"}

SMALLEST = 2.0**-126
"""Results, and the factors of x in them, below the smallest normal float32 are flushed to zero."""

ELEMENTWISE: list[tuple[str, dict[str, Any], float]] = [
    ("relu6", {}, 1), ("leaky_relu", {}, 1), ("leaky_relu", {"negative_slope": -0.5}, 1), ("hardtanh", {}, 1),
    ("hardtanh", {"min_val": -0.5, "max_val": 2.0}, 1), ("elu", {}, 3), ("elu", {"alpha": 1.7}, 3), ("celu",
     {"alpha": 0.6}, 4),
    ("selu", {}, 3), ("gelu", {}, 7), ("gelu", {"approximate": "tanh"}, 4), ("silu", {}, 3.5), ("mish", {}, 5),
    ("softplus", {}, 3), ("softplus", {"beta": 2.0, "threshold": 5.0}, 3), ("hardswish", {}, 2), ("hardsigmoid", {},
     1.5),
    ("sigmoid", {}, 2.5), ("tanh", {}, 5.5), ("logsigmoid", {}, 3), ("softsign", {}, 1.5),
]  # fmt: skip
"""Function, options, and the units in the last place that csrc/kernels/activation_forward.c promises."""

SHAPES = [(), (7,), (5, 1031), (3, 17, 5), (2, 19, 7, 9), (0, 3), (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x = integers(rng, shape, 2)
    got = differentiate(F.relu, [x], lambda s: normal(rng, s), same_bits)
    np.testing.assert_array_equal(got.y, reference.relu(x))
    np.testing.assert_array_equal(got.gradients[0], reference.relu_backward(got.dy, x))


def test_relu_keeps_nan(isa: str) -> None:
    np.testing.assert_array_equal(F.relu(np.float32([np.nan, -np.inf, np.inf, -0.0])), [np.nan, 0, np.inf, 0])


@pytest.mark.parametrize(("name", "options", "ulp"), ELEMENTWISE, ids=str)
@pytest.mark.parametrize("shape", [(), (1031,), (3, 17, 5), (2, 19, 7, 9), (0, 3)], ids=str)
def test_elementwise(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], name: str, options: dict[str, Any],
    ulp: Any,
) -> None:  # fmt: skip
    """The gradient within 16 eps |dy| max(1, |f'|, 1 + |x|), see activation_backward.c, and y's own error."""
    x = 3 * normal(rng, shape)
    got = differentiate(lambda t: getattr(F, name)(t, **options), [x], lambda s: normal(rng, s), same_bits)
    exact, dy = x.astype(float), np.asarray(got.dy, float)
    y = getattr(reference, name)(exact, **options)
    near_zero = 0.5 if name in ("hardswish", "hardsigmoid") else 0.0
    if options == {"approximate": "tanh"}:
        ulp = ulp + 3 * np.abs(np.sqrt(8 / np.pi) * (exact + 0.044715 * exact**3))  # the error of exp's argument
    assert_within(got.y, y, ulp * 2 * UNIT * np.maximum(np.abs(y), near_zero) + SMALLEST * (1 + np.abs(exact)))
    gradient = getattr(reference, f"{name}_backward")(dy, exact, **options)
    assert_within(got.gradients[0], gradient, 24 * UNIT * (np.abs(dy) * (1 + np.abs(exact)) + np.abs(gradient)))


@pytest.mark.parametrize(
    ("shape", "slopes"), [((7,), 1), ((5, 17), 17), ((3, 17, 5), 17), ((2, 19, 5, 7), 19), ((2, 19, 5, 7), 1)]
)
def test_prelu(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], slopes: int) -> None:
    x, weight = integers(rng, shape, 3), integers(rng, (slopes,), 3)
    got = differentiate(F.prelu, [x, weight], lambda s: integers(rng, s), same_bits)
    exact = x.astype(float), weight.astype(float)
    np.testing.assert_array_equal(got.y, reference.prelu(*exact))
    for gradient, expected in zip(
        got.gradients, reference.prelu_backward(np.asarray(got.dy, float), *exact), strict=True
    ):
        np.testing.assert_array_equal(gradient, expected)


def test_prelu_of_infinity(isa: str) -> None:
    np.testing.assert_array_equal(F.prelu(np.float32([np.inf, -np.inf]), np.float32([0.5])), [np.inf, -np.inf])


@pytest.mark.parametrize(
    ("shape", "dim"), [((8,), 0), ((3, 10, 5), 1), ((2, 6, 5, 7), 1), ((2, 6, 5, 8), -1), ((2, 6, 4, 8), 2)]
)
def test_glu(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], dim: int) -> None:
    x = normal(rng, shape)
    got = differentiate(lambda t: F.glu(t, dim), [x], lambda s: normal(rng, s), same_bits)
    exact, dy = x.astype(float), got.dy.astype(float)
    y = reference.glu(exact, dim)
    assert_within(got.y, y, 8 * UNIT * np.abs(y))
    gradient = reference.glu_backward(dy, exact, dim)
    assert_within(
        got.gradients[0], gradient, 16 * UNIT * (np.abs(gradient) + np.abs(np.concatenate([dy, dy * y], dim)))
    )


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
        (nn.ReLU6(), "ReLU6()", F.relu6),
        (nn.LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)", lambda x: F.leaky_relu(x, 0.2)),
        (nn.PReLU(5), "PReLU(num_parameters=5)", lambda x: F.prelu(x, np.full(5, 0.25))),
        (nn.ELU(2.0, True), "ELU(alpha=2.0, inplace=True)", lambda x: F.elu(x, 2.0)),
        (nn.CELU(0.5), "CELU(alpha=0.5)", lambda x: F.celu(x, 0.5)),
        (nn.SELU(), "SELU()", F.selu),
        (nn.GELU("tanh"), "GELU(approximate='tanh')", lambda x: F.gelu(x, "tanh")),
        (nn.SiLU(), "SiLU()", F.silu),
        (nn.Mish(), "Mish()", F.mish),
        (nn.Softplus(2), "Softplus(beta=2.0, threshold=20.0)", lambda x: F.softplus(x, 2)),
        (nn.Hardswish(), "Hardswish()", F.hardswish),
        (nn.Hardsigmoid(), "Hardsigmoid()", F.hardsigmoid),
        (nn.Hardtanh(-2, 0.5), "Hardtanh(min_val=-2.0, max_val=0.5)", lambda x: F.hardtanh(x, -2, 0.5)),
        (nn.Sigmoid(), "Sigmoid()", F.sigmoid),
        (nn.Tanh(), "Tanh()", F.tanh),
        (nn.LogSigmoid(), "LogSigmoid()", F.logsigmoid),
        (nn.Softsign(), "Softsign()", F.softsign),
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Hardtanh(1.0, -1.0), "min_val must be less than max_val"),
        (lambda: nn.CELU(0.0), "alpha must be positive"),
        (lambda: nn.Softplus(beta=0), "beta must not be 0"),
        (lambda: nn.GELU("erf"), "approximate must be 'none' or 'tanh'"),
        (lambda: nn.LeakyReLU(float("nan")), "negative_slope must be a finite number"),
        (lambda: nn.PReLU(3)(np.zeros((2, 5))),
         r"PReLU\(num_parameters=3\): weight must have the shape \(1,\) or \(5,\)"),
        (lambda: nn.GLU()(np.zeros((2, 5))), r"GLU\(dim=-1\): glu halves axis -1, whose extent must be even"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
