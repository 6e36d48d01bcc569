"""Padding, interpolation, pixel shuffle, embedding, adaptive max and Lp pooling against PyTorch on random configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_layers_against_torch import CONFIGURATIONS, Configuration, assert_close, compare, seeded
from torch_agreement import flip, sizes

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn


def padding(axes: int, lowest: int, value: bool = False) -> Any:
    """Pads from `lowest` to 3 elements, fewer than the axis where it is mirrored."""

    def make(rng: np.random.Generator) -> Configuration:
        extents = sizes(rng, axes, 5, 10)
        if flip(rng):
            pads: Any = int(rng.integers(max(lowest, -1), 4))
        else:
            pads = tuple(int(n) for n in rng.integers(lowest, 4, 2 * axes))
        options = {"padding": pads, **({"value": float(rng.standard_normal())} if value else {})}
        return options, (*sizes(rng, 2), *extents)

    return make


def adaptive(axes: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        output: Any = tuple(sizes(rng, axes, 1, 12))
        if axes == 2 and flip(rng):
            output = [output[0], (None, output[1]), (output[0], None)][rng.integers(3)]
        return {"output_size": output}, tuple(sizes(rng, 2 + axes, 1, 12))

    return make


def lp_pool(axes: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        kernel = tuple(sizes(rng, axes, 1, 4))
        options = {
            "norm_type": float(rng.choice([1, 2, 4])), "kernel_size": kernel if axes == 2 else kernel[0],
            "stride": [None, *sizes(rng, 1, 1, 4)][rng.integers(2)], "ceil_mode": flip(rng),
        }  # fmt: skip
        if options["norm_type"] == 1 and axes == 2:
            options["norm_type"] = 2.0  # PyTorch's gradient at sums below 0 is that of a clipped root
        return options, (*sizes(rng, 2), *(k + n for k, n in zip(kernel, sizes(rng, axes, 0, 9), strict=True)))

    return make


def linear_upsample(rng: np.random.Generator) -> Configuration:
    axes = int(rng.integers(1, 3))
    shape = (*sizes(rng, 2), *sizes(rng, axes, 1, 9))
    options: dict[str, Any] = {"mode": "bilinear" if axes == 2 else "linear"}
    options["align_corners"] = [None, True, False][rng.integers(3)]
    if flip(rng):
        options["size"] = tuple(sizes(rng, axes, 1, 20))
    else:
        options["scale_factor"] = tuple(float(s) for s in rng.uniform(1.0, 3.5, axes))
        options["recompute_scale_factor"] = [None, True][rng.integers(2)]
    return options, shape


def resized(rng: np.random.Generator) -> Configuration:
    return {"size": tuple(sizes(rng, 2, 1, 20))}, (*sizes(rng, 2), *sizes(rng, 2, 1, 9))


def shuffle(inverse: bool) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        batch, channels, height, width, factor = sizes(rng, 5, 1, 5)
        if inverse:
            return {"downscale_factor": factor}, (batch, channels, height * factor, width * factor)
        return {"upscale_factor": factor}, (batch, channels * factor * factor, height, width)

    return make


def unflatten(rng: np.random.Generator) -> Configuration:
    batch, rows, columns, behind = sizes(rng, 4, 1, 5)
    return {"dim": 1, "unflattened_size": (rows, columns)}, (batch, rows * columns, *[behind] * int(rng.integers(2)))


LAYERS: dict[str, Callable[[np.random.Generator], Configuration]] = {
    "ZeroPad1d": padding(1, -2),
    "ZeroPad2d": padding(2, -2),
    "ConstantPad1d": padding(1, -2, value=True),
    "ConstantPad2d": padding(2, -2, value=True),
    "ReflectionPad1d": padding(1, 0),
    "ReflectionPad2d": padding(2, 0),
    "ReplicationPad1d": padding(1, 0),
    "ReplicationPad2d": padding(2, -1),
    "CircularPad1d": padding(1, 0),
    "CircularPad2d": padding(2, 0),
    "AdaptiveMaxPool1d": adaptive(1),
    "AdaptiveMaxPool2d": adaptive(2),
    "LPPool1d": lp_pool(1),
    "LPPool2d": lp_pool(2),
    "Upsample": linear_upsample,
    "UpsamplingBilinear2d": resized,
    "UpsamplingNearest2d": resized,
    "PixelShuffle": shuffle(False),
    "PixelUnshuffle": shuffle(True),
    "Unflatten": unflatten,
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    for number in range(CONFIGURATIONS):
        compare(name, LAYERS[name], number)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area"])
def test_exact_interpolation(mode: str) -> None:
    """Which element is the nearest depends on rounding: PyTorch's in float32, as ours."""
    for number in range(CONFIGURATIONS):
        rng = seeded(mode, number)
        axes = int(rng.integers(1, 3))
        x = rng.standard_normal((*sizes(rng, 2), *sizes(rng, axes, 1, 40))).astype(np.float32)
        options: dict[str, Any] = {"mode": mode}
        if flip(rng) or mode == "area":
            options["size"] = tuple(sizes(rng, axes, 1, 90))
        else:
            options["scale_factor"] = tuple(
                float(s) for s in rng.choice([0.5, 0.7, 1.0, 1.1, 1.5, 2.0, 2.2, 3.0], axes)
            )
            if min(n * s for n, s in zip(x.shape[2:], options["scale_factor"], strict=True)) < 1:
                continue
        tensor = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.interpolate(tensor, **options)
        y, pullback = fnn.vjp(lambda t, options=options: F.interpolate(t, **options), x)
        what = f"{number}: {options} on {x.shape}"
        dy = rng.standard_normal(y.shape).astype(np.float32)
        expected.backward(torch.tensor(dy))
        if mode != "area":
            np.testing.assert_array_equal(y, expected.detach().numpy(), err_msg=what)
        assert_close(y, expected.detach().numpy(), what)
        if axes == 1 and "scale_factor" in options and y.shape[2] in (x.shape[2], 2 * x.shape[2]):
            continue  # PyTorch's backward pass is then that of another forward pass than its own
        assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{what}: gradient")


