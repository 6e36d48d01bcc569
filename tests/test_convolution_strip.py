"""The kernel of strips, called alone, on images in both memory orders; and the pass that lets it read planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, assert_within, channels_last, run_kernel

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference
from fastnn.ops.convolution_strip import lies_along, strip_floats, strip_rows
from fastnn.plan import Plan
from fastnn.settings import current_facts, serial_below, without_passes

KERNELS = {"conv2d_pack_weight", "conv2d_strip_forward"}

WINDOW = ("kernel_height", "kernel_width", "stride_h", "stride_w", "dilation_h", "dilation_w", "pad_top", "pad_left")

# N, C, H, W, K, P, Q, groups, then R, S, strides, dilations, pad_top, pad_left
GEOMETRIES: dict[str, tuple[int, ...]] = {
    "one channel": (3, 1, 9, 11, 6, 9, 11, 1, 5, 5, 1, 1, 1, 1, 2, 2),
    "one channel, strides": (2, 1, 13, 16, 17, 6, 5, 1, 3, 2, 2, 3, 1, 1, 1, 0),
    "three channels": (2, 3, 17, 19, 37, 17, 19, 1, 3, 3, 1, 1, 1, 1, 1, 1),
    "three channels, stride 2": (2, 3, 15, 21, 32, 8, 11, 1, 3, 3, 2, 2, 1, 1, 1, 1),
    "stride 4": (1, 3, 23, 31, 21, 4, 6, 1, 11, 11, 4, 4, 1, 1, 2, 2),
    "four channels": (2, 4, 9, 8, 19, 8, 10, 1, 4, 3, 1, 1, 1, 1, 1, 2),
    "strides beyond the filter": (2, 3, 19, 22, 9, 4, 5, 1, 2, 3, 5, 4, 1, 1, 0, 1),
    "dilations": (2, 3, 17, 15, 18, 7, 6, 1, 3, 3, 2, 2, 2, 3, 1, 4),
    "dilated along the row": (1, 5, 4, 13, 7, 4, 9, 1, 2, 3, 1, 1, 1, 2, 0, 0),
    "negative padding": (1, 3, 12, 14, 5, 4, 6, 1, 3, 3, 1, 1, 1, 1, -3, -5),
    "padding wider than the image": (1, 2, 2, 1, 5, 7, 9, 1, 3, 3, 1, 1, 1, 1, 4, 5),
    "row of several pieces": (1, 3, 3, 231, 7, 3, 231, 1, 3, 3, 1, 1, 1, 1, 1, 1),
    "groups": (2, 6, 7, 9, 21, 7, 9, 3, 3, 3, 1, 1, 1, 1, 1, 1),
    "groups of one, two rows beyond": (2, 3, 5, 9, 12, 9, 9, 3, 3, 3, 1, 1, 1, 1, 3, 1),
    "groups of four": (1, 8, 7, 9, 10, 4, 5, 2, 3, 3, 2, 2, 1, 1, 1, 1),
    "groups of eight, dilations": (1, 16, 5, 9, 6, 5, 9, 2, 3, 3, 1, 1, 4, 2, 4, 2),
    "few outputs": (2, 3, 6, 32, 3, 6, 32, 1, 3, 3, 1, 1, 1, 1, 1, 1),
    "few outputs of several pieces": (1, 1, 5, 250, 3, 3, 248, 1, 5, 3, 1, 1, 1, 1, 1, 0),
    "few outputs, groups of one, dilated": (2, 2, 6, 31, 6, 5, 28, 2, 3, 3, 1, 1, 2, 2, 2, 1),
    "panels for a team": (1, 3, 2, 9, 130, 2, 9, 1, 3, 3, 1, 1, 1, 1, 1, 1),
    "empty batch": (0, 3, 5, 5, 6, 5, 5, 1, 3, 3, 1, 1, 1, 1, 1, 1),
}


def sizes_of(name: str) -> dict[str, int]:
    names = ("batch", "channels", "height", "width", "out_channels", "out_height", "out_width", "groups", *WINDOW)
    return dict(zip(names, GEOMETRIES[name], strict=True))


def shapes_of(a: dict[str, int]) -> list[tuple[int, ...]]:
    """x (N,C,H,W), weight (K,C/G,R,S), y (N,K,P,Q)."""
    return [
        (a["batch"], a["channels"], a["height"], a["width"]),
        (a["out_channels"], a["channels"] // a["groups"], a["kernel_height"], a["kernel_width"]),
        (a["batch"], a["out_channels"], a["out_height"], a["out_width"]),
    ]


def rows_of(a: dict[str, int]) -> list[int]:
    """Output rows of a strip: one, a number that leaves a rest, all."""
    return [1] if a["dilation_h"] > 1 else sorted({1, a["out_height"] // 2 + 1, a["out_height"]})


def run(a: dict[str, int], x: Any, weight: Any, planar: bool, rows: int, **more: Any) -> Any:
    """y (N,P,Q,K) from x (N,C,H,W); what the workspace holds does not matter."""
    facts = current_facts()
    sizes = {k: a[k] for k in ("out_channels", "channels", "kernel_height", "kernel_width", "groups")}
    columns, depth = a["out_channels"] // a["groups"], weight[0].size
    width = -(-columns // facts.lanes) * facts.lanes
    outputs = {"packed": ((a["groups"] * width * depth,), np.float32)}
    packed = run_kernel("conv2d_pack_weight", outputs, source=channels_last(weight), **sizes)["packed"]
    stride = strip_floats(a, facts, rows, planar)
    more |= {
        "x": np.ascontiguousarray(x) if planar else channels_last(x),
        "packed": packed,
        "workspace": np.full(stride * facts.threads, np.nan, np.float32),
        "workspace_stride": stride,
        "rows": rows,
        "planar": planar,
    }
    outputs = {"y": ((a["batch"], a["out_height"], a["out_width"], a["out_channels"]), np.float32)}
    return run_kernel("conv2d_strip_forward", outputs, **more, **a)["y"]


def expected(a: dict[str, int], x: Any, weight: Any) -> Any:
    """y (N,P,Q,K) in float64, of the padded image as far as P and Q reach."""
    strides, dilations = (a["stride_h"], a["stride_w"]), (a["dilation_h"], a["dilation_w"])
    kernel, pads = (a["kernel_height"], a["kernel_width"]), (a["pad_top"], a["pad_left"])
    positions, sizes = (a["out_height"], a["out_width"]), (a["height"], a["width"])
    spans = [(positions[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    image = np.zeros((*x.shape[:2], *spans))
    inside = [slice(max(pads[i], 0), min(pads[i] + sizes[i], spans[i])) for i in (0, 1)]
    source = [slice(inside[i].start - pads[i], inside[i].stop - pads[i]) for i in (0, 1)]
    image[:, :, inside[0], inside[1]] = x[:, :, source[0], source[1]]
    y = reference.conv2d(
        image, weight.astype(np.float64), None, stride=strides, padding=0, dilation=dilations, groups=a["groups"]
    )
    return channels_last(y)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_exact_in_both_orders(name: str, isa: str, threads: int, rng: np.random.Generator) -> None:
    a = sizes_of(name)
    x, weight, residual = (rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes_of(a))
    bias = rng.integers(-4, 5, a["out_channels"]).astype(np.float32)
    for addend in (None, channels_last(residual)):
        wanted = np.clip(expected(a, x, weight) + bias + (0 if addend is None else addend), 0, 6)
        for planar in (False, True):
            for rows in rows_of(a):
                epilogue = {"bias": bias, "residual": addend, "activation": 2}
                np.testing.assert_array_equal(run(a, x, weight, planar, rows, **epilogue), wanted)


def test_few_outputs_lie_along_the_pixels(isa: str) -> None:
    along = {name for name in GEOMETRIES if lies_along(sizes_of(name), current_facts(), planar=True)}
    assert {name for name in GEOMETRIES if name.startswith("few outputs")} <= along
    assert "three channels" not in along and "three channels, stride 2" not in along


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "empty batch"])
def test_bits_and_error_bound(name: str, isa: str, rng: np.random.Generator, same_bits: Callable[..., Any]) -> None:
    """The same bits for every team, in both memory orders, however many rows a strip serves, and however vectors lie."""
    a = sizes_of(name)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in shapes_of(a)[:2])
    nothing = np.zeros((a["batch"], a["out_height"], a["out_width"], a["out_channels"]), np.float32)
    forms = [(planar, rows, addend) for planar in (False, True) for rows in rows_of(a) for addend in (None, nothing)]
    results = same_bits(lambda: [run(a, x, weight, *form[:2], residual=form[2], activation=0) for form in forms])
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()
    roundings = UNIT * weight[0].size * (2 if isa == "scalar" else 1)
    assert_within(results[0], expected(a, x, weight), roundings / (1 - roundings) * expected(a, abs(x), abs(weight)))


def test_large_results_go_past_the_caches_with_the_same_bits(isa: str, rng: np.random.Generator) -> None:
    """5 * 128 * 128 * 64 floats, more than FNN_STREAM_FLOATS, from a place that is aligned and from one that is not."""
    x = rng.integers(-4, 5, (5, 1, 128, 128)).astype(np.float32)
    layer = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    layer.weight.data = rng.integers(-4, 5, (64, 1, 3, 3))
    with fnn.conv_algorithm("strip"):
        whole = layer(x)
        for image in range(5):
            np.testing.assert_array_equal(layer(x[image : image + 1])[0], whole[image])


@pytest.mark.parametrize("shared", [False, True])
def test_rows_of_a_strip_come_out_even_for_a_team(shared: bool, threads: int) -> None:
    facts = current_facts()
    a = sizes_of("one channel") | {"batch": 64, "height": 28, "width": 28, "out_height": 28, "out_width": 28}
    assert strip_rows(a, facts, False, shared) > 1
    blocks = -(-28 // strip_rows(a | {"batch": 1}, facts, False, shared))
    assert blocks % (facts.threads if shared else 1) == 0
    assert strip_rows(a | {"dilation_h": 2}, facts, False, shared) == 1
    assert strip_rows(a | {"width": 10**5, "out_width": 10**5, "channels": 10**3}, facts, False, shared) == 1


# ---- read_planes


def plan_of(model: nn.Module, shape: tuple[int, ...], layout: str) -> Plan:
    return model._compile().plan([(shape, "f", layout)])


def kernels_of(model: nn.Module, shape: tuple[int, ...], layout: str = "first") -> list[str]:
    return [step.kernel for step in plan_of(model, shape, layout).steps if not step.prologue]


LAYERS: dict[str, nn.Module] = {
    "mobilenet": nn.Conv2d(3, 32, 3, 2, 1, bias=False),
    "vgg": nn.Conv2d(3, 64, 3, padding=1),
    "resnet": nn.Conv2d(3, 24, 7, 2, 3),
    "four channels, dilated": nn.Conv2d(4, 9, 3, padding=2, dilation=2),
    "groups": nn.Conv2d(4, 8, 3, groups=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_first_layer_reads_planes_with_the_same_bits(
    name: str, isa: str, threads: int, rng: np.random.Generator
) -> None:
    layer = LAYERS[name]
    model = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()).eval()
    x = rng.standard_normal((3, layer.in_channels, 29, 31)).astype(np.float32)
    with serial_below(0), fnn.conv_algorithm("strip"):  # what is chosen otherwise depends on the ISA
        assert kernels_of(model, x.shape) == ["conv2d_strip_forward"]
        y = model(x)
        assert y.tobytes() == model(channels_last(x).transpose(0, 3, 1, 2)).tobytes()
        with without_passes("read_planes"):
            assert kernels_of(model, x.shape) == ["transpose", "conv2d_strip_forward"]
            assert y.tobytes() == model(x).tobytes()


@pytest.mark.parametrize("algorithm", ["winograd", "indirect", "spread"])
def test_other_forms_make_a_copy_themselves(algorithm: str, isa: str, rng: np.random.Generator) -> None:
    model = nn.Conv2d(8, 11, 3, padding=1)
    x = rng.standard_normal((2, 8, 12, 13)).astype(np.float32)
    with fnn.conv_algorithm(algorithm):
        kernels = kernels_of(model, x.shape)
        assert kernels[0] == "transpose" and len(kernels) == 2 and kernels[1] != "conv2d_strip_forward"
        assert model(x).tobytes() == model(channels_last(x).transpose(0, 3, 1, 2)).tobytes()
        steps = plan_of(model, x.shape, "first").steps
        assert [step.flops > 0 for step in steps if not step.prologue] == [False, True]


def test_depthwise_layers_make_a_copy(rng: np.random.Generator) -> None:
    model = nn.Conv2d(5, 5, 3, groups=5)
    x = rng.standard_normal((2, 5, 9, 9)).astype(np.float32)
    assert kernels_of(model, x.shape) == ["transpose", "conv2d_depthwise_forward"]
    assert model(x).tobytes() == model(channels_last(x).transpose(0, 3, 1, 2)).tobytes()


def test_what_others_read_too_is_transposed_once(rng: np.random.Generator) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.first(x) + self.second(x)

    x = rng.standard_normal((2, 3, 12, 12)).astype(np.float32)
    model, residual = Twice(), nn.Conv2d(3, 3, 3, padding=1)
    for module in (model, Residual(residual)):
        assert kernels_of(module, x.shape).count("transpose") == 1
        assert module(x).tobytes() == module(channels_last(x).transpose(0, 3, 1, 2)).tobytes()


class Residual(nn.Module):
    """body(x) + x."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x) + x


