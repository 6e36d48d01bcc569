"""Activation kernels against the reference: units in the last place forward, multiples of |dy| backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, run_kernel, same_results

from fastnn import reference

KERNELS = {"activation_forward", "activation_backward"}

SameBits = Callable[..., Any]
SMALLEST = float(np.finfo(np.float32).tiny)


class Activation(NamedTuple):
    """code, a, b, c of csrc/kernels/activation.h; its reference; ulps, and an absolute error where y crosses zero."""

    code: int
    parameters: tuple[float, float, float]
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    options: tuple[Any, ...] = ()
    ulps: float = 1.0
    absolute: float = 0.0
    saves_output: bool = False


def identity_backward(dy: Array, y: Array) -> Array:
    """dx of exp."""
    return dy * y


ACTIVATIONS = {
    "hardtanh": Activation(0, (-0.5, 2, 0), reference.hardtanh, reference.hardtanh_backward, (-0.5, 2.0)),
    "relu6": Activation(0, (0, 6, 0), reference.relu6, reference.relu6_backward),
    "leaky_relu": Activation(1, (0.25, 0, 0), reference.leaky_relu, reference.leaky_relu_backward, (0.25,)),
    "elu": Activation(2, (0.75, 1, 1), reference.elu, reference.elu_backward, (0.75,), 3),
    "celu": Activation(2, (2, 1, 0.5), reference.celu, reference.celu_backward, (2.0,), 3),
    "selu": Activation(
        2, (1.6732632423543772, 1.0507009873554805, 1), reference.selu, reference.selu_backward, (), 3.5
    ),
    "sigmoid": Activation(3, (0, 0, 0), reference.sigmoid, reference.sigmoid_backward, (), 2.5, 0, True),
    "tanh": Activation(4, (0, 0, 0), reference.tanh, reference.tanh_backward, (), 5.5, 0, True),
    "logsigmoid": Activation(5, (0, 0, 0), reference.logsigmoid, reference.logsigmoid_backward, (), 3),
    "softplus": Activation(6, (2, 5, 0), reference.softplus, reference.softplus_backward, (2.0, 5.0), 3),
    "softsign": Activation(7, (0, 0, 0), reference.softsign, reference.softsign_backward, (), 1.5),
    "silu": Activation(8, (0, 0, 0), reference.silu, reference.silu_backward, (), 3.5),
    "mish": Activation(9, (0, 0, 0), reference.mish, reference.mish_backward, (), 5),
    "gelu": Activation(10, (0, 0, 0), reference.gelu, reference.gelu_backward, (), 7),
    "gelu_tanh": Activation(11, (0, 0, 0), reference.gelu, reference.gelu_backward, ("tanh",), 4),
    "hardsigmoid": Activation(12, (0, 0, 0), reference.hardsigmoid, reference.hardsigmoid_backward, (), 2, UNIT),
    "hardswish": Activation(13, (0, 0, 0), reference.hardswish, reference.hardswish_backward, (), 2, 2 * UNIT),
    "exponential": Activation(14, (0, 0, 0), np.exp, identity_backward, (), 1.01, 0, True),
}


def arguments(activation: Activation, count: int) -> dict[str, Any]:
    return {"count": count, "code": activation.code, **dict(zip("abc", activation.parameters, strict=True))}


def points(rng: np.random.Generator) -> Array:
    """Every magnitude, densely where functions bend."""
    x = [rng.normal(0, spread, 4001) for spread in (1e-3, 1, 4, 12)]
    x.append(np.logspace(-30, 1.5, 2001) * rng.choice([-1, 1], 2001))
    x.append(np.array([0.0, -0.0, 3, -3, 6, 20, -20, 60, -60, 2, -0.5, 2.5]))
    return np.concatenate(x).astype(np.float32)


def ulp(y: Array) -> Array:
    return np.spacing(np.maximum(np.abs(y), SMALLEST).astype(np.float32)).astype(np.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_forward(isa: str, same_bits: SameBits, rng: np.random.Generator, name: str) -> None:
    activation = ACTIVATIONS[name]
    x = points(rng)
    outputs = {"y": (x.shape, "f4")}
    y = same_results(
        same_bits, lambda: run_kernel("activation_forward", outputs, x=x, **arguments(activation, x.size))
    )["y"]
    wide = x.astype(np.float64)
    expected = activation.forward(wide, *activation.options)
    ulps = np.full(x.shape, float(activation.ulps))
    if name == "gelu_tanh":
        ulps += 3 * np.abs(1.5957691 * (wide + 0.044715 * wide**3)) * (wide < 0)
    assert_within(
        y,
        expected,
        ulps * ulp(expected) + activation.absolute + np.where(np.abs(expected) < 64 * SMALLEST, 64 * SMALLEST, 0),
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward(isa: str, same_bits: SameBits, rng: np.random.Generator, name: str) -> None:
    activation = ACTIVATIONS[name]
    x = points(rng)
    if name == "exponential":
        x = np.clip(x, -20, 20)
    dy = rng.standard_normal(x.shape, np.float32)
    saved = x
    if activation.saves_output:
        saved = run_kernel("activation_forward", {"y": (x.shape, "f4")}, x=x, **arguments(activation, x.size))["y"]
    outputs = {"dx": (x.shape, "f4")}
    dx = same_results(
        same_bits,
        lambda: run_kernel("activation_backward", outputs, dy=dy, saved=saved, **arguments(activation, x.size)),
    )["dx"]
    operand = saved if name == "exponential" else x
    expected = activation.backward(dy.astype(np.float64), operand.astype(np.float64), *activation.options)
    factor = np.where(np.abs(x) < 30, 1 + np.abs(x), 1) if name in ("gelu_tanh", "mish", "silu") else np.ones(x.shape)
    slope = np.maximum(1, np.abs(operand)) if name == "exponential" else 2.0
    assert_within(dx, expected, 16 * UNIT * np.abs(dy) * factor * slope + 64 * SMALLEST)


def test_logarithm(isa: str, rng: np.random.Generator) -> None:
    x = np.abs(points(rng))
    x = x[x > 0]
    dy = rng.standard_normal(x.shape, np.float32)
    common = {"count": x.size, "code": 15, "a": 0, "b": 0, "c": 0}
    y = run_kernel("activation_forward", {"y": (x.shape, "f4")}, x=x, **common)["y"]
    expected = np.log(x.astype(np.float64))
    assert_within(y, expected, 1.01 * ulp(expected))
    dx = run_kernel("activation_backward", {"dx": (x.shape, "f4")}, dy=dy, saved=x, **common)["dx"]
    np.testing.assert_array_equal(dx, dy / x)


@pytest.mark.parametrize("count", [0, 1, 7, 1024, 1031])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_tails(isa: str, rng: np.random.Generator, name: str, count: int) -> None:
    """An element's bits do not depend on where it stands."""
    activation = ACTIVATIONS[name]
    x = rng.standard_normal(count, np.float32)
    y = run_kernel("activation_forward", {"y": ((count,), "f4")}, x=x, **arguments(activation, count))["y"]
    longer = np.concatenate([x, rng.standard_normal(64, np.float32)])
    outputs = {"y": (longer.shape, "f4")}
    np.testing.assert_array_equal(
        y, run_kernel("activation_forward", outputs, x=longer, **arguments(activation, longer.size))["y"][:count]
    )


