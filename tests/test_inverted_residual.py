"""Inverted residual blocks in one step: against the reference, bit for bit the three steps, and where the pass makes them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from kernel_runner import channels_first, channels_last, run_kernel

import fastnn as fnn
from fastnn import nn, reference
from fastnn.ops.inverted_residual import BAND_BYTES, LARGE_BYTES, MIN_ROWS, WEIGHT_BYTES, Block
from fastnn.settings import conv_algorithm, current_facts, without_passes

KERNELS = {"inverted_residual_forward"}

ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "relu6": lambda a: np.clip(a, 0, 6),
}

GEOMETRIES = [
    # x, hidden, out, kernel, stride, padding (top, bottom, left, right)
    ((2, 5, 9, 11), 13, 7, (3, 3), (1, 1), (1, 1, 1, 1)),
    ((1, 16, 12, 7), 33, 24, (3, 3), (2, 2), (1, 1, 1, 1)),
    ((3, 3, 8, 17), 16, 17, (5, 5), (1, 1), (2, 2, 2, 2)),
    ((2, 19, 7, 6), 37, 5, (5, 5), (2, 2), (2, 1, 0, 3)),
    ((1, 8, 1, 1), 8, 1, (3, 3), (1, 1), (1, 1, 1, 1)),
    ((4, 4, 3, 2), 9, 4, (3, 3), (2, 1), (0, 2, 3, 0)),
    ((1, 6, 13, 5), 24, 8, (2, 3), (3, 1), (0, 0, 1, 1)),  # rows that no window looks at
    ((1, 7, 4, 9), 11, 3, (3, 5), (1, 2), (5, 4, 2, 2)),  # windows that lie outside
    ((0, 4, 6, 6), 8, 4, (3, 3), (1, 1), (1, 1, 1, 1)),
]


class Recorded(nn.Module):
    """The op alone."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.attributes = attributes

    def forward(self, x: Any, *inputs: Any) -> Any:
        return x.graph.record("inverted_residual", x, *inputs, **self.attributes)


