"""The reference against PyTorch, float64, random configurations: activations, group norms, shapes, resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch_agreement import RTOL, agree, assert_close, flip, sizes

from fastnn import reference

CONFIGURATIONS = range(200)

FLOAT32_CONSTANT = {"hardsigmoid": 2.0**-24}
"""PyTorch's float64 kernel takes 1/6 rounded to float32: no closer agreement exists."""


def number(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda rng: float(rng.uniform(low, high))


# operation -> a generator for each keyword argument
ACTIVATIONS: dict[str, dict[str, Callable[[np.random.Generator], Any]]] = {
    "relu": {},
    "relu6": {},
    "leaky_relu": {"negative_slope": number(-0.5, 0.9)},
    "rrelu": {"lower": number(0.0, 0.3), "upper": number(0.3, 0.9)},
    "elu": {"alpha": number(0.1, 3.0)},
    # PyTorch rounds celu's 1/alpha to float32 in its float64 kernel: powers of two are exact.
    "celu": {"alpha": lambda rng: float(2.0 ** rng.integers(-2, 3))},
    "selu": {},
    "gelu": {"approximate": lambda rng: ["none", "tanh"][int(flip(rng))]},
    "silu": {},
    "mish": {},
    "softplus": {"beta": number(0.2, 3.0), "threshold": number(1.0, 20.0)},
    "hardswish": {},
    "hardsigmoid": {},
    "hardtanh": {"min_val": number(-3.0, 0.0), "max_val": number(0.1, 3.0)},
    "sigmoid": {},
    "tanh": {},
    "logsigmoid": {},
    "softsign": {},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        options = {key: draw(rng) for key, draw in ACTIVATIONS[name].items()}
        x = 4 * rng.standard_normal(sizes(rng, int(rng.integers(1, 5)), 0, 5))
        agree(
            lambda x: forward(x, **options),
            lambda dy, x: backward(dy, x, **options),
            lambda x: getattr(F, name)(x, **options),
            (x,), rng, f"{name}, seed {seed}, {options}", FLOAT32_CONSTANT.get(name, RTOL),
        )  # fmt: skip


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_at_kinks_and_zero(name: str) -> None:
    """On the exact numbers where a branch changes, value and derivative must be PyTorch's."""
    x = np.array([-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0])
    agree(
        getattr(reference, name), getattr(reference, f"{name}_backward"), getattr(F, name), (x,),
        np.random.default_rng(0), name, FLOAT32_CONSTANT.get(name, RTOL),
    )  # fmt: skip


def test_prelu() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((2, *sizes(rng, int(rng.integers(1, 4)), 1, 6)))
        weight = rng.standard_normal(1 if flip(rng) else x.shape[1])
        agree(reference.prelu, reference.prelu_backward, F.prelu, (x, weight), rng, f"seed {seed}, x {x.shape}")


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "glu"])
def test_along_an_axis(name: str) -> None:
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        shape = sizes(rng, int(rng.integers(1, 5)), 1, 5)
        dim = int(rng.integers(-len(shape), len(shape)))
        shape[dim] *= 2  # glu needs an even axis
        x = 5 * rng.standard_normal(shape)
        agree(
            lambda x: forward(x, dim), lambda dy, x: backward(dy, x, dim), lambda x: getattr(F, name)(x, dim),
            (x,), rng, f"{name}, seed {seed}, shape {shape}, dim {dim}",
        )  # fmt: skip


def test_layer_norm() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        shape = (*sizes(rng, int(rng.integers(1, 4)), 1, 6), int(rng.integers(3, 7)))
        normalized = shape[int(rng.integers(1, len(shape))) :]
        eps = float(rng.uniform(1e-5, 0.1))
        x = rng.standard_normal(shape)
        weight, bias = rng.standard_normal((2, *normalized))
        agree(
            lambda x, weight, bias: reference.layer_norm(x, normalized, weight, bias, eps),
            lambda dy, x, weight, bias: reference.layer_norm_backward(dy, x, normalized, weight, eps),
            lambda x, weight, bias: F.layer_norm(x, normalized, weight, bias, eps),
            (x, weight, bias), rng, f"seed {seed}, x {shape}, normalized {normalized}, eps {eps}",
        )  # fmt: skip


def test_group_norm() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        groups, per_group = sizes(rng, 2, 1, 5)
        c, eps = groups * per_group, float(rng.uniform(1e-5, 0.1))
        x = rng.standard_normal((3, c, *sizes(rng, int(rng.integers(1, 3)), 2, 6)))
        weight, bias = rng.standard_normal((2, c))
        agree(
            lambda x, weight, bias: reference.group_norm(x, groups, weight, bias, eps),
            lambda dy, x, weight, bias: reference.group_norm_backward(dy, x, groups, weight, eps),
            lambda x, weight, bias: F.group_norm(x, groups, weight, bias, eps),
            (x, weight, bias), rng, f"seed {seed}, x {x.shape}, groups {groups}, eps {eps}",
        )  # fmt: skip


