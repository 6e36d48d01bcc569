"""Layers and losses against PyTorch on random configurations: output, every gradient, inference, state loaded from it.

PyTorch computes in float64; what is left is the float32 rounding of fastnn.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_agreement import flip, sizes

import fastnn as fnn
from fastnn import nn

RTOL = 3e-5
CONFIGURATIONS = 200

Configuration = tuple[dict[str, Any], tuple[int, ...]]
"""A layer's arguments and the shape of an input."""


def assert_close(actual: Any, expected: Any, what: str, terms: float = 0.0) -> None:
    """Within RTOL of each value or of the largest one, or within 2^-21 of the size of the terms that it is a sum of."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, PyTorch has {expected.shape}"
    largest = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=RTOL * largest + 2.0**-21 * terms + 1e-7, err_msg=what)


def convolution(axes: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        groups = int(rng.choice([1, 1, 2, 3]))
        channels, outputs = (groups * n for n in sizes(rng, 2, 1, 7))
        kernel, dilation = tuple(sizes(rng, axes, 1, 4)), tuple(sizes(rng, axes, 1, 3))
        extents = tuple(d * (k - 1) + int(n) for k, d, n in zip(kernel, dilation, sizes(rng, axes), strict=True))
        same = flip(rng) and flip(rng)
        options = {
            "in_channels": channels, "out_channels": outputs, "kernel_size": kernel, "dilation": dilation,
            "groups": groups,
            "stride": 1 if same else tuple(sizes(rng, axes, 1, 4)), "bias": flip(rng),
            "padding": "same" if same else tuple(sizes(rng, axes, 0, 3)),
        }  # fmt: skip
        return options, (*sizes(rng, 1, 1, 5), channels, *extents)

    return make


def transposed_convolution(axes: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        groups = int(rng.choice([1, 1, 2, 3]))
        channels, outputs = (groups * n for n in sizes(rng, 2, 1, 7))
        kernel, dilation, stride = sizes(rng, axes, 1, 5), sizes(rng, axes, 1, 3), sizes(rng, axes, 1, 4)
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        options = {
            "in_channels": channels, "out_channels": outputs, "kernel_size": tuple(kernel), "dilation": tuple(dilation),
            "groups": groups, "stride": tuple(stride), "bias": flip(rng),
            "padding": tuple(int(rng.integers(0, (n + 1) // 2)) for n in reach),
            "output_padding": tuple(int(rng.integers(max(s, d))) for s, d in zip(stride, dilation, strict=True)),
        }  # fmt: skip
        return options, (*sizes(rng, 1, 1, 5), channels, *sizes(rng, axes, 1, 9))

    return make


def linear(rng: np.random.Generator) -> Configuration:
    features, outputs = sizes(rng, 2, 1, 40)
    shape = (*sizes(rng, int(rng.integers(0, 4)), 1, 5), features)
    return {"in_features": features, "out_features": outputs, "bias": flip(rng)}, shape


def batch_norm(*ranks: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        shape = (*sizes(rng, 1, 2, 9), *sizes(rng, int(rng.choice(ranks)) - 1, 1, 20))
        options = {
            "num_features": shape[1], "eps": float(rng.choice([1e-5, 1e-2])), "affine": flip(rng),
            "momentum": [None, 0.1, 0.7][rng.integers(3)], "track_running_stats": flip(rng) or flip(rng),
            "bias": flip(rng),
        }  # fmt: skip
        return options, shape

    return make


def pool(axes: int, kind: str) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        kernel = tuple(sizes(rng, axes, 1, 5))
        options = {
            "kernel_size": kernel, "stride": tuple(sizes(rng, axes, 1, 4)) if flip(rng) else None,
            "ceil_mode": flip(rng),
            "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel),
        }  # fmt: skip
        reach = list(kernel)
        if kind == "max":
            options["dilation"] = tuple(sizes(rng, axes, 1, 3))
            reach = [d * (k - 1) + 1 for d, k in zip(options["dilation"], kernel, strict=True)]
        else:
            options["count_include_pad"] = flip(rng)
            if axes == 2 and flip(rng):
                options["divisor_override"] = sizes(rng, 1, 1, 9)[0]
        return options, (*sizes(rng, 2), *(r + n for r, n in zip(reach, sizes(rng, axes, 0, 9), strict=True)))

    return make


def adaptive(axes: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        output = tuple(sizes(rng, axes, 1, 12))
        return {"output_size": output if flip(rng) or axes == 1 else output[0]}, tuple(sizes(rng, 2 + axes, 1, 12))

    return make


def softmax(rng: np.random.Generator) -> Configuration:
    shape = tuple(sizes(rng, int(rng.integers(1, 6))))
    return {"dim": int(rng.integers(-len(shape), len(shape)))}, shape


def flatten(rng: np.random.Generator) -> Configuration:
    shape = tuple(sizes(rng, int(rng.integers(2, 6)), 1, 6))
    start = int(rng.integers(0, len(shape)))
    return {"start_dim": start, "end_dim": int(rng.integers(start, len(shape)))}, shape


def any_shape(rng: np.random.Generator) -> Configuration:
    return {}, tuple(sizes(rng, int(rng.integers(0, 6)), 1, 7))


def options_of(**choices: Any) -> Callable[[np.random.Generator], Configuration]:
    """Any shape, and for each option a range or a list of choices."""

    def make(rng: np.random.Generator) -> Configuration:
        options = {
            name: choice[rng.integers(len(choice))] if isinstance(choice, list) else float(rng.uniform(*choice))
            for name, choice in choices.items()
        }
        return options, any_shape(rng)[1]

    return make


def layer_norm(rng: np.random.Generator) -> Configuration:
    shape = tuple(sizes(rng, int(rng.integers(1, 6)), 1, 7))
    axes = int(rng.integers(1, len(shape) + 1))
    normalized = (*shape[-axes:-1], shape[-1] + 6)  # of two or three values nothing but rounding is left in a gradient
    options = {"normalized_shape": normalized, "elementwise_affine": flip(rng), "bias": flip(rng)}
    return {**options, "eps": float(rng.choice([1e-5, 1e-2]))}, (*shape[:-1], normalized[-1])


def group_norm(rng: np.random.Generator) -> Configuration:
    groups = sizes(rng, 1, 1, 5)[0]
    channels = groups * sizes(rng, 1, 6, 9)[0]
    options = {"num_groups": groups, "num_channels": channels, "affine": flip(rng), "bias": flip(rng)}
    return options, (*sizes(rng, 1), channels, *sizes(rng, int(rng.integers(0, 4)), 1, 7))


def instance_norm(axes: int) -> Callable[[np.random.Generator], Configuration]:
    def make(rng: np.random.Generator) -> Configuration:
        shape = (*sizes(rng, 2), *sizes(rng, axes, 6, 12))
        return {"num_features": shape[1], "affine": flip(rng), "bias": flip(rng)}, shape

    return make


def prelu(rng: np.random.Generator) -> Configuration:
    shape = any_shape(rng)[1]
    channels = shape[1] if len(shape) > 1 else 1
    return {"num_parameters": int(rng.choice([1, channels]))}, shape


def glu(rng: np.random.Generator) -> Configuration:
    shape = sizes(rng, int(rng.integers(1, 6)), 1, 7)
    dim = int(rng.integers(-len(shape), len(shape)))
    shape[dim] *= 2
    return {"dim": dim}, tuple(shape)


LAYERS: dict[str, Callable[[np.random.Generator], Configuration]] = {
    "Conv1d": convolution(1),
    "Conv2d": convolution(2),
    "ConvTranspose1d": transposed_convolution(1),
    "ConvTranspose2d": transposed_convolution(2),
    "Linear": linear,
    "BatchNorm1d": batch_norm(2, 3),
    "BatchNorm2d": batch_norm(4),
    "LayerNorm": layer_norm,
    "GroupNorm": group_norm,
    "InstanceNorm1d": instance_norm(1),
    "InstanceNorm2d": instance_norm(2),
    "MaxPool1d": pool(1, "max"),
    "MaxPool2d": pool(2, "max"),
    "AvgPool1d": pool(1, "average"),
    "AvgPool2d": pool(2, "average"),
    "AdaptiveAvgPool1d": adaptive(1),
    "AdaptiveAvgPool2d": adaptive(2),
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Flatten": flatten,
    "ReLU": any_shape,
    "ReLU6": any_shape,
    "LeakyReLU": options_of(negative_slope=(-0.5, 2)),
    "PReLU": prelu,
    "ELU": options_of(alpha=(0.1, 2)),
    "CELU": options_of(alpha=(0.1, 2)),
    "SELU": any_shape,
    "GELU": options_of(approximate=["none", "tanh"]),
    "SiLU": any_shape,
    "Mish": any_shape,
    "Softplus": options_of(beta=(0.5, 3), threshold=(1, 20)),
    "Hardswish": any_shape,
    "Hardsigmoid": any_shape,
    "Hardtanh": options_of(min_val=(-2, 0), max_val=(0.1, 2)),
    "Sigmoid": any_shape,
    "Tanh": any_shape,
    "LogSigmoid": any_shape,
    "Softsign": any_shape,
    "GLU": glu,
}


def seeded(name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), number])


def randomized_state(module: Any, rng: np.random.Generator) -> None:
    """Numbers that no two layers share, positive where they are variances."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            values = rng.standard_normal(tuple(tensor.shape)).astype(np.float32)
            tensor.copy_(torch.tensor(np.abs(values) + 0.5 if name.endswith("var") else values))


