"""Dropout kernels: the very masks of the NumPy stream, on every ISA and team."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, assert_within, channels_first, channels_last, run_kernel, same_results

from fastnn import reference

KERNELS = {"dropout", "dropout_channels", "gaussian_dropout", "alpha_dropout"}

SameBits = Callable[..., Any]
PROBABILITIES = [0.0, 1e-10, 0.3, 0.5, 1.0 - 2.0**-34, 1.0]


def scale_of(p: float) -> float:
    return 1.0 / (1.0 - p) if p < 1.0 else 1.0


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize("count", [0, 1, 5, 63, 64, 1021, 1024, 5003])
def test_dropout(isa: str, same_bits: SameBits, rng: np.random.Generator, count: int, p: float) -> None:
    x = rng.standard_normal(count, np.float32)
    if count:
        x[0] = np.nan
    stream = {"seed": 2**40 + 12345, "layer": 7, "step": 99}
    outputs = {"y": ((count,), "f4")}
    results = same_results(
        same_bits, lambda: run_kernel("dropout", outputs, x=x, count=count, probability=p, scale=scale_of(p), **stream)
    )
    np.testing.assert_array_equal(results["y"], reference.dropout(x, p, **stream))


@pytest.mark.parametrize("stream", [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**32 - 1), (1, 2, 2**33 + 3)])
def test_every_word_of_the_stream_counts(isa: str, stream: tuple[int, int, int]) -> None:
    names = dict(zip(("seed", "layer", "step"), stream, strict=True))
    ones = np.ones(777, np.float32)
    y = run_kernel("dropout", {"y": ((777,), "f4")}, x=ones, count=777, probability=0.5, scale=1, **names)["y"]
    np.testing.assert_array_equal(y != 0, reference.keep_mask(777, 0.5, **names))


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 1), (3, 17, 7, 2), (1, 64, 3, 2), (5, 1, 4, 1), (2, 131, 9, 1), (0, 3, 2, 2)]
)
def test_dropout_channels(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], p: float
) -> None:
    x = rng.standard_normal(shape, np.float32)
    batch, channels, height, width = shape
    stream = {"seed": 5, "layer": 1, "step": 2}
    outputs = {"y": ((batch, height, width, channels), "f4")}
    results = same_results(
        same_bits,
        lambda: run_kernel(
            "dropout_channels", outputs, x=channels_last(x), batch=batch, positions=height * width, channels=channels,
            probability=p, scale=scale_of(p), **stream,
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(channels_first(results["y"]), reference.dropout2d(x, p, **stream))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("count", [0, 1, 31, 64, 1021, 20011])
def test_gaussian_dropout(isa: str, same_bits: SameBits, rng: np.random.Generator, count: int, p: float) -> None:
    x = rng.standard_normal(count, np.float32)
    stream = {"seed": 3, "layer": 2**31, "step": 8}
    deviation = float(np.sqrt(p / (1 - p)))
    outputs = {"y": ((count,), "f4")}
    y = same_results(
        same_bits, lambda: run_kernel("gaussian_dropout", outputs, x=x, count=count, deviation=deviation, **stream)
    )["y"]
    expected = reference.gaussian_dropout(x.astype(np.float64), p, **stream)
    z = reference.normal((count + 127) // 128 * 128, **stream).reshape(-1, 2, 2, 32)
    radius = np.sqrt(np.square(z).sum(axis=2, keepdims=True)).repeat(2, axis=2).reshape(-1)[:count]
    assert_within(y, expected, 8 * UNIT * np.abs(x) * (1 + deviation * radius))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [0, 1, 63, 5003])
def test_alpha_dropout(isa: str, same_bits: SameBits, rng: np.random.Generator, count: int, p: float) -> None:
    x = rng.standard_normal(count, np.float32)
    stream = {"seed": 3, "layer": 5, "step": 8}
    limit = -1.7580993408473766
    scale = ((1 - p) * (1 + p * limit**2)) ** -0.5 if p < 1 else 0.0
    numbers = {"probability": p, "scale": scale, "shift": -scale * limit * p, "dropped": scale * limit * (1 - p)}
    outputs = {"y": ((count,), "f4")}
    y = same_results(same_bits, lambda: run_kernel("alpha_dropout", outputs, x=x, count=count, **numbers, **stream))[
        "y"
    ]
    expected = reference.alpha_dropout(x.astype(np.float64), p, True, **stream)
    assert_within(y, expected, 4 * UNIT * (np.abs(scale * x) + 2))
