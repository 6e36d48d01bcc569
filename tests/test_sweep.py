"""Random geometries of convolution, transposed convolution and pooling against the reference: every ISA and algorithm.

pytest tests/test_sweep.py               a hundred examples or so of each, always the same ones
pytest tests/test_sweep.py -m sweep      2,000 convolutions, 500 of each of the others, new ones every time
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_check import UNIT, Array, assert_equal, assert_within, double, integers

import fastnn as fnn
from fastnn import reference
from fastnn.nn import functional as F
from fastnn.settings import serial_below

ALGORITHMS = ("auto", "winograd", "direct", "strip", "indirect", "spread", "expand")
MOST_PRODUCTS = 1_000_000
"""Multiplications of one example: larger ones are made smaller, so that a sweep takes a minute or two."""

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def many(examples: int) -> Callable[[Any], Any]:
    """The sweep itself: chosen by its marker, with other examples in each run."""
    return lambda test: pytest.mark.sweep(
        settings(max_examples=examples, deadline=None, database=None, print_blob=True)(test)
    )


def sizes(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@dataclass(frozen=True)
class Case:
    """One convolution; `outputs` of it, or of the transposed one with these sizes, are counted in `positions`."""

    batch: int
    groups: int
    group_channels: int
    group_outputs: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    threads: int
    seed: int

    @property
    def span(self) -> tuple[int, ...]:
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel))

    @property
    def channels(self) -> tuple[int, int]:
        return self.groups * self.group_channels, self.groups * self.group_outputs

    @property
    def can_be_winograd(self) -> bool:
        sizes = (self.kernel, self.stride) in (((3, 3), (1, 1)), ((5, 5), (1, 1)), ((3, 3), (2, 2)))
        plain = self.dilation == (1, 1) and self.groups == 1
        return sizes and plain and max(max(side) for side in self.padding) < self.kernel[0]


@st.composite
def cases(draw: Any, transposed: bool = False) -> Case:
    """Every third example can be computed by Winograd's algorithm, every third has groups."""
    kind = draw(st.sampled_from(["any", "winograd", "groups", "depthwise"]))
    groups, inner, outer = 1, draw(st.integers(1, 40)), draw(st.integers(1, 40))
    if kind == "groups":
        groups, inner, outer = draw(st.integers(2, 6)), 1 + inner % 8, 1 + outer % 8
    elif kind == "depthwise":
        groups, inner, outer = inner, 1, draw(st.integers(1, 3))
    image = draw(sizes(1, 12 if transposed else 20))
    if kind == "winograd":
        side, step = draw(st.sampled_from([(3, 1), (5, 1), (3, 2)]))
        kernel, stride, dilation, most = (side, side), (step, step), (1, 1), side - 1
    else:
        kernel, stride, dilation, most = draw(sizes(1, 7)), draw(sizes(1, 4)), draw(sizes(1, 4)), 6
    padding = draw(sizes(0, most)), draw(sizes(0, most))
    if transposed:
        padding = (padding[0][:1] * 2, padding[1][:1] * 2)
    case = Case(
        draw(st.integers(0, 3)), groups, inner, outer, image, kernel, stride, dilation, padding,
        draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(0, 2**32 - 1)),
    )  # fmt: skip
    return reduced(case, transposed)


