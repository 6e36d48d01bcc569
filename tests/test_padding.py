"""Padding of every mode against the reference, exactly: forward copies, backward adds whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import SameBits, assert_equal, differentiate, integers

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference

# shape, pad, mode
CASES: list[tuple[tuple[int, ...], tuple[int, ...], str]] = [
    ((2, 3, 5, 7), (1, 2, 3, 0), "constant"),
    ((2, 17, 5, 7), (-1, 2, 3, -2), "constant"),
    ((1, 1, 4, 4), (2, 2), "constant"),
    ((2, 3, 5, 7), (0, 0, 1, 1), "constant"),
    ((2, 3, 4, 5), (0, 1, 1, 0, 2, 1, 1, 0), "constant"),
    ((2, 67, 4, 5), (0, 0, 0, 0, -3, 2), "constant"),
    ((3, 4, 9), (2, 1), "constant"),
    ((3, 4, 9), (0, 0, 1, 2), "constant"),
    ((4, 5), (1, 0, 0, 3), "constant"),
    ((6,), (2, 3), "constant"),
    ((2, 3, 2, 3, 4), (1, 1, 0, 2, 1, 0), "constant"),
    ((2, 3, 4, 5), (-5, 0), "constant"),
    ((0, 3, 4, 5), (1, 1, 1, 1), "constant"),
    ((2, 3, 0, 5), (1, 1, 1, 1), "constant"),
    ((2, 3, 4, 5), (), "constant"),
    ((2, 3, 5, 7), (3, 6, 4, 2), "reflect"),
    ((2, 18, 5, 7), (-2, 1, 1, -1), "reflect"),
    ((3, 4, 9), (8, 3), "reflect"),
    ((4, 9), (2, 2), "reflect"),
    ((2, 5, 6), (1, 2, 3, 4), "reflect"),
    ((2, 3, 5, 7), (9, 1, 0, 6), "replicate"),
    ((2, 33, 5, 7), (-3, 2, 2, -4), "replicate"),
    ((3, 1, 1), (4, 4), "replicate"),
    ((2, 3, 5, 7), (7, 3, 1, 5), "circular"),
    ((3, 4, 9), (-2, 5), "circular"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pad(
    isa: str, same_bits: SameBits, rng: np.random.Generator, case: tuple[tuple[int, ...], tuple[int, ...], str]
) -> None:
    shape, pads, mode = case
    value = -3.0 if mode == "constant" else None
    x = integers(rng, shape)
    got = differentiate(lambda t: F.pad(t, pads, mode, value), [x], lambda s: integers(rng, s), same_bits)
    exact = x.astype(float)
    assert_equal(got.y, reference.pad(exact, pads, mode, -3.0))
    assert_equal(got.gradients[0], reference.pad_backward(got.dy.astype(float), exact, pads, mode))


def test_gradient_of_the_gradient_of_a_crop(rng: np.random.Generator) -> None:
    """Padding by less than nothing is a slice."""
    x = integers(rng, (2, 5, 6, 7))
    np.testing.assert_array_equal(F.pad(x, (-1, -2, -3, 0)), x[:, :, 3:, 1:-2])


LAYERS: list[tuple[nn.Module, tuple[int, ...], str, float]] = [
    (nn.ZeroPad1d(2), (2, 2), "constant", 0.0),
    (nn.ZeroPad2d((1, -1, 2, 0)), (1, -1, 2, 0), "constant", 0.0),
    (nn.ConstantPad1d((3, 1), 1.5), (3, 1), "constant", 1.5),
    (nn.ConstantPad2d(1, -2), (1, 1, 1, 1), "constant", -2.0),
    (nn.ReflectionPad1d((4, 2)), (4, 2), "reflect", 0.0),
    (nn.ReflectionPad2d((1, 2, 3, 4)), (1, 2, 3, 4), "reflect", 0.0),
    (nn.ReplicationPad1d(7), (7, 7), "replicate", 0.0),
    (nn.ReplicationPad2d(2), (2, 2, 2, 2), "replicate", 0.0),
    (nn.CircularPad1d((5, 1)), (5, 1), "circular", 0.0),
    (nn.CircularPad2d((0, 3, 5, 1)), (0, 3, 5, 1), "circular", 0.0),
]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("layer", "pads", "mode", "value"), LAYERS, ids=lambda v: type(v).__name__)
def test_layers(
    rng: np.random.Generator, layer: nn.Module, pads: tuple[int, ...], mode: str, value: float, batched: bool
) -> None:
    shape = (2, 5, 6, 7) if len(pads) == 4 else (2, 5, 7)
    x = integers(rng, shape[0 if batched else 1 :])
    assert_equal(layer(x), reference.pad(x.astype(float), pads, mode, value))
    assert layer.state_dict() == {}


def test_layers_show_their_arguments() -> None:
    assert repr(nn.ReflectionPad2d(1)) == "ReflectionPad2d((1, 1, 1, 1))"
    assert repr(nn.ZeroPad2d((1, 2, 3, 4))) == "ZeroPad2d((1, 2, 3, 4))"
    assert repr(nn.ConstantPad1d(1, 2)) == "ConstantPad1d(padding=(1, 1), value=2.0)"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_fill_that_is_not_finite(isa: str, threads: int, value: float, rng: np.random.Generator) -> None:
    """-inf before a max pooling, for one."""
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    model = nn.ConstantPad2d((1, 2, 0, 3), value)
    for _ in range(2):
        np.testing.assert_array_equal(model(x), np.pad(x, ((0, 0), (0, 0), (0, 3), (1, 2)), constant_values=value))
    y, pullback = fnn.vjp(model, x)
    np.testing.assert_array_equal(pullback(np.ones_like(y))[0], np.ones_like(x))


def test_padding_inside_of_a_model(isa: str, threads: int, rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3))
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(model(x), model[1](F.pad(x, (1, 1, 1, 1), "reflect")))
    y, pullback = fnn.vjp(model, x)
    assert pullback(np.ones_like(y))[0].shape == x.shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.pad(x, (1,)), ValueError, "two integers for each axis"),
        (lambda x: F.pad(x, (1, 1.5)), TypeError, "pad must be a sequence of integers"),
        (lambda x: F.pad(x, 1), TypeError, "pad must be a sequence of integers"),
        (lambda x: F.pad(x, (1, 1), "wrap"), ValueError, "mode must be"),
        (lambda x: F.pad(x, (1, 1), "reflect", 2.0), ValueError, "value is for mode"),
        (lambda x: F.pad(x, (1,) * 10), ValueError, "is for 5 axes, the input has 4"),
        (lambda x: F.pad(x, (-3, -3)), ValueError, r"leaves -1 elements of axis 3 of \(2, 3, 4, 5\)"),
        (lambda x: F.pad(x, (-3, -2), "replicate"), ValueError, "leaves 0 elements"),
        (lambda x: F.pad(x, (5, 0), "reflect"), ValueError, "needs more than the 5 elements of axis 3"),
        (lambda x: F.pad(x, (2**45, 0)), ValueError, "reach to 16777216 elements an axis, not to 35184372088837"),
        (lambda x: nn.ZeroPad2d((0, 0, 0, 2**70))(x), ValueError, r"ZeroPad2d.* reach to 16777216 elements an axis"),
        (lambda x: F.pad(x, (0, 6), "circular"), ValueError, "more than once around axis 3"),
        (lambda x: F.pad(x[:, :, :, :0], (1, 1), "replicate"), ValueError, "no edge to repeat"),
        (lambda x: nn.ReflectionPad2d(4)(x), ValueError, r"^ReflectionPad2d\(\(4, 4, 4, 4\)\): reflection by"),
        (
            lambda x: nn.ReplicationPad1d(1)(x),
            ValueError,
            r"ReplicationPad1d\(\(1, 1\)\): the input must have the shape",
        ),
        (lambda x: nn.ZeroPad2d((1, 2)), ValueError, "ZeroPad2d: padding must be an integer or 4 of them"),
        (lambda x: nn.ConstantPad2d(1, None), TypeError, "ConstantPad2d: value must be a number"),
    ],
)
def test_what_does_not_fit(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.zeros((2, 3, 4, 5), np.float32))