@pytest.mark.parametrize("use_input_stats", [True, False])
def test_instance_norm(use_input_stats: bool) -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        c, eps, momentum = int(rng.integers(1, 6)), float(rng.uniform(1e-5, 0.1)), float(rng.uniform(0, 1))
        x = rng.standard_normal((3, c, *sizes(rng, int(rng.integers(1, 3)), 2, 6)))
        weight, bias, mean = rng.standard_normal((3, c))
        variance = rng.uniform(0.1, 2.0, c)
        running = torch.tensor(mean), torch.tensor(variance)
        what = f"seed {seed}, x {x.shape}, eps {eps}"

        agree(
            lambda x, w, b: reference.instance_norm(x, mean, variance, w, b, use_input_stats, momentum, eps).output,
            lambda dy, x, w, b: reference.instance_norm_backward(dy, x, mean, variance, w, use_input_stats, eps),
            lambda x, w, b: F.instance_norm(x, *running, w, b, use_input_stats, momentum, eps),
            (x, weight, bias), rng, what,
        )  # fmt: skip
        result = reference.instance_norm(x, mean, variance, weight, bias, use_input_stats, momentum, eps)
        assert_close(result.running_mean, running[0].numpy(), f"{what}: running_mean")
        assert_close(result.running_var, running[1].numpy(), f"{what}: running_var")


def test_flatten() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        shape = sizes(rng, int(rng.integers(1, 6)), 0, 4)
        start, end = sorted(sizes(rng, 2, 0, len(shape)))
        x = np.asarray(rng.standard_normal(shape[::-1])).transpose()
        agree(
            lambda x: reference.flatten(x, start, end), lambda dy, x: reference.flatten_backward(dy, x, start, end),
            lambda x: torch.flatten(x, start, end), (x,), rng, f"seed {seed}, {shape}, axes {start} to {end}",
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_pad(mode: str) -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        rank = int(rng.integers(3, 5))  # what PyTorch reflects in
        x = rng.standard_normal((*sizes(rng, 2, 1, 4), *sizes(rng, rank - 2, 4, 7)))
        amounts = tuple(sizes(rng, 2 * (rank - 2), -1 if mode == "constant" else 0, 4))
        value = float(rng.standard_normal()) if mode == "constant" else None
        options = {"mode": mode} if value is None else {"mode": mode, "value": value}
        agree(
            lambda x: reference.pad(x, amounts, **options),
            lambda dy, x: reference.pad_backward(dy, x, amounts, mode),
            lambda x: F.pad(x, amounts, **options), (x,), rng, f"seed {seed}, x {x.shape}, pad {amounts}",
        )  # fmt: skip


@pytest.mark.parametrize("given", ["size", "scale_factor"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "bilinear"])
def test_interpolate(mode: str, given: str) -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        rank = {"nearest": 2, "linear": 1, "bilinear": 2}[mode]
        x = rng.standard_normal((2, 3, *sizes(rng, rank, 1, 8)))
        options: dict[str, Any] = {"mode": mode}
        if given == "size":
            options["size"] = tuple(sizes(rng, rank, 1, 17))
        elif flip(rng):
            options["scale_factor"] = float(rng.integers(1, 5))
        else:
            options["scale_factor"] = tuple(float(scale) for scale in rng.uniform(1.0, 3.5, rank))
        if mode != "nearest":
            options["align_corners"] = flip(rng)
        agree(
            lambda x: reference.interpolate(x, **options),
            lambda dy, x: reference.interpolate_backward(dy, x, **options),
            lambda x: F.interpolate(x, **options), (x,), rng, f"seed {seed}, x {x.shape}, {options}",
        )  # fmt: skip


def test_pixel_shuffle() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        factor, c, h, w = sizes(rng, 4, 1, 5)
        x = rng.standard_normal((2, c * factor * factor, h, w))
        agree(
            lambda x: reference.pixel_shuffle(x, factor), lambda dy, x: reference.pixel_shuffle_backward(dy, factor),
            lambda x: F.pixel_shuffle(x, factor), (x,), rng, f"seed {seed}, x {x.shape}, factor {factor}",
        )  # fmt: skip


def test_cat() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        shape = sizes(rng, int(rng.integers(1, 5)), 1, 5)
        dim = int(rng.integers(-len(shape), len(shape)))
        arrays = []
        for _ in range(int(rng.integers(1, 5))):
            shape[dim] = int(rng.integers(1, 5))
            arrays.append(rng.standard_normal(shape))
        agree(
            lambda *arrays: reference.cat(arrays, dim), lambda dy, *arrays: reference.cat_backward(dy, arrays, dim),
            lambda *tensors: torch.cat(tensors, dim), arrays, rng, f"seed {seed}, last shape {shape}, dim {dim}",
        )  # fmt: skip


def test_embedding() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        rows, width = sizes(rng, 2)
        indices = rng.integers(0, rows, sizes(rng, int(rng.integers(1, 4)), 1, 5))
        padding_idx = int(rng.integers(rows)) if flip(rng) else None
        agree(
            lambda weight: reference.embedding(indices, weight, padding_idx),
            lambda dy, weight: reference.embedding_backward(dy, indices, weight, padding_idx),
            lambda weight: F.embedding(torch.tensor(indices), weight, padding_idx),
            (rng.standard_normal((rows, width)),), rng, f"seed {seed}, {rows} rows, padding_idx {padding_idx}",
        )  # fmt: skip