def integers(rng: np.random.Generator, *shape: int) -> Any:
    """Integers so small that every sum is exact."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def inputs_of(geometry: Any, rng: np.random.Generator, make: Callable[..., Any] = integers) -> dict[str, Any]:
    x, hidden, out, kernel, _, _ = geometry
    return {
        "x": make(rng, *x),
        "expand_weight": make(rng, hidden, x[1], 1, 1), "expand_bias": make(rng, hidden),
        "depthwise_weight": make(rng, hidden, 1, *kernel), "depthwise_bias": make(rng, hidden),
        "weight": make(rng, out, hidden, 1, 1), "bias": make(rng, out),
    }  # fmt: skip


def expected(inputs: dict[str, Any], geometry: Any, activations: tuple[str | None, ...]) -> Any:
    (top, bottom, left, right), stride = geometry[5], geometry[4]
    exact = {name: array.astype(np.float64) for name, array in inputs.items()}
    value = exact["x"]
    for prefix, activation in zip(("expand_", "depthwise_", ""), activations, strict=True):
        options: dict[str, Any] = {}
        if prefix == "depthwise_":
            options = {"stride": stride, "padding": ((top, bottom), (left, right)), "groups": value.shape[1]}
        value = reference.conv2d(value, exact[f"{prefix}weight"], exact.get(f"{prefix}bias"), **options)
        value = ACTIVATIONS[activation](value + (exact.get("residual", 0) if prefix == "" else 0))
    return value


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_agrees_with_the_reference(geometry: Any, isa: str, threads: int, rng: np.random.Generator) -> None:
    for activations in (("relu6", "relu6", None), ("relu", None, "relu6"), (None, "relu", "relu")):
        inputs = inputs_of(geometry, rng)
        if activations[2] is None:
            inputs["residual"] = integers(rng, *expected(inputs, geometry, activations).shape)
        else:
            del inputs["expand_bias"], inputs["depthwise_bias"], inputs["bias"]
        model = Recorded(given=tuple(inputs)[1:], activations=activations, stride=geometry[4], padding=geometry[5])
        np.testing.assert_array_equal(model(*inputs.values()), expected(inputs, geometry, activations))


@pytest.mark.parametrize("band", [1, 2, 3, 50])
@pytest.mark.parametrize("geometry", GEOMETRIES[:-1], ids=str)
def test_any_band_and_team_make_the_same_bits(
    geometry: Any, band: int, isa: str, same_bits: Callable[..., Any], rng: np.random.Generator
) -> None:
    """And nothing is written outside of y and workspace, nor read from what workspace held before."""
    inputs = inputs_of(geometry, rng, lambda rng, *shape: rng.standard_normal(shape).astype(np.float32))
    x, hidden, out, kernel, stride, padding = geometry
    model = Recorded(given=tuple(inputs)[1:], activations=("relu6", "relu", None), stride=stride, padding=padding)
    wanted = model(*inputs.values())
    lanes = current_facts().lanes
    height, width = wanted.shape[2:]
    floats = (((band - 1) * stride[0] + kernel[0]) * x[3] + band * width) * hidden

    def packed(name: str, columns: int, depth: int) -> Any:
        sizes = {"out_channels": columns, "channels": depth, "kernel_height": 1, "kernel_width": 1, "groups": 1}
        shape = (-(-columns // lanes) * lanes * depth,)
        return run_kernel("conv2d_pack_weight", {"packed": (shape, "f4")}, source=inputs[name], **sizes)["packed"]

    arguments = {
        "x": channels_last(inputs["x"]),
        "expand_weight": packed("expand_weight", hidden, x[1]), "weight": packed("weight", out, hidden),
        "depthwise_weight": np.ascontiguousarray(inputs["depthwise_weight"][:, 0].transpose(1, 2, 0)),
        "expand_bias": inputs["expand_bias"], "depthwise_bias": inputs["depthwise_bias"], "bias": inputs["bias"],
        "workspace_stride": floats, "band": band, "expand_activation": 2, "depthwise_activation": 1, "activation": 0,
        "batch": x[0], "height": x[2], "width": x[3], "channels": x[1], "hidden_channels": hidden, "out_channels": out,
        "out_height": height, "out_width": width, "kernel_height": kernel[0], "kernel_width": kernel[1],
        "stride_h": stride[0], "stride_w": stride[1], "pad_top": padding[0], "pad_left": padding[2],
    }  # fmt: skip

    def run() -> Any:
        outputs = {"y": ((x[0], height, width, out), "f4"), "workspace": ((8 * floats,), "f4")}
        return channels_first(run_kernel("inverted_residual_forward", outputs, **arguments)["y"])

    np.testing.assert_array_equal(same_bits(run), wanted)


# ---- the pass


def block(channels: int, hidden: int, out: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
        nn.Conv2d(hidden, hidden, size, stride, size // 2, groups=hidden), nn.BatchNorm2d(hidden), nn.ReLU(),
        nn.Conv2d(hidden, out, 1), nn.BatchNorm2d(out),
    ]  # fmt: skip


class Shortcut(nn.Module):
    """body(x) + x"""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Any) -> Any:
        return self.body(x) + x


def kernels(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    return [step.kernel for step in model.plan(shape).steps if not step.prologue]


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "shortcut": lambda: Shortcut(*block(9, 40, 9)),
    "strided": lambda: nn.Sequential(*block(9, 40, 21, stride=2)),
    "5x5": lambda: nn.Sequential(*block(9, 35, 12, size=5), nn.ReLU6()),
    "two": lambda: nn.Sequential(Shortcut(*block(9, 40, 9)), *block(9, 36, 17, size=5, stride=2)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_one_step_has_the_bits_of_three(
    name: str, isa: str, same_bits: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Block, "pays", lambda self, facts: True)
    model, shape = BLOCKS[name]().eval(), (3, 9, 19, 14)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    assert set(kernels(model, shape)) <= {"inverted_residual_forward", "transpose"}
    with without_passes("fuse_inverted_residuals"):
        assert "inverted_residual_forward" not in kernels(model, shape)
        wanted = model(x)
    np.testing.assert_array_equal(same_bits(lambda: model(x)), wanted)


def test_weights_that_change_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "pays", lambda self, facts: True)
    model = nn.Sequential(*block(4, 16, 6)).eval()
    x = np.random.default_rng(1).standard_normal((2, 4, 7, 7))
    before = model(x)
    for layer in (0, 3, 6, 7):
        model[layer].weight.data = 2 * model[layer].weight.numpy()
        after = model(x)
        with without_passes("fuse_inverted_residuals"):
            np.testing.assert_array_equal(after, model(x))
        assert not np.array_equal(after, before)


class Second(nn.Module):
    """A block of which somebody else reads image number `which`."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.which = which
        self.layers = nn.ModuleList([nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 4, 1)])

    def forward(self, x: Any) -> Any:
        values = [x]
        for layer in self.layers:
            values.append(layer(values[-1]))
        return values[-1], values[self.which] * 2


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_images_that_others_read_are_made(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "pays", lambda self, facts: True)
    found = "inverted_residual_forward" in kernels(Second(which), (2, 4, 6, 6))
    assert found == (which in (0, 3))