def test_pad_of_any_axes() -> None:
    for number in range(CONFIGURATIONS):
        rng = seeded("pad", number)
        mode = ["constant", "reflect", "replicate", "circular"][rng.integers(4)]
        rank = int(rng.integers(1, 6)) if mode == "constant" else int(rng.integers(3, 5))
        shape = sizes(rng, rank, 4, 7)
        axes = int(rng.integers(1, rank + 1)) if mode == "constant" else rank - 2
        pads = tuple(int(n) for n in rng.integers(-2 if mode == "constant" else 0, 4, 2 * axes))
        options = {"mode": mode, **({"value": 1.5} if mode == "constant" else {})}
        x = rng.standard_normal(shape).astype(np.float32)
        tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
        expected = torch.nn.functional.pad(tensor, pads, **options)
        y, pullback = fnn.vjp(lambda t, pads=pads, options=options: F.pad(t, pads, **options), x)
        what = f"{number}: {pads} {options} on {shape}"
        assert_close(y, expected.detach().numpy(), what)
        dy = rng.standard_normal(y.shape)
        expected.backward(torch.tensor(dy))
        assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{what}: gradient")


@pytest.mark.parametrize("axes", [1, 2])
def test_positions_of_maxima(axes: int) -> None:
    """return_indices of both kinds of max pooling, equal elements among them."""
    for number in range(CONFIGURATIONS):
        rng = seeded(f"positions {axes}", number)
        x = rng.integers(-3, 3, (*sizes(rng, 2), *sizes(rng, axes, 3, 12))).astype(np.float32)
        output = tuple(sizes(rng, axes, 1, 12))
        for name, arguments in ((f"AdaptiveMaxPool{axes}d", (output,)), (f"MaxPool{axes}d", (3, 2, 1))):
            expected = getattr(torch.nn, name)(*arguments, return_indices=True)(torch.tensor(x))
            got = getattr(nn, name)(*arguments, return_indices=True)(x)
            for ours, theirs in zip(got, expected, strict=True):
                np.testing.assert_array_equal(
                    ours, theirs.numpy(), err_msg=f"{name} {number}: {arguments} on {x.shape}"
                )


def test_embedding() -> None:
    for number in range(CONFIGURATIONS):
        rng = seeded("embedding", number)
        rows, columns = sizes(rng, 2, 1, 40)
        padding_idx = int(rng.integers(-rows, rows)) if flip(rng) else None
        indices = rng.integers(0, rows, sizes(rng, int(rng.integers(0, 5)), 1, 7))
        theirs = torch.nn.Embedding(rows, columns, padding_idx).double()
        ours = nn.Embedding(rows, columns, padding_idx)
        assert repr(ours) == repr(theirs)
        with torch.no_grad():
            theirs.weight.copy_(torch.tensor(rng.standard_normal((rows, columns)).astype(np.float32)))
        assert ours.load_state_dict(theirs.state_dict()) == ([], [])
        expected = theirs(torch.tensor(indices))
        what = f"{number}: {rows} x {columns}, padding {padding_idx}, indices {indices.shape}"
        assert_close(ours(indices), expected.detach().numpy(), what)
        dy = rng.standard_normal(expected.shape).astype(np.float32)
        expected.backward(torch.tensor(dy.astype(np.float64)))
        _, gradients = fnn.value_and_grad(ours, lambda y, weights: (y * weights).sum())(indices, dy)
        assert_close(gradients["weight"], theirs.weight.grad.numpy(), f"{what}: gradient")
