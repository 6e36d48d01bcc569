"""Moments and sums that convolutions take of their results, against those of the results in float64, within the stated bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, Results, assert_within, run_kernel, same_results

from fastnn import _core
from fastnn.ops.convolution_geometry import Geometry

KERNELS = {
    "conv2d_pointwise_moments", "conv2d_depthwise_forward", "conv2d_pointwise_sums", "conv2d_depthwise_backward_data",
}  # fmt: skip

SameBits = Callable[..., Any]

EDGE = 1e-5

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


def packed_weight(weight: Array, isa: str, backward: bool = False) -> Array:
    out_channels, channels = weight.shape
    lanes = _core.ISAS[isa]["lanes"]
    columns, depth = (channels, out_channels) if backward else (out_channels, channels)
    return run_kernel(
        "conv2d_pack_weight_backward" if backward else "conv2d_pack_weight",
        {"packed": ((-(-columns // lanes) * lanes * depth,), "f4")}, source=weight, out_channels=out_channels,
        channels=channels, kernel_height=1, kernel_width=1, groups=1, **({"rotated": 0} if backward else {}),
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


class Normalization:
    """What a batch normalisation's backward pass is told, of its input (rows, channels) with this mean."""

    def __init__(self, rng: np.random.Generator, rows: int, channels: int, mean: float, activation: int) -> None:
        self.x = (mean + rng.standard_normal((rows, channels))).astype(np.float32)
        exact = mean + 0.1 * rng.standard_normal(channels)
        statistics = [exact, exact - exact.astype(np.float32), rng.uniform(0.5, 2, channels)]
        self.statistics = np.array(statistics, np.float32)
        self.weight = rng.uniform(-2, 2, channels).astype(np.float32) if activation else None
        self.bias = rng.standard_normal(channels).astype(np.float32) if activation else None
        self.activation = activation

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "normalized": self.x, "statistics": self.statistics, "norm_weight": self.weight, "norm_bias": self.bias,
            "norm_activation": self.activation,
        }  # fmt: skip

    def check(self, dx: Array, sums: Array, sum_rows: int, goes: Callable[[int], int]) -> None:
        """`goes`: additions to a block of so many rows. Within EDGE of an activation's limit a gradient may count or not."""
        mean, remainder, inverse = self.statistics.astype(np.float64)
        centred = self.x - mean - remainder
        g, edge = dx.astype(np.float64), np.zeros(dx.shape)
        if self.weight is not None and self.bias is not None:
            y = centred * inverse * self.weight + self.bias
            limit = 6 if self.activation == 2 else np.inf
            edge = np.where(np.minimum(np.abs(y), np.abs(y - limit)) < EDGE, np.abs(g), 0)
            g = np.where((y <= 0) | (y >= limit), 0, g)
        terms, edges = np.stack([g, g * centred]), np.stack([edge, edge * np.abs(centred)])
        for block, actual in enumerate(sums):
            rows = slice(block * sum_rows, (block + 1) * sum_rows)
            some = terms[:, rows]
            bound = (goes(some.shape[1]) + 14 + 4) * UNIT * np.abs(some).sum(1)
            assert_within(actual, some.sum(1), bound + edges[:, rows].sum(1))


@pytest.mark.parametrize(("mean", "activation"), [(0, 0), (1e3, 1), (0, 2)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pointwise_sums(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: Any, mean: float, activation: int
) -> None:
    rows, out_channels, channels, sum_rows = shape
    dy = rng.standard_normal((rows, out_channels), np.float32)
    packed = packed_weight(rng.standard_normal((out_channels, channels), np.float32), isa, backward=True)
    norm = Normalization(rng, rows, channels, mean, activation)
    residual = rng.standard_normal((rows, channels), np.float32) if activation else None
    blocks = -(-rows // sum_rows)
    outputs = {"dx": ((rows, channels), "f4"), "sums": ((blocks, 2, channels), "f4")}

    def run() -> Results:
        return run_kernel(
            "conv2d_pointwise_sums", outputs, dy=dy, packed=packed, residual=residual, sum_rows=sum_rows, rows=rows,
            channels=channels, out_channels=out_channels, **norm.arguments,
        )  # fmt: skip

    results = same_results(same_bits, run)
    plain = run_kernel(
        "conv2d_backward_data", {"dx": outputs["dx"]}, dy=dy, packed=packed, residual=residual, batch=rows,
        channels=channels, out_channels=out_channels, activation=0, **PIXEL,
    )  # fmt: skip
    np.testing.assert_array_equal(results["dx"], plain["dx"])
    tile = _core.ISAS[isa]["gemm_rows"]
    norm.check(results["dx"], results["sums"], sum_rows, lambda n: -(-n // tile))


@pytest.mark.parametrize(("mean", "activation"), [(0, 0), (1e3, 1), (0, 2)])
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_depthwise_sums(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: Any, mean: float, activation: int
) -> None:
    batch, height, width, channels, kernel, stride, rows = shape
    g = Geometry(
        (batch, channels, height, width),
        (channels, 1, kernel, kernel),
        (stride, stride),
        (kernel // 2,) * 4,
        (1, 1),
        channels,
    )
    dy = rng.standard_normal((batch, *g.output, channels), np.float32)
    packed = rng.standard_normal((kernel, kernel, channels), np.float32)
    norm = Normalization(rng, batch * height * width, channels, mean, activation)
    blocks = -(-batch * height // rows)
    outputs = {"dx": (norm.x.shape, "f4"), "sums": ((blocks, 2, channels), "f4")}

    def run(outputs: Any = outputs) -> Results:
        return run_kernel(
            "conv2d_depthwise_backward_data", outputs, dy=dy, packed=packed, activation=0, sum_rows=rows * width,
            **norm.arguments, **g.arguments,
        )  # fmt: skip

    results = same_results(same_bits, run)
    np.testing.assert_array_equal(results["dx"], run({"dx": outputs["dx"]})["dx"])
    norm.check(results["dx"], results["sums"], rows * width, lambda n: n)
