"""Pooling kernels against the reference: max pooling exactly, averages within the bounds their headers state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, channels_first, channels_last, run_kernel, same_results

import fastnn as fnn
from fastnn import _core, reference

KERNELS = {
    "max_pool2d_forward",
    "max_pool2d_backward",
    "max_pool2d_positions",
    "avg_pool2d_forward",
    "avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_forward",
    "adaptive_max_pool2d_backward",
}

SameBits = Callable[..., Any]
Pair = tuple[int, int]

# image (N,C,H,W), kernel, stride, padding, dilation, ceil_mode
WINDOWS = [
    ((2, 16, 6, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 17, 7, 9), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ((1, 64, 7, 5), (3, 3), (1, 1), (1, 1), (1, 1), False),
    ((3, 1, 11, 13), (2, 3), (3, 1), (1, 0), (1, 1), True),
    ((1, 67, 9, 10), (2, 3), (1, 2), (0, 1), (3, 2), False),
    ((2, 5, 10, 7), (3, 2), (3, 3), (1, 1), (2, 2), True),
    ((1, 3, 1, 31), (1, 4), (1, 3), (0, 2), (1, 1), True),
    ((2, 3, 5, 5), (5, 5), (5, 5), (0, 0), (1, 1), False),
    ((1, 6, 20, 19), (17, 16), (2, 1), (8, 8), (1, 1), False),  # more than 255 taps
    ((1, 4, 17, 18), (15, 17), (1, 1), (0, 0), (1, 1), False),  # 255 taps
    ((1, 2, 1, 1), (2, 2), (1, 1), (1, 1), (2, 2), False),  # taps that all miss the image
    ((0, 4, 6, 6), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 19, 4, 4), (2, 2), (3, 3), (0, 0), (1, 1), False),  # elements in no window
    # Rows long enough for windows that are worked on side by side, of less than a vector of channels and of a few vectors.
    ((2, 6, 4, 58), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 1, 4, 70), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 3, 5, 41), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 20, 7, 25), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ((1, 10, 6, 24), (2, 2), (2, 2), (1, 1), (1, 1), False),
    ((1, 5, 9, 46), (3, 4), (3, 4), (1, 2), (1, 1), False),  # side by side, the first one cut off
    ((1, 7, 9, 44), (2, 3), (2, 4), (0, 1), (1, 1), False),  # gaps between them
    ((1, 13, 11, 33), (3, 2), (4, 5), (1, 1), (1, 3), False),  # and between taps
    ((1, 6, 6, 50), (5, 4), (2, 1), (2, 1), (1, 1), False),
    ((1, 6, 20, 60), (16, 17), (3, 2), (0, 0), (1, 1), False),  # more than 255 taps
]


def pooled(case: tuple[Any, ...], dilated: bool = True) -> Pair:
    (_, _, *image), kernel, stride, padding, dilation, ceil_mode = case
    dilation = dilation if dilated else (1, 1)
    axes = zip(image, kernel, stride, dilation, padding, padding, strict=True)
    height, width = (_core.window_positions(*axis, ceil_mode) for axis in axes)
    return height, width


def shape_arguments(image: tuple[int, ...], out: Pair) -> dict[str, int]:
    batch, channels, height, width = image
    return {
        "batch": batch, "height": height, "width": width, "channels": channels,
        "out_height": out[0], "out_width": out[1],
    }  # fmt: skip


def window_arguments(case: tuple[Any, ...], out: Pair) -> dict[str, int]:
    image, (kernel_height, kernel_width), (stride_h, stride_w), (pad_top, pad_left), _, _ = case
    return {
        **shape_arguments(image, out), "kernel_height": kernel_height, "kernel_width": kernel_width,
        "stride_h": stride_h, "stride_w": stride_w, "pad_top": pad_top, "pad_left": pad_left,
    }  # fmt: skip


def special_values(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    """Small whole numbers, many of them equal, zeros of either sign, mixed with what `kind` names."""
    x = rng.integers(-5, 5, shape).astype(np.float32)
    x *= rng.choice(np.array([-1, 1], np.float32), shape)
    if kind == "nan":
        x[rng.random(shape) < 0.1] = np.nan
    if kind == "infinite":
        x[rng.random(shape) < 0.6] = -np.inf
    return x


@pytest.mark.parametrize("kind", ["finite", "nan", "infinite"])
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_max_pool2d(isa: str, same_bits: SameBits, rng: np.random.Generator, case: tuple[Any, ...], kind: str) -> None:
    image, kernel, _, _, dilation, _ = case
    out = pooled(case)
    x = special_values(rng, image, kind)
    dy = rng.integers(-5, 5, (*image[:2], *out)).astype(np.float32)
    expected, positions = reference.max_pool2d(x, *case[1:], return_indices=True)
    arguments = {**window_arguments(case, out), "dilation_h": dilation[0], "dilation_w": dilation[1]}
    pooled_shape = (image[0], *out, image[1])
    index_shape = pooled_shape if kernel[0] * kernel[1] <= 255 else (*pooled_shape, 4)
    outputs = {"y": (pooled_shape, "f4"), "index": (index_shape, "u1")}
    memory = channels_last(x)
    forward = same_results(same_bits, lambda: run_kernel("max_pool2d_forward", outputs, x=memory, **arguments))
    np.testing.assert_array_equal(channels_first(forward["y"]), expected)
    alone = run_kernel("max_pool2d_forward", {"y": outputs["y"]}, x=memory, **arguments)
    np.testing.assert_array_equal(alone["y"], forward["y"])
    index = forward["index"]
    found = {"positions": (pooled_shape, "i8")}
    result = same_results(same_bits, lambda: run_kernel("max_pool2d_positions", found, index=index, **arguments))
    np.testing.assert_array_equal(channels_first(result["positions"]), positions)
    n, c, *at = np.nonzero(positions >= 0)
    winners = x[n, c, *np.divmod(positions[n, c, *at], image[3])]  # the first of +0 and -0, the last NaN itself
    np.testing.assert_array_equal(channels_first(forward["y"])[n, c, *at].view(np.uint32), winners.view(np.uint32))
    gradient = {"dx": (memory.shape, "f4")}
    backward = same_results(
        same_bits,
        lambda: run_kernel("max_pool2d_backward", gradient, dy=channels_last(dy), index=index, **arguments),
    )
    np.testing.assert_array_equal(channels_first(backward["dx"]), reference.max_pool2d_backward(dy, x, *case[1:]))


def run_averages(kernel: str, gradient: Any, dy: Array, arguments: dict[str, int]) -> dict[str, Array]:
    """A backward kernel of average pooling, with a row of sums and a vector for each thread."""
    row = dy.shape[3] * dy.shape[1] + _core.ISAS[fnn.current_isa()]["lanes"]
    outputs = {**gradient, "workspace": ((fnn.get_num_threads() * row,), "f4")}
    return run_kernel(kernel, outputs, dy=channels_last(dy), **arguments)


@pytest.mark.parametrize(("count_include_pad", "divisor"), [(True, None), (False, None), (True, 3), (False, -7)])
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_avg_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, case: tuple[Any, ...], count_include_pad: bool,
    divisor: int | None,
) -> None:  # fmt: skip
    image, kernel, stride, padding, _, ceil_mode = case
    out = pooled(case, dilated=False)
    x = rng.standard_normal(image, np.float32)
    dy = rng.standard_normal((*image[:2], *out), np.float32)
    options = (kernel, stride, padding, ceil_mode, count_include_pad)
    arguments = {
        **window_arguments(case, out), "count_include_pad": int(count_include_pad), "divisor": divisor or 0,
    }  # fmt: skip
    outputs = {"y": ((image[0], *out, image[1]), "f4")}
    y = same_results(same_bits, lambda: run_kernel("avg_pool2d_forward", outputs, x=channels_last(x), **arguments))["y"]
    terms = reference.avg_pool2d(np.abs(x).astype(np.float64), *options, divisor and abs(divisor))
    expected = reference.avg_pool2d(x.astype(np.float64), *options, divisor)
    assert_within(channels_first(y), expected, (sum(kernel) + 1) * UNIT * terms)
    gradient = {"dx": (channels_last(x).shape, "f4")}
    dx = same_results(same_bits, lambda: run_averages("avg_pool2d_backward", gradient, dy, arguments), "workspace")[
        "dx"
    ]
    terms = reference.avg_pool2d_backward(np.abs(dy).astype(np.float64), x, *options, divisor and abs(divisor))
    expected = reference.avg_pool2d_backward(dy.astype(np.float64), x, *options, divisor)
    holders = -(-kernel[0] // stride[0]) * -(-kernel[1] // stride[1])
    assert_within(channels_first(dx), expected, (holders + 2) * UNIT * terms)


@pytest.mark.parametrize("out", [(1, 1), (2, 3), (7, 5), (6, 1), (13, 11)])
@pytest.mark.parametrize(
    "image",
    [(2, 17, 7, 5), (1, 64, 3, 8), (3, 1, 1, 1), (1, 131, 56, 56), (0, 3, 4, 4), (2, 6, 14, 60), (1, 20, 12, 33)],
)
def test_adaptive_avg_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, image: tuple[int, ...], out: Pair
) -> None:
    x = rng.standard_normal(image, np.float32)
    dy = rng.standard_normal((*image[:2], *out), np.float32)
    arguments = shape_arguments(image, out)
    outputs = {"y": ((image[0], *out, image[1]), "f4")}
    y = same_results(
        same_bits, lambda: run_kernel("adaptive_avg_pool2d_forward", outputs, x=channels_last(x), **arguments)
    )["y"]
    rows, columns = (size // count + 2 for size, count in zip(image[2:], out, strict=True))
    terms = reference.adaptive_avg_pool2d(np.abs(x).astype(np.float64), out)
    expected = reference.adaptive_avg_pool2d(x.astype(np.float64), out)
    assert_within(channels_first(y), expected, (rows + columns + 1) * UNIT * terms)
    gradient = {"dx": (channels_last(x).shape, "f4")}
    dx = same_results(
        same_bits,
        lambda: run_averages("adaptive_avg_pool2d_backward", gradient, dy, arguments),
        "workspace",
    )["dx"]
    holders = (out[0] // image[2] + 2) * (out[1] // image[3] + 2)
    terms = reference.adaptive_avg_pool2d_backward(np.abs(dy).astype(np.float64), x, out)
    expected = reference.adaptive_avg_pool2d_backward(dy.astype(np.float64), x, out)
    assert_within(channels_first(dx), expected, (holders + 2) * UNIT * terms)


@pytest.mark.parametrize("kind", ["finite", "nan", "infinite"])
@pytest.mark.parametrize("out", [(1, 1), (2, 3), (7, 5), (6, 1), (13, 11)])
@pytest.mark.parametrize("image", [(2, 17, 7, 5), (1, 64, 3, 8), (3, 1, 1, 1), (1, 131, 20, 19), (0, 3, 4, 4)])
def test_adaptive_max_pool2d(
    isa: str, same_bits: SameBits, rng: np.random.Generator, image: tuple[int, ...], out: Pair, kind: str
) -> None:
    x = special_values(rng, image, kind)
    dy = rng.integers(-5, 5, (*image[:2], *out)).astype(np.float32)
    arguments = shape_arguments(image, out)
    pooled_shape = (image[0], *out, image[1])
    outputs = {"y": (pooled_shape, "f4"), "positions": (pooled_shape, "i8")}
    forward = same_results(
        same_bits, lambda: run_kernel("adaptive_max_pool2d_forward", outputs, x=channels_last(x), **arguments)
    )
    expected, positions = reference.adaptive_max_pool2d(x, out, return_indices=True)
    np.testing.assert_array_equal(channels_first(forward["y"]), expected)
    np.testing.assert_array_equal(channels_first(forward["positions"]), positions)
    gradient, found = {"dx": (channels_last(x).shape, "f4")}, forward["positions"]
    backward = same_results(
        same_bits,
        lambda: run_kernel(
            "adaptive_max_pool2d_backward", gradient, dy=channels_last(dy), positions=found, **arguments
        ),
    )
    np.testing.assert_array_equal(channels_first(backward["dx"]), reference.adaptive_max_pool2d_backward(dy, x, out))
