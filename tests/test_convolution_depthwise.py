"""Depthwise convolution: every inner loop of its kernels, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import reference
from fastnn.settings import serial_below

KERNELS = {
    "conv2d_depthwise_pack",
    "conv2d_depthwise_forward",
    "conv2d_depthwise_backward_data",
    "conv2d_depthwise_backward_weight",
}

WIDTHS = (1, 2, 3, 5, 7, 8, 14, 31, 71)


@pytest.fixture(autouse=True)
def always_a_team() -> Iterator[None]:
    with serial_below(0):
        yield


def integers(rng: np.random.Generator, *shape: int) -> Any:
    """Integers so small that every sum is exact."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def check(x: Any, weight: Any, bias: Any, rng: np.random.Generator, **geometry: Any) -> None:
    """y, dx, dweight and dbias are the reference's, bit for bit."""

    def convolution(x: Any, weight: Any, bias: Any) -> Any:
        return x.graph.record("conv2d", x, weight, bias, groups=x.shape[1], **geometry)

    (top, bottom, left, right), channels = geometry["padding"], x.shape[1]
    arguments = {**geometry, "padding": ((top, bottom), (left, right)), "groups": channels}
    arrays = [a.astype(np.float64) for a in (x, weight, bias)]
    y, pullback = fnn.vjp(convolution, x, weight, bias)
    wanted = reference.conv2d(*arrays, **arguments)
    np.testing.assert_array_equal(y, wanted, err_msg=str((x.shape, weight.shape, geometry)))
    dy = integers(rng, *y.shape)
    gradients = reference.conv2d_backward(dy.astype(np.float64), *arrays[:2], **arguments)
    for actual, exact in zip(pullback(dy), gradients, strict=True):
        np.testing.assert_array_equal(actual, exact, err_msg=str((x.shape, weight.shape, geometry)))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8])
def test_filters_of_every_width(size: int, stride: int, isa: str, threads: int, rng: np.random.Generator) -> None:
    for width in WIDTHS:
        channels, rows = int(rng.choice([3, 16, 35])), int(rng.choice([1, 3, size]))
        padding = tuple(int(p) for p in rng.integers(0, size + 1, 4))
        padding = (padding[0] + rows, padding[1], padding[2] + size, padding[3])
        weight = integers(rng, channels, 1, rows, size)
        arguments = {"stride": (2 if stride == 2 else 1, stride), "padding": padding, "dilation": (1, 1)}
        check(integers(rng, 2, channels, 6, width), weight, integers(rng, channels), rng, **arguments)


@pytest.mark.parametrize("dilation", [(1, 2), (2, 1), (3, 2)])
def test_dilation(dilation: tuple[int, int], isa: str, rng: np.random.Generator) -> None:
    for size in (3, 5, 7):
        padding = (dilation[0] * size, 1, dilation[1] * size, 0)
        weight = integers(rng, 19, 1, 3, size)
        arguments = {"stride": (1, 2), "padding": padding, "dilation": dilation}
        check(integers(rng, 2, 19, 9, 17), weight, integers(rng, 19), rng, **arguments)


def test_more_rows_of_a_filter_than_in_one_go(isa: str, rng: np.random.Generator) -> None:
    weight = integers(rng, 5, 1, 67, 3)
    arguments = {"stride": (1, 1), "padding": (2, 1, 1, 1), "dilation": (1, 1)}
    check(integers(rng, 1, 5, 70, 9), weight, integers(rng, 5), rng, **arguments)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_bits_do_not_depend_on_what_lies_behind_an_image(
    size: int, stride: int, isa: str, rng: np.random.Generator
) -> None:
    """Of a part of a vector whole ones are read where there is something behind it."""
    x = rng.standard_normal((3, 21, 8, 10), np.float32)
    weight = rng.standard_normal((21, 1, size, size), np.float32)

    def convolution(x: Any, weight: Any) -> Any:
        return fnn.nn.functional.conv2d(x, weight, stride=stride, padding=1, groups=21)

    y, pullback = fnn.vjp(convolution, x, weight)
    dx, _ = pullback(y)
    for i in range(len(x)):
        alone, pullback = fnn.vjp(convolution, x[i : i + 1], weight)
        np.testing.assert_array_equal(y[i : i + 1], alone)
        np.testing.assert_array_equal(dx[i : i + 1], pullback(alone)[0])


@pytest.mark.parametrize("stride", [1, 2])
def test_results_beyond_the_caches_have_the_same_bits(stride: int, isa: str, rng: np.random.Generator) -> None:
    """Large results are written past the caches, small ones are not."""
    x = rng.standard_normal((5, 32, 128 * stride, 256 * stride), np.float32)
    weight = rng.standard_normal((32, 1, 3, 3), np.float32)

    def convolution(x: Any, weight: Any) -> Any:
        return fnn.nn.functional.conv2d(x, weight, stride=stride, padding=1, groups=32)

    y, pullback = fnn.vjp(convolution, x, weight)
    (dx, _), one = pullback(y), slice(3, 4)
    part, pullback = fnn.vjp(convolution, x[one], weight)
    np.testing.assert_array_equal(y[one], part)
    np.testing.assert_array_equal(dx[one], pullback(part)[0])