def reduced(case: Case, transposed: bool) -> Case:
    """The case with halved channels and images until its products are few enough."""
    fields = asdict(case)
    while True:
        smaller = Case(**fields)
        pixels = math.prod(smaller.image) if transposed else math.prod(output_of(smaller))
        channels = smaller.groups * smaller.group_channels * smaller.group_outputs
        if max(case.batch, 1) * pixels * channels * math.prod(case.kernel) <= MOST_PRODUCTS:
            return smaller
        if smaller.group_channels * smaller.group_outputs > 64:
            largest = max("group_channels", "group_outputs", key=fields.__getitem__)
            fields[largest] = (fields[largest] + 1) // 2
        else:
            fields["image"] = tuple((n + 1) // 2 for n in fields["image"])
        if fields["image"] == (1, 1) and smaller.group_channels * smaller.group_outputs <= 64:
            return Case(**fields)


def output_of(case: Case) -> tuple[int, ...]:
    axes = zip(case.image, case.padding, case.span, case.stride)
    return tuple(max((n + sum(sides) - span) // s + 1, 0) for n, sides, span, s in axes)


def compare(
    case: Any, function: Callable[..., Any], arrays: list[Array], dy: Array, expected: list[Array],
    magnitudes: list[Array] | None,
) -> None:  # fmt: skip
    """Every ISA and algorithm: equal to the reference, but for Winograd's, which errs by 1e-5 of the largest magnitude."""
    fnn.set_num_threads(case.threads)
    for isa in fnn.available_isas():
        for algorithm in ALGORITHMS:
            with fnn.use_isa(isa), fnn.conv_algorithm(algorithm), serial_below(0):
                y, pullback = fnn.vjp(function, *arrays)
                results = (y, *pullback(dy))
            for name, actual, exact, i in zip(("y", "dx", "dw", "dbias"), results, expected, range(4)):
                what = f"{name} on {isa}, {algorithm}: {case}"
                assert actual.shape == exact.shape, what
                if magnitudes is None or algorithm not in ("winograd", "auto"):
                    np.testing.assert_array_equal(actual, exact, err_msg=what)
                else:
                    atol = 1e-5 * magnitudes[i].max(initial=0)
                    np.testing.assert_allclose(actual, exact, rtol=0, atol=atol, err_msg=what)


def check_convolution(case: Case) -> None:
    assume(min(output_of(case)) > 0)
    rng = np.random.default_rng(case.seed)
    (c, k), window = case.channels, {name: getattr(case, name) for name in ("stride", "padding", "dilation", "groups")}
    shapes = (case.batch, c, *case.image), (k, case.group_channels, *case.kernel), (k,)
    arrays = [integers(rng, shape, 4) for shape in shapes]
    dy = integers(rng, (case.batch, k, *output_of(case)), 4)

    def exact(dy: Array, *arrays: Array) -> list[Array]:
        y = reference.conv2d(*double(arrays), **window)
        return [y, *reference.conv2d_backward(np.float64(dy), *double(arrays[:2]), **window)]

    magnitudes = exact(*map(np.abs, (dy, *arrays))) if case.can_be_winograd else None
    compare(case, lambda *a: F.conv2d(*a, **window), arrays, dy, exact(dy, *arrays), magnitudes)


@given(cases())
@few
def test_convolution(case: Case) -> None:
    check_convolution(case)


@many(2000)
@given(cases())
def test_many_convolutions(case: Case) -> None:
    check_convolution(case)


def check_transposed(case: Case, more: tuple[int, int]) -> None:
    (c, k), rng = case.channels, np.random.default_rng(case.seed)
    window = {
        "stride": case.stride, "padding": tuple(side[0] for side in case.padding), "groups": case.groups,
        "dilation": case.dilation,
        "output_padding": tuple(n % max(s, d) for n, s, d in zip(more, case.stride, case.dilation)),
    }  # fmt: skip
    grown = [
        (n - 1) * s - sum(sides) + span + extra
        for n, s, sides, span, extra in zip(case.image, case.stride, case.padding, case.span, window["output_padding"])
    ]
    assume(min(grown) > 0)
    shapes = (case.batch, c, *case.image), (c, case.group_outputs, *case.kernel), (k,)
    arrays = [integers(rng, shape, 4) for shape in shapes]
    dy = integers(rng, (case.batch, k, *grown), 4)

    def exact(dy: Array, *arrays: Array) -> list[Array]:
        y = reference.conv_transpose2d(*double(arrays), **window)
        return [y, *reference.conv_transpose2d_backward(np.float64(dy), *double(arrays[:2]), **window)]

    magnitudes = exact(*map(np.abs, (dy, *arrays))) if case.can_be_winograd else None
    compare(case, lambda *a: F.conv_transpose2d(*a, **window), arrays, dy, exact(dy, *arrays), magnitudes)


@given(cases(transposed=True), sizes(0, 3))
@few
def test_transposed_convolution(case: Case, more: tuple[int, int]) -> None:
    check_transposed(case, more)


@many(500)
@given(cases(transposed=True), sizes(0, 3))
def test_many_transposed_convolutions(case: Case, more: tuple[int, int]) -> None:
    check_transposed(case, more)


@dataclass(frozen=True)
class Pool:
    """One pooling, by maximum or mean."""

    kind: str
    shape: tuple[int, ...]
    window: dict[str, Any]
    seed: int
    threads: int


@st.composite
def pools(draw: Any) -> Pool:
    kind = draw(st.sampled_from(["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"]))
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 40)), *draw(sizes(1, 20)))
    rest = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1, 2, 3, 5]))
    if kind.startswith("adaptive"):
        return Pool(kind, shape, {"output_size": draw(sizes(1, 24))}, *rest)
    kernel, dilation = draw(sizes(1, 7)), draw(sizes(1, 4)) if kind == "max_pool2d" else (1, 1)
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    window = {
        "kernel_size": kernel, "stride": draw(st.none() | sizes(1, 4)), "ceil_mode": draw(st.booleans()),
        "padding": tuple(draw(st.integers(0, n // 2)) for n in span),
    }  # fmt: skip
    assume(all(n + 2 * pad >= reach for n, pad, reach in zip(shape[2:], window["padding"], span)))
    if kind == "max_pool2d":
        window["dilation"] = dilation
    else:
        window["count_include_pad"] = draw(st.booleans())
        window["divisor_override"] = draw(st.none() | st.integers(1, 50))
    return Pool(kind, shape, window, *rest)


def check_pool(pool: Pool) -> None:
    """Maxima exactly; means within a rounding for each of their terms and two for the division."""
    rng = np.random.default_rng(pool.seed)
    x = integers(rng, pool.shape, 5)
    forward, backward = getattr(reference, pool.kind), getattr(reference, f"{pool.kind}_backward")
    exact = forward(np.float64(x), **pool.window)
    dy = integers(rng, exact.shape, 5)
    gradient = backward(np.float64(dy), np.float64(x), **pool.window)
    fnn.set_num_threads(pool.threads)
    for isa in fnn.available_isas():
        with fnn.use_isa(isa), serial_below(0):
            y, pullback = fnn.vjp(lambda t: getattr(F, pool.kind)(t, **pool.window), x)
            (dx,) = pullback(dy)
        if "max" in pool.kind:
            assert_equal(y, exact)
            assert_equal(dx, gradient)
            continue
        terms = math.prod(pool.shape[2:]) + math.prod(exact.shape[2:]) + 2
        assert_within(y, exact, terms * UNIT * forward(np.abs(np.float64(x)), **pool.window))
        assert_within(dx, gradient, terms * UNIT * backward(np.abs(np.float64(dy)), np.float64(x), **pool.window))


@given(pools())
@few
def test_pooling(pool: Pool) -> None:
    check_pool(pool)


@many(500)
@given(pools())
def test_many_pools(pool: Pool) -> None:
    check_pool(pool)
