"""Interpolation, pixel shuffle and their layers against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, SameBits, assert_equal, assert_within, differentiate, integers, normal

import fastnn.nn.functional as F
from fastnn import nn, reference

# shape, size or scale
NEAREST: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5, 7), {"size": (10, 14)}),
    ((2, 17, 5, 7), {"scale_factor": 3}),
    ((1, 64, 4, 4), {"scale_factor": 2}),
    ((1, 2, 7, 5), {"size": (3, 8)}),
    ((1, 1, 9, 6), {"scale_factor": (1.5, 0.5)}),
    ((2, 4, 6, 8), {"size": 1}),
    ((0, 3, 2, 2), {"size": 4}),
    ((3, 4, 11), {"size": 23}),
    ((3, 4, 11), {"scale_factor": 0.4}),
]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("case", NEAREST, ids=str)
def test_nearest(isa: str, same_bits: SameBits, rng: np.random.Generator, case: tuple[Any, Any], mode: str) -> None:
    shape, options = case
    x = integers(rng, shape)
    got = differentiate(lambda t: F.interpolate(t, **options, mode=mode), [x], lambda s: integers(rng, s), same_bits)
    exact = x.astype(float)
    assert_equal(got.y, reference.interpolate(exact, **options, mode=mode))
    assert_equal(got.gradients[0], reference.interpolate_backward(got.dy.astype(float), exact, **options, mode=mode))


LINEAR: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    *NEAREST,
    ((2, 33, 5, 7), {"size": (5, 12)}),
    ((1, 3, 1, 1), {"size": (4, 3)}),
    ((1, 130, 6, 3), {"size": (17, 2)}),
    ((2, 3, 8, 9), {"scale_factor": 1.7}),
    ((1, 5, 1), {"size": 6}),
]


@pytest.mark.parametrize("align_corners", [None, False, True])
@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_linear(
    isa: str, same_bits: SameBits, rng: np.random.Generator, case: tuple[Any, Any], align_corners: bool | None
) -> None:
    shape, given = case
    options = {**given, "mode": "bilinear" if len(shape) == 4 else "linear", "align_corners": align_corners}
    x = normal(rng, shape)
    got = differentiate(lambda t: F.interpolate(t, **options), [x], lambda s: normal(rng, s), same_bits)
    exact, dy = x.astype(float), got.dy.astype(float)
    terms = reference.interpolate(np.abs(exact), **options)
    assert_within(got.y, reference.interpolate(exact, **options), (2 + 2 + 2) * UNIT * terms)
    terms = reference.interpolate_backward(np.abs(dy), exact, **options)
    most = 2 * sum(-(-m // max(n, 1)) + 1 for n, m in zip(shape[2:], got.y.shape[2:], strict=True))
    assert_within(got.gradients[0], reference.interpolate_backward(dy, exact, **options), (most + 2) * UNIT * terms)


def test_area_is_adaptive_average_pooling(isa: str, rng: np.random.Generator) -> None:
    x = normal(rng, (2, 5, 7, 9))
    np.testing.assert_array_equal(F.interpolate(x, (3, 4), mode="area"), F.adaptive_avg_pool2d(x, (3, 4)))
    np.testing.assert_array_equal(F.interpolate(x[0], 4, mode="area"), F.adaptive_avg_pool1d(x[0], 4))


def test_scales_are_used_as_given_unless_recomputed(rng: np.random.Generator) -> None:
    x = normal(rng, (1, 2, 7))
    by_size = F.interpolate(x, 9, mode="linear")
    np.testing.assert_array_equal(
        F.interpolate(x, scale_factor=1.4, mode="linear", recompute_scale_factor=True), by_size
    )
    assert np.abs(F.interpolate(x, scale_factor=1.4, mode="linear") - by_size).max() > 1e-3


@pytest.mark.parametrize(("shape", "factor"), [((2, 12, 3, 5), 2), ((1, 18, 4, 1), 3), ((2, 80, 2, 2), 4), ((2, 3, 4, 5), 1),
                                               ((0, 4, 2, 2), 2)], ids=str)  # fmt: skip
def test_pixel_shuffle(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], factor: int
) -> None:
    x = normal(rng, shape)
    got = differentiate(lambda t: F.pixel_shuffle(t, factor), [x], lambda s: normal(rng, s), same_bits)
    assert_equal(got.y, reference.pixel_shuffle(x.astype(float), factor))
    assert_equal(got.gradients[0], reference.pixel_shuffle_backward(got.dy.astype(float), factor))
    back = differentiate(lambda t: F.pixel_unshuffle(t, factor), [got.y], lambda s: normal(rng, s), same_bits)
    np.testing.assert_array_equal(back.y, x)
    assert_equal(back.gradients[0], reference.pixel_shuffle(back.dy.astype(float), factor))


def test_layers(rng: np.random.Generator) -> None:
    x = normal(rng, (2, 8, 6, 4))
    np.testing.assert_array_equal(nn.Upsample(scale_factor=1.5)(x), F.interpolate(x, scale_factor=1.5))
    np.testing.assert_array_equal(nn.Upsample((3, 9), mode="bilinear")(x), F.interpolate(x, (3, 9), mode="bilinear"))
    np.testing.assert_array_equal(nn.UpsamplingNearest2d(9)(x), F.interpolate(x, 9))
    aligned = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    np.testing.assert_array_equal(nn.UpsamplingBilinear2d(scale_factor=2)(x), aligned)
    np.testing.assert_array_equal(nn.PixelShuffle(2)(x), F.pixel_shuffle(x, 2))
    np.testing.assert_array_equal(nn.PixelUnshuffle(2)(x), F.pixel_unshuffle(x, 2))


def test_layers_show_their_arguments() -> None:
    assert repr(nn.Upsample(size=(3, 4))) == "Upsample(size=(3, 4), mode='nearest')"
    assert repr(nn.Upsample(scale_factor=(1, 2.5))) == "Upsample(scale_factor=(1.0, 2.5), mode='nearest')"
    assert repr(nn.UpsamplingBilinear2d(scale_factor=2)) == "UpsamplingBilinear2d(scale_factor=2.0, mode='bilinear')"
    assert repr(nn.PixelShuffle(3)) == "PixelShuffle(upscale_factor=3)"
    assert repr(nn.PixelUnshuffle(3)) == "PixelUnshuffle(downscale_factor=3)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.interpolate(x), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, 2.0), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, mode="cubic"), ValueError, "mode must be"),
        (lambda x: F.interpolate(x, 3, mode="linear"), ValueError, r"must have the shape \(N,C,L\) for linear"),
        (lambda x: F.interpolate(x, 3, align_corners=True), ValueError, "align_corners is for the modes"),
        (lambda x: F.interpolate(x, 3, antialias=True), ValueError, "antialias is not supported"),
        (lambda x: F.interpolate(x, 0), ValueError, "size must be at least 1"),
        (lambda x: F.interpolate(x, (2, 3, 4)), TypeError, "size must be an integer or 2 integers"),
        (lambda x: F.interpolate(x, 2**33), ValueError, "reach to 16777216 elements an axis, not to 8589934592"),
        (lambda x: F.interpolate(x, scale_factor=1e30), ValueError, "reach to 16777216 elements an axis"),
        (lambda x: F.interpolate(x, 2.5), TypeError, "size must be an integer"),
        (lambda x: F.interpolate(x, scale_factor=0.1), ValueError, "leaves nothing of"),
        (lambda x: F.interpolate(x, scale_factor=(1.0, 2.0, 3.0)), ValueError, "a number or 2 of them"),
        (lambda x: F.interpolate(x, scale_factor=(1.0, "2")), TypeError, "scale_factor must be a number"),
        (lambda x: F.interpolate(x, 3, recompute_scale_factor=True), ValueError, "not for a size"),
        (lambda x: F.interpolate(x[:, :, :0], 3), ValueError, "nothing between two elements"),
        (lambda x: F.pixel_shuffle(x, 2), ValueError, "multiple of 4 channels, got 3"),
        (lambda x: F.pixel_unshuffle(x, 3), ValueError, r"does not divide the image \(4, 5\)"),
        (lambda x: nn.PixelShuffle(2)(x), ValueError, r"^PixelShuffle\(upscale_factor=2\): upscale_factor 2 needs"),
        (lambda x: nn.PixelShuffle(0), ValueError, "PixelShuffle: upscale_factor must be at least 1"),
        (lambda x: nn.Upsample(2, 2.0), ValueError, "Upsample: give either size or scale_factor"),
        (lambda x: nn.Upsample(mode="near"), ValueError, "Upsample: mode must be"),
    ],
)
def test_what_does_not_fit(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.zeros((2, 3, 4, 5), np.float32))
