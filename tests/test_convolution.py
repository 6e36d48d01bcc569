"""conv2d, forward and backward, against the reference: every geometry, ISA and team size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import reference
from fastnn.graph import Graph, Tensor
from fastnn.plan import compile_graph
from fastnn.settings import current_facts, serial_below
from fastnn.trace import Compiled

KERNELS = {
    "conv2d_pack_weight",
    "conv2d_pack_weight_backward",
    "conv2d_forward",
    "conv2d_strip_forward",
    "conv2d_backward_data",
    "conv2d_backward_weight",
    "conv2d_spread_pack",
    "conv2d_spread_backward_data",
    "conv2d_expand",
    "conv2d_expand_pack",
    "conv2d_depthwise_pack",
    "conv2d_depthwise_forward",
    "conv2d_depthwise_backward_data",
    "conv2d_depthwise_backward_weight",
}

UNIT = 2.0**-24

# name: x (N,C,H,W), (K, R, S), stride, padding (top, bottom, left, right), dilation, groups
GEOMETRIES: dict[str, tuple[Any, ...]] = {
    "3x3": ((2, 17, 7, 9), (33, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "tile of columns": ((1, 32, 5, 5), (64, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "several panels a tap": ((2, 96, 5, 3), (131, 2, 3), (1, 1), (1, 0, 1, 1), (1, 1), 1),
    "1x1": ((3, 19, 5, 7), (37, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1, many pixels": ((3, 24, 21, 27), (40, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1, many channels": ((1, 195, 5, 7), (203, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1, strides": ((2, 19, 9, 8), (37, 1, 1), (2, 3), (0, 0, 0, 0), (1, 1), 1),
    "1x1, strides, many pixels": ((3, 24, 66, 47), (37, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "1x1, strides, rows longer than a block": ((1, 64, 3, 401), (64, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "1x1, strides, empty batch": ((0, 16, 5, 5), (16, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "1x1, strides, long rows": ((2, 19, 6, 90), (37, 1, 1), (2, 3), (0, 0, 0, 0), (1, 1), 1),
    "1x1, strides, long rows of groups": ((3, 12, 5, 61), (18, 1, 1), (3, 2), (0, 0, 0, 0), (1, 1), 2),
    "1x1, strides, long rows, padded": ((1, 10, 4, 57), (17, 1, 1), (2, 2), (0, 1, 0, 3), (1, 1), 1),
    "1x1, padded": ((2, 10, 5, 6), (17, 1, 1), (1, 1), (1, 0, 0, 2), (1, 1), 1),
    "1x1, groups": ((2, 20, 5, 6), (16, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 4),
    "one channel": ((5, 1, 11, 13), (6, 5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
    "three channels": ((2, 3, 23, 19), (18, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1),
    "few channels, dilated": ((2, 5, 13, 11), (7, 3, 2), (1, 2), (2, 1, 0, 3), (2, 3), 1),
    "strides": ((2, 9, 11, 13), (10, 3, 4), (2, 3), (1, 2, 0, 1), (1, 1), 1),
    "strides, batch in parts": ((3, 8, 83, 90), (16, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "stride without taps": ((1, 8, 9, 10), (4, 1, 2), (3, 4), (0, 0, 1, 0), (1, 1), 1),
    "stride and dilation": ((2, 8, 17, 15), (11, 3, 3), (4, 2), (3, 0, 2, 5), (2, 3), 1),
    "groups": ((2, 21, 7, 5), (12, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    "groups of many": ((1, 34, 6, 5), (66, 3, 1), (2, 1), (1, 0, 0, 0), (1, 1), 2),
    "groups of one input": ((2, 6, 5, 5), (18, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
    "groups of one input, two outputs": ((2, 19, 6, 5), (38, 3, 2), (1, 2), (1, 1, 0, 1), (2, 1), 19),
    "groups of one input, many outputs": ((1, 3, 5, 5), (60, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    "groups of one output": ((2, 27, 6, 5), (9, 3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 9),
    "groups of one input, more than 64 taps": ((1, 4, 11, 12), (8, 9, 8), (1, 1), (4, 4, 4, 3), (1, 1), 4),
    "groups of two, 48 outputs": ((2, 12, 6, 7), (48, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
    "groups of four, many pixels": ((2, 8, 29, 31), (10, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "groups of four, strides": ((2, 16, 9, 11), (32, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 4),
    "groups of eight, 40 outputs": ((1, 16, 9, 8), (40, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "a row": ((3, 10, 1, 29), (9, 1, 5), (1, 2), (0, 0, 4, 1), (1, 1), 1),
    "a column": ((3, 10, 31, 1), (9, 3, 1), (1, 1), (0, 0, 0, 0), (4, 1), 1),
    "one pixel": ((2, 13, 1, 1), (5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "whole image": ((3, 7, 6, 5), (8, 6, 5), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "more than 64 taps": ((1, 8, 11, 12), (5, 9, 8), (1, 1), (4, 4, 4, 3), (1, 1), 1),
    "more than 1024 channels": ((1, 1031, 2, 3), (3, 2, 2), (1, 1), (1, 0, 0, 1), (1, 1), 1),
    "more than 1024 outputs": ((1, 3, 3, 2), (1033, 2, 2), (1, 1), (0, 1, 1, 0), (1, 1), 1),
    "many pixels": ((3, 4, 31, 37), (5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "rows longer than a block of pixels": ((1, 3, 2, 401), (5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "rows of several strips, dilated": ((1, 9, 3, 250), (6, 2, 3), (1, 1), (0, 0, 2, 2), (1, 2), 1),
    "groups of one input, empty batch": ((0, 4, 5, 5), (8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    "empty batch": ((0, 4, 5, 5), (6, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "depthwise": ((2, 37, 7, 19), (37, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 37),
    "depthwise, strides": ((2, 16, 13, 23), (16, 5, 4), (2, 3), (2, 1, 0, 3), (1, 1), 16),
    "depthwise, dilated": ((3, 7, 9, 31), (7, 3, 3), (1, 2), (2, 4, 3, 0), (2, 3), 7),
    "depthwise, more than 64 taps": ((1, 5, 12, 21), (5, 9, 8), (1, 1), (4, 4, 4, 3), (1, 1), 5),
    "depthwise, empty batch": ((0, 6, 5, 5), (6, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
}


@pytest.fixture(autouse=True, params=["strip", "indirect", "spread", "expand"])
def direct_on_the_team(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each form of the direct algorithm, whose sums are exact; even the smallest step runs on the whole team."""
    with fnn.conv_algorithm(request.param), serial_below(0):
        yield


