"""conv_transpose2d, forward and backward, against its own reference: every geometry, ISA, algorithm and team size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from layer_check import SameBits, assert_equal, assert_within, differentiate, double, integers, normal

import fastnn as fnn
from fastnn import nn, reference
from fastnn.graph import Graph, Tensor
from fastnn.nn import functional as F
from fastnn.plan import compile_graph
from fastnn.settings import current_facts
from fastnn.trace import Compiled

UNIT = 2.0**-24

# name: x (N,C,H,W), (K, R, S), stride, padding, output_padding, groups, dilation
GEOMETRIES: dict[str, tuple[Any, ...]] = {
    "double": ((2, 19, 5, 7), (17, 4, 4), (2, 2), (1, 1), (0, 0), 1, (1, 1)),
    "double with 3x3": ((2, 33, 4, 6), (18, 3, 3), (2, 2), (1, 1), (1, 1), 1, (1, 1)),
    "first layer of a decoder": ((3, 29, 1, 1), (35, 4, 4), (1, 1), (0, 0), (0, 0), 1, (1, 1)),
    "first layer of a decoder, strided": ((3, 29, 1, 1), (5, 3, 2), (2, 3), (0, 0), (0, 0), 1, (1, 1)),
    "last layer of a decoder": ((2, 64, 9, 8), (3, 4, 4), (2, 2), (1, 1), (0, 0), 1, (1, 1)),
    "3x3": ((2, 17, 7, 9), (33, 3, 3), (1, 1), (1, 1), (0, 0), 1, (1, 1)),
    "3x3 on a wide image": ((1, 5, 4, 31), (18, 3, 3), (1, 1), (1, 1), (0, 0), 1, (1, 1)),
    "3x3 without padding": ((1, 9, 5, 6), (10, 3, 3), (1, 1), (0, 0), (0, 0), 1, (1, 1)),
    "5x5": ((2, 13, 7, 6), (21, 5, 5), (1, 1), (2, 2), (0, 0), 1, (1, 1)),
    "1x1": ((3, 19, 5, 7), (37, 1, 1), (1, 1), (0, 0), (0, 0), 1, (1, 1)),
    "stride beyond the filter": ((2, 8, 3, 4), (6, 2, 1), (3, 4), (0, 0), (2, 3), 1, (1, 1)),
    "output padding beyond the stride": ((2, 6, 3, 4), (5, 2, 3), (1, 2), (0, 1), (4, 2), 1, (5, 3)),
    "padding beyond the filter": ((1, 6, 7, 8), (5, 2, 3), (1, 1), (3, 4), (0, 0), 1, (1, 1)),
    "strides and dilations": ((2, 9, 5, 4), (10, 3, 4), (2, 3), (1, 2), (1, 0), 1, (3, 2)),
    "groups": ((2, 12, 5, 4), (21, 3, 3), (2, 1), (1, 1), (1, 0), 3, (1, 1)),
    "groups of one output": ((2, 18, 5, 5), (6, 3, 3), (1, 1), (1, 1), (0, 0), 6, (1, 1)),
    "depthwise": ((2, 37, 6, 9), (37, 3, 3), (1, 1), (1, 1), (0, 0), 37, (1, 1)),
    "depthwise, strides": ((2, 16, 5, 7), (16, 5, 4), (2, 3), (2, 1), (1, 2), 16, (1, 1)),
    "a row": ((3, 10, 1, 13), (9, 1, 5), (1, 2), (0, 2), (0, 1), 1, (1, 1)),
    "more than 64 taps": ((1, 5, 4, 3), (8, 9, 8), (1, 1), (4, 3), (0, 0), 1, (1, 1)),
    "more than 1024 channels": ((1, 1033, 2, 3), (3, 2, 2), (1, 1), (0, 0), (0, 0), 1, (1, 1)),
    "empty batch": ((0, 4, 5, 5), (6, 3, 3), (2, 2), (1, 1), (1, 1), 1, (1, 1)),
    "empty batch of single pixels": ((0, 4, 1, 1), (6, 3, 3), (1, 1), (0, 0), (0, 0), 1, (1, 1)),
}


@pytest.fixture(params=["direct", "winograd", "auto"])
def algorithm(request: pytest.FixtureRequest) -> Any:
    with fnn.conv_algorithm(request.param):
        yield request.param


def options_of(geometry: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("stride", "padding", "output_padding", "groups", "dilation"), geometry[2:]))


def shapes_of(geometry: tuple[Any, ...]) -> tuple[tuple[int, ...], ...]:
    """x, weight, bias."""
    x, (k, r, s), groups = geometry[0], geometry[1], geometry[5]
    return x, (x[1], k // groups, r, s), (k,)


def transposed(geometry: tuple[Any, ...]) -> Callable[..., Tensor]:
    return lambda *tensors: F.conv_transpose2d(*tensors, **options_of(geometry))


def expected(geometry: tuple[Any, ...], dy: Any, *arrays: Any) -> tuple[Any, ...]:
    """The reference's y, dx, dweight and dbias in float64."""
    exact, options = double(arrays), options_of(geometry)
    y = reference.conv_transpose2d(*exact, **options)
    return (y, *reference.conv_transpose2d_backward(np.float64(dy), *exact[:2], **options))


