"""linear, forward and backward, against the reference: awkward sizes, every ISA and team size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, reference
from fastnn.graph import Graph, Tensor
from fastnn.settings import serial_below
from fastnn.trace import Compiled

KERNELS = {"linear_forward", "linear_backward_data", "linear_backward_weight"}

UNIT = 2.0**-24

# rows, in, out: on both sides of where few rows stream the weights (4 or 6, 16 with few outputs), of where weights are read
# as they stand (128; the gradient: 16), of tiles, panels, depth blocks; several blocks; a gradient made row by row; more
# weights than are packed at once; tall and wide matrices for the weight gradient, transposed and not, vectors along either side,
# copied and not, one part and several
SIZES = [
    (0, 5, 3), (0, 70, 33), (1, 1, 1), (1, 97, 10), (2, 16, 33), (5, 261, 7), (7, 64, 64), (13, 31, 17), (9, 300, 7),
    (11, 2, 57), (16, 33, 130), (17, 33, 130), (17, 1, 5), (29, 257, 31), (64, 256, 10), (100, 515, 65), (211, 19, 257),
    (1050, 7, 4), (2311, 3, 2), (460, 530, 1060), (4, 300, 70), (6, 270, 67), (7, 15, 261), (8, 530, 600), (9, 33, 300),
    (16, 600, 130), (17, 515, 111), (1600, 24, 96), (1600, 70, 40), (300, 160, 104), (1543, 130, 100), (33, 257, 64),
    (127, 290, 127), (128, 31, 150), (129, 31, 150), (19, 1003, 525), (17, 34999, 60),
    (270, 512, 20), (150, 184, 136), (300, 136, 200), (1600, 16, 96), (1550, 150, 32), (260, 20, 192), (1600, 8, 17),
]  # fmt: skip


@pytest.fixture(autouse=True)
def shared_steps() -> Iterator[None]:
    """Even the smallest step runs on the whole team."""
    with serial_below(0):
        yield


def linear(x: Tensor, *rest: Tensor) -> Tensor:
    return x.graph.record("linear", x, *rest)  # type: ignore[no-any-return]


def all_results(dy: Any, *arrays: Any) -> tuple[Any, ...]:
    y, pullback = fnn.vjp(linear, *arrays)
    return (y, *pullback(dy))


def expected(dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    dy, x, weight, bias = (a.astype(np.float64) for a in (dy, x, weight, bias))
    return (reference.linear(x, weight, bias), *reference.linear_backward(dy, x, weight))


def shapes(rows: int, inputs: int, outputs: int) -> list[tuple[int, ...]]:
    return [(rows, outputs), (rows, inputs), (outputs, inputs), (outputs,)]


@pytest.mark.parametrize("size", SIZES)
def test_exact(size: tuple[int, int, int], isa: str, threads: int, rng: np.random.Generator) -> None:
    dy, *arrays = (rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes(*size))
    for actual, wanted in zip(all_results(dy, *arrays), expected(dy, *arrays), strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("size", [size for size in SIZES if size[0] > 0])
def test_error_bound(size: tuple[int, int, int], isa: str, rng: np.random.Generator) -> None:
    dy, *arrays = (rng.standard_normal(shape).astype(np.float32) for shape in shapes(*size))
    results, wanted = all_results(dy, *arrays), expected(dy, *arrays)
    magnitudes = expected(abs(dy), *(abs(a) for a in arrays))
    rows, inputs, outputs = size
    steps = (inputs + 1, outputs, rows + 1, rows + 1)
    for actual, exact, magnitude, count in zip(results, wanted, magnitudes, steps, strict=True):
        roundings = count * (2 if isa == "scalar" else 1)
        bound = roundings * UNIT / (1 - roundings * UNIT) * magnitude + np.spacing(abs(exact).astype(np.float32))
        assert np.all(abs(actual - exact) <= bound)


@pytest.mark.parametrize(
    "size",
    [
        (3, 500, 301),
        (7, 260, 300),
        (29, 257, 131),
        (300, 129, 70),
        (1600, 24, 96),
        (1600, 16, 96),
        (1700, 97, 70),
        (19, 1003, 525),
    ],
)
def test_same_bits_for_any_team(
    size: tuple[int, int, int], isa: str, rng: np.random.Generator, same_bits: Callable[..., Any]
) -> None:
    dy, *arrays = (rng.standard_normal(shape).astype(np.float32) for shape in shapes(*size))
    same_bits(lambda: all_results(dy, *arrays))


def test_large_gradient_of_few_rows(isa: str, rng: np.random.Generator) -> None:
    """Weight gradients of 2^23 elements and more are written past the caches."""
    dy, *arrays = (rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes(2, 4096, 2051))
    dweight = all_results(dy, *arrays)[2]
    np.testing.assert_array_equal(dweight, dy.T @ arrays[0])


@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_activation(rows: int, activation: str, has_bias: bool, isa: str, rng: np.random.Generator) -> None:
    _, x, weight, bias = (rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes(rows, 300, 41))

    def build(graph: Graph, *tensors: Tensor) -> Sequence[Tensor]:
        return [graph.record("linear", *tensors, activation=activation)]

    (actual,) = Compiled(build)(*([x, weight, bias] if has_bias else [x, weight]))
    wanted = np.clip(x @ weight.T + bias * has_bias, 0, 6 if activation == "relu6" else None)
    np.testing.assert_array_equal(actual, wanted)


def test_three_axes(isa: str, rng: np.random.Generator) -> None:
    dy, x = (rng.integers(-4, 5, (3, 5, n)).astype(np.float32) for n in (7, 11))
    weight, bias = rng.integers(-4, 5, (7, 11)).astype(np.float32), np.arange(7, dtype=np.float32)
    for actual, wanted in zip(all_results(dy, x, weight, bias), expected(dy, x, weight, bias), strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((4, 5), (3, 6), None, "last axis must be 6 long"),
        ((4, 6), (3, 6, 1), None, "2 axes"),
        ((4, 6), (3, 6), (6,), r"bias has shape \(6,\)"),
        ((4, 2, 2, 6), (3, 6), None, "is an image"),
        ((4, 0), (3, 0), None, "no elements"),
        ((4, 6), (0, 6), None, "no elements"),
    ],
)
def test_errors(x: Any, weight: Any, bias: Any, message: str) -> None:
    graph = Graph()
    tensors = [graph.input(shape) for shape in (x, weight, bias) if shape is not None]
    with pytest.raises(ValueError, match=message):
        graph.record("linear", *tensors)


@pytest.mark.parametrize("rows", [1, 3, 4, 16, 17, 40, 129])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (37, 33), (1100, 70)])
def test_weights_that_stay_are_packed_once(
    rows: int, inputs: int, outputs: int, isa: str, threads: int, rng: np.random.Generator
) -> None:
    model = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU()).eval()
    x = rng.integers(-4, 5, (rows, inputs)).astype(np.float32)
    for _ in range(2):  # a change of the weights is noticed
        weight, bias = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((outputs, inputs), (outputs,)))
        model.load_state_dict({"0.weight": weight, "0.bias": bias})
        np.testing.assert_array_equal(model(x), np.maximum(reference.linear(x, weight, bias), 0))
    kernels = [step.kernel for step in model.plan(x.shape).steps]
    assert kernels in (["linear_forward"], ["conv2d_pack_weight", "conv2d_forward"])
    assert len(kernels) == 2 or rows < 17  # few rows stream the weights as they stand


def test_many_weights_that_stay_are_not_packed(isa: str, rng: np.random.Generator) -> None:
    """They come from memory, and packing them saves nothing."""
    model = nn.Linear(4096, 1024).eval()
    x, weight = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((9, 4096), (1024, 4096)))
    model.load_state_dict({"weight": weight, "bias": np.zeros(1024, np.float32)})
    np.testing.assert_array_equal(model(x), x @ weight.T)
    assert [step.kernel for step in model.plan(x.shape).steps] == ["linear_forward"]
