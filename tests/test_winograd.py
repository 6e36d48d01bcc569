"""Winograd convolution against the reference, within the bound its header states; every schedule gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, channels_first, channels_last, run_kernel, same_results

import fastnn as fnn
from fastnn import reference
from fastnn.nn import functional as F
from fastnn.ops.convolution_algorithm import (
    LARGE_FLOATS,
    TILES,
    Form,
    Product,
    Schedule,
    WeightSchedule,
    packed_size,
    planes_of,
)
from fastnn.settings import current_facts

KERNELS = {"winograd_pack_weight", "winograd_pack_weight_backward", "winograd_forward", "winograd_backward_weight"}

SameBits = Callable[..., Any]

# x (N,C,H,W), K, padding (top, bottom, left, right)
SHAPES: dict[str, tuple[Any, ...]] = {
    "several chunks": ((2, 67, 7, 9), 131, (1, 1, 1, 1)),
    "no padding": ((1, 31, 13, 12), 37, (0, 0, 0, 0)),
    "uneven padding": ((3, 5, 5, 11), 17, (2, 0, 1, 2)),
    "whole vectors": ((1, 64, 9, 6), 64, (1, 1, 1, 1)),
    "one channel": ((2, 1, 11, 13), 1, (2, 2, 2, 2)),
    "one pixel": ((5, 13, 1, 1), 7, (1, 1, 1, 1)),
    "a row": ((2, 16, 1, 13), 3, (1, 1, 0, 0)),
    "smallest image": ((1, 2, 3, 3), 101, (0, 0, 0, 0)),
    "more than 4096 channels": ((1, 4111, 2, 1), 2, (1, 1, 1, 1)),
    "empty batch": ((0, 8, 6, 6), 9, (1, 1, 1, 1)),
}


SIZES = [(tile, r) for r, tiles in TILES.items() for tile in tiles]
"""Tile and filter."""

Geometry = tuple[tuple[int, int, int, int], int, tuple[int, int, int, int]]


def shape_of(name: str, r: int) -> Geometry:
    """SHAPES are for filters of three: larger ones have more padding, and an image that they fit in."""
    (n, c, height, width), k, padding = SHAPES[name]
    top, bottom, left, right = (side * (r // 2) for side in padding)
    return (n, c, max(height, r - top - bottom), max(width, r - left - right)), k, (top, bottom, left, right)


def maps(tile: int, r: int) -> tuple[Array, Array, Array]:
    """B^T, G and A^T of winograd_transform.h, in float64."""
    if tile + r - 1 == 4:
        input_map = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1.0]])
        filter_map = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
        return input_map, filter_map, np.array([[1, 1, 1, 0], [0, 1, -1, 1.0]])
    a, b = 0.75, 1.5
    points = np.array([0, a, -a, b, -b])
    rows = [[a * a * b * b, 0, -a * a - b * b, 0, 1, 0]]
    rows += [[0, -p * other**2, -(other**2), p, 1, 0] for p, other in ((a, b), (-a, b), (b, a), (-b, a))]
    input_map = np.array([*rows, [0, *rows[0][:5]]])
    scale = (input_map[:5, :5] * points[:, None] ** np.arange(5)).sum(1)
    filter_map = np.vstack([points[:, None] ** np.arange(r) / scale[:, None], np.eye(r)[-1:]])
    output_map = np.hstack([points ** np.arange(tile)[:, None], np.eye(tile)[:, -1:]])
    return input_map, filter_map, output_map


@pytest.mark.parametrize(("tile", "r"), SIZES)
def test_maps_are_an_algorithm(tile: int, r: int, rng: np.random.Generator) -> None:
    input_map, filter_map, output_map = maps(tile, r)
    d, g = rng.standard_normal((tile + r - 1, tile + r - 1)), rng.standard_normal((r, r))
    y = output_map @ ((filter_map @ g @ filter_map.T) * (input_map @ d @ input_map.T)) @ output_map.T
    np.testing.assert_allclose(y, reference.conv2d(d[None, None], g[None, None])[0, 0], atol=1e-12)


def output_shape(shape: Geometry, r: int) -> tuple[int, int, int, int]:
    (n, _, height, width), k, (top, bottom, left, right) = shape
    return n, k, height + top + bottom - r + 1, width + left + right - r + 1


def patches(image: Array, padding: tuple[int, ...], out: tuple[int, ...], tile: int, size: int) -> Array:
    """|image| (N,C,H,W) -> (N, tile rows, tile columns, C, size, size), zeros outside."""
    rows, columns = -(-out[2] // tile), -(-out[3] // tile)
    padded = np.zeros((*image.shape[:2], rows * tile + size + 4, columns * tile + size + 4))
    top, left = padding[0], padding[2]
    padded[:, :, top : top + image.shape[2], left : left + image.shape[3]] = np.abs(image)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
    return windows[:, :, : rows * tile : tile, : columns * tile : tile].transpose(0, 2, 3, 1, 4, 5)


def forward_bound(x: Array, weight: Array, padding: tuple[int, ...], out: tuple[int, ...], tile: int) -> Array:
    """winograd.h: gamma_n |A^T| [sum over c of (|G||g||G^T|) . (|B^T||d||B|)] |A|, n = C + 22 + r."""
    r = weight.shape[2]
    input_map, filter_map, output_map = (np.abs(m) for m in maps(tile, r))
    v = input_map @ patches(x, padding, out, tile, tile + r - 1) @ input_map.T
    u = filter_map @ np.abs(weight.astype(np.float64)) @ filter_map.T
    products = np.einsum("nhwcij,kcij->nhwkij", v, u, optimize=True)
    y = (output_map @ products @ output_map.T).transpose(0, 3, 1, 4, 2, 5)
    n, k, rows, _, columns, _ = y.shape
    steps = (weight.shape[1] + 22 + r) * UNIT
    return y.reshape(n, k, rows * tile, columns * tile)[:, :, : out[2], : out[3]] * steps / (1 - steps)


def weight_bound(x: Array, dy: Array, padding: tuple[int, ...], r: int, cut: WeightSchedule) -> Array:
    """winograd_backward_weight.c: gamma_n |G^T| [sum over tiles of (|A||dY||A^T|) . (|B^T||X||B|)] |G|."""
    tile = cut.tile
    input_map, filter_map, output_map = (np.abs(m) for m in maps(tile, r))
    v = input_map @ patches(x, padding, dy.shape, tile, tile + r - 1) @ input_map.T
    e = output_map.T @ patches(dy, (0, 0, 0, 0), dy.shape, tile, tile) @ output_map
    products = np.einsum("nhwkij,nhwcij->kcij", e, v, optimize=True)
    blocks = -(-v.shape[0] * v.shape[1] * v.shape[2] // cut.parts // cut.block) + 1
    steps = (27 + cut.block + blocks + cut.parts) * UNIT
    return filter_map.T @ products @ filter_map * steps / (1 - steps)


def sizes(x: tuple[int, ...], out: tuple[int, ...], top: int, left: int) -> dict[str, int]:
    return {
        "batch": x[0], "channels": x[1], "height": x[2], "width": x[3],
        "out_channels": out[1], "out_height": out[2], "out_width": out[3], "pad_top": top, "pad_left": left,
    }  # fmt: skip


def product_of(x: tuple[int, ...], out: tuple[int, ...], r: int) -> Product:
    return Product(x[0], out[2], out[3], x[1], out[1], r)


def pack(weight: Array, tile: int, backward: bool) -> Array:
    k, c, r = weight.shape[:3]
    columns, depth = (c, k) if backward else (k, c)
    outputs = {"packed": ((packed_size(columns, depth, planes_of(tile, r), current_facts()),), "f4")}
    name = "winograd_pack_weight_backward" if backward else "winograd_pack_weight"
    arguments = {"source": channels_last(weight), "out_channels": k, "channels": c, "tile": tile, "kernel_size": r}
    return run_kernel(name, outputs, **arguments)["packed"]


def pack_panels(weight: Array) -> Array:
    k, c, r = weight.shape[:3]
    outputs = {"packed": ((-(-k // current_facts().lanes) * current_facts().lanes * r * r * c,), "f4")}
    arguments = {"out_channels": k, "channels": c, "kernel_height": r, "kernel_width": r, "groups": 1}
    return run_kernel("conv2d_pack_weight", outputs, source=channels_last(weight), **arguments)["packed"]


def convolve(
    x: Array, out: tuple[int, ...], corner: tuple[int, int], filters: Array, r: int, cut: Schedule, **epilogue: Any
) -> dict[str, Array]:
    facts = current_facts()
    step = 2 if epilogue.get("pool") else 1
    outputs = {
        "y": ((out[0], out[2] // step, out[3] // step, out[1]), "f4"),
        "workspace": ((cut.workspace(product_of(x.shape, out, r), facts),), "f4"),
    }
    arguments = {
        "activation": 0,
        "pool": 0,
        "tile": cut.tile,
        "kernel_size": r,
        "block": cut.block,
        "shared": int(cut.shared),
    }
    arguments |= {"weight_form": int(cut.form), **sizes(x.shape, out, *corner), **epilogue}
    return run_kernel("winograd_forward", outputs, x=channels_last(x), weight=filters, **arguments)


def weight_gradient(x: Array, dy: Array, r: int, corner: tuple[int, int], cut: WeightSchedule) -> dict[str, Array]:
    k, c = dy.shape[1], x.shape[1]
    workspace = cut.workspace(product_of(x.shape, dy.shape, r), current_facts())
    outputs = {"dw": ((k, r, r, c), "f4"), "dbias": ((k,), "f4"), "workspace": ((workspace,), "f4")}
    arguments = {"tile": cut.tile, "kernel_size": r, "block": cut.block, "shared": int(cut.shared), "parts": cut.parts}
    arguments |= {"stride": cut.stride, **sizes(x.shape, dy.shape, *corner)}
    return run_kernel("winograd_backward_weight", outputs, x=channels_last(x), dy=channels_last(dy), **arguments)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def schedules(tile: int) -> list[Schedule]:
    return [Schedule(tile, block, shared, Form.PACKED) for block, shared in ((70, False), (3, False), (97, True))]


@pytest.mark.parametrize(("tile", "r"), SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_forward(name: str, tile: int, r: int, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    x_shape, k, padding = shape = shape_of(name, r)
    out = output_shape(shape, r)
    x, weight = normal(rng, *x_shape), normal(rng, k, x_shape[1], r, r)
    results = []
    for cut in schedules(tile):
        run = lambda cut=cut: convolve(x, out, padding[::2], pack(weight, tile, False), r, cut)
        results.append(same_results(same_bits, run, "workspace")["y"])
    for filters, form in ((channels_last(weight), Form.FILTERS), (pack_panels(weight), Form.PANELS)):
        results.append(convolve(x, out, padding[::2], filters, r, Schedule(tile, 5, True, form))["y"])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    exact = reference.conv2d(np.float64(x), np.float64(weight), padding=(padding[:2], padding[2:]))
    assert_within(channels_first(results[0]), exact, forward_bound(x, weight, padding, out, tile))


@pytest.mark.parametrize(("tile", "r"), SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_backward_data(name: str, tile: int, r: int, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    x_shape, k, padding = shape = shape_of(name, r)
    out = output_shape(shape, r)
    dy, weight = normal(rng, *out), normal(rng, k, x_shape[1], r, r)
    corner = (r - 1 - padding[0], r - 1 - padding[2])
    packed = Schedule(tile, 11, False, Form.PACKED)
    run = lambda: convolve(dy, x_shape, corner, pack(weight, tile, True), r, packed)
    dx = same_results(same_bits, run, "workspace")["y"]
    rotated = convolve(dy, x_shape, corner, channels_last(weight), r, Schedule(tile, 75, True, Form.ROTATED))
    np.testing.assert_array_equal(rotated["y"], dx)
    x = np.zeros(x_shape)
    exact, _, _ = reference.conv2d_backward(np.float64(dy), x, np.float64(weight), padding=(padding[:2], padding[2:]))
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    bound = forward_bound(dy, turned, (corner[0], 0, corner[1], 0), x_shape, tile)
    assert_within(channels_first(dx), exact, bound)


@pytest.mark.parametrize(("tile", "r"), SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_backward_weight(name: str, tile: int, r: int, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    x_shape, k, padding = shape = shape_of(name, r)
    out = output_shape(shape, r)
    x, dy = normal(rng, *x_shape), normal(rng, *out)
    weight = np.zeros((k, x_shape[1], r, r))
    _, exact, exact_bias = reference.conv2d_backward(
        np.float64(dy), np.float64(x), weight, padding=(padding[:2], padding[2:])
    )
    cuts = [WeightSchedule(tile, block, shared, parts) for block, shared, parts in ((7, False, 3), (19, True, 1))]
    for cut in (*cuts, WeightSchedule(tile, 3, True, 1)):
        run = lambda cut=cut: weight_gradient(x, dy, r, padding[::2], cut)
        results = same_results(same_bits, run, "workspace")
        assert_within(channels_first(results["dw"]), exact, weight_bound(x, dy, padding, r, cut))
        steps = (16 + out[0] * out[2] * out[3] + cut.parts) * UNIT
        assert_within(results["dbias"], exact_bias, steps * np.abs(np.float64(dy)).sum((0, 2, 3)))


@pytest.mark.parametrize(("tile", "r"), SIZES)
def test_large_weight_gradient(tile: int, r: int, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    """One block of a gradient that is made and mapped piece by piece has the bits of one that is made as a whole."""
    n, c, k = 1, 133, 260
    x, dy, padding = normal(rng, n, c, 9, 8), normal(rng, n, k, 9, 8), (r // 2,) * 4
    cut = WeightSchedule(tile, 20, True, 1)
    assert planes_of(tile, r) * k * c > LARGE_FLOATS and product_of(x.shape, dy.shape, r).tiles(tile) <= cut.block
    results = same_results(same_bits, lambda: weight_gradient(x, dy, r, padding[::2], cut), "workspace")
    _, exact, _ = reference.conv2d_backward(np.float64(dy), np.float64(x), np.zeros((k, c, r, r)), padding=r // 2)
    assert_within(channels_first(results["dw"]), exact, weight_bound(x, dy, padding, r, cut))
    whole = weight_gradient(x, dy, r, padding[::2], replace(cut, shared=False))
    np.testing.assert_array_equal(whole["dw"], results["dw"])


def hostile(rng: np.random.Generator, *shape: int, period: int) -> Array:
    """Images whose signs change every period/2 rows and columns, with channels that cancel; magnitudes about 1.

    With a period of 4 the signs are those of the rows of B^T with the largest entries, with `period` 0 there is one sign in a
    channel, as in those of G and A: transforms are as large as they can be, the sums that they stand for are not.
    """
    n, c, height, width = shape
    rows, columns = (1 - 2 * (np.arange(size) % 4 // 2) if period else np.ones(size) for size in (height, width))
    channels = (1 - 2 * (np.arange(n * c) % 2)).reshape(n, c, 1, 1)
    signs = channels * rows[:, None] * columns
    return (signs * (1 + rng.random(shape) / 64)).astype(np.float32)


@pytest.mark.parametrize(("tile", "r"), SIZES)
def test_bound_on_hostile_data(tile: int, r: int, isa: str, rng: np.random.Generator) -> None:
    """Transforms as large as they can be, of sums that cancel. The errors are real: more than a rounding of the result."""
    n, c, k, side, padding = 2, 37, 19, 16, (r // 2,) * 4
    x, weight = hostile(rng, n, c, side, side, period=4), hostile(rng, k, c, r, r, period=0)
    out = (n, k, side, side)
    y = convolve(x, out, padding[::2], pack(weight, tile, False), r, Schedule(tile, 70, False, Form.PACKED))["y"]
    exact = reference.conv2d(np.float64(x), np.float64(weight), padding=r // 2)
    assert_within(channels_first(y), exact, forward_bound(x, weight, padding, out, tile))
    assert np.abs(channels_first(y) - exact).max() > UNIT * np.abs(exact).max()
    dy, cut = hostile(rng, *out, period=0), WeightSchedule(tile, 19, True, 1)
    dw = channels_first(weight_gradient(x, dy, r, padding[::2], cut)["dw"])
    _, exact, _ = reference.conv2d_backward(np.float64(dy), np.float64(x), np.float64(weight), padding=r // 2)
    assert_within(dw, exact, weight_bound(x, dy, padding, r, cut))
    assert np.abs(dw - exact).max() > UNIT * np.abs(exact).max()


@pytest.mark.parametrize(("tile", "r"), SIZES)
@pytest.mark.parametrize("activation", range(3))
def test_epilogue(activation: int, tile: int, r: int, isa: str, rng: np.random.Generator) -> None:
    """Bias, residual and activation are one rounding each on the plain result."""
    x, weight, bias, residual = (normal(rng, *s) for s in ((2, 19, 6, 7), (21, 19, r, r), (21,), (2, 6, 7, 21)))
    out, cut, packed = (2, 21, 6, 7), Schedule(tile, 70, False, Form.PACKED), pack(weight, tile, False)
    corner = (r // 2, r // 2)
    plain = convolve(x, out, corner, packed, r, cut)["y"]
    options = {"bias": bias, "residual": residual, "activation": activation}
    y = convolve(x, out, corner, packed, r, cut, **options)["y"]
    expected = plain + bias + residual
    expected = [expected, np.maximum(expected, 0), np.clip(expected, 0, 6)][activation]
    np.testing.assert_array_equal(y, expected)


def bits(a: Array) -> Array:
    """Zeros with their signs; all NaN alike."""
    return np.where(np.isnan(a), np.float32(np.nan), a).view(np.int32)


@pytest.mark.parametrize(("tile", "r"), SIZES)
@pytest.mark.parametrize("size", [(6, 7), (9, 4), (2, 13), (16, 8)])
@pytest.mark.parametrize("activation", range(3))
def test_pool(
    activation: int, size: tuple[int, int], tile: int, r: int, isa: str, rng: np.random.Generator, same_bits: SameBits
) -> None:
    """The bits of the convolution followed by the max pooling, of zeros of either sign, infinities and NaN too."""
    n, c, k, corner = 2, 9, 37, (r // 2, r // 2)
    x, weight, bias = normal(rng, n, c, *size), normal(rng, k, c, r, r), normal(rng, k)
    x[1, :, : size[0] // 2, : size[1] // 2] = np.nan
    weight[::3] = 0
    bias[:4] = 0, -0.0, np.inf, np.nan
    weight[5] *= np.float32(1e30)
    out, packed, cut = (n, k, *size), pack(weight, tile, False), Schedule(tile, 5, False, Form.PACKED)
    options = {"bias": bias, "activation": activation}
    plain = convolve(x, out, corner, packed, r, cut, **options)["y"]
    run = lambda: convolve(x, out, corner, packed, r, cut, pool=1, **options)
    pooled = same_results(same_bits, run, "workspace")["y"]
    window = {name: 2 for name in ("kernel_height", "kernel_width", "stride_h", "stride_w")}
    window |= {"dilation_h": 1, "dilation_w": 1, "pad_top": 0, "pad_left": 0, "batch": n, "channels": k}
    window |= {"height": size[0], "width": size[1], "out_height": size[0] // 2, "out_width": size[1] // 2}
    expected = run_kernel("max_pool2d_forward", {"y": (pooled.shape, "f4")}, x=plain, **window)["y"]
    assert np.isnan(expected).any() and not np.isnan(expected).all()
    np.testing.assert_array_equal(bits(pooled), bits(expected))


@pytest.mark.parametrize(("tile", "r"), SIZES)
def test_random_data(tile: int, r: int, isa: str, rng: np.random.Generator) -> None:
    """What the bound does not tell: the error on random data is some 1e-6 of the largest output."""
    x, weight = normal(rng, 2, 64, 16, 16), normal(rng, 32, 64, r, r)
    cut = Schedule(tile, 40, True, Form.FILTERS)
    y = convolve(x, (2, 32, 16, 16), (r // 2, r // 2), channels_last(weight), r, cut)["y"]
    exact = reference.conv2d(np.float64(x), np.float64(weight), padding=r // 2)
    assert np.abs(channels_first(y) - exact).max() <= 1e-5 * np.abs(exact).max()


def test_random_geometries(isa: str, rng: np.random.Generator) -> None:
    """The operation, with Winograd's algorithm wherever it applies, forward and backward."""
    for r in (3, 5) * 13:
        n, c, k = (int(v) for v in (rng.integers(0, 4), rng.integers(1, 40), rng.integers(1, 40)))
        padding = tuple(int(v) for v in rng.integers(0, r, 4))
        height = int(rng.integers(max(r - padding[0] - padding[1], 1), 14))
        width = int(rng.integers(max(r - padding[2] - padding[3], 1), 14))
        shape = ((n, c, height, width), k, padding)
        x, weight, bias = normal(rng, *shape[0]), normal(rng, k, c, r, r), normal(rng, k)
        dy = normal(rng, *output_shape(shape, r))
        sides = (padding[:2], padding[2:])
        with fnn.conv_algorithm("winograd"):
            y, pullback = fnn.vjp(lambda *a, sides=sides: F.conv2d(*a, padding=sides), x, weight, bias)
            results = (y, *pullback(dy))
        doubles = [np.float64(a) for a in (x, weight, bias, dy)]
        gradients = reference.conv2d_backward(doubles[3], *doubles[:2], padding=sides)
        expected = (reference.conv2d(*doubles[:3], padding=sides), *gradients)
        for result, exact in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, exact, rtol=0, atol=1e-5 * max(np.abs(exact).max(initial=0), 1))
