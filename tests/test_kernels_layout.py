"""Transposes, copies, constants, and sums along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, assert_within, run_kernel, same_results

KERNELS = {"transpose", "copy", "fill", "sum_axis", "broadcast_axis"}

SameBits = Callable[..., Any]


@pytest.mark.parametrize(
    ("batch", "rows", "columns"),
    [(0, 3, 4), (1, 1, 1), (2, 3, 5), (3, 64, 49), (1, 65, 67), (2, 17, 130), (1, 128, 16), (3, 3, 1021)],
)
def test_transpose(
    isa: str, same_bits: SameBits, rng: np.random.Generator, batch: int, rows: int, columns: int
) -> None:
    x = rng.standard_normal((batch, rows, columns), np.float32)
    outputs = {"y": ((batch, columns, rows), "f4")}
    results = same_results(
        same_bits, lambda: run_kernel("transpose", outputs, x=x, batch=batch, rows=rows, columns=columns)
    )
    np.testing.assert_array_equal(results["y"], x.swapaxes(1, 2))


@pytest.mark.parametrize("count", [0, 1, 5, 4096, 10007])
def test_copy_and_fill(isa: str, threads: int, rng: np.random.Generator, count: int) -> None:
    x = rng.standard_normal(count, np.float32)
    outputs = {"y": ((count,), "f4")}
    np.testing.assert_array_equal(run_kernel("copy", outputs, x=x, count=count)["y"], x)
    filled = run_kernel("fill", outputs, count=count, value=-1.5)["y"]
    np.testing.assert_array_equal(filled, np.full(count, -1.5, np.float32))


EXTENTS = [
    (1, 1009, 64), (1, 5003, 10), (1, 30011, 16), (7, 49, 67), (31, 7, 5), (5, 1009, 1), (1, 30011, 1), (0, 3, 4),
    (2, 0, 5), (1, 301, 1031), (97, 3, 2),
]  # fmt: skip


@pytest.mark.parametrize(("outer", "middle", "inner"), EXTENTS)
def test_sum_axis(isa: str, same_bits: SameBits, rng: np.random.Generator, outer: int, middle: int, inner: int) -> None:
    outputs = {"y": ((outer, inner), "f4"), "workspace": ((max(outer, 64) * inner,), "f4")}
    whole = rng.integers(-9, 10, (outer, middle, inner)).astype(np.float32)
    extents = {"outer": outer, "middle": middle, "inner": inner}
    exact = same_results(same_bits, lambda: run_kernel("sum_axis", outputs, x=whole, scale=1, **extents), "workspace")
    np.testing.assert_array_equal(exact["y"], whole.sum(axis=1))
    x = rng.standard_normal((outer, middle, inner), np.float32)
    scaled = same_results(same_bits, lambda: run_kernel("sum_axis", outputs, x=x, scale=0.3, **extents), "workspace")
    scale = float(np.float32(0.3))
    blocks = max(1, min(64 // max(outer, 1), middle // (16 * max(1, 64 // max(inner, 1)))))
    bound = (-(-middle // blocks) + blocks + 1) * UNIT * scale * np.abs(x).astype(np.float64).sum(axis=1)
    assert_within(scaled["y"], scale * x.astype(np.float64).sum(axis=1), bound)


@pytest.mark.parametrize(("outer", "middle", "inner"), EXTENTS)
def test_broadcast_axis(isa: str, threads: int, rng: np.random.Generator, outer: int, middle: int, inner: int) -> None:
    x = rng.standard_normal((outer, inner), np.float32)
    outputs = {"y": ((outer, middle, inner), "f4")}
    y = run_kernel("broadcast_axis", outputs, x=x, outer=outer, middle=middle, inner=inner, scale=0.3)["y"]
    np.testing.assert_array_equal(y, np.broadcast_to((x * np.float32(0.3))[:, None], y.shape))
