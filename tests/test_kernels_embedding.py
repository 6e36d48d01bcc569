"""Rows of a table by their numbers, and the sums of the way back, against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, assert_within, run_kernel, same_results

from fastnn import reference

KERNELS = {"embedding_forward", "embedding_backward", "convert_int64"}

SameBits = Callable[..., Any]

# count, rows, columns
TABLES = [(1, 1, 1), (7, 3, 5), (200, 10, 16), (131, 50, 17), (64, 4, 33), (300, 1000, 64), (65, 2, 200), (0, 5, 3)]


@pytest.mark.parametrize("sizes", TABLES, ids=str)
def test_forward(isa: str, same_bits: SameBits, rng: np.random.Generator, sizes: tuple[int, int, int]) -> None:
    count, rows, columns = sizes
    weight, indices = rng.standard_normal((rows, columns), np.float32), rng.integers(0, rows, count)
    arguments = {"count": count, "rows": rows, "columns": columns}
    outputs = {"y": ((count, columns), "f4")}
    y = same_results(
        same_bits, lambda: run_kernel("embedding_forward", outputs, indices=indices, weight=weight, **arguments)
    )["y"]
    np.testing.assert_array_equal(y, reference.embedding(indices, weight))


@pytest.mark.parametrize("padding_index", [-1, 0])
@pytest.mark.parametrize("sizes", TABLES, ids=str)
def test_backward(
    isa: str, same_bits: SameBits, rng: np.random.Generator, sizes: tuple[int, int, int], padding_index: int
) -> None:
    count, rows, columns = sizes
    dy, indices = rng.standard_normal((count, columns), np.float32), rng.integers(0, rows, count)
    arguments = {"count": count, "rows": rows, "columns": columns, "padding_index": padding_index}
    outputs = {"dweight": ((rows, columns), "f4")}
    dweight = same_results(
        same_bits, lambda: run_kernel("embedding_backward", outputs, dy=dy, indices=indices, **arguments)
    )["dweight"]
    table, padding = np.zeros((rows, columns)), None if padding_index < 0 else padding_index
    expected = reference.embedding_backward(dy.astype(float), indices, table, padding)
    terms = reference.embedding_backward(np.abs(dy).astype(float), indices, table, padding)
    repeats = np.bincount(indices, minlength=rows)[:, None]
    assert_within(dweight, expected, np.maximum(repeats - 1, 0) * UNIT * terms)


def test_indices_outside_of_the_table_touch_nothing(isa: str, same_bits: SameBits) -> None:
    indices, weight = np.array([-1, 1, 2, 2**40]), np.array([[1, 2], [3, 4]], np.float32)
    sizes = {"count": 4, "rows": 2, "columns": 2}
    y = run_kernel("embedding_forward", {"y": ((4, 2), "f4")}, indices=indices, weight=weight, **sizes)["y"]
    assert y.tolist() == [[0, 0], [3, 4], [0, 0], [0, 0]]
    dy = np.ones((4, 2), np.float32)
    outputs = {"dweight": ((2, 2), "f4")}
    dweight = run_kernel("embedding_backward", outputs, dy=dy, indices=indices, **sizes, padding_index=-1)["dweight"]
    assert dweight.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("count", [0, 1, 1000, 5003])
def test_integers_as_floats(isa: str, same_bits: SameBits, rng: np.random.Generator, count: int) -> None:
    x = rng.integers(-(2**62), 2**62, count) >> rng.integers(0, 62, count)
    y = same_results(same_bits, lambda: run_kernel("convert_int64", {"y": ((count,), "f4")}, x=x, count=count))["y"]
    np.testing.assert_array_equal(y, x.astype(np.float32))
