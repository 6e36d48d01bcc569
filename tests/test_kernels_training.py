"""Kernels over all gradients, weights or activations of a model: clipping, averages, monitors, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, run_kernel

KERNELS = {
    "clip_gradient_norm", "clip_gradient_value", "average_weights", "fired_units", "tensor_statistics",
    "instance_norm_track",
}  # fmt: skip

SameBits = Callable[..., Any]
COUNTS = [(1,), (3, 4096, 17), (0, 5), (4097, 12289, 1, 1000), (50_000,)]


def arrays(rng: np.random.Generator, counts: tuple[int, ...]) -> list[Array]:
    return [rng.standard_normal(count).astype(np.float32) for count in counts]


def blocks(counts: tuple[int, ...]) -> int:
    return sum(-(-count // 4096) for count in counts)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_clip_gradient_norm(
    isa: str, same_bits: SameBits, rng: np.random.Generator, counts: tuple[int, ...], order: int, in_place: bool
) -> None:
    gradients = arrays(rng, counts)
    whole = np.concatenate(gradients).astype(float)
    norm = np.abs(whole).max() if order == 0 else (np.abs(whole) ** order).sum() ** (1 / order)
    for max_norm in (0.25 * norm, 4 * norm, 0.0):

        def run(max_norm: float = max_norm) -> list[Array]:
            given = [gradient.copy() for gradient in gradients]
            clipped = given if in_place else [np.full_like(gradient, 7) for gradient in gradients]
            table: list[Any] = []
            for a, b in zip(given, clipped, strict=True):
                table += [a, b, a.size]
            results = run_kernel(
                "clip_gradient_norm", {"norm": ((1,), "f4"), "workspace": ((blocks(counts),), "f8")}, segments=table,
                segment_count=len(counts), order=order, max_norm=max_norm,
            )  # fmt: skip
            return [results["norm"], *clipped]

        got, *clipped = same_bits(run)
        bound = (4096 + 8) * UNIT
        assert abs(got[0] - norm) <= bound * norm
        factor = min(1.0, max_norm / (norm + 1e-6))
        for result, gradient in zip(clipped, gradients, strict=True):
            assert_within(result, gradient * factor, (bound + 2 * UNIT) * np.abs(gradient) * factor)
            if max_norm > norm:
                np.testing.assert_array_equal(result, gradient)


def test_clip_of_gradients_that_are_not_finite(isa: str) -> None:
    """As torch.nn.utils.clip_grad_norm_: an infinite norm leaves 0 (and NaN where it came from), a NaN makes all NaN."""
    for order in (0, 1, 2):
        for bad, others in ((np.inf, 0.0), (np.nan, np.nan)):
            for place in (0, 20, 4099):
                gradient = np.ones(5000, np.float32)
                gradient[place] = bad
                run_kernel(
                    "clip_gradient_norm", {"norm": ((1,), "f4"), "workspace": ((2,), "f8")},
                    segments=[gradient, gradient, gradient.size], segment_count=1, order=order, max_norm=1.0,
                )  # fmt: skip
                assert np.isnan(gradient[place])
                np.testing.assert_array_equal(gradient[1], others)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_clip_gradient_value(isa: str, same_bits: SameBits, rng: np.random.Generator, counts: tuple[int, ...]) -> None:
    gradients = arrays(rng, counts)
    gradients[-1][:1] = np.nan

    def run() -> list[Array]:
        clipped = [np.full_like(gradient, 7) for gradient in gradients]
        table: list[Any] = []
        for a, b in zip(gradients, clipped, strict=True):
            table += [a, b, a.size]
        run_kernel("clip_gradient_value", {}, segments=table, segment_count=len(counts), limit=0.5)
        return clipped

    for result, gradient in zip(same_bits(run), gradients, strict=True):
        np.testing.assert_array_equal(result, np.clip(gradient, -0.5, 0.5))


@pytest.mark.parametrize("weight", [0.0, 0.001, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_average_weights(
    isa: str, same_bits: SameBits, rng: np.random.Generator, counts: tuple[int, ...], weight: float
) -> None:
    averages, parameters = arrays(rng, counts), arrays(rng, counts)

    def run() -> list[Array]:
        changed = [average.copy() for average in averages]
        table: list[Any] = []
        for a, b in zip(changed, parameters, strict=True):
            table += [a, b, a.size]
        run_kernel("average_weights", {}, segments=table, segment_count=len(counts), weight=weight)
        return changed

    for result, average, parameter in zip(same_bits(run), averages, parameters, strict=True):
        expected = average.astype(float) + weight * (parameter.astype(float) - average)
        assert_within(result, expected, 4 * UNIT * (np.abs(average) + np.abs(parameter)))
        if weight in (0.0, 1.0):
            np.testing.assert_array_equal(result, parameter if weight else average)


@pytest.mark.parametrize(
    ("rows", "units"), [(1, 1), (3, 63), (5, 64), (2, 65), (9, 1000), (0, 70), (4, 4096), (70, 130)]
)
def test_fired_units(isa: str, same_bits: SameBits, rng: np.random.Generator, rows: int, units: int) -> None:
    y = np.maximum(0, rng.standard_normal((rows, units)) - 1.5).astype(np.float32)
    y[rng.random(y.shape) < 0.01] = np.nan  # not above 0
    words = -(-units // 64)
    before = rng.integers(0, 2, (words, 64)).astype(bool)
    before.reshape(-1)[units:] = False

    def run() -> Array:
        fired = np.packbits(before, bitorder="little").view(np.int64)
        return run_kernel("fired_units", {}, updates=("fired",), y=y, fired=fired, rows=rows, units=units)["fired"]

    bits = np.unpackbits(same_bits(run).view(np.uint8), bitorder="little").astype(bool)
    np.testing.assert_array_equal(bits[:units], before.reshape(-1)[:units] | (y > 0).any(0))
    assert not bits[units:].any()


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_tensor_statistics(isa: str, same_bits: SameBits, rng: np.random.Generator, counts: tuple[int, ...]) -> None:
    tensors = arrays(rng, counts)
    tensors[-1][::7] = np.inf
    table: list[Any] = []
    for tensor in tensors:
        table += [tensor, tensor.size]

    def run() -> Array:
        return run_kernel(
            "tensor_statistics",
            {"statistics": ((len(counts), 3), "f4"), "workspace": ((3 * blocks(counts),), "f8")},
            segments=table, segment_count=len(counts),
        )["statistics"]  # fmt: skip

    for (norm, largest, count), tensor in zip(same_bits(run), tensors, strict=True):
        assert count == (~np.isfinite(tensor)).sum()
        assert largest == np.abs(tensor).max(initial=0)
        expected = np.sqrt((tensor.astype(float) ** 2).sum())
        assert norm == expected or abs(norm - expected) <= (4096 + 8) * UNIT * expected


def test_statistics_of_nan(isa: str) -> None:
    tensor = np.ones(9001, np.float32)
    tensor[[5, 8000]] = np.nan, np.inf
    outputs = {"statistics": ((1, 3), "f4"), "workspace": ((9,), "f8")}
    result = run_kernel("tensor_statistics", outputs, segments=[tensor, tensor.size], segment_count=1)["statistics"]
    np.testing.assert_array_equal(result, [[np.nan, np.nan, 2]])


@pytest.mark.parametrize(("batch", "channels", "positions"), [(1, 1, 2), (3, 37, 5), (9, 16, 100), (0, 4, 9)])
def test_instance_norm_track(
    isa: str, same_bits: SameBits, rng: np.random.Generator, batch: int, channels: int, positions: int
) -> None:
    mean = rng.standard_normal((batch, channels)).astype(np.float32)
    rest = (1e-9 * rng.standard_normal((batch, channels))).astype(np.float32)
    root = (1 / np.sqrt(rng.uniform(0.1, 2, (batch, channels)))).astype(np.float32)
    running = rng.standard_normal((2, channels)).astype(np.float32)

    def run() -> list[Array]:
        results = run_kernel(
            "instance_norm_track", {}, updates=("running_mean", "running_variance"),
            statistics=np.stack([mean, rest, root]).reshape(3, batch * channels), running_mean=running[0],
            running_variance=running[1], batch=batch, channels=channels, positions=positions, eps=1e-5, momentum=0.3,
        )  # fmt: skip
        return [results["running_mean"], results["running_variance"]]

    got = same_bits(run)
    if batch == 0:
        np.testing.assert_array_equal(got, running)
        return
    moved_mean = (mean.astype(float) + rest).mean(0)
    moved_variance = (1 / root.astype(float) ** 2 - 1e-5).mean(0) * positions / (positions - 1)
    for result, old, new in zip(got, running, (moved_mean, moved_variance), strict=True):
        assert_within(result, 0.7 * old.astype(float) + 0.3 * new, 2 * UNIT * (np.abs(old) + np.abs(new)))