def attributes_of(geometry: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("stride", "padding", "dilation", "groups"), geometry[2:], strict=True))


def shapes_of(geometry: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    x, (k, r, s), groups = geometry[0], geometry[1], geometry[5]
    return x, (k, x[1] // groups, r, s)


def convolution(geometry: tuple[Any, ...]) -> Callable[..., Tensor]:
    """conv2d of x, weight and, if it is given, bias, as a function of tensors."""
    attributes = attributes_of(geometry)
    return lambda x, *rest: x.graph.record("conv2d", x, *rest, **attributes)


def expected(geometry: tuple[Any, ...], dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    """The reference's y, dx, dweight and dbias in float64."""
    arguments = attributes_of(geometry)
    top, bottom, left, right = arguments.pop("padding")
    arguments["padding"] = ((top, bottom), (left, right))
    x, weight, bias = (a.astype(np.float64) for a in (x, weight, bias))
    y = reference.conv2d(x, weight, bias, **arguments)
    return (y, *reference.conv2d_backward(dy.astype(np.float64), x, weight, **arguments))


def output_shape(geometry: tuple[Any, ...]) -> tuple[int, ...]:
    x, weight = shapes_of(geometry)
    graph = Graph()
    return convolution(geometry)(graph.input(x), graph.input(weight)).shape


def integers(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[Any]:
    """Integers so small that every sum is exact."""
    return [rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes]


def all_results(geometry: tuple[Any, ...], dy: Any, *arrays: Any) -> tuple[Any, ...]:
    y, pullback = fnn.vjp(convolution(geometry), *arrays)
    return (y, *pullback(dy))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_exact(name: str, isa: str, threads: int, rng: np.random.Generator) -> None:
    geometry = GEOMETRIES[name]
    x, weight = shapes_of(geometry)
    dy, *arrays = integers(rng, output_shape(geometry), x, weight, weight[:1])
    for actual, wanted in zip(all_results(geometry, dy, *arrays), expected(geometry, dy, *arrays), strict=True):
        np.testing.assert_array_equal(actual, wanted)


def random_geometry(rng: np.random.Generator) -> tuple[Any, ...]:
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 5]))
        channels, outputs = (int(v) * groups for v in rng.integers(1, 40, 2))
        if rng.random() < 0.2:
            groups = outputs = channels
        batch, height, width = (int(v) for v in rng.integers(1, 12, 3))
        kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, most, 2)) for most in (5, 4, 4))
        padding = tuple(int(v) for v in rng.integers(0, 4, 4))
        geometry = ((batch, channels, height, width), (outputs, *kernel), stride, padding, dilation, groups)
        spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
        if spans[0] <= height + padding[0] + padding[1] and spans[1] <= width + padding[2] + padding[3]:
            return geometry


