"""Batch normalisation kernels against the reference in float64, within the bounds their headers state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, Results, assert_within, run_kernel, same_results

from fastnn import reference

KERNELS = {"batch_norm_train_forward", "batch_norm_eval_forward", "batch_norm_backward", "batch_norm_fold"}

SameBits = Callable[..., Any]
EPS = 1e-5
WORKSPACE_ROWS = 132
SUM_LENGTH = 256 + 80
"""Additions behind one element of a sum: those in a chunk, and of chunks and blocks."""

# rows, channels, mean, deviation
SHAPES = [
    (2, 1, 0, 1), (5, 3, 0, 1), (64, 16, 0, 1), (77, 17, 1e4, 1), (1031, 64, 1e4, 1), (5003, 6, 3, 2),
    (20011, 67, 1e4, 1), (300, 2048, 0, 1), (0, 5, 0, 1), (9, 97, 0, 1e-3),
]  # fmt: skip
FLAGS = [(0, False, False), (1, False, True), (1, True, True), (0, True, False), (2, False, True), (2, True, False)]


class Case:
    """One random layer: arrays in float32, and the same in float64 for the reference."""

    def __init__(
        self, rng: np.random.Generator, shape: tuple[int, int, float, float], residual: bool, affine: bool
    ) -> None:
        self.rows, self.channels, mean, deviation = shape
        self.x = (mean + deviation * rng.standard_normal((self.rows, self.channels))).astype(np.float32)
        if self.rows > 100:
            self.x[0] += 50 * deviation  # the row that all others are taken relative to is an outlier
        self.residual = rng.standard_normal(self.x.shape, np.float32) if residual else None
        self.weight = rng.uniform(-2, 2, self.channels).astype(np.float32) if affine else None
        self.bias = rng.standard_normal(self.channels, np.float32) if affine else None
        self.running_mean = rng.standard_normal(self.channels, np.float32)
        self.running_variance = rng.uniform(0.1, 2, self.channels).astype(np.float32)
        self.dy = rng.standard_normal(self.x.shape, np.float32)

    def reference(self, **options: Any) -> reference.Normalized:
        return reference.batch_norm(
            self.x.astype(np.float64), self.running_mean.astype(np.float64), self.running_variance.astype(np.float64),
            double(self.weight), double(self.bias), eps=EPS, **options,
        )  # fmt: skip

    def finish(self, normalized: Array, activation: int) -> Array:
        y = normalized if self.residual is None else normalized + self.residual
        return np.clip(y, 0, 6 if activation == 2 else None) if activation else y

    def outputs(self) -> dict[str, Any]:
        return {"y": (self.x.shape, "f4"), "statistics": ((3, self.channels), "f4"), **self.workspace()}

    def workspace(self) -> dict[str, Any]:
        return {"workspace": ((WORKSPACE_ROWS, self.channels), "f4")}

    def arguments(self, activation: int) -> dict[str, Any]:
        names = ("x", "residual", "weight", "bias", "running_mean", "running_variance", "rows", "channels")
        return {**{name: getattr(self, name) for name in names}, "eps": EPS, "activation": activation}

    def output_bound(self, mean: Array, variance: Array) -> Array:
        weight = 1.0 if self.weight is None else np.abs(self.weight)
        terms = np.abs((self.x - mean) / np.sqrt(variance + EPS)) * weight
        terms = terms + (0.0 if self.bias is None else np.abs(self.bias))
        terms = terms + (0.0 if self.residual is None else np.abs(self.residual))
        return UNIT * (4 * terms + SUM_LENGTH * weight)


def double(array: Array | None) -> Array | None:
    return None if array is None else array.astype(np.float64)


def moments_of(x: Array, rows: int) -> Array:
    """(blocks, 3, channels) of blocks of so many rows: pivot, mean less pivot, centred squares."""
    blocks = [x[i : i + rows].astype(np.float64) for i in range(0, len(x), rows)]
    moments = [(b[0], b.mean(0) - b[0], ((b - b.mean(0)) ** 2).sum(0)) for b in blocks]
    return np.array(moments, np.float32).reshape(len(blocks), 3, x.shape[1])


def train(
    case: Case, same_bits: SameBits, activation: int, momentum: float, unbiased: bool, moment_rows: int = 0
) -> Results:
    """With `moment_rows` the kernel is given the moments of such blocks."""
    updates = ("running_mean", "running_variance", "batches")
    batches = np.array([3], np.int64)
    moments = moments_of(case.x, moment_rows) if moment_rows else None
    return same_results(
        same_bits,
        lambda: run_kernel(
            "batch_norm_train_forward", case.outputs(), updates, batches=batches, momentum=momentum,
            unbiased=int(unbiased), moments=moments, moment_rows=moment_rows, **case.arguments(activation),
        ),
        "workspace",
    )  # fmt: skip


@pytest.mark.parametrize(("activation", "residual", "affine"), FLAGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("moment_rows", [0, 37])
def test_train_forward(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, int, float, float], activation: int,
    residual: bool, affine: bool, moment_rows: int,
) -> None:  # fmt: skip
    case = Case(rng, shape, residual, affine)
    momentum, weight = (0.1, 0.1) if affine else (-1.0, 0.25)  # negative: the average over batches, this is the fourth
    results = train(case, same_bits, activation, momentum, affine, moment_rows)
    estimator = "unbiased" if affine else "biased"
    expected = case.reference(training=True, momentum=weight, running_var_estimator=estimator)
    bound = case.output_bound(expected.mean, expected.variance)
    assert_within(results["y"], case.finish(expected.output, activation), bound)
    assert results["batches"].item() == (4 if case.rows else 3)
    deviation = np.sqrt(expected.variance + EPS)
    statistics = results["statistics"].astype(np.float64)
    assert_within(statistics[2], 1 / deviation, SUM_LENGTH * UNIT / deviation)
    if case.rows:
        assert_within(statistics[0] + statistics[1], expected.mean, SUM_LENGTH * UNIT * deviation)
    assert expected.running_mean is not None and expected.running_var is not None
    running = UNIT * (np.abs(expected.running_mean) + SUM_LENGTH * deviation)
    assert_within(results["running_mean"], expected.running_mean, running)
    assert_within(results["running_variance"], expected.running_var, 2 * SUM_LENGTH * UNIT * expected.running_var)


def check_backward(
    case: Case, same_bits: SameBits, forward: Results, activation: int, batch_statistics: bool, keep_y: bool,
    sum_rows: int = 0,
) -> None:  # fmt: skip
    """With `sum_rows` the kernel is given the sums of such blocks."""
    y = forward["y"]
    closed = (y <= 0) | ((y >= 6) & (activation == 2))
    open_gradient = np.where(closed, 0, case.dy) if activation else case.dy
    running = () if batch_statistics else (double(case.running_mean), double(case.running_variance))
    dx, dweight, dbias = reference.batch_norm_backward(
        open_gradient.astype(np.float64), case.x.astype(np.float64), *(running or (None, None)), double(case.weight),
        batch_statistics, EPS,
    )  # fmt: skip
    sums = None
    if sum_rows:
        centred = case.x - forward["statistics"][0].astype(np.float64) - forward["statistics"][1]
        starts = range(0, max(case.rows, 1), sum_rows)
        terms = np.stack([open_gradient.astype(np.float64), open_gradient * centred])
        sums = np.array([terms[:, i : i + sum_rows].sum(1) for i in starts], np.float32)
    per_channel = ((case.channels,), "f4")
    outputs = {
        "dx": (case.x.shape, "f4"),
        "dresidual": (case.x.shape, "f4"),
        "dweight": per_channel,
        "dbias": per_channel,
    }
    results = same_results(
        same_bits,
        lambda: run_kernel(
            "batch_norm_backward", {**outputs, **case.workspace()}, dy=case.dy, x=case.x, y=y if keep_y else None,
            statistics=forward["statistics"], weight=case.weight, bias=case.bias, rows=case.rows,
            channels=case.channels, batch_statistics=int(batch_statistics), activation=activation, sums=sums,
            sum_rows=sum_rows,
        ),
        "workspace",
    )  # fmt: skip
    np.testing.assert_array_equal(results["dresidual"], open_gradient)
    inverse = forward["statistics"][2].astype(np.float64)
    centred = case.x - forward["statistics"][0].astype(np.float64) - forward["statistics"][1]
    products = np.abs(open_gradient * centred * inverse).sum(axis=0)
    assert_within(results["dbias"], dbias, SUM_LENGTH * UNIT * np.abs(open_gradient).astype(np.float64).sum(axis=0))
    assert_within(results["dweight"], dweight, 2 * SUM_LENGTH * UNIT * (products + np.abs(open_gradient).sum(axis=0)))
    if case.rows:
        scale = inverse * (1.0 if case.weight is None else np.abs(case.weight))
        terms = (
            np.abs(open_gradient)
            + np.abs(open_gradient).mean(axis=0)
            + np.abs(centred * inverse) * (products / case.rows)
        )
        assert_within(results["dx"], dx, SUM_LENGTH * UNIT * scale * (terms + 1))


@pytest.mark.parametrize(("activation", "residual", "affine"), FLAGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_train_backward(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, int, float, float], activation: int,
    residual: bool, affine: bool,
) -> None:  # fmt: skip
    case = Case(rng, shape, residual, affine)
    forward = train(case, same_bits, activation, 0.1, unbiased=True)
    check_backward(case, same_bits, forward, activation, True, keep_y=bool(activation))
    if activation and not residual:
        check_backward(case, same_bits, forward, activation, True, keep_y=False)
    if not residual:
        check_backward(case, same_bits, forward, activation, True, keep_y=False, sum_rows=37)


@pytest.mark.parametrize(("activation", "residual", "affine"), FLAGS)
@pytest.mark.parametrize("shape", SHAPES[:6], ids=str)
def test_eval(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, int, float, float], activation: int,
    residual: bool, affine: bool,
) -> None:  # fmt: skip
    case = Case(rng, shape, residual, affine)
    forward = same_results(
        same_bits,
        lambda: run_kernel("batch_norm_eval_forward", case.outputs(), **case.arguments(activation)),
        "workspace",
    )
    expected = case.reference(training=False)
    bound = case.output_bound(case.running_mean, case.running_variance.astype(np.float64))
    assert_within(forward["y"], case.finish(expected.output, activation), bound)
    check_backward(case, same_bits, forward, activation, False, keep_y=bool(activation))


@pytest.mark.parametrize("given", [True, False])
def test_fold(isa: str, threads: int, rng: np.random.Generator, given: bool) -> None:
    out_channels, inner = 13, 45
    conv_weight = rng.standard_normal((out_channels, inner), np.float32)
    conv_bias, weight, bias, mean, variance = rng.uniform(0.1, 2, (5, out_channels)).astype(np.float32)
    optional = {"conv_bias": conv_bias, "weight": weight, "bias": bias} if given else {}
    outputs = {"folded_weight": (conv_weight.shape, "f4"), "folded_bias": ((out_channels,), "f4")}
    results = run_kernel(
        "batch_norm_fold", outputs, conv_weight=conv_weight, running_mean=mean, running_variance=variance,
        out_channels=out_channels, inner=inner, eps=EPS, **optional,
    )  # fmt: skip
    scale = (weight if given else 1.0) / np.sqrt(variance.astype(np.float64) + EPS)
    shift = (conv_bias if given else 0.0) - mean.astype(np.float64)
    folded = conv_weight * scale[:, None]
    assert_within(results["folded_weight"], folded, 2 * UNIT * np.abs(folded))
    folded_bias = shift * scale + (bias if given else 0.0)
    assert_within(results["folded_bias"], folded_bias, UNIT * np.abs(folded_bias) + 1e-12)
