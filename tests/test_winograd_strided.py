"""Winograd convolution with stride 2 against the reference, within its header's bound; every schedule gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_runner import UNIT, Array, assert_within, channels_first, channels_last, run_kernel, same_results

import fastnn as fnn
from fastnn import nn, reference
from fastnn.nn import functional as F
from fastnn.ops.convolution_algorithm import Form
from fastnn.ops.convolution_geometry import Geometry
from fastnn.ops.convolution_winograd_strided import (
    StridedSchedule,
    packed_floats,
    product_of,
)
from fastnn.settings import current_facts, serial_below

KERNELS = {
    "winograd_strided_pack_weight",
    "winograd_strided_pack_weight_backward",
    "winograd_strided_forward",
    "winograd_strided_backward_data",
}

SameBits = Callable[..., Any]

# x (N,C,H,W), K, padding (top, bottom, left, right)
SHAPES: dict[str, tuple[Any, ...]] = {
    "several chunks": ((2, 67, 14, 19), 131, (1, 1, 1, 1)),
    "no padding": ((1, 31, 27, 24), 37, (0, 0, 0, 0)),
    "uneven padding": ((3, 5, 9, 22), 17, (2, 0, 1, 2)),
    "full tiles": ((1, 64, 16, 32), 64, (1, 1, 1, 1)),
    "more padding": ((2, 128, 13, 7), 19, (2, 2, 2, 1)),
    "one channel": ((2, 1, 20, 25), 1, (2, 2, 2, 2)),
    "one pixel": ((5, 13, 1, 1), 7, (1, 1, 1, 1)),
    "a row": ((2, 16, 1, 23), 3, (1, 1, 0, 0)),
    "pixels that nothing reads": ((2, 9, 8, 10), 21, (0, 0, 2, 0)),
    "more than 1024 channels": ((1, 1031, 4, 3), 2, (1, 1, 1, 1)),
    "empty batch": ((0, 8, 6, 6), 9, (1, 1, 1, 1)),
}


def geometry(name: str) -> Geometry:
    x, k, padding = SHAPES[name]
    return Geometry(x, (k, x[1], 3, 3), (2, 2), padding, (1, 1), 1)


POINTS = np.array([0.5, -0.5, 1.25, -1.25])


def maps(m: int) -> tuple[Array, Array, Array]:
    """B^T, G and A^T of winograd_transform.h for m outputs and two taps, in float64: of the first m points and infinity."""
    points = POINTS[:m]
    scale = np.array([np.prod([p - q for q in POINTS if q != p]) for p in points])
    filter_map = np.vstack([np.stack([points**0, points], 1) / scale[:, None], [[0, 1]]])
    output_map = np.hstack([points ** np.arange(m)[:, None], np.eye(m)[:, -1:]])
    input_map = np.zeros((m + 1, m + 1))
    for i, p in enumerate(points):
        lacking = np.prod([p - q for q in POINTS[m:]])
        input_map[i, :m] = lacking * np.atleast_1d(np.poly([q for q in points if q != p]))[::-1]
    input_map[m] = np.poly(points)[::-1]
    return input_map, filter_map, output_map


@pytest.mark.parametrize("m", range(1, 5))
def test_maps_are_an_algorithm(m: int, rng: np.random.Generator) -> None:
    input_map, filter_map, output_map = maps(m)
    d, g = rng.standard_normal((m + 1, m + 1)), rng.standard_normal((2, 2))
    y = output_map @ ((filter_map @ g @ filter_map.T) * (input_map @ d @ input_map.T)) @ output_map.T
    np.testing.assert_allclose(y, reference.conv2d(d[None, None], g[None, None])[0, 0], atol=1e-12)


def axis_maps(size: int, outputs: int, pad: int, odd: bool) -> tuple[Array, Array, Array]:
    """One direction of an image and one phase: what makes V of its pixels, U of three taps, and outputs of M.

    V and M have five places a tile, those of the four points and infinity; what a tile or a phase lacks is zero.
    """
    tiles = -(-outputs // 4)
    inputs, filters, results = np.zeros((tiles, 5, size)), np.zeros((5, 3)), np.zeros((outputs, tiles, 5))
    for tile in range(tiles):
        m = min(outputs - 4 * tile, 4)
        input_map, _, output_map = maps(m)
        places = [*range(m), 4]
        for j in range(m + 1):
            pixel = 2 * (4 * tile + j) + odd - pad
            if 0 <= pixel < size:
                inputs[tile, places, pixel] = input_map[:, j]
        results[4 * tile : 4 * tile + m, tile, places] = output_map
    filters[:, [1, 0] if odd else [0, 2]] = maps(4)[1]
    if odd:
        filters[:, 0] = filters[4] = inputs[:, 4] = 0
    return inputs, filters, results


def axis_maps_backward(size: int, outputs: int, pad: int, odd: bool) -> tuple[Array, Array, Array]:
    """Likewise of the gradient of the input, of `size` pixels, from `outputs` of dy: tiles of eight pixels, odd ones first."""
    before = int(pad % 2 == 0)
    pairs = -(-(size + before) // 2)
    tiles = -(-pairs // 4)
    inputs, filters, results = np.zeros((tiles, 5, outputs)), np.zeros((5, 3)), np.zeros((size, tiles, 5))
    for tile in range(tiles):
        m = min(pairs - 4 * tile, 4)
        input_map, _, output_map = maps(m)
        places = [*range(m), 4]
        for j in range(m + 1):
            row = 4 * tile + j + (pad - 1) // 2
            if 0 <= row < outputs:
                inputs[tile, places, row] = input_map[:, j]
            pixel = 8 * tile + 2 * j - before + (not odd)
            if j < m and 0 <= pixel < size:
                results[pixel, tile, places] = output_map[j]
    filters[:, [1, 0] if odd else [2, 0]] = maps(4)[1]
    if odd:
        filters[:, 0] = filters[4] = results[:, :, 4] = 0
    return inputs, filters, results


def convolution(image: Array, weight: Array, g: Geometry, backward: bool, absolute: bool) -> Array:
    """y of x and weight (K,C,3,3), or dx of dy, by the maps; with `absolute` of the absolute values of everything."""
    axes = axis_maps_backward if backward else axis_maps
    kind = np.abs if absolute else np.asarray
    image, weight = kind(np.float64(image)), kind(np.float64(weight))
    if backward:
        weight = weight.transpose(1, 0, 2, 3)
    total: Any = 0.0
    for row in (False, True):
        for column in (False, True):
            rows, columns = (
                [kind(m) for m in axes(g.x[2 + i], g.y[2 + i], g.padding[2 * i], odd)]
                for i, odd in ((0, row), (1, column))
            )
            u = rows[1] @ weight @ columns[1].T
            v = np.einsum("tih,nchw,ujw->nctiuj", rows[0], image, columns[0], optimize=True)
            products = np.einsum("nctiuj,kcij->nktiuj", v, u, optimize=True)
            total = total + np.einsum("pti,nktiuj,quj->nkpq", rows[2], products, columns[2], optimize=True)
    return total


def bound(image: Array, weight: Array, g: Geometry, backward: bool) -> Array:
    """winograd_strided.h: gamma_n times the algorithm on absolute values, n = 4*C + 25, backward K + 25."""
    steps = (25 + (g.weight[0] if backward else 4 * g.weight[1])) * UNIT
    return convolution(image, weight, g, backward, absolute=True) * steps / (1 - steps)


def exact_gradient(dy: Array, weight: Array, g: Geometry) -> Array:
    sides = (g.padding[:2], g.padding[2:])
    return reference.conv2d_backward(np.float64(dy), np.zeros(g.x), np.float64(weight), stride=2, padding=sides)[0]


def exact_result(x: Array, weight: Array, g: Geometry) -> Array:
    return reference.conv2d(np.float64(x), np.float64(weight), stride=2, padding=(g.padding[:2], g.padding[2:]))


@pytest.mark.parametrize("name", SHAPES)
def test_phases_are_an_algorithm(name: str, rng: np.random.Generator) -> None:
    """The transforms of winograd_strided.h in float64, tiles of fewer outputs included."""
    g = geometry(name)
    x, weight, dy = (rng.standard_normal(shape) for shape in (g.x, g.weight, g.y))
    y, dx = convolution(x, weight, g, False, False), convolution(dy, weight, g, True, False)
    np.testing.assert_allclose(y, exact_result(x, weight, g), atol=1e-10)
    np.testing.assert_allclose(dx, exact_gradient(dy, weight, g), atol=1e-10)


def pack(weight: Array, g: Geometry, backward: bool) -> Array:
    """What a phase lacks stays NaN: nothing may read it."""
    packed = np.full(packed_floats(product_of(g, backward), current_facts()), np.nan, np.float32)
    name = "winograd_strided_pack_weight_backward" if backward else "winograd_strided_pack_weight"
    sizes = {"out_channels": g.weight[0], "channels": g.weight[1]}
    return run_kernel(name, {}, ("packed",), source=channels_last(weight), packed=packed, **sizes)["packed"]


def convolve(
    image: Array, weight: Array, g: Geometry, backward: bool, cut: StridedSchedule, **epilogue: Any
) -> dict[str, Array]:
    """weight (K,C,3,3), packed here if the schedule says so; residual N,H,W,C. The workspace is NaN before."""
    filters = pack(weight, g, backward) if cut.form == Form.PACKED else channels_last(weight)
    name = "winograd_strided_backward_data" if backward else "winograd_strided_forward"
    given, made = ("dy", "dx") if backward else ("x", "y")
    n, c, height, width = g.x if backward else g.y
    workspace = np.full(cut.workspace(product_of(g, backward), current_facts()), np.nan, np.float32)
    outputs = {made: ((n, height, width, c), "f4")}
    sizes = ("batch", "height", "width", "channels", "out_height", "out_width", "out_channels", "pad_top", "pad_left")
    arguments = {"activation": 0, "weight_form": int(cut.form), "block": cut.block, "shared": int(cut.shared)}
    arguments |= {size: g.arguments[size] for size in sizes} | epilogue | {given: channels_last(image)}
    return {"result": run_kernel(name, outputs, ("workspace",), weight=filters, workspace=workspace, **arguments)[made]}


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


PACKED = StridedSchedule(70, False, Form.PACKED)


def check_schedules(image: Array, weight: Array, g: Geometry, backward: bool, same_bits: SameBits) -> Array:
    """The result, whose bits no schedule and no number of threads changes."""
    made = Form.ROTATED if backward else Form.FILTERS
    results = []
    for block, shared, form in (
        (70, False, Form.PACKED),
        (3, False, Form.PACKED),
        (97, True, Form.PACKED),
        (5, True, made),
    ):
        cut = StridedSchedule(block, shared, form)
        run = lambda cut=cut: convolve(image, weight, g, backward, cut)
        results.append(same_results(same_bits, run)["result"])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    return channels_first(results[0])


@pytest.mark.parametrize("name", SHAPES)
def test_forward(name: str, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    g = geometry(name)
    x, weight = normal(rng, *g.x), normal(rng, *g.weight)
    y = check_schedules(x, weight, g, False, same_bits)
    assert_within(y, exact_result(x, weight, g), bound(x, weight, g, False))


@pytest.mark.parametrize("name", SHAPES)
def test_backward_data(name: str, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    g = geometry(name)
    dy, weight = normal(rng, *g.y), normal(rng, *g.weight)
    dx = check_schedules(dy, weight, g, True, same_bits)
    assert_within(dx, exact_gradient(dy, weight, g), bound(dy, weight, g, True))


def hostile(rng: np.random.Generator, *shape: int, period: int) -> Array:
    """Images whose signs change every period/2 rows and columns, with channels that cancel; magnitudes about 1.

    With a period of 8 the signs of each phase are those of the rows of B^T with the largest entries, with `period` 0 there is
    one sign in a channel, as in those of G and A.
    """
    n, c, height, width = shape
    half = max(period // 2, 1)
    rows, columns = (1 - 2 * (np.arange(size) // half % 2) if period else np.ones(size) for size in (height, width))
    channels = (1 - 2 * (np.arange(n * c) % 2)).reshape(n, c, 1, 1)
    return (channels * rows[:, None] * columns * (1 + rng.random(shape) / 64)).astype(np.float32)


@pytest.mark.parametrize("side", [32, 30, 28, 26])
def test_bound_on_hostile_data(side: int, isa: str, rng: np.random.Generator) -> None:
    """Transforms as large as they can be, of sums that cancel. The errors are real: more than a rounding of the result."""
    g = Geometry((2, 37, side, side), (19, 37, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1)
    x, weight = hostile(rng, *g.x, period=8), hostile(rng, *g.weight, period=0)
    y, exact = channels_first(convolve(x, weight, g, False, PACKED)["result"]), exact_result(x, weight, g)
    assert_within(y, exact, bound(x, weight, g, False))
    assert np.abs(y - exact).max() > UNIT * np.abs(exact).max()
    dy, weight = hostile(rng, *g.y, period=4), hostile(rng, *g.weight, period=0)
    dx, exact = channels_first(convolve(dy, weight, g, True, PACKED)["result"]), exact_gradient(dy, weight, g)
    assert_within(dx, exact, bound(dy, weight, g, True))
    assert np.abs(dx - exact).max() > UNIT * np.abs(exact).max()


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("activation", range(3))
def test_epilogue(activation: int, backward: bool, isa: str, rng: np.random.Generator) -> None:
    """Bias, residual and activation are one rounding each on the plain result, which may lie in the residual's place."""
    g = Geometry((2, 19, 13, 14), (21, 19, 3, 3), (2, 2), (1, 1, 0, 1), (1, 1), 1)
    given, (n, c, height, width) = (g.y, g.x) if backward else (g.x, g.y)
    image, weight, bias, residual = (normal(rng, *s) for s in (given, g.weight, (c,), (n, height, width, c)))
    plain = convolve(image, weight, g, backward, PACKED)["result"]
    options = {"bias": bias, "residual": residual, "activation": activation}
    result = convolve(image, weight, g, backward, PACKED, **options)["result"]
    expected = plain + bias + residual
    expected = [expected, np.maximum(expected, 0), np.clip(expected, 0, 6)][activation]
    np.testing.assert_array_equal(result, expected)


