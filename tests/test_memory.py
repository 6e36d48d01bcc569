"""Large results: memory that is used again, and streaming stores that change no bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import _core, nn
from fastnn.graph import Graph, Tensor
from fastnn.nn import functional as F
from fastnn.trace import Compiled

LARGE = (8, 64, 56, 56)


def images(shape: tuple[int, ...] = LARGE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_memory_of_a_freed_result_is_used_again() -> None:
    model, x = nn.ReLU(), images()
    places = set()
    for _ in range(8):
        y = model(x)
        assert y.ctypes.data % 64 == 0 and y.flags.writeable
        places.add(y.ctypes.data)
    assert len(places) <= 2


def test_results_that_live_share_no_memory() -> None:
    model, x = nn.ReLU(), images()
    expected = np.maximum(x, 0)
    results = [model(x) for _ in range(12)]
    assert len({y.ctypes.data for y in results}) == 12
    part = results[3][1:]
    del results
    others = [model(-x) for _ in range(12)]
    np.testing.assert_array_equal(part, expected[1:])
    assert len(others) == 12
    _core.release_memory()
    np.testing.assert_array_equal(part, expected[1:])
    np.testing.assert_array_equal(model(x), expected)


def test_threads_take_and_free_at_once() -> None:
    model, wrong = nn.ReLU(), []

    def work(number: int) -> None:
        x = np.full(LARGE, number, np.float32)
        for _ in range(10):
            if not (model(x)[0, :, ::7, ::5] == number).all():
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(i + 1,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_new_array_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError):
        _core.new_array((2, -1), np.dtype(np.float32))
    with pytest.raises(OverflowError):
        _core.new_array((2**62, 2**10), np.dtype(np.float32))
    assert _core.new_array((0, 3), np.dtype(np.int64)).shape == (0, 3)
    assert _core.new_array((), np.dtype(np.float32)).shape == ()


COUNT = (4 << 20) + 37
"""Elements of a result that is streamed, with a tail."""


def run(isa: str, kernel: str, arrays: dict[str, np.ndarray], **values: float) -> None:
    pointers = {name: _core.Pointer(_core.EXTERNAL, i, 0, a.nbytes) for i, (name, a) in enumerate(arrays.items())}
    sizes = tuple(a.nbytes for a in arrays.values())
    _core.Program(isa, [(kernel, {**pointers, **values}, _core.PIECEWISE)], (), sizes, 0).run(tuple(arrays.values()))


STREAM = {"seed": 5, "layer": 1, "step": 2}
CASES = {
    "relu_forward": (["x"], "y", {}),
    "add_forward": (["a", "b"], "y", {}),
    "relu_backward": (["dy", "y"], "dx", {}),
    "activation_forward": (["x"], "y", {"code": 10, "a": 0.0, "b": 0.0, "c": 0.0}),
    "activation_backward": (["dy", "saved"], "dx", {"code": 10, "a": 0.0, "b": 0.0, "c": 0.0}),
    "dropout": (["x"], "y", {"probability": 0.3, "scale": 1.5, **STREAM}),
    "gaussian_dropout": (["x"], "y", {"deviation": 0.5, **STREAM}),
    "alpha_dropout": (["x"], "y", {"probability": 0.3, "scale": 1.5, "shift": 0.1, "dropped": -1.7, **STREAM}),
    "copy": (["x"], "y", {}),
}


@pytest.mark.parametrize("kernel", CASES)
def test_streamed_results_have_the_same_bits(kernel: str, isa: str, threads: int) -> None:
    """An aligned large result is streamed, a misaligned one is not."""
    inputs, output, values = CASES[kernel]
    generator = np.random.default_rng(1)
    arrays = {name: generator.standard_normal(COUNT, np.float32) for name in inputs}
    room = np.full(COUNT + 32, 7, np.float32)
    start = -room.ctypes.data % 64 // 4
    results = []
    for offset in (0, 1):
        y = room[start + offset : start + offset + COUNT]
        run(isa, kernel, {**arrays, output: y}, count=COUNT, **values)
        assert room[start + offset + COUNT] == 7
        results.append(y.copy())
        room[:] = 7
    np.testing.assert_array_equal(results[0], results[1])


# Rows, depth, columns of products of 2^22 elements and more: whole lines of a cache, whole vectors, neither
PRODUCTS = [(4096, 7, 1040), (4096, 7, 1048), (4096, 7, 1027)]


def integers(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """So small that every sum is exact."""
    generator = np.random.default_rng(1)
    return [generator.integers(-3, 4, shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("size", [*PRODUCTS, (2048, 1030, 2064)])  # the last one: a sum in two parts
def test_large_convolutions_of_pixels_are_streamed(size: tuple[int, int, int], isa: str, threads: int) -> None:
    rows, depth, columns = size
    x, weight, bias, residual = integers((rows, depth), (columns, depth), (columns,), (rows, columns))
    images = [a.reshape(4, 16, -1, a.shape[1]).transpose(0, 3, 1, 2) for a in (x, residual)]
    geometry = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}

    def forward(graph: Graph, *inputs: Tensor) -> Sequence[Tensor]:
        return [graph.record("conv2d", *inputs, has_residual=len(inputs) > 3, activation="relu6", **geometry)]

    def backward(graph: Graph, dy: Tensor, weight: Tensor) -> Sequence[Tensor]:
        return [
            graph.record("conv2d_backward_data", dy, weight, shape=(*dy.shape[:1], columns, *dy.shape[2:]), **geometry)
        ]

    filters, product = weight[:, :, None, None], x @ weight.T
    with fnn.conv_algorithm("indirect"):
        results = [
            (Compiled(forward)(images[0], filters, bias), np.clip(product + bias, 0, 6)),
            (Compiled(forward)(images[0], filters, bias, images[1]), np.clip(product + bias + residual, 0, 6)),
            (Compiled(backward)(images[0], np.ascontiguousarray(filters.transpose(1, 0, 2, 3))), product),
        ]
    for (actual,), wanted in results:
        assert actual.ctypes.data % 64 == 0 and actual.size >= 4 << 20
        np.testing.assert_array_equal(actual.transpose(0, 2, 3, 1).reshape(rows, columns), wanted)


@pytest.mark.parametrize("size", [*PRODUCTS, (2048, 261, 2080)])  # likewise
def test_large_products_are_streamed(size: tuple[int, int, int], isa: str, threads: int) -> None:
    rows, depth, columns = size
    x, weight, bias = integers((rows, depth), (columns, depth), (columns,))
    product = x @ weight.T
    np.testing.assert_array_equal(F.linear(x, weight, bias), product + bias)
    turned = np.ascontiguousarray(weight.T)  # dx (rows, columns)
    _, pullback = fnn.vjp(lambda a: F.linear(a, turned), np.zeros((rows, columns), np.float32))
    np.testing.assert_array_equal(pullback(x)[0], product)
    _, pullback = fnn.vjp(
        lambda w: F.linear(turned, w), np.zeros((rows, columns), np.float32)
    )  # dweight (rows, columns)
    np.testing.assert_array_equal(pullback(np.ascontiguousarray(x.T))[0], product)


IMAGES: dict[str, Callable[[Any], Any]] = {
    "average pool": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "max pool": lambda x: F.max_pool2d(x, 3, 1, 1),
    "bilinear": lambda x: F.interpolate(x, size=(130, 255), mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, size=(128, 300)),
    "padding": lambda x: F.pad(x, (1, 2, 3, 0)),
    "cat of channels": lambda x: F.cat([x, x], 1),
    "cat of rows": lambda x: F.cat([x, x[:, :, 5:6]], 2),
    "slice": lambda x: x[:, :, 1:],
    "product": lambda x: x * x,
}


@pytest.mark.parametrize("function", IMAGES.values(), ids=IMAGES)
def test_large_images_are_streamed_with_the_same_bits(function: Callable[[Any], Any], isa: str, threads: int) -> None:
    """Five images are too large for the caches, one is not."""
    x = np.random.default_rng(1).standard_normal((5, 32, 129, 256), np.float32)
    y, pullback = fnn.vjp(function, x)
    part, one = fnn.vjp(function, x[3:4])
    np.testing.assert_array_equal(y[3:4], part)
    np.testing.assert_array_equal(pullback(y)[0][3:4], one(part)[0])


@pytest.mark.parametrize("columns", [(783, 301), (784, 304), (3, 1100)])
def test_large_matrices_are_joined_and_cut(columns: tuple[int, int], isa: str, threads: int) -> None:
    """Rows of whole vectors go past the caches, those that begin on any element do not."""
    x, y = integers((6000, columns[0]), (6000, columns[1]))
    joined, pullback = fnn.vjp(lambda a, b: F.cat([a, b], 1), x, y)
    np.testing.assert_array_equal(joined, np.concatenate([x, y], 1))
    for part, wanted in zip(pullback(joined), (x, y), strict=True):
        np.testing.assert_array_equal(part, wanted)
