"""Pooling functions and layers against the reference: sums and maxima exactly, means within the kernels' bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, Array, SameBits, assert_equal, assert_within, differentiate, integers, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference

# x (N,C,H,W), kernel_size, stride, padding, dilation, ceil_mode
WINDOWS: list[tuple[Any, ...]] = [
    ((2, 17, 7, 9), 2, None, 0, 1, False),
    ((2, 17, 7, 9), 2, None, 0, 1, True),
    ((3, 5, 11, 13), 3, 2, 1, 1, False),
    ((3, 5, 11, 13), 3, 2, 1, 1, True),
    ((1, 33, 6, 5), (3, 2), (1, 2), (1, 0), 1, False),
    ((2, 3, 13, 11), (2, 3), (3, 2), (1, 1), (2, 3), True),
    ((1, 1, 1, 1), 1, None, 0, 1, False),
    ((2, 64, 5, 4), (5, 4), None, 0, 1, False),
    ((1, 2, 19, 18), (17, 16), 1, (8, 8), 1, False),
    ((0, 4, 6, 6), 2, None, 0, 1, False),
]


def parameters(window: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), window[1:], strict=True))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_max_pool2d(isa: str, same_bits: SameBits, rng: np.random.Generator, window: tuple[Any, ...]) -> None:
    options = parameters(window)
    x = integers(rng, window[0], 5)  # few values: many equal maxima
    got = differentiate(lambda t: F.max_pool2d(t, **options), [x], lambda shape: integers(rng, shape), same_bits)
    assert_equal(got.y, reference.max_pool2d(x.astype(float), **options))
    assert_equal(got.gradients[0], reference.max_pool2d_backward(got.dy.astype(float), x.astype(float), **options))
    y, indices = same_bits(lambda: F.max_pool2d(x, **options, return_indices=True))
    expected, where = reference.max_pool2d(x.astype(float), **options, return_indices=True)
    assert_equal(y, expected)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, where)


def test_max_pool2d_of_more_than_255_taps(isa: str, same_bits: SameBits, rng: np.random.Generator) -> None:
    x = integers(rng, (1, 3, 37, 18))
    options = {"kernel_size": (36, 17), "stride": 1, "padding": (1, 2)}
    got = differentiate(lambda t: F.max_pool2d(t, **options), [x], lambda shape: integers(rng, shape), same_bits)
    assert_equal(got.y, reference.max_pool2d(x.astype(float), **options))
    assert_equal(got.gradients[0], reference.max_pool2d_backward(got.dy.astype(float), x.astype(float), **options))


def test_max_pool2d_lets_nan_through(isa: str) -> None:
    x = np.zeros((1, 3, 4, 4), np.float32)
    x[0, 1, 2, 3] = np.nan
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    expected, where = reference.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, where)
    assert np.isnan(y).sum() == 1


def test_max_pool2d_of_minus_infinity(isa: str) -> None:
    x = np.full((1, 2, 4, 4), -np.inf, np.float32)
    y, indices = F.max_pool2d(x, 3, stride=1, padding=1, return_indices=True)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(indices, reference.max_pool2d(x, 3, 1, 1, return_indices=True)[1])


def average_options(window: tuple[Any, ...]) -> dict[str, Any]:
    return {name: value for name, value in parameters(window).items() if name != "dilation"}


@pytest.mark.parametrize("window", [w for w in WINDOWS if w[4] == 1], ids=str)
def test_avg_pool2d_sums_exactly(
    isa: str, same_bits: SameBits, rng: np.random.Generator, window: tuple[Any, ...]
) -> None:
    options = {**average_options(window), "divisor_override": 1}
    x = integers(rng, window[0])
    got = differentiate(lambda t: F.avg_pool2d(t, **options), [x], lambda shape: integers(rng, shape), same_bits)
    assert_equal(got.y, reference.avg_pool2d(x.astype(float), **options))
    assert_equal(got.gradients[0], reference.avg_pool2d_backward(got.dy.astype(float), x.astype(float), **options))


@pytest.mark.parametrize("extra", [{}, {"count_include_pad": False}, {"divisor_override": 7}], ids=str)
@pytest.mark.parametrize("window", [w for w in WINDOWS if w[4] == 1], ids=str)
def test_avg_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, window: tuple[Any, ...], extra: dict[str, Any]
) -> None:
    options = {**average_options(window), **extra}
    x = normal(rng, window[0])
    got = differentiate(lambda t: F.avg_pool2d(t, **options), [x], lambda shape: normal(rng, shape), same_bits)
    sizes = (
        np.ravel([options["kernel_size"]] * 2)[:2] if np.ndim(options["kernel_size"]) == 0 else options["kernel_size"]
    )
    check_average(
        got.y, got.gradients[0], got.dy, x, int(sum(sizes)),
        lambda a: reference.avg_pool2d(a, **options), lambda d, a: reference.avg_pool2d_backward(d, a, **options),
    )  # fmt: skip


def check_average(
    y: Array, dx: Array, dy: Array, x: Array, taps: int, forward: Callable[..., Any], backward: Callable[..., Any]
) -> None:
    """average_pooling.c: (R + S + 1) eps mean |x|, and (windows that hold an element + 2) eps sum |dy|/divisor."""
    x, dy = x.astype(float), dy.astype(float)
    assert_within(y, forward(x), (taps + 1) * UNIT * forward(np.abs(x)))
    holders = (backward(np.ones_like(dy), x) > 0) * y[0, 0].size if len(x) else 0
    assert_within(dx, backward(dy, x), (holders + 2) * UNIT * backward(np.abs(dy), x))


@pytest.mark.parametrize("output", [1, (1, 1), (3, 2), (7, 9), (None, 4), (9, 11), 2], ids=str)
@pytest.mark.parametrize("shape", [(2, 17, 7, 9), (1, 1, 1, 3), (3, 67, 13, 1), (0, 3, 4, 4)], ids=str)
def test_adaptive_avg_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], output: Any
) -> None:
    x = normal(rng, shape)
    got = differentiate(lambda t: F.adaptive_avg_pool2d(t, output), [x], lambda s: normal(rng, s), same_bits)
    check_average(
        got.y, got.gradients[0], got.dy, x, shape[2] + shape[3],
        lambda a: reference.adaptive_avg_pool2d(a, output),
        lambda d, a: reference.adaptive_avg_pool2d_backward(d, a, output),
    )  # fmt: skip


@pytest.mark.parametrize("output", [1, (1, 1), (3, 2), (7, 9), (None, 4), (9, 11), (7, 3)], ids=str)
@pytest.mark.parametrize("shape", [(2, 17, 7, 9), (1, 1, 1, 3), (3, 67, 13, 1), (0, 3, 4, 4)], ids=str)
def test_adaptive_max_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], output: Any
) -> None:
    x = integers(rng, shape, 5)
    got = differentiate(lambda t: F.adaptive_max_pool2d(t, output), [x], lambda s: integers(rng, s), same_bits)
    exact = x.astype(float)
    assert_equal(got.y, reference.adaptive_max_pool2d(exact, output))
    assert_equal(got.gradients[0], reference.adaptive_max_pool2d_backward(got.dy.astype(float), exact, output))
    y, indices = same_bits(lambda: nn.AdaptiveMaxPool2d(output, return_indices=True)(x))
    assert_equal(y, reference.adaptive_max_pool2d(exact, output))
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, reference.adaptive_max_pool2d(exact, output, return_indices=True)[1])


def test_adaptive_max_pool2d_lets_nan_through(isa: str) -> None:
    x = np.zeros((1, 3, 5, 5), np.float32)
    x[0, 1, 2, 2] = np.nan  # in all four windows
    assert np.isnan(F.adaptive_max_pool2d(x, 2)).sum() == 4


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("norm_type", [1, 2, 3, 0.5, 2.5, -1])
@pytest.mark.parametrize(("shape", "kernel", "stride"), [((2, 17, 7, 9), 2, None), ((1, 3, 8, 11), (3, 2), (2, 3)),
                                                         ((0, 3, 4, 4), 2, 1)], ids=str)  # fmt: skip
def test_lp_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], kernel: Any, stride: Any,
    norm_type: float, ceil_mode: bool,
) -> None:  # fmt: skip
    """power.c: (2 |p log x| + 8) eps a power; here p <= 3, |log x| <= 1.2, and the roots divide the error of the sum."""
    x = rng.uniform(0.3, 3.0, shape).astype(np.float32)
    options = {"norm_type": norm_type, "kernel_size": kernel, "stride": stride, "ceil_mode": ceil_mode}
    got = differentiate(lambda t: F.lp_pool2d(t, **options), [x], lambda s: normal(rng, s), same_bits)
    exact, dy = x.astype(float), got.dy.astype(float)
    y = reference.lp_pool2d(exact, **options)
    power = 2 * 3 * 1.2 + 8
    assert_within(got.y, y, (2 * power + 10) * max(1, 1 / abs(norm_type)) * UNIT * np.abs(y))
    terms = reference.lp_pool2d_backward(np.abs(dy), exact, **options)
    expected = reference.lp_pool2d_backward(dy, exact, **options)
    assert_within(got.gradients[0], expected, (8 * power + 20) * UNIT * np.abs(terms))


def test_lp_pool_where_the_sum_is_nothing_or_negative(isa: str) -> None:
    x = np.array([[[[0.0, 0.0, -2.0, 1.0]]]], np.float32)
    y, pullback = fnn.vjp(lambda t: F.lp_pool2d(t, 2, (1, 2)), x)
    np.testing.assert_allclose(y, [[[[0.0, np.sqrt(5)]]]], rtol=1e-6)
    np.testing.assert_allclose(pullback(np.ones_like(y))[0], [[[[0, 0, -2 / 5**0.5, 1 / 5**0.5]]]], rtol=1e-6)
    np.testing.assert_array_equal(F.lp_pool1d(x[:, 0], 3, 2), [[[0.0, np.nan]]])
    np.testing.assert_array_equal(F.lp_pool1d(x[:, 0], 1, 2), [[[0.0, -1.0]]])


def test_one_axis_is_an_image_of_height_one(isa: str, rng: np.random.Generator) -> None:
    x, dy = integers(rng, (3, 5, 17)), integers(rng, (3, 5, 8))
    y, pullback = fnn.vjp(lambda t: F.max_pool1d(t, 3, 2, 0, 1), x)
    assert_equal(y, reference.max_pool1d(x.astype(float), 3, 2))
    assert_equal(pullback(dy)[0], reference.max_pool1d_backward(dy.astype(float), x.astype(float), 3, 2))
    y, pullback = fnn.vjp(lambda t: F.avg_pool1d(t, 4, 2, 1), x)
    assert_equal(y[..., 1:-1], reference.avg_pool1d(x.astype(float), 4, 2, 1)[..., 1:-1])
    y, indices = nn.MaxPool1d(3, 2, return_indices=True)(x)
    np.testing.assert_array_equal(np.take_along_axis(x, indices, 2), y)
    np.testing.assert_array_equal(nn.AdaptiveAvgPool1d(17)(x), x)
    np.testing.assert_array_equal(nn.AvgPool1d(1)(x), x)
    y, indices = nn.AdaptiveMaxPool1d(5, return_indices=True)(x)
    image = x.astype(float)[:, :, None]
    assert_equal(y, reference.adaptive_max_pool2d(image, (1, 5))[:, :, 0])
    np.testing.assert_array_equal(np.take_along_axis(x, indices, 2), y)
    np.testing.assert_array_equal(nn.LPPool1d(1, 3, 2)(x), reference.lp_pool2d(image, 1, (1, 3), (1, 2))[:, :, 0])


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.MaxPool2d(2), "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
        (nn.MaxPool1d(3, 2, 1), "MaxPool1d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)"),
        (nn.AvgPool2d((3, 2)), "AvgPool2d(kernel_size=(3, 2), stride=(3, 2), padding=0)"),
        (nn.AvgPool1d(2), "AvgPool1d(kernel_size=(2,), stride=(2,), padding=(0,))"),
        (nn.AdaptiveAvgPool2d((None, 3)), "AdaptiveAvgPool2d(output_size=(None, 3))"),
        (nn.AdaptiveAvgPool1d(5), "AdaptiveAvgPool1d(output_size=5)"),
        (nn.AdaptiveMaxPool2d((None, 3)), "AdaptiveMaxPool2d(output_size=(None, 3))"),
        (nn.LPPool2d(2, 3), "LPPool2d(norm_type=2.0, kernel_size=3, stride=None, ceil_mode=False)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_show_their_arguments(layer: nn.Module, text: str) -> None:
    assert repr(layer) == text


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: nn.MaxPool2d(2), (2, 3, 4), r"^MaxPool2d\(.* shape \(N,C,H,W\), got 3 axes in \(2, 3, 4\)"),
        (lambda: nn.MaxPool2d(5), (1, 1, 4, 4),
         r"^MaxPool2d\(.*: the window of 5 .* is larger than the padded input of 4"),
        (lambda: nn.MaxPool2d(3, dilation=2), (1, 1, 4, 4), "the window of 5 .*dilation 2.* is larger"),
        (lambda: nn.AvgPool2d(5), (1, 1, 4, 4), r"AvgPool2d\(.*\): the window of 5 .* is larger"),
        (lambda: nn.AvgPool1d(2), (1, 1, 4, 4), r"the input must have the shape \(N,C,L\)"),
        (lambda: nn.AdaptiveAvgPool2d(2), (1, 4, 4), r"the input must have the shape \(N,C,H,W\)"),
        (lambda: nn.AdaptiveAvgPool2d(2), (1, 1, 0, 4), "cannot pool an image of"),
        (lambda: nn.AdaptiveMaxPool2d(2), (1, 4, 4), r"AdaptiveMaxPool2d\(.*the input must have the shape \(N,C,H,W\)"),
        (lambda: nn.AdaptiveMaxPool2d(2), (1, 1, 0, 4), "cannot pool an image of"),
        (lambda: nn.LPPool2d(2, 5), (1, 1, 4, 4), r"LPPool2d\(.*the window of 5 .* is larger"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(make: Callable[[], nn.Module], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.MaxPool2d(0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, padding=2), ValueError, "more than half of the window"),
        (lambda: nn.MaxPool2d((2, 2, 2)), TypeError, "kernel_size must be an integer or 2 integers"),
        (lambda: nn.MaxPool2d(2.5), TypeError, "kernel_size must be an integer or 2 integers"),
        (lambda: nn.MaxPool2d(True), TypeError, "kernel_size must be an integer or 2 integers"),
        (lambda: nn.AvgPool2d(2, padding=-1), ValueError, "padding must be at least 0"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError, "divisor_override must be at least 1"),
        (lambda: nn.AdaptiveAvgPool2d(0), ValueError, "output_size must be at least 1"),
        (lambda: nn.AdaptiveMaxPool2d((2, 0)), ValueError, "output_size must be at least 1"),
        (lambda: nn.LPPool2d(0, 2), ValueError, "LPPool2d: norm_type must not be 0"),
        (lambda: nn.LPPool2d(float("inf"), 2), ValueError, "norm_type must be a finite number"),
        (
            lambda: F.adaptive_avg_pool2d(np.zeros((1, 1, 2, 2)), (1, 2, 3)),
            ValueError,
            "output_size must be a number or 2",
        ),
    ],
)
def test_arguments_that_do_not_fit(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