def is_winograd(geometry: tuple[Any, ...]) -> bool:
    """Whether Winograd's algorithm, whose sums are not exact, could compute it."""
    return geometry[1][1:] in ((3, 3), (5, 5)) and geometry[2] == geometry[6] == (1, 1) and geometry[5] == 1


@pytest.mark.parametrize("name", GEOMETRIES)
def test_exact(name: str, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    geometry = GEOMETRIES[name]
    arrays = [integers(rng, shape, 4) for shape in shapes_of(geometry)]
    with fnn.conv_algorithm("direct"):
        results = differentiate(transposed(geometry), arrays, lambda shape: integers(rng, shape, 4), same_bits)
    wanted = expected(geometry, results.dy, *arrays)
    for actual, exact in zip((results.y, *results.gradients), wanted, strict=True):
        assert_equal(actual, exact)


def bounds(geometry: tuple[Any, ...], isa: str, dy: Any, *arrays: Any) -> list[Any]:
    """gamma_n sum |products|, n the terms of a sum: of y, dx, dweight, dbias (gemm.h; the scalar ISA rounds twice a step)."""
    (n, c, h, w), (_, k, r, s), _ = shapes_of(geometry)
    pixels = dy.shape[0] * dy.shape[2] * dy.shape[3]
    steps = (r * s * c // geometry[5] + 1, r * s * k, n * h * w + 1, pixels + 1)
    magnitudes = expected(geometry, abs(dy), *(abs(a) for a in arrays))
    roundings = [steps_ * (2 if isa == "scalar" else 1) * UNIT for steps_ in steps]
    return [m * (u / (1 - u)) for m, u in zip(magnitudes, roundings, strict=True)]


@pytest.mark.parametrize("name", [n for n, g in GEOMETRIES.items() if g[0][0] > 0])
def test_error_bound(name: str, isa: str, rng: np.random.Generator) -> None:
    geometry = GEOMETRIES[name]
    arrays = [normal(rng, shape) for shape in shapes_of(geometry)]
    with fnn.conv_algorithm("direct"):
        y, pullback = fnn.vjp(transposed(geometry), *arrays)
        dy = normal(rng, y.shape)
        results = (y, *pullback(dy))
    wanted = expected(geometry, dy, *arrays)
    for actual, exact, bound in zip(results, wanted, bounds(geometry, isa, dy, *arrays), strict=True):
        assert_within(actual, exact, bound)


@pytest.mark.parametrize("name", [n for n, g in GEOMETRIES.items() if is_winograd(g)])
def test_winograd(name: str, isa: str, rng: np.random.Generator, same_bits: SameBits) -> None:
    """The algorithm is taken in every direction, gives the same bits in any team, and errs by 1e-5 of the largest value."""
    geometry = GEOMETRIES[name]
    arrays = [normal(rng, shape) for shape in shapes_of(geometry)]
    with fnn.conv_algorithm("winograd"):
        results = differentiate(transposed(geometry), arrays, lambda shape: normal(rng, shape), same_bits)
        assert kernels_of(geometry) >= {"winograd_forward", "winograd_backward_weight"}
    wanted = expected(geometry, results.dy, *arrays)
    for actual, exact in zip((results.y, *results.gradients), wanted, strict=True):
        np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-5 * np.abs(exact).max(initial=0))


def kernels_of(geometry: tuple[Any, ...]) -> set[str]:
    """The kernels of the forward and the backward pass."""
    graph = Graph()
    tensors = [graph.input(shape) for shape in shapes_of(geometry)]
    y = transposed(geometry)(*tensors)
    dy = graph.input(y.shape)
    graph.outputs = [y, *y.node.op.gradient(y.node, [True] * 3, dy)]
    return {step.kernel for step in compile_graph(graph, current_facts()).steps}


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("double", {"conv2d_backward_data", "conv2d_strip_forward", "conv2d_backward_weight"}),
        ("3x3", {"conv2d_strip_forward", "conv2d_backward_weight"}),
        ("1x1", {"conv2d_strip_forward", "linear_backward_weight"}),
        ("3x3 without padding", {"conv2d_strip_forward", "conv2d_backward_weight"}),
        ("first layer of a decoder", {"linear_backward_data", "arithmetic"}),
        ("depthwise", {"conv2d_depthwise_backward_data", "conv2d_depthwise_forward"}),
    ],
)
def test_kernels(name: str, kernels: set[str]) -> None:
    with fnn.conv_algorithm("strip"):
        assert kernels_of(GEOMETRIES[name]) >= kernels


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize(
    "name", ["double", "3x3", "3x3 on a wide image", "depthwise, strides", "stride beyond the filter", "more than 64 taps",
             "more than 1024 channels", "first layer of a decoder"],
)  # fmt: skip
def test_epilogue(
    name: str, activation: str | None, has_bias: bool, has_residual: bool, isa: str, algorithm: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    geometry = GEOMETRIES[name]
    shapes = shapes_of(geometry)
    x, weight, bias = (integers(rng, shape, 3) for shape in shapes)
    exact = reference.conv_transpose2d(*double([x, weight, bias * has_bias]), **options_of(geometry))
    residual = integers(rng, exact.shape, 3)

    def build(graph: Graph, *tensors: Tensor) -> Sequence[Tensor]:
        extra: dict[str, Any] = {} if activation is None else {"activation": activation}
        inputs = list(tensors)
        if has_residual:  # a tensor of the plan, which the output may overwrite
            inputs[-1] = graph.record("relu", inputs[-1])
            extra["has_residual"] = True
        return [graph.record("conv_transpose2d", *inputs, **extra, **options_of(geometry))]

    (y,) = Compiled(build)(x, weight, *([bias] if has_bias else []), *([residual] if has_residual else []))
    wanted = exact + np.maximum(residual, 0) * has_residual
    if activation is not None:
        wanted = np.clip(wanted, 0, 6 if activation == "relu6" else None)
    atol = 0 if algorithm == "direct" or not is_winograd(geometry) else 1e-5 * np.abs(exact).max()
    np.testing.assert_allclose(y, wanted, rtol=0, atol=atol)


def test_activation_and_addition_are_fused() -> None:
    layer = nn.Sequential(nn.ConvTranspose2d(8, 32, 4, 2, 1), nn.ReLU())
    assert [step.kernel for step in layer.plan((2, 8, 5, 5)).steps][-1:] == ["conv2d_backward_data"]


@pytest.mark.parametrize(("groups", "bias"), [(1, True), (1, False), (2, True)])
def test_batch_norm_is_folded(groups: int, bias: bool, isa: str, rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(6, 8, 4, 2, 1, groups=groups, bias=bias), nn.BatchNorm2d(8), nn.ReLU())
    model.load_state_dict({k: rng.uniform(0.5, 2, v.shape) for k, v in model.state_dict().items()})
    x = normal(rng, (2, 6, 5, 4))
    state = double(list(model.state_dict().values()))
    weight, bias_value, *norm = state if bias else (state[0], None, *state[1:])
    y = reference.conv_transpose2d(np.float64(x), weight, bias_value, stride=2, padding=1, groups=groups)
    exact = np.maximum(reference.batch_norm(y, norm[2], norm[3], norm[0], norm[1]).output, 0)
    np.testing.assert_allclose(model.eval()(x), exact, rtol=0, atol=1e-5 * exact.max())
    running = [step.kernel for step in model.plan(x.shape).steps if not step.prologue]
    alone = running in (["conv2d_backward_data"], ["conv2d_spread_backward_data"])  # which one: by the lanes of the ISA
    assert alone == (groups == 1)


# ---- the layers


@pytest.mark.parametrize("groups", [1, 2])
def test_state_and_initial_values(groups: int) -> None:
    layer = nn.ConvTranspose2d(64, 32, (3, 5), groups=groups)
    state = layer.state_dict()
    assert {name: value.shape for name, value in state.items()} == {"weight": (64, 32 // groups, 3, 5), "bias": (32,)}
    limit = 1 / np.sqrt(32 // groups * 15)
    for value in state.values():
        assert np.abs(value).max() <= limit and np.abs(value).max() > 0.8 * limit
    assert abs(state["weight"].std() - limit / np.sqrt(3)) < 0.02 * limit
    assert nn.ConvTranspose1d(6, 4, 3, groups=2).weight.shape == (6, 2, 3)


def test_layer_1d(isa: str, rng: np.random.Generator) -> None:
    layer = nn.ConvTranspose1d(6, 4, 4, stride=3, padding=1, output_padding=2, groups=2, dilation=2)
    x = normal(rng, (2, 6, 7))
    y, pullback = fnn.vjp(layer, x)
    weight, bias = double(list(layer.state_dict().values()))
    options = {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2}
    np.testing.assert_allclose(
        y, reference.conv_transpose1d(np.float64(x), weight, bias, **options), rtol=1e-5, atol=1e-6
    )
    dy = normal(rng, y.shape)
    dx, _, _ = reference.conv_transpose1d_backward(np.float64(dy), np.float64(x), weight, **options)
    np.testing.assert_allclose(pullback(dy)[0], dx, rtol=1e-5, atol=1e-5)


class Decoder(nn.Module):
    """Grows an image to the size that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 2, 3, stride=3)

    def forward(self, x: Any) -> Any:
        return self.up(x, output_size=(14, 11))


def test_output_size(rng: np.random.Generator) -> None:
    x = normal(rng, (2, 3, 4, 3))
    model = Decoder()
    y = model(x)
    assert y.shape == (2, 2, 14, 11)
    same = F.conv_transpose2d(x, model.up.weight, model.up.bias, stride=3, output_padding=(2, 2))
    np.testing.assert_array_equal(y, same)
    np.testing.assert_array_equal(model.up(x, output_size=(2, 2, 14, 11)), same)
    np.testing.assert_array_equal(model.up(x, [12, 9]), model.up(x))
    assert nn.ConvTranspose1d(3, 2, 3, stride=3)(x[:, :, 0], output_size=[11]).shape == (2, 2, 11)


def test_trains(rng: np.random.Generator) -> None:
    """An autoencoder whose second half is transposed learns its input."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 3, padding=1),
    )  # fmt: skip
    images = rng.standard_normal((32, 1, 8, 8)).astype(np.float32)
    trainer = fnn.Trainer(model, nn.MSELoss(), fnn.optim.Adam(model.parameters(), lr=0.01))
    losses = [float(trainer.step(images, images)) for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ConvTranspose2d(4, 6, 3, output_padding=1), r"^ConvTranspose2d: output_padding \(1, 1\) must be smaller"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=3), "in_channels must be divisible by groups"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=4), "out_channels must be divisible by groups"),
        (lambda: nn.ConvTranspose2d(4, 6, 0), "kernel_size must be at least 1"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, padding=-1), "padding must be at least 0"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), "padding_mode must be 'zeros'"),
    ],
)  # fmt: skip
def test_errors_of_construction(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_padding_is_numbers() -> None:
    with pytest.raises(TypeError, match="padding must be an integer or 2 integers"):
        nn.ConvTranspose2d(4, 6, 3, padding="same")


@pytest.mark.parametrize(
    ("x", "size", "message"),
    [
        ((2, 4, 5), None, r"must have the shape \(N,C,H,W\)"),
        ((2, 3, 5, 5), None, r"^ConvTranspose2d\(4, 6, .*expected 4 channels on axis 1, got 3"),
        ((2, 5, 5, 4), None, r"looks like N,H,W,C; pass x\.transpose\(0, 3, 1, 2\)"),
        ((2, 4, 5, 5), (9, 11), r"output_size \(9, 11\) must lie between \(9, 9\) and \(10, 10\) for an input"),
        ((2, 4, 5, 5), (9,), "output_size must have 2 or 4 numbers"),
        ((4, 5, 5), (9, 9), "the input must have 4 axes"),
        ((2, 4, 1, 0), None, "no elements"),
    ],
)
def test_errors_of_calls(x: Any, size: Any, message: str) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1)
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(x, np.float32), size)