def test_gradients_of_images_in_planes(rng: np.random.Generator) -> None:
    """Training reads the images twice; a gradient of the input alone does not."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten())
    x = rng.integers(-3, 4, (2, 3, 9, 9)).astype(np.float32)
    labels = np.array([1, 2])
    results = [
        fnn.value_and_grad(model, nn.CrossEntropyLoss())(images, labels)
        for images in (x, channels_last(x).transpose(0, 3, 1, 2))
    ]
    assert results[0][0] == results[1][0]
    for name, gradient in results[0][1].items():
        np.testing.assert_array_equal(gradient, results[1][1][name])
    (y, pullback), (other, other_pullback) = (
        fnn.vjp(model, images) for images in (x, channels_last(x).transpose(0, 3, 1, 2))
    )
    np.testing.assert_array_equal(y, other)
    for gradient, wanted in zip(pullback(y), other_pullback(y), strict=True):
        np.testing.assert_array_equal(gradient, wanted)


@pytest.mark.parametrize("out_channels", [48, 64])
def test_results_of_groups_past_the_caches(out_channels: int, isa: str) -> None:
    """Groups of 12 channels begin in the middle of a line of a cache, groups of 16 do not."""
    rng, shape = np.random.default_rng(2), (1, 8, 360, 256)
    x, weight = (rng.integers(-3, 4, size).astype(np.float32) for size in (shape, (out_channels, 2, 3, 3)))
    assert 4 * out_channels * 360 * 256 >= 1 << 24
    with fnn.conv_algorithm("strip"):
        y = F.conv2d(x, weight, padding=1, groups=4)
    each = out_channels // 4
    for group in range(4):
        own = F.conv2d(x[:, 2 * group : 2 * group + 2], weight[each * group : each * (group + 1)], padding=1)
        assert np.array_equal(y[:, each * group : each * (group + 1)], own)