@pytest.mark.parametrize("block", range(5))
def test_exact_on_random_geometries(block: int, isa: str, rng: np.random.Generator) -> None:
    for _ in range(12):
        geometry = random_geometry(rng)
        fnn.set_num_threads(int(rng.integers(1, 5)))
        x, weight = shapes_of(geometry)
        dy, *arrays = integers(rng, output_shape(geometry), x, weight, weight[:1])
        for actual, wanted in zip(all_results(geometry, dy, *arrays), expected(geometry, dy, *arrays), strict=True):
            np.testing.assert_array_equal(actual, wanted, err_msg=str(geometry))


def gamma(steps: float, isa: str) -> float:
    """The factor of the bound for a sum of so many products: two roundings a step where there is no fused one."""
    roundings = steps * (2 if isa == "scalar" else 1)
    return roundings * UNIT / (1 - roundings * UNIT)


@pytest.mark.parametrize("name", [n for n, g in GEOMETRIES.items() if g[0][0] > 0])
def test_error_bound(name: str, isa: str, rng: np.random.Generator) -> None:
    geometry = GEOMETRIES[name]
    x_shape, weight_shape = shapes_of(geometry)
    k, taps = weight_shape[0], weight_shape[2] * weight_shape[3]
    n, _, p, q = y_shape = output_shape(geometry)
    dy, *arrays = (rng.standard_normal(s).astype(np.float32) for s in (y_shape, x_shape, weight_shape, (k,)))
    results = all_results(geometry, dy, *arrays)
    wanted = expected(geometry, dy, *arrays)
    magnitudes = expected(geometry, abs(dy), *(abs(a) for a in arrays))
    steps = (taps * weight_shape[1] + 1, taps * k // geometry[5], n * p * q + 1, n * p * q + 1)
    for actual, exact, magnitude, count in zip(results, wanted, magnitudes, steps, strict=True):
        bound = gamma(count, isa) * magnitude + np.spacing(abs(exact).astype(np.float32))
        assert np.all(abs(actual - exact) <= bound)


@pytest.mark.parametrize("name", ["3x3", "three channels", "several panels a tap", "strides", "strides, batch in parts", "groups",
                                  "1x1, strides, many pixels",
                                  "many pixels", "depthwise", "depthwise, strides"])  # fmt: skip
def test_same_bits_for_any_team(name: str, isa: str, rng: np.random.Generator, same_bits: Callable[..., Any]) -> None:
    geometry = GEOMETRIES[name]
    x, weight = shapes_of(geometry)
    dy, *arrays = (rng.standard_normal(s).astype(np.float32) for s in (output_shape(geometry), x, weight, weight[:1]))
    same_bits(lambda: all_results(geometry, dy, *arrays))


def test_same_bits_when_large_enough_to_share(rng: np.random.Generator, same_bits: Callable[..., Any]) -> None:
    geometry = ((4, 48, 29, 31), (56, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    x, weight = shapes_of(geometry)
    dy, *arrays = (rng.standard_normal(s).astype(np.float32) for s in (output_shape(geometry), x, weight, weight[:1]))
    same_bits(lambda: all_results(geometry, dy, *arrays))


@pytest.mark.parametrize("name", ["3x3", "1x1, strides, long rows", "three channels", "more than 64 taps",
                                  "more than 1024 channels", "depthwise", "depthwise, more than 64 taps"])  # fmt: skip
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_epilogue(name: str, activation: str | None, has_bias: bool, isa: str, rng: np.random.Generator) -> None:
    geometry = GEOMETRIES[name]
    x_shape, weight_shape = shapes_of(geometry)
    y_shape = output_shape(geometry)
    x, weight, bias, residual = integers(rng, x_shape, weight_shape, weight_shape[:1], y_shape)

    def build(graph: Graph, *tensors: Tensor) -> Sequence[Tensor]:
        extra = {} if activation is None else {"activation": activation}
        doubled = graph.record("relu", tensors[-1])  # a tensor of the plan, which the output may overwrite
        inputs = (*tensors[:-1], doubled)
        return [graph.record("conv2d", *inputs, has_residual=True, **extra, **attributes_of(geometry))]

    (actual,) = Compiled(build)(*([x, weight, bias] if has_bias else [x, weight]), residual)
    wanted = expected(geometry, np.zeros(y_shape), x, weight, bias * has_bias)[0] + np.maximum(residual, 0)
    if activation is not None:
        wanted = np.clip(wanted, 0, 6 if activation == "relu6" else None)
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "3x3",
        "strides",
        "strides, batch in parts",
        "1x1, strides",
        "1x1, strides, long rows",
        "stride without taps",
        "depthwise",
        "depthwise, strides",
        "more than 64 taps",
    ],
)
def test_gradient_added_to_another(name: str, kept: bool, isa: str, rng: np.random.Generator) -> None:
    """kept: the other one is needed afterwards, so that the sum must not overwrite it."""
    geometry = GEOMETRIES[name]
    x_shape, weight_shape = shapes_of(geometry)
    dy, weight, other = integers(rng, output_shape(geometry), weight_shape, x_shape)

    def build(graph: Graph, dy: Tensor, weight: Tensor, other: Tensor) -> Sequence[Tensor]:
        attributes = {"shape": x_shape, **attributes_of(geometry)}
        other = graph.record("relu", other)
        return [graph.record("conv2d_backward_data", dy, weight, other, **attributes), *[other] * kept]

    actual, *others = Compiled(build)(dy, weight, other)
    other = np.maximum(other, 0)
    wanted = expected(geometry, dy, np.zeros(x_shape), weight, np.zeros(weight_shape[0]))[1] + other
    np.testing.assert_array_equal(actual, wanted)
    for unchanged in others:
        np.testing.assert_array_equal(unchanged, other)


@pytest.mark.parametrize(
    ("x", "outputs", "size", "stride", "forward", "backward"),
    [
        ((2, 3, 24, 24), 64, 5, 2, "conv2d_strip_forward", "conv2d_spread_backward_data"),  # a first layer
        ((2, 3, 24, 32), 64, 3, 1, "conv2d_strip_forward", "conv2d_planar_backward_data"),  # a first one of long rows
        ((2, 32, 16, 16), 1, 5, 1, "conv2d_spread_backward_data", "conv2d_strip_forward"),  # a last one
        ((2, 6, 24, 24), 32, 3, 2, "conv2d_strip_forward", "conv2d_spread_backward_data"),  # a strided one
        ((2, 64, 16, 16), 96, 5, 2, "conv2d_forward", "conv2d_backward_data"),
    ],
)
@pytest.mark.parametrize("direct_on_the_team", ["direct"], indirect=True)
def test_few_channels_are_spread(
    x: tuple[int, ...], outputs: int, size: int, stride: int, forward: str, backward: str, isa: str
) -> None:
    graph = Graph()
    image, weight = graph.input(x), graph.input((outputs, x[1], size, size))
    geometry = {"stride": (stride, stride), "padding": (size // 2,) * 4, "dilation": (1, 1), "groups": 1}
    y = graph.record("conv2d", image, weight, **geometry)
    graph.outputs = [y, graph.record("conv2d_backward_data", graph.input(y.shape), weight, shape=x, **geometry)]
    kernels = {step.kernel for step in compile_graph(graph, current_facts()).steps}
    assert {forward, backward} <= kernels


def test_nan_and_infinity_pass_through(isa: str) -> None:
    x = np.ones((1, 9, 4, 4), np.float32)
    x[0, 0, 0, 0] = np.nan
    geometry = ((1, 9, 4, 4), (3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)

    def build(graph: Graph, x: Tensor, weight: Tensor) -> Sequence[Tensor]:
        return [graph.record("conv2d", x, weight, activation="relu6", **attributes_of(geometry))]

    (y,) = Compiled(build)(x, np.ones((3, 9, 3, 3), np.float32))
    assert np.isnan(y[0, :, :2, :2]).all() and np.isfinite(y[0, :, 2:, :]).all()


@pytest.mark.parametrize(
    ("x", "weight", "bias", "changes", "message"),
    [
        ((2, 3, 8), (4, 3, 3, 3), None, {}, "4 axes"),
        ((2, 8, 8, 3), (4, 3, 3, 3), None, {}, r"looks like N,H,W,C; pass x\.transpose\(0, 3, 1, 2\)"),
        ((2, 5, 8, 8), (4, 3, 3, 3), None, {}, "has 5 channels.*takes 3"),
        ((2, 3, 8, 8), (4, 3, 3, 3), (3,), {}, r"bias has shape \(3,\).*needs \(4,\)"),
        ((2, 3, 8, 8), (4, 3, 3, 3), None, {"stride": (0, 1)}, "must be at least 1"),
        ((2, 3, 8, 8), (4, 3, 3, 3), None, {"dilation": (1, 0)}, "must be at least 1"),
        ((2, 3, 8, 8), (4, 3, 3, 3), None, {"padding": (0, 0, -1, 0)}, "padding"),
        ((2, 3, 8, 8), (4, 1, 3, 3), None, {"groups": 3}, "divide the 4 output channels"),
        ((2, 3, 8, 8), (4, 3, 3, 3), None, {"groups": 0}, "must be positive"),
        ((2, 3, 2, 8), (4, 3, 3, 3), None, {}, "spans 3 x 3 pixels, more than the padded image 2 x 8"),
        ((2, 3, 4, 8), (4, 3, 3, 3), None, {"dilation": (2, 1)}, "spans 5 x 3"),
    ],
)
def test_errors(x: Any, weight: Any, bias: Any, changes: dict[str, Any], message: str) -> None:
    attributes = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, **changes}
    graph = Graph()
    tensors = [graph.input(shape) for shape in (x, weight, bias) if shape is not None]
    with pytest.raises(ValueError, match=message):
        graph.record("conv2d", *tensors, **attributes)