def test_no_output_is_left() -> None:
    with pytest.raises(ValueError, match=r"padding \(2, 2\) leaves 0 x 1 pixels"):
        F.conv_transpose2d(np.zeros((1, 2, 2, 3)), np.zeros((2, 3, 3, 3)), padding=2)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "changes", "message"),
    [
        ((2, 3, 8), (3, 4, 3, 3), None, {}, "4 axes"),
        ((2, 5, 8, 8), (3, 4, 3, 3), None, {}, "has 5 channels.*takes 3"),
        ((2, 3, 8, 8), (3, 4, 3, 3), (3,), {}, r"bias has shape \(3,\).*needs \(4,\)"),
        ((2, 3, 8, 8), (3, 0, 3, 3), None, {}, "no elements"),
        ((2, 3, 8, 8), (3, 4, 3, 3), None, {"stride": (0, 1)}, "must be at least 1"),
        ((2, 3, 8, 8), (3, 4, 3, 3), None, {"dilation": (1, 0)}, "must be at least 1"),
        ((2, 3, 8, 8), (3, 4, 3, 3), None, {"padding": (-1, 0)}, "at least 0"),
        ((2, 3, 8, 8), (3, 4, 3, 3), None, {"output_padding": (0, 1)}, "must be smaller than stride"),
        ((2, 3, 8, 8), (3, 4, 3, 3), None, {"groups": 2}, "divide the 3 input channels"),
        ((2, 3, 8, 8), (3, 4, 3, 3), None, {"groups": 0}, "must be positive"),
    ],
)
def test_errors_of_the_operation(x: Any, weight: Any, bias: Any, changes: dict[str, Any], message: str) -> None:
    options = {
        "stride": (1, 1),
        "padding": (0, 0),
        "output_padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
        **changes,
    }
    graph = Graph()
    tensors = [graph.input(shape) for shape in (x, weight, bias) if shape is not None]
    with pytest.raises(ValueError, match=message):
        graph.record("conv_transpose2d", *tensors, **options)


@pytest.mark.parametrize(
    ("weight", "bias", "options", "message"),
    [
        ((4, 3, 3), None, {}, r"weight must have the shape \(C,K/groups,R,S\)"),
        ((4, 3, 3, 3), (4,), {}, r"bias must have shape \(3,\), got \(4,\)"),
        ((4, 3, 3, 3), None, {"groups": 3}, "groups must divide the channels"),
    ],
)
def test_errors_of_the_function(weight: Any, bias: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        F.conv_transpose2d(
            np.zeros((2, 4, 5, 5)), np.zeros(weight), None if bias is None else np.zeros(bias), **options
        )
