"""The weight gradient of Winograd convolutions with stride 2, within the bound that its kernel's header states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_runner import UNIT, Array, assert_within, channels_first, same_results
from test_winograd import SHAPES, Geometry, hostile, normal, patches, weight_gradient

import fastnn as fnn
from fastnn import reference
from fastnn.graph import Graph
from fastnn.ops.convolution_algorithm import LARGE_FLOATS, Product, WeightSchedule
from fastnn.ops.convolution_winograd_strided_weight import strided_weight_schedule
from fastnn.plan import compile_graph
from fastnn.settings import current_facts

SameBits = Callable[..., Any]

CUTS = {
    "parts": WeightSchedule(4, 7, shared=False, parts=3, stride=2),
    "blocks": WeightSchedule(4, 2, shared=True, parts=1, stride=2),
    "one block": WeightSchedule(4, 60, shared=True, parts=1, stride=2),
}


def phase_maps() -> tuple[Array, Array, Array]:
    """B^T, G and A^T of patches of 5 (winograd_transform.h), in float64."""
    c, d = 0.5, 1.25
    points = np.array([c, -c, d, -d])
    rows = [[-p * other**2, -(other**2), p, 1, 0] for p, other in ((c, d), (-c, d), (d, c), (-d, c))]
    input_map = np.array([*rows, [c * c * d * d, 0, -c * c - d * d, 0, 1]])
    scale = (input_map[:4, :4] * points[:, None] ** np.arange(4)).sum(1)
    filter_map = np.vstack([points[:, None] ** np.arange(2) / scale[:, None], [0, 1]])
    output_map = np.hstack([points ** np.arange(4)[:, None], np.eye(4)[:, -1:]])
    return input_map, filter_map, output_map


def maps() -> tuple[Array, Array, Array]:
    """B^T, G and A^T over both phases (winograd_phases.h): 9 pixels, 3 taps and 4 outputs, 9 planes each; A^T has those of 5
    planes twice."""
    phase_input, phase_filter, phase_output = phase_maps()
    input_map, filter_map = np.zeros((9, 9)), np.zeros((9, 3))
    input_map[:5, ::2] = phase_input
    input_map[5:, 1::2] = phase_input[:4, :4]
    filter_map[:5, ::2] = phase_filter
    filter_map[5:, 1] = phase_filter[:4, 0]
    return input_map, filter_map, np.hstack([phase_output, phase_output[:, :4]])


def test_maps_are_an_algorithm(rng: np.random.Generator) -> None:
    input_map, filter_map, output_map = maps()
    d, g = rng.standard_normal((9, 9)), rng.standard_normal((3, 3))
    y = output_map @ ((filter_map @ g @ filter_map.T) * (input_map @ d @ input_map.T)) @ output_map.T
    np.testing.assert_allclose(y, reference.conv2d(d[None, None], g[None, None], stride=2)[0, 0], atol=1e-12)


def output_shape(shape: Geometry) -> tuple[int, int, int, int]:
    (n, _, height, width), k, (top, bottom, left, right) = shape
    return n, k, (height + top + bottom - 3) // 2 + 1, (width + left + right - 3) // 2 + 1


def bound(x: Array, dy: Array, padding: tuple[int, ...], cut: WeightSchedule) -> Array:
    """winograd_backward_weight.c: gamma_n |G^T| [sum over tiles of (|A||dY||A^T|) . (|B^T||X||B|)] |G|."""
    input_map, filter_map, output_map = (np.abs(m) for m in maps())
    out = (*dy.shape[:2], 2 * dy.shape[2], 2 * dy.shape[3])  # a tile is 8 pixels wide
    v = input_map @ patches(x, padding, out, 8, 9) @ input_map.T
    e = output_map.T @ patches(dy, (0, 0, 0, 0), dy.shape, 4, 4) @ output_map
    products = np.einsum("nhwkij,nhwcij->kcij", e, v, optimize=True)
    blocks = -(-v.shape[0] * v.shape[1] * v.shape[2] // cut.parts // cut.block) + 1
    steps = (27 + cut.block + blocks + cut.parts) * UNIT
    return filter_map.T @ products @ filter_map * steps / (1 - steps)


def exact_gradients(x: Array, dy: Array, padding: tuple[int, ...]) -> tuple[Array, Array]:
    weight = np.zeros((dy.shape[1], x.shape[1], 3, 3))
    sides = (padding[:2], padding[2:])
    _, dw, dbias = reference.conv2d_backward(np.float64(dy), np.float64(x), weight, stride=2, padding=sides)
    return dw, dbias


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("name", SHAPES)
def test_gradient(name: str, cut: WeightSchedule, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    x_shape, k, padding = shape = SHAPES[name]
    x, dy = normal(rng, *x_shape), normal(rng, *output_shape(shape))
    results = same_results(same_bits, lambda: weight_gradient(x, dy, 3, padding[::2], cut), "workspace")
    dw, dbias = exact_gradients(x, dy, padding)
    assert_within(channels_first(results["dw"]), dw, bound(x, dy, padding, cut))
    steps = (16 + dy[:, 0].size + cut.parts) * UNIT
    assert_within(results["dbias"], dbias, steps * np.abs(np.float64(dy)).sum((0, 2, 3)))


def test_bits_do_not_depend_on_how_one_block_is_cut(isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    """A gradient so large that it is made and mapped piece by piece: several chunks of either side, in pieces of one tile of
    rows and of as many as the second-level cache holds."""
    x, dy, padding = normal(rng, 3, 150, 9, 8), normal(rng, 3, 200, 5, 4), (1, 1, 1, 1)
    cut = CUTS["one block"]
    assert 81 * 150 * 200 > LARGE_FLOATS
    results = same_results(same_bits, lambda: weight_gradient(x, dy, 3, (1, 1), cut), "workspace")
    assert_within(channels_first(results["dw"]), exact_gradients(x, dy, padding)[0], bound(x, dy, padding, cut))
    wide = weight_gradient(x, dy, 3, (1, 1), replace(CUTS["parts"], parts=1, block=60))
    np.testing.assert_array_equal(wide["dw"], results["dw"])


def test_bound_on_hostile_data(isa: str, rng: np.random.Generator) -> None:
    """Transforms as large as they can be, of sums that cancel. The errors are real: more than a rounding of the result."""
    padding, cut = (1, 1, 1, 1), CUTS["blocks"]
    x = np.repeat(np.repeat(hostile(rng, 2, 37, 16, 16, period=4), 2, 2), 2, 3)  # of each phase
    dy = hostile(rng, 2, 19, 16, 16, period=0)
    dw = channels_first(weight_gradient(x, dy, 3, (1, 1), cut)["dw"])
    exact, _ = exact_gradients(x, dy, padding)
    assert_within(dw, exact, bound(x, dy, padding, cut))
    assert np.abs(dw - exact).max() > UNIT * np.abs(exact).max()


def test_random_data(isa: str, rng: np.random.Generator) -> None:
    """What the bound does not tell: the error on random data is some 1e-6 of the largest element."""
    x, dy = normal(rng, 4, 32, 32, 32), normal(rng, 4, 64, 16, 16)
    dw = weight_gradient(x, dy, 3, (1, 1), CUTS["one block"])["dw"]
    exact, _ = exact_gradients(x, dy, (1, 1, 1, 1))
    assert np.abs(channels_first(dw) - exact).max() <= 1e-5 * np.abs(exact).max()


def gradient_kernels(x: tuple[int, ...], k: int, algorithm: str = "auto", **attributes: Any) -> set[str]:
    graph = Graph()
    options = {"stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, "taps": 3, **attributes}
    taps, (top, bottom, left, right) = options.pop("taps"), options["padding"]
    spans = [options["dilation"][i] * (taps - 1) + 1 for i in (0, 1)]
    rows = (x[2] + top + bottom - spans[0]) // options["stride"][0] + 1
    columns = (x[3] + left + right - spans[1]) // options["stride"][1] + 1
    shape = (k, x[1] // options["groups"], taps, taps)
    image, dy = graph.input(x), graph.input((x[0], k, rows, columns))
    graph.outputs = [graph.record("conv2d_backward_weight", image, dy, shape=shape, has_bias=False, **options)]
    with fnn.conv_algorithm(algorithm):
        return {step.kernel for step in compile_graph(graph, current_facts()).steps}


WINOGRAD = "winograd_backward_weight"


@pytest.mark.parametrize(
    ("x", "k"),
    [
        ((16, 64, 56, 56), 128),
        ((16, 128, 28, 28), 256),
        ((16, 256, 14, 14), 512),
        ((128, 16, 32, 32), 32),
        ((128, 32, 16, 16), 64),
    ],
)
def test_choice_of_layers_that_matter(x: tuple[int, ...], k: int) -> None:
    assert gradient_kernels(x, k) == {WINOGRAD}
    assert gradient_kernels(x, k, "direct") == {"conv2d_backward_weight"}


def test_choice() -> None:
    assert WINOGRAD not in gradient_kernels((16, 3, 224, 224), 64)  # few channels
    assert WINOGRAD not in gradient_kernels((1, 256, 14, 14), 512)  # few tiles
    assert WINOGRAD not in gradient_kernels((64, 64, 10, 10), 64)  # tiles overhang 5x5 outputs
    assert WINOGRAD in gradient_kernels((1, 3, 1, 1), 2, "winograd")


@pytest.mark.parametrize(
    "attributes",
    [
        {"stride": (1, 2)},
        {"stride": (3, 3)},
        {"dilation": (2, 1)},
        {"groups": 2},
        {"padding": (3, 1, 1, 1)},
        {"taps": 5},
    ],
)
def test_falls_back_where_it_does_not_apply(attributes: dict[str, Any]) -> None:
    assert WINOGRAD not in gradient_kernels((16, 32, 40, 40), 32, "winograd", **attributes)


def test_schedules_follow_the_shape() -> None:
    """Gradients of few channels in parts, wide ones in blocks, few tiles in one block."""
    small, wide, few = (
        strided_weight_schedule(Product(*shape))
        for shape in ((128, 16, 16, 16, 32), (16, 28, 28, 64, 128), (16, 7, 7, 256, 512))
    )
    assert (small.shared, small.parts) == (False, 8)
    assert wide.shared and wide.block < Product(16, 28, 28, 64, 128).tiles(4)
    assert few.shared and few.block == Product(16, 7, 7, 256, 512).tiles(4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(0, 4), st.integers(1, 40), st.integers(1, 40)),
    image=st.tuples(st.integers(3, 21), st.integers(3, 21)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_operation(sizes: tuple[int, ...], image: tuple[int, int], padding: tuple[int, ...], seed: int) -> None:
    """The gradient of the operation, with Winograd's algorithm wherever it applies."""
    rng = np.random.default_rng(seed)
    (n, c, k), sides = sizes, (padding[:2], padding[2:])
    x, weight, bias = normal(rng, n, c, *image), normal(rng, k, c, 3, 3), normal(rng, k)
    dy = normal(rng, *output_shape(((n, c, *image), k, padding)))
    with fnn.conv_algorithm("winograd"):
        _, pullback = fnn.vjp(lambda *a: fnn.nn.functional.conv2d(*a, stride=2, padding=sides), x, weight, bias)
        _, *gradients = pullback(dy)
    for result, exact in zip(gradients, exact_gradients(x, dy, padding), strict=True):
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-5 * max(np.abs(exact).max(initial=0), 1))
