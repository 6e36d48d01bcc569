"""The kernel whose vectors lie along pixels, called alone: geometries that no model has, in memory of exactly their size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from input_gradient import expected, named_sizes
from kernel_runner import UNIT, assert_within, run_kernel

from fastnn.ops.convolution_planar import can_use_planes, planar_bands, planar_stride, uses_planes
from fastnn.settings import current_facts

KERNELS = {"conv2d_planar_backward_data"}

# N, H, W, C, P, Q, K, R, S, strides, dilations, pad_top, pad_left, groups
GEOMETRIES: dict[str, tuple[int, ...]] = {
    "3x3": (2, 6, 7, 3, 6, 7, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1),
    "7x7, strides": (1, 20, 38, 3, 10, 19, 16, 7, 7, 2, 2, 1, 1, 3, 3, 1),
    "long rows": (1, 3, 250, 3, 3, 250, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1),
    "one channel": (2, 5, 29, 1, 5, 29, 6, 5, 5, 1, 1, 1, 1, 2, 2, 1),
    "two channels, long rows": (1, 2, 131, 2, 2, 131, 3, 2, 5, 1, 1, 1, 1, 0, 3, 1),
    "four channels": (2, 5, 35, 4, 5, 35, 17, 3, 3, 1, 1, 1, 1, 1, 1, 1),
    "padding that hides most": (1, 4, 3, 2, 6, 9, 5, 3, 4, 1, 1, 1, 1, 5, 8, 1),
    "padding wider than the image": (1, 1, 1, 1, 9, 9, 3, 5, 5, 2, 2, 1, 1, 7, 9, 1),
    "strides larger than kernels": (2, 17, 19, 3, 4, 5, 7, 2, 3, 5, 4, 1, 1, 2, 1, 1),
    "strides larger than the image": (2, 3, 2, 3, 1, 1, 7, 2, 3, 5, 4, 1, 1, 0, 1, 1),
    "strides and dilations": (2, 19, 15, 4, 5, 4, 6, 4, 3, 4, 3, 6, 2, 3, 2, 1),
    "rows and columns that meet nothing": (1, 9, 21, 3, 3, 4, 5, 2, 2, 1, 2, 1, 1, 0, 1, 1),
    "one pixel": (3, 1, 1, 2, 1, 1, 7, 1, 1, 1, 1, 1, 1, 0, 0, 1),
    "empty batch": (0, 4, 5, 3, 4, 5, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1),
}


def arguments_of(name: str) -> tuple[dict[str, int], tuple[int, ...], tuple[int, ...]]:
    """Sizes, and the shapes of dy and the weight."""
    a = named_sizes(GEOMETRIES[name])
    dy = (a["batch"], a["out_height"], a["out_width"], a["out_channels"])
    return a, dy, (a["out_channels"], a["kernel_height"], a["kernel_width"], a["channels"])


def run(dy: Any, weight: Any, a: dict[str, int], bands: int = 0, **more: Any) -> Any:
    """dx by the kernel; what the workspace holds does not matter. bands: 0, as an op would cut it."""
    facts = current_facts()
    assert can_use_planes(a, facts)
    bands = bands or planar_bands(a, facts)
    stride = planar_stride(a, facts, bands)
    workspace = np.full(stride * facts.threads, np.nan, np.float32)
    outputs = {"dx": ((a["batch"], a["height"], a["width"], a["channels"]), np.float32)}
    more = {"activation": 0, "workspace": workspace, "workspace_stride": stride, "bands": bands, **more, **a}
    return run_kernel("conv2d_planar_backward_data", outputs, dy=dy, weight=weight, **more)["dx"]


@pytest.mark.parametrize("epilogue", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_exact(name: str, epilogue: bool, isa: str, threads: int, rng: np.random.Generator) -> None:
    a, *shapes = arguments_of(name)
    dy, weight, bias = (rng.integers(-4, 5, s).astype(np.float32) for s in (*shapes, (a["channels"],)))
    wanted = expected(dy, weight, a)
    if epilogue:
        np.testing.assert_array_equal(run(dy, weight, a, bias=bias, activation=2), np.clip(wanted + bias, 0, 6))
    else:
        np.testing.assert_array_equal(run(dy, weight, a), wanted)


@pytest.mark.parametrize("name", [name for name, geometry in GEOMETRIES.items() if geometry[0] > 0])
def test_error_bound_and_bits(name: str, isa: str, rng: np.random.Generator, same_bits: Callable[..., Any]) -> None:
    a, dy_shape, weight_shape = arguments_of(name)
    dy, weight = (rng.standard_normal(s).astype(np.float32) for s in (dy_shape, weight_shape))
    actual = same_bits(lambda: run(dy, weight, a))
    for bands in range(1, a["height"] + 1):
        np.testing.assert_array_equal(run(dy, weight, a, bands), actual)
    steps = a["kernel_height"] * a["kernel_width"] * a["out_channels"]
    roundings = UNIT * steps * (2 if isa == "scalar" else 1)
    assert_within(actual, expected(dy, weight, a), roundings / (1 - roundings) * expected(abs(dy), abs(weight), a))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_only_neighbours_meet_what_is_not_finite(value: float, isa: str, threads: int) -> None:
    a, dy_shape, weight_shape = arguments_of("3x3")
    dy, weight = np.ones(dy_shape, np.float32), np.ones(weight_shape, np.float32)
    dy[1, 2, 3, 4] = value
    np.testing.assert_array_equal(run(dy, weight, a), expected(dy, weight, a))


def test_few_channels_and_long_rows() -> None:
    a = named_sizes((2, 24, 32, 3, 24, 32, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1))
    assert uses_planes(a, current_facts())
    strided = {"kernel_height": 4, "kernel_width": 4, "stride_h": 4, "stride_w": 4}
    one_tap = {"kernel_width": 1, "pad_left": 0}
    for change in ({"channels": 5}, {"width": 5}, strided, one_tap, {"pad_left": -1}, {"groups": 3}):
        assert not uses_planes({**a, **change}, current_facts())