def test_random_data(isa: str, rng: np.random.Generator) -> None:
    """What the bound does not tell: the error on random data is some 1e-6 of the largest output."""
    g = Geometry((2, 64, 32, 28), (32, 64, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1)
    x, dy, weight = normal(rng, *g.x), normal(rng, *g.y), normal(rng, *g.weight)
    for image, backward, exact in ((x, False, exact_result(x, weight, g)), (dy, True, exact_gradient(dy, weight, g))):
        result = channels_first(convolve(image, weight, g, backward, PACKED)["result"])
        assert np.abs(result - exact).max() <= 5e-6 * np.abs(exact).max()


sides = st.integers(0, 2)


@given(
    st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24),
    st.tuples(sides, sides, sides, sides), st.sampled_from([1, 2, 3, 5]), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_any_geometry(
    n: int, c: int, k: int, height: int, width: int, padding: tuple[int, int, int, int], threads: int, seed: int
) -> None:
    """The operation, forward and backward, with Winograd's algorithm wherever it applies."""
    assume(height + padding[0] + padding[1] >= 3 and width + padding[2] + padding[3] >= 3)
    rng = np.random.default_rng(seed)
    g = Geometry((n, c, height, width), (k, c, 3, 3), (2, 2), padding, (1, 1), 1)
    x, weight, bias, dy = (normal(rng, *shape) for shape in (g.x, g.weight, (k,), g.y))
    both = (padding[:2], padding[2:])
    fnn.set_num_threads(threads)
    exact = exact_result(x, weight, g) + np.float64(bias)[:, None, None], exact_gradient(dy, weight, g)
    for isa in fnn.available_isas():
        with fnn.use_isa(isa), fnn.conv_algorithm("winograd"), serial_below(0):
            y, pullback = fnn.vjp(lambda *a: F.conv2d(*a, stride=2, padding=both), x, weight, bias)
            dx = pullback(dy)[0]
        assert_within(y, exact[0], bound(x, weight, g, False) + UNIT * (1 + 1e-5) * np.abs(exact[0]) + 1e-30)
        assert_within(dx, exact[1], bound(dy, weight, g, True))


def test_an_image_that_lies_by_channels_is_turned(rng: np.random.Generator) -> None:
    """A first convolution by this algorithm reads N,H,W,C: an array that lies N,C,H,W is copied."""
    layer = nn.Conv2d(5, 17, 3, stride=2, padding=1).eval()
    x = normal(rng, 2, 5, 17, 18)
    with fnn.conv_algorithm("winograd"):
        y = layer(x)
    g = Geometry(x.shape, layer.weight.shape, (2, 2), (1, 1, 1, 1), (1, 1), 1)
    weight, bias = np.asarray(layer.weight.data), np.asarray(layer.bias.data)
    exact = exact_result(x, weight, g) + np.float64(bias)[:, None, None]
    assert_within(np.asarray(y), exact, bound(x, weight, g, False) + 2 * UNIT * np.abs(exact))
