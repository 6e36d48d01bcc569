"""Softmax, log-softmax and cross-entropy kernels, within the bounds their headers state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, Results, assert_within, run_kernel, same_results

from fastnn import _core, reference

KERNELS = {
    "softmax_forward",
    "softmax_backward",
    "log_softmax_forward",
    "log_softmax_backward",
    "cross_entropy_forward",
    "cross_entropy_backward",
}

SameBits = Callable[..., Any]
SHAPES = [(0, 5), (1, 1), (7, 10), (65, 16), (130, 1000), (3, 17), (64, 67)]
SMALLEST = float(np.finfo(np.float32).tiny)
"""Results below are flushed to zero."""


def scores(rng: np.random.Generator, shape: tuple[int, int], magnitude: float) -> Array:
    return (magnitude * rng.standard_normal(shape)).astype(np.float32)


def additions(columns: int, isa: str) -> float:
    return columns / _core.ISAS[isa]["lanes"] + 12


@pytest.mark.parametrize("magnitude", [1, 30])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, int], magnitude: float
) -> None:
    x, dy = scores(rng, shape, magnitude), rng.standard_normal(shape, np.float32)
    extents = {"rows": shape[0], "columns": shape[1]}
    expected = reference.softmax(x.astype(np.float64), 1)
    y = same_results(same_bits, lambda: run_kernel("softmax_forward", {"y": (shape, "f4")}, x=x, **extents))["y"]
    below = np.abs(x - x.max(axis=1, keepdims=True, initial=-np.inf)).astype(np.float64)
    terms = additions(shape[1], isa) + below
    assert_within(y, expected, terms * UNIT * expected + SMALLEST)
    dx = same_results(same_bits, lambda: run_kernel("softmax_backward", {"dx": (shape, "f4")}, dy=dy, y=y, **extents))[
        "dx"
    ]
    wide = y.astype(np.float64)
    gradient = wide * (dy - (dy * wide).sum(axis=1, keepdims=True))
    magnitudes = wide * (np.abs(dy) + np.abs(dy * wide).sum(axis=1, keepdims=True))
    assert_within(dx, gradient, additions(shape[1], isa) * UNIT * magnitudes + 10 * SMALLEST)


@pytest.mark.parametrize("magnitude", [1, 30])
@pytest.mark.parametrize("shape", SHAPES)
def test_log_softmax(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, int], magnitude: float
) -> None:
    x, dy = scores(rng, shape, magnitude), rng.standard_normal(shape, np.float32)
    extents = {"rows": shape[0], "columns": shape[1]}
    expected = reference.log_softmax(x.astype(np.float64), 1)
    y = same_results(same_bits, lambda: run_kernel("log_softmax_forward", {"y": (shape, "f4")}, x=x, **extents))["y"]
    below = np.abs(x - x.max(axis=1, keepdims=True, initial=-np.inf)).astype(np.float64)
    terms = additions(shape[1], isa) + 2 * below + 2 * np.log(shape[1])
    assert_within(y, expected, terms * UNIT)
    dx = same_results(
        same_bits, lambda: run_kernel("log_softmax_backward", {"dx": (shape, "f4")}, dy=dy, y=y, **extents)
    )["dx"]
    wide = np.exp(y.astype(np.float64))
    gradient = dy - wide * dy.astype(np.float64).sum(axis=1, keepdims=True)
    magnitudes = np.abs(dy) + np.abs(dy).astype(np.float64).sum(axis=1, keepdims=True)
    assert_within(dx, gradient, additions(shape[1], isa) * UNIT * magnitudes)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1000.0, 1000.0], [0.5, 0.5]),
        ([-np.inf, 0.0, -np.inf], [0.0, 1.0, 0.0]),
        ([0.0, np.nan], [np.nan, np.nan]),
        ([-np.inf, -np.inf], [np.nan, np.nan]),
        ([3e38, -3e38, 0.0], [1.0, 0.0, 0.0]),
    ],
)
def test_softmax_of_extremes(isa: str, row: list[float], expected: list[float]) -> None:
    x = np.array([row], np.float32)
    y = run_kernel("softmax_forward", {"y": (x.shape, "f4")}, x=x, rows=1, columns=x.shape[1])["y"]
    np.testing.assert_array_equal(y[0], np.array(expected, np.float32))


REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def cross_entropy(same_bits: SameBits, arguments: dict[str, Any]) -> Results:
    rows, each = arguments["rows"], arguments["reduction"] == REDUCTIONS["none"]
    outputs = {
        "loss": ((rows if each else 1,), "f4"), "log_sum_exp": ((rows,), "f4"),
        "total_weight": ((1,), "f4"), "workspace": ((2 * -(-rows // 64),), "f8"),
    }  # fmt: skip
    return same_results(same_bits, lambda: run_kernel("cross_entropy_forward", outputs, **arguments), "workspace")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, int], reduction: str,
    label_smoothing: float, weighted: bool,
) -> None:  # fmt: skip
    rows, classes = shape
    x = scores(rng, shape, 5)
    labels = rng.integers(0, classes, rows)
    labels[1:2] = -7
    weight = rng.uniform(0.1, 1.5, classes).astype(np.float32) if weighted else None
    common = {
        "logits": x, "labels": labels, "class_weight": weight, "rows": rows, "classes": classes, "ignore_index": -7,
        "label_smoothing": label_smoothing, "reduction": REDUCTIONS[reduction],
    }  # fmt: skip
    forward = cross_entropy(same_bits, common)
    if rows == 0 and reduction == "mean":
        assert np.isnan(forward["loss"]).all()
        return
    options = (labels, None if weight is None else weight.astype(np.float64), -7, reduction, label_smoothing)
    largest = (float(np.abs(x).max(initial=0)) + np.log(classes)) * (1.0 if weight is None else float(weight.max()))
    row_bound = additions(classes, isa) * UNIT * largest
    expected = np.reshape(reference.cross_entropy(x.astype(np.float64), *options), forward["loss"].shape)
    assert_within(forward["loss"], expected, row_bound * (rows if reduction == "sum" else 1) + UNIT * np.abs(expected))
    dloss = rng.standard_normal(forward["loss"].shape, np.float32)
    backward = same_results(
        same_bits,
        lambda: run_kernel(
            "cross_entropy_backward", {"dlogits": (shape, "f4")}, dloss=dloss, log_sum_exp=forward["log_sum_exp"],
            total_weight=forward["total_weight"], **common,
        ),
    )  # fmt: skip
    wide = dloss.astype(np.float64)
    dx = reference.cross_entropy_backward(wide if reduction == "none" else wide[0], x.astype(np.float64), *options)
    slope = float(np.abs(dloss).max(initial=0)) * (1.0 if weight is None else float(weight.max()))
    if reduction == "mean":
        slope /= float(forward["total_weight"][0])
    bound = (additions(classes, isa) + 2 * float(np.abs(x).max(initial=0))) * UNIT * slope
    assert_within(backward["dlogits"], dx, bound)
