"""Layer normalisation kernels against the reference in float64, within the bounds their header states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, assert_within, run_kernel, same_results

from fastnn import _core, reference

KERNELS = {"layer_norm_forward", "layer_norm_backward"}

SameBits = Callable[..., Any]
EPS = 1e-5


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("mean", [0, 1e4])
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (1, 1), (3, 17), (7, 64), (65, 130), (1031, 33), (2, 5003)])
def test_layer_norm(
    isa: str, same_bits: SameBits, rng: np.random.Generator, rows: int, columns: int, mean: float, affine: bool
) -> None:
    x = (mean + rng.standard_normal((rows, columns))).astype(np.float32)
    if columns > 100:
        x[:, 0] += 50  # the element that the others are taken relative to is an outlier
    dy = rng.standard_normal(x.shape, np.float32)
    weight = rng.uniform(-2, 2, columns).astype(np.float32) if affine else None
    bias = rng.standard_normal(columns, np.float32) if affine else None
    wide = x.astype(np.float64)
    wide_weight = None if weight is None else weight.astype(np.float64)
    wide_bias = None if bias is None else bias.astype(np.float64)
    extents = {"rows": rows, "columns": columns}
    outputs = {"y": (x.shape, "f4"), "statistics": ((3, rows), "f4")}
    forward = same_results(
        same_bits, lambda: run_kernel("layer_norm_forward", outputs, x=x, weight=weight, bias=bias, eps=EPS, **extents)
    )
    expected = reference.layer_norm(wide, columns, wide_weight, wide_bias, EPS)
    deviation = np.sqrt(wide.var(axis=1, keepdims=True) + EPS)
    x_hat = (wide - wide.mean(axis=1, keepdims=True)) / deviation
    length = columns / (4 * _core.ISAS[isa]["lanes"]) + 12
    pivot = np.abs(x_hat[:, :1])  # the error of the mean grows with the distance of the pivot
    scale = 1.0 if weight is None else np.abs(weight)
    shift = 0.0 if bias is None else np.abs(bias)
    hat_error = (length * (1 + pivot / np.sqrt(columns)) + pivot + (length + 8) * np.abs(x_hat)) * UNIT
    assert_within(forward["y"], expected, hat_error * scale + UNIT * (np.abs(expected) + shift))
    blocks = min(64, -(-rows // 8))
    per_column = ((columns,), "f4")
    gradients = {"dx": (x.shape, "f4"), "dweight": per_column, "dbias": per_column,
                 "workspace": ((2 * blocks * columns,), "f4")}  # fmt: skip
    backward = same_results(
        same_bits,
        lambda: run_kernel(
            "layer_norm_backward", gradients, dy=dy, x=x, statistics=forward["statistics"], weight=weight, **extents
        ),
        "workspace",
    )
    dx, dweight, dbias = reference.layer_norm_backward(dy.astype(np.float64), wide, columns, wide_weight, EPS)
    magnitudes = np.abs(dy).astype(np.float64)
    additions = rows / 64 + 80
    assert_within(backward["dbias"], dbias, additions * UNIT * magnitudes.sum(axis=0))
    terms = (magnitudes * (np.abs(x_hat) * additions * UNIT + hat_error)).sum(axis=0)
    assert_within(backward["dweight"], dweight, terms)
    g = magnitudes * scale
    spread = g + g.mean(axis=1, keepdims=True) if columns else g
    spread = spread + np.abs(x_hat) * (g * np.abs(x_hat)).mean(axis=1, keepdims=True)
    spread = spread + (g * np.abs(x_hat)).mean(axis=1, keepdims=True)
    assert_within(backward["dx"], dx, (4 * length + 20) * (1 + pivot) * UNIT * spread / deviation)