def compare(name: str, make: Callable[[np.random.Generator], Configuration], number: int) -> None:
    rng = seeded(name, number)
    options, shape = make(rng)
    what = f"{name} {number}: {options} on {shape}"
    theirs = getattr(torch.nn, name)(**options).double()
    ours = getattr(nn, name)(**options)
    randomized_state(theirs, rng)
    assert ours.load_state_dict(theirs.state_dict()) == ([], []), what
    x = 2 * rng.standard_normal(shape).astype(np.float32)
    if name.startswith("BatchNorm") and x.size == shape[1]:
        return  # both refuse a single value per channel
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        compare_mode(theirs, ours, x, rng, f"{what}, training {training}")


def compare_mode(theirs: Any, ours: nn.Module, x: np.ndarray, rng: np.random.Generator, what: str) -> None:
    tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
    expected = theirs(tensor)
    y, pullback = fnn.vjp(ours, x)
    assert_close(y, expected.detach().numpy(), f"{what}: output")
    for key, value in theirs.state_dict().items():
        assert_close(ours.state_dict()[key], value.numpy(), f"{what}: {key} afterwards")
    dy = rng.standard_normal(y.shape).astype(np.float32)
    theirs.zero_grad()
    expected.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{what}: gradient of the input")
    parameters = dict(theirs.named_parameters())
    if parameters:
        _, gradients = fnn.value_and_grad(ours, lambda result, weights: (result * weights).sum())(x, dy)
        assert gradients.keys() == parameters.keys()
        for key, parameter in parameters.items():
            terms = float(np.abs(dy).sum())
            assert_close(gradients[key], parameter.grad.numpy(), f"{what}: gradient of {key}", terms)
        ours.load_state_dict(theirs.state_dict())  # the second pass moved the running statistics again


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    for number in range(CONFIGURATIONS):
        compare(name, LAYERS[name], number)