OTHERS = {
    "3x3 first": [nn.Conv2d(4, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1)],
    "grouped": [nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, groups=8), nn.Conv2d(16, 4, 1)],
    "two filters a channel": [nn.Conv2d(4, 16, 1), nn.Conv2d(16, 32, 3, groups=16), nn.Conv2d(32, 4, 1)],
    "dilated": [nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, dilation=2, groups=16), nn.Conv2d(16, 4, 1)],
    "strided product": [nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1, 2)],
    "padded product": [nn.Conv2d(4, 16, 1, padding=1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1)],
    "another activation": [nn.Conv2d(4, 16, 1), nn.Tanh(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1)],
    "pair": [nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 16, 1)],
}


@pytest.mark.parametrize("layers", OTHERS.values(), ids=OTHERS)
def test_other_chains_are_left_alone(layers: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "pays", lambda self, facts: True)
    assert "inverted_residual_forward" not in kernels(nn.Sequential(*layers), (2, 4, 9, 9))


def test_graphs_with_gradients_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "pays", lambda self, facts: True)
    model = nn.Sequential(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1))
    gradient = fnn.value_and_grad(model, nn.MSELoss())
    gradient(np.ones((1, 4, 6, 6)), np.ones((1, 4, 4, 4)))
    (plan,) = gradient._compiled._plans.values()
    assert "conv2d_depthwise_backward_weight" in {step.kernel for step in plan.steps}
    assert "inverted_residual_forward" not in {step.kernel for step in plan.steps}


def test_where_it_pays() -> None:
    fnn.set_num_threads(2)
    model = nn.Sequential(*block(24, 144, 24)).eval()
    large = (1, 24, 48, 48)
    assert 4 * 144 * 48 * 48 >= LARGE_BYTES
    plan = model.plan(large)
    assert "inverted_residual_forward" in str(plan)
    (step,) = (step for step in plan.steps if not step.prologue)
    with without_passes("fuse_inverted_residuals"):
        parts = [step for step in model.plan(large).steps if not step.prologue]
    assert step.flops == sum(part.flops for part in parts) > 0
    fnn.set_num_threads(48 // MIN_ROWS + 1)
    assert len(kernels(model, large)) == 3  # too many threads
    fnn.set_num_threads(2)
    assert len(kernels(model, (1, 24, 40, 40))) == 3  # too small
    assert 4 * (2 * 192 * 192) > WEIGHT_BYTES
    assert len(kernels(nn.Sequential(*block(192, 192, 192)).eval(), large[:1] + (192,) + large[2:])) == 3


@pytest.mark.parametrize("algorithm", ["auto", "direct", "winograd", "strip", "indirect", "spread"])
def test_chosen_forms_of_convolutions_stay_chosen(algorithm: str) -> None:
    fnn.set_num_threads(1)
    model = nn.Sequential(*block(24, 144, 24)).eval()
    with conv_algorithm(algorithm):
        names = kernels(model, (1, 24, 48, 48))
    assert (names == ["inverted_residual_forward"]) == (algorithm in ("auto", "direct", "winograd"))
    assert ("conv2d_strip_forward" in names) == (algorithm == "strip")


def test_bands_fit_into_the_cache() -> None:
    """Bands of all blocks of MobileNetV2 and some others: at least a row, no more rows than there are."""
    for size, hidden, out, stride in product((7, 14, 56, 112, 300), (16, 144, 960), (24, 320), (1, 2)):
        weights = ((hidden, out, 1, 1), (hidden, 1, 3, 3), (out, hidden, 1, 1))
        made = Block.of((1, out, size, size), weights, (stride, stride), (1, 1, 1, 1))
        height = made.depthwise.output[0]
        assert 1 <= made.band <= height
        larger = 4 * made.band_floats(made.band + 1) + made.weight_bytes > BAND_BYTES
        assert made.band == height or larger
        assert made.band == 1 or 4 * made.band_floats(made.band) + made.weight_bytes <= BAND_BYTES


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("expand_weight", (13, 6, 1, 1), "channels"),
        ("depthwise_weight", (12, 1, 3, 3), "output channels"),
        ("depthwise_weight", (13, 1, 65, 3), "65 rows"),
        ("weight", (7, 12, 1, 1), "channels"),
        ("bias", (8,), "bias"),
        ("residual", (2, 7, 9, 10), "residual"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    rng = np.random.default_rng(0)
    padding = (33, 33, 1, 1) if shape[2:] == (65, 3) else (1, 1, 1, 1)
    inputs = inputs_of(GEOMETRIES[0], rng) | {"residual": integers(rng, 2, 7, 9, 11)} | {name: integers(rng, *shape)}
    model = Recorded(given=tuple(inputs)[1:], activations=(None,) * 3, stride=(1, 1), padding=padding)
    with pytest.raises(ValueError, match=message):
        model(*inputs.values())
