"""Resampling of axes against dense matrices, pixel shuffle against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, channels_first, channels_last, run_kernel, same_results

import fastnn as fnn
from fastnn import reference
from fastnn.ops.resampling import Taps, identity, table, transposed

KERNELS = {"resample", "pixel_shuffle"}

SameBits = Callable[..., Any]


def random_taps(rng: np.random.Generator, size: int, output: int) -> Taps:
    """Copies, runs of copies, repeated elements, sums and elements without a source."""
    taps: list[tuple[tuple[int, float], ...]] = []
    while len(taps) < output:
        kind, source = int(rng.integers(5)), int(rng.integers(size))
        if kind == 0:
            taps.append(())
        elif kind == 1:
            taps.extend(((i, 1.0),) for i in range(source, size))
        elif kind == 2:
            taps.extend([((source, 1.0),)] * 2)
        else:
            count = int(rng.integers(1, 5))
            weights = np.float32(rng.standard_normal(count))
            one = tuple((int(rng.integers(size)), float(weight)) for weight in weights)
            taps.extend([one] * int(rng.integers(1, 3)))
    return tuple(taps[:output])


def dense(taps: Taps, size: int) -> Array:
    matrix = np.zeros((len(taps), size))
    for i, sources in enumerate(taps):
        for source, weight in sources:
            matrix[i, source] += weight
    return matrix


def magnitudes(taps: Taps, size: int) -> Array:
    return dense(tuple(tuple((source, abs(weight)) for source, weight in sources) for sources in taps), size)


def resample(x: Array, rows: Taps, columns: Taps, value: float, same_bits: SameBits) -> Array:
    """x (N,H,W,C) -> y (N,P,Q,C)"""
    batch, height, width, channels = x.shape
    outputs = {"y": ((batch, len(rows), len(columns), channels), "f4")}

    def run() -> dict[str, Array]:
        workspace = ((fnn.get_num_threads() * width * channels,), "f4")
        return run_kernel(
            "resample", {**outputs, "workspace": workspace}, x=x, rows=table(rows), columns=table(columns), value=value,
            batch=batch, height=height, width=width, channels=channels, out_height=len(rows), out_width=len(columns),
        )  # fmt: skip

    return same_results(same_bits, run, "workspace")["y"]


@pytest.mark.parametrize("out", [(1, 1), (5, 9), (23, 40)], ids=str)
@pytest.mark.parametrize("image", [(2, 7, 5, 3), (1, 1, 31, 1), (3, 9, 1, 17), (1, 6, 8, 67), (1, 4, 3, 200)], ids=str)
@pytest.mark.parametrize("same", ["none", "rows", "columns"])
def test_resample(
    isa: str, same_bits: SameBits, rng: np.random.Generator, image: tuple[int, ...], out: tuple[int, int], same: str
) -> None:
    x = rng.standard_normal(image, np.float32)
    rows = identity(image[1]) if same == "rows" else random_taps(rng, image[1], out[0])
    columns = identity(image[2]) if same == "columns" else random_taps(rng, image[2], out[1])
    y = resample(x, rows, columns, 2.5, same_bits)
    sums = np.einsum("ph,nhwc,qw->npqc", dense(rows, image[1]), x.astype(float), dense(columns, image[2]))
    terms = np.einsum("ph,nhwc,qw->npqc", magnitudes(rows, image[1]), np.abs(x), magnitudes(columns, image[2]))
    empty = np.array([not taps for taps in rows])[:, None] | np.array([not taps for taps in columns])[None, :]
    expected = np.where(empty[None, :, :, None], 2.5, sums)
    assert_within(y, expected, (4 + 4 + 2) * UNIT * terms)


def test_copies_are_exact(isa: str, same_bits: SameBits, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 6, 19), np.float32)
    x[0, 0, 0] = [np.nan, np.inf, -np.inf, -0.0] + [1e-30] * 15
    rows = tuple(((i, 1.0),) for i in (4, 0, 0, 1, 2, 3, 0))
    columns = tuple(((i, 1.0),) for i in (0, 0, 1, 2, 2, 5, 4, 3, 0))
    y = resample(x, rows, columns, 0.0, same_bits)
    expected = x[:, [4, 0, 0, 1, 2, 3, 0]][:, :, [0, 0, 1, 2, 2, 5, 4, 3, 0]]
    np.testing.assert_array_equal(y.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))


def test_transposed_taps_are_the_transposed_matrix(rng: np.random.Generator) -> None:
    taps = random_taps(rng, 7, 12)
    np.testing.assert_array_equal(dense(transposed(taps, 7), 12), dense(taps, 7).T)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (1, 37, 3, 2), (0, 2, 3, 3), (3, 64, 1, 7)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_pixel_shuffle(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], factor: int
) -> None:
    batch, channels, height, width = shape
    x = rng.standard_normal((batch, channels * factor * factor, height, width), np.float32)
    geometry = {"batch": batch, "height": height, "width": width, "channels": channels, "factor": factor}
    wide = {"y": ((batch, height * factor, width * factor, channels), "f4")}
    y = same_results(same_bits, lambda: run_kernel("pixel_shuffle", wide, x=channels_last(x), inverse=0, **geometry))[
        "y"
    ]
    np.testing.assert_array_equal(channels_first(y), reference.pixel_shuffle(x, factor))
    deep = {"y": (channels_last(x).shape, "f4")}
    back = same_results(same_bits, lambda: run_kernel("pixel_shuffle", deep, x=y, inverse=1, **geometry))["y"]
    np.testing.assert_array_equal(channels_first(back), x)