def test_output_size() -> None:
    """The sizes that PyTorch takes and what it makes of them, and the sizes that it refuses."""
    for number in range(CONFIGURATIONS):
        rng = seeded("output size", number)
        options, shape = transposed_convolution(2)(rng)
        theirs, ours = torch.nn.ConvTranspose2d(**options), nn.ConvTranspose2d(**options)
        ours.load_state_dict(theirs.state_dict())
        x = rng.standard_normal(shape).astype(np.float32)
        size = [int(n + rng.integers(-1, 3)) for n in theirs(torch.tensor(x)).shape[2:]]
        size = [*shape[:1], options["out_channels"], *size] if flip(rng) else size
        try:
            expected = theirs(torch.tensor(x), output_size=size).detach().numpy()
        except (ValueError, RuntimeError):
            with pytest.raises(ValueError, match="output"):
                ours(x, output_size=size)
            continue
        assert_close(ours(x, output_size=size), expected, f"{options} on {shape} to {size}")


def test_every_default_is_pytorchs() -> None:
    """Each layer that both have takes PyTorch's arguments in PyTorch's order with PyTorch's defaults."""
    import inspect

    for name in dir(nn):
        ours, theirs = getattr(nn, name), getattr(torch.nn, name, None)
        if not inspect.isclass(ours) or theirs is None or not issubclass(ours, nn.Module) or ours is nn.Module:
            continue
        wanted = [p for p in inspect.signature(theirs).parameters.values() if p.name not in ("device", "dtype")]
        wanted = [p for p in wanted if not p.name.startswith("_")]  # nn.Embedding's _weight and _freeze
        given = inspect.signature(ours).parameters
        positional = [p.name for p in given.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        kept = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional[: len(kept)] == kept, name
        for parameter in wanted:
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                default = given[parameter.name].default
                assert default == parameter.default or {default, parameter.default} == {0}, f"{name}.{parameter.name}"


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy(soft: bool) -> None:
    for number in range(CONFIGURATIONS):
        rng = seeded(f"cross entropy {soft}", number)
        shape = tuple(sizes(rng, int(rng.integers(1, 5)), 1, 9))
        classes = shape[0] if len(shape) == 1 else shape[1]
        labels_shape = () if len(shape) == 1 else (shape[0], *shape[2:])
        options = {
            "weight": rng.uniform(0.2, 2, classes).astype(np.float32) if flip(rng) else None,
            "reduction": str(rng.choice(["mean", "sum", "none"])), "label_smoothing": float(rng.choice([0.0, 0.1,
            0.6])),
        }  # fmt: skip
        if soft:
            raw = rng.random(shape)
            target = (raw / raw.sum(0 if len(shape) == 1 else 1, keepdims=True)).astype(np.float32)
        else:
            options["ignore_index"] = int(rng.integers(0, classes)) if flip(rng) else -100
            target = rng.integers(0, classes, labels_shape)
            if (target == options["ignore_index"]).all() and options["reduction"] == "mean":
                continue
        x = 3 * rng.standard_normal(shape).astype(np.float32)
        weight = None if options["weight"] is None else torch.tensor(options["weight"].astype(np.float64))
        theirs = torch.nn.CrossEntropyLoss(**{**options, "weight": weight})
        ours = nn.CrossEntropyLoss(**options)
        tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
        expected = theirs(tensor, torch.tensor(target.astype(np.float64) if soft else target))
        what = f"{number}: {options} on {shape}"
        assert_close(ours(x, target), expected.detach().numpy(), f"{what}: loss")
        y, pullback = fnn.vjp(lambda t, ours=ours, target=target: ours(t, target), x)
        assert_close(y, expected.detach().numpy(), what)
        dy = rng.standard_normal(y.shape)
        expected.backward(torch.tensor(dy))
        assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{what}: gradient")


ELEMENTWISE_LOSSES: dict[str, dict[str, Any]] = {
    "MSELoss": {},
    "L1Loss": {},
    "SmoothL1Loss": {"beta": (0.1, 2)},
    "HuberLoss": {"delta": (0.1, 2)},
    "BCELoss": {},
    "BCEWithLogitsLoss": {},
    "KLDivLoss": {"log_target": [False, True]},
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss")
@pytest.mark.parametrize("name", ELEMENTWISE_LOSSES)
def test_elementwise_losses(name: str) -> None:
    for number in range(CONFIGURATIONS):
        rng = seeded(name, number)
        options, shape = options_of(**ELEMENTWISE_LOSSES[name])(rng)
        options["reduction"] = str(rng.choice(["mean", "sum", "none"]))
        x, target = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        if name.startswith("BCE") or name == "KLDivLoss":
            target = rng.uniform(0.0, 1.0, shape).astype(np.float32)
            x = rng.uniform(0.01, 0.99, shape).astype(np.float32) if name == "BCELoss" else x
        tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
        expected = getattr(torch.nn, name)(**options)(tensor, torch.tensor(target.astype(np.float64)))
        ours = getattr(nn, name)(**options)
        y, pullback = fnn.vjp(lambda t, ours=ours, target=target: ours(t, target), x)
        what = f"{name} {number}: {options} on {shape}"
        terms = float(np.abs(x).sum() + np.abs(target).sum())
        assert_close(y, expected.detach().numpy(), what, terms)
        dy = rng.standard_normal(y.shape)
        expected.backward(torch.tensor(dy))
        assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{what}: gradient")
