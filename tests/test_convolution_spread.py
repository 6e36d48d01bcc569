"""The kernels that spread filter rows, called alone: geometries that no model has, in memory of exactly their size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from input_gradient import expected, named_sizes
from kernel_runner import UNIT, assert_within, run_kernel

from fastnn.ops.convolution_spread import packed_floats, spread_stride
from fastnn.settings import current_facts

KERNELS = {"conv2d_spread_pack", "conv2d_spread_backward_data"}

# N, H, W, C, P, Q, K, R, S, strides, dilations, pad_top, pad_left, groups
GEOMETRIES: dict[str, tuple[int, ...]] = {
    "3x3": (2, 6, 7, 3, 6, 7, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1),
    "negative padding": (2, 5, 11, 3, 3, 4, 5, 3, 3, 1, 1, 1, 1, -1, -4, 1),
    "padding that hides most": (1, 4, 3, 2, 6, 9, 5, 3, 4, 1, 1, 1, 1, 5, 8, 1),
    "nothing meets": (2, 3, 4, 6, 2, 3, 4, 2, 2, 1, 1, 1, 1, -9, -9, 2),
    "padding wider than the image": (1, 1, 1, 1, 9, 9, 3, 5, 5, 2, 2, 1, 1, 7, 9, 1),
    "strides larger than kernels": (2, 17, 19, 3, 4, 5, 7, 2, 3, 5, 4, 1, 1, 2, 1, 1),
    "strides and dilations": (2, 19, 15, 5, 5, 4, 6, 4, 3, 4, 3, 6, 2, 3, 2, 1),
    "rows of several pieces": (1, 2, 520, 1, 2, 257, 3, 2, 5, 1, 2, 1, 1, 0, 3, 1),
    "one piece exactly": (1, 2, 128, 3, 2, 128, 3, 2, 3, 1, 1, 1, 1, 1, 1, 1),
    "panels": (1, 3, 5, 17, 3, 5, 4, 3, 5, 1, 1, 1, 1, 1, 2, 1),
    "groups": (2, 5, 9, 15, 5, 9, 6, 3, 3, 1, 1, 1, 1, 1, 1, 3),
    "groups, strides and dilations": (2, 9, 11, 4, 4, 3, 10, 3, 2, 2, 3, 3, 2, 3, -1, 2),
    "groups of one": (1, 5, 9, 6, 5, 9, 12, 3, 3, 1, 1, 1, 1, 1, 1, 6),
    "groups of four": (2, 9, 8, 8, 5, 4, 16, 3, 3, 2, 2, 1, 1, 1, 1, 2),
    "groups of eight": (1, 5, 7, 16, 5, 7, 6, 3, 3, 1, 1, 1, 1, 1, 1, 2),
    "one pixel": (3, 1, 1, 2, 1, 1, 7, 1, 1, 1, 1, 1, 1, 0, 0, 1),
    "empty batch": (0, 4, 5, 3, 4, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1),
}


def arguments_of(name: str) -> tuple[dict[str, int], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Sizes, and the shapes of dy, the weight and dx."""
    a = named_sizes(GEOMETRIES[name])
    dy = (a["batch"], a["out_height"], a["out_width"], a["out_channels"])
    weight = (a["out_channels"], a["kernel_height"], a["kernel_width"], a["channels"] // a["groups"])
    return a, dy, weight, (a["batch"], a["height"], a["width"], a["channels"])


def run(dy: Any, weight: Any, a: dict[str, int], **more: Any) -> Any:
    """dx by the kernels; what the workspace holds does not matter."""
    facts = current_facts()
    shape = {k: a[k] for k in ("out_channels", "channels", "kernel_height", "kernel_width", "groups")}
    shape |= {"rotated": 0, "stride_h": a["stride_h"], "dilation_h": a["dilation_h"]}
    outputs = {"packed": ((packed_floats(a, facts),), np.float32)}
    packed = run_kernel("conv2d_spread_pack", outputs, source=weight, **shape)["packed"]
    stride = spread_stride(a, facts)
    workspace = np.full(stride * facts.threads, np.nan, np.float32)
    outputs = {"dx": ((a["batch"], a["height"], a["width"], a["channels"]), np.float32)}
    more = {"activation": 0, "packed": packed, "workspace": workspace, "workspace_stride": stride, **more, **a}
    return run_kernel("conv2d_spread_backward_data", outputs, dy=dy, **more)["dx"]


@pytest.mark.parametrize("epilogue", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_exact(name: str, epilogue: bool, isa: str, threads: int, rng: np.random.Generator) -> None:
    a, *shapes = arguments_of(name)
    dy, weight, residual, bias = (rng.integers(-4, 5, s).astype(np.float32) for s in (*shapes, (a["channels"],)))
    wanted = expected(dy, weight, a)
    if epilogue:
        wanted = np.clip(wanted + bias + residual, 0, 6)
        actual = run(dy, weight, a, bias=bias, residual=residual, activation=2)
    else:
        actual = run(dy, weight, a)
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("name", [name for name, geometry in GEOMETRIES.items() if geometry[0] > 0])
def test_error_bound_and_bits(name: str, isa: str, rng: np.random.Generator, same_bits: Callable[..., Any]) -> None:
    a, dy_shape, weight_shape, _ = arguments_of(name)
    dy, weight = (rng.standard_normal(s).astype(np.float32) for s in (dy_shape, weight_shape))
    actual = same_bits(lambda: run(dy, weight, a))
    sums = a["kernel_height"] * a["out_channels"] // a["groups"]
    roundings = UNIT * (sums * (2 if isa == "scalar" else 1) + a["kernel_width"])
    magnitude = expected(abs(dy), abs(weight), a)
    assert_within(actual, expected(dy, weight, a), roundings / (1 - roundings) * magnitude)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_only_neighbours_meet_what_is_not_finite(value: float, isa: str, threads: int) -> None:
    a, dy_shape, weight_shape, _ = arguments_of("3x3")
    dy, weight = np.ones(dy_shape, np.float32), np.ones(weight_shape, np.float32)
    dy[1, 2, 3, 4] = value
    np.testing.assert_array_equal(run(dy, weight, a), expected(dy, weight, a))
