"""Moments that convolutions take of their results, against those of the results in float64, within the stated bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, Results, assert_within, run_kernel, same_results

from fastnn import _core
from fastnn.ops.convolution import Geometry

KERNELS = {"conv2d_pointwise_moments", "conv2d_depthwise_forward"}

SameBits = Callable[..., Any]

PIXEL = {
    "height": 1, "width": 1, "out_height": 1, "out_width": 1, "kernel_height": 1, "kernel_width": 1, "stride_h": 1,
    "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "pad_top": 0, "pad_left": 0, "groups": 1,
}  # fmt: skip


def check_moments(y: Array, moments: Array, moment_rows: int, goes: Callable[[int], int]) -> None:
    """`goes`: additions to a block of so many rows."""
    y, moments = y.astype(np.float64), moments.astype(np.float64)
    for block, (pivot, mean, squares) in enumerate(moments):
        rows = y[block * moment_rows : (block + 1) * moment_rows]
        np.testing.assert_array_equal(pivot, rows[0])
        distance, exact = np.abs(rows - pivot).max(0), ((rows - rows.mean(0)) ** 2).sum(0)
        bound = (2 * goes(len(rows)) + 14 + 12) * UNIT * distance
        assert_within(mean, rows.mean(0) - pivot, bound)
        error = exact + 2 * distance * np.sqrt(len(rows) * exact)
        assert_within(squares, exact, (2 * goes(len(rows)) + 14 + 16) * UNIT * error)


def packed_weight(weight: Array, isa: str) -> Array:
    out_channels, channels = weight.shape
    lanes = _core.ISAS[isa]["lanes"]
    return run_kernel(
        "conv2d_pack_weight", {"packed": ((-(-out_channels // lanes) * lanes * channels,), "f4")}, source=weight,
        out_channels=out_channels, channels=channels, kernel_height=1, kernel_width=1, groups=1,
    )["packed"]  # fmt: skip


# rows, channels, out_channels, moment_rows; beyond 16 MiB a result goes past the caches
SHAPES = [
    (1, 1, 1, 1), (7, 3, 5, 3), (100, 16, 16, 21), (1000, 24, 97, 84), (1000, 5, 8, 1000), (61, 1031, 40, 20),
    (500, 33, 64, 1), (40000, 3, 112, 1536),
]  # fmt: skip


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pointwise(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: Any, offset: float) -> None:
    rows, channels, out_channels, moment_rows = shape
    x = rng.standard_normal((rows, channels), np.float32)
    weight = rng.standard_normal((out_channels, channels), np.float32)
    x[0] *= 50  # a pivot far from all others
    bias = (offset + rng.standard_normal(out_channels)).astype(np.float32)
    blocks = -(-rows // moment_rows)
    outputs = {"y": ((rows, out_channels), "f4"), "moments": ((blocks, 3, out_channels), "f4")}
    packed = packed_weight(weight, isa)

    def run() -> Results:
        return run_kernel(
            "conv2d_pointwise_moments", outputs, x=x, packed=packed, bias=bias, moment_rows=moment_rows, rows=rows,
            channels=channels, out_channels=out_channels,
        )  # fmt: skip

    results = same_results(same_bits, run)
    plain = run_kernel(
        "conv2d_forward", {"y": outputs["y"]}, x=x, packed=packed, bias=bias, batch=rows, channels=channels,
        out_channels=out_channels, activation=0, **PIXEL,
    )  # fmt: skip
    np.testing.assert_array_equal(results["y"], plain["y"])
    tile = _core.ISAS[isa]["gemm_rows"]
    check_moments(results["y"], results["moments"], moment_rows, lambda n: -(-n // tile))


# batch, height, width, channels, kernel, stride, output rows of a block
IMAGES = [
    (1, 1, 1, 1, 1, 1, 1), (2, 9, 11, 19, 3, 1, 4), (3, 14, 23, 35, 3, 2, 5), (1, 40, 33, 64, 5, 1, 40), (2, 70, 9, 8, 67, 1, 1),
    (4, 8, 7, 16, 7, 1, 3), (3, 128, 129, 96, 3, 1, 12),
]  # fmt: skip


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_depthwise(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: Any, offset: float) -> None:
    batch, height, width, channels, kernel, stride, rows = shape
    pad = kernel // 2
    g = Geometry(
        (batch, channels, height, width), (channels, 1, kernel, kernel), (stride, stride), (pad,) * 4, (1, 1), channels
    )
    x = rng.standard_normal((batch, height, width, channels), np.float32)
    x[0, 0] *= 50
    packed = rng.standard_normal((kernel, kernel, channels), np.float32)
    bias = (offset + rng.standard_normal(channels)).astype(np.float32)
    out_height, out_width = g.output
    blocks = -(-batch * out_height // rows)
    outputs = {"y": ((batch * out_height * out_width, channels), "f4"), "moments": ((blocks, 3, channels), "f4")}

    def run(outputs: Any = outputs) -> Results:
        return run_kernel(
            "conv2d_depthwise_forward", outputs, x=x, packed=packed, bias=bias, activation=0,
            moment_rows=rows * out_width, **g.arguments,
        )  # fmt: skip

    results = same_results(same_bits, run)
    np.testing.assert_array_equal(results["y"], run({"y": outputs["y"]})["y"])
    check_moments(results["y"], results["moments"], rows * out_width, lambda n: n)