LIMITS = {  # at -inf, at inf
    "relu6": (0, 6), "leaky_relu": (-np.inf, np.inf), "elu": (-0.75, np.inf), "sigmoid": (0, 1), "tanh": (-1, 1),
    "logsigmoid": (-np.inf, 0), "softplus": (0, np.inf), "hardsigmoid": (0, 1), "exponential": (0, np.inf),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_limits(isa: str, name: str) -> None:
    activation = ACTIVATIONS[name]
    x = np.array([-np.inf, np.inf, np.nan], np.float32)
    y = run_kernel("activation_forward", {"y": ((3,), "f4")}, x=x, **arguments(activation, 3))["y"]
    np.testing.assert_array_equal(y, np.array([*LIMITS[name], np.nan], np.float32))


NAN, SLOPE_AT_INFINITY = np.nan, 1.0507009873554805
GRADIENT_LIMITS = {  # dx for dy = 1 at -inf, inf, NaN: as PyTorch has it, whose softsign and mish at inf lose the limit to a NaN
    "hardtanh": (0, 0, 0), "relu6": (0, 0, 0), "leaky_relu": (0.25, 1, 0.25), "elu": (0, 1, NAN), "celu": (0, 1, NAN),
    "selu": (0, SLOPE_AT_INFINITY, NAN), "sigmoid": (0, 0, NAN), "tanh": (0, 0, NAN), "logsigmoid": (1, 0, NAN),
    "softplus": (0, 1, NAN), "softsign": (0, 0, NAN), "silu": (NAN, NAN, NAN), "mish": (NAN, 1, NAN),
    "gelu": (NAN, NAN, NAN), "gelu_tanh": (NAN, NAN, NAN), "hardsigmoid": (0, 0, 0), "hardswish": (0, 1, NAN),
    "exponential": (0, np.inf, NAN),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient_limits(isa: str, name: str) -> None:
    activation = ACTIVATIONS[name]
    x, dy = np.array([-np.inf, np.inf, np.nan] * 7, np.float32), np.ones(21, np.float32)
    saved = x
    if activation.saves_output:
        saved = run_kernel("activation_forward", {"y": ((21,), "f4")}, x=x, **arguments(activation, 21))["y"]
    outputs = {"dx": ((21,), "f4")}
    dx = run_kernel("activation_backward", outputs, dy=dy, saved=saved, **arguments(activation, 21))["dx"]
    np.testing.assert_array_equal(dx, np.array(GRADIENT_LIMITS[name] * 7, np.float32))
