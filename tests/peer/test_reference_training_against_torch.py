"""The reference against PyTorch, float64, random configurations: losses and optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch_agreement import agree, assert_close, flip, sizes

from fastnn import reference

CONFIGURATIONS = range(200)
REDUCTIONS = ["none", "sum", "mean"]


def classes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Logits (N,C,...), class indices of which about a fifth are ignored (never all), and options for both losses."""
    n, c, *rest = sizes(rng, int(rng.integers(2, 5)), 1, 6)
    x = 3 * rng.standard_normal((n, c, *rest))
    target = rng.integers(0, c, (n, *rest))
    target[rng.random(target.shape) < 0.2] = -7
    target.flat[0] = 0
    weight = rng.uniform(0.1, 2.0, c) if flip(rng) else None
    return x, target, {"weight": weight, "ignore_index": -7, "reduction": str(rng.choice(REDUCTIONS))}


def for_torch(options: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.tensor(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_loss_of_class_indices(name: str) -> None:
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        x, target, options = classes(rng)
        if name == "cross_entropy":
            options["label_smoothing"] = float(rng.choice([0.0, 0.1, 1.0]))
        agree(
            lambda x: forward(x, target, **options),
            lambda dy, x: backward(dy, x, target, **options),
            lambda x: getattr(F, name)(x, torch.tensor(target), **for_torch(options)),
            (x,), rng, f"seed {seed}, x {x.shape}, {options}",
        )  # fmt: skip


def test_cross_entropy_of_probabilities() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        x, _, options = classes(rng)
        del options["ignore_index"]
        options["label_smoothing"] = float(rng.uniform(0, 1))
        target = rng.random(x.shape)
        target /= target.sum(axis=1, keepdims=True)
        agree(
            lambda x: reference.cross_entropy(x, target, **options),
            lambda dy, x: reference.cross_entropy_backward(dy, x, target, **options),
            lambda x: F.cross_entropy(x, torch.tensor(target), **for_torch(options)),
            (x,), rng, f"seed {seed}, x {x.shape}, {options}",
        )  # fmt: skip


def nothing(rng: np.random.Generator, shape: list[int]) -> dict[str, Any]:
    return {}


def element_weights(rng: np.random.Generator, shape: list[int]) -> dict[str, Any]:
    return {"weight": rng.random(shape)} if flip(rng) else {}


def logit_weights(rng: np.random.Generator, shape: list[int]) -> dict[str, Any]:
    positive = {"pos_weight": rng.uniform(0.1, 3.0, shape[-1])} if flip(rng) else {}
    return {**element_weights(rng, shape), **positive}


def one(name: str, low: float) -> Callable[[np.random.Generator, list[int]], dict[str, Any]]:
    return lambda rng, shape: {name: float(rng.uniform(low, 2.0))}


ELEMENTWISE = {
    "mse_loss": nothing,
    "l1_loss": nothing,
    "smooth_l1_loss": one("beta", 0.1),
    "huber_loss": one("delta", 0.1),
    "binary_cross_entropy": element_weights,
    "binary_cross_entropy_with_logits": logit_weights,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_loss(name: str) -> None:
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        shape = sizes(rng, int(rng.integers(1, 5)), 1, 5)
        options = {"reduction": str(rng.choice(REDUCTIONS)), **ELEMENTWISE[name](rng, shape)}
        x, target = 2 * rng.standard_normal((2, *shape))
        if name.startswith("binary"):
            target = np.where(rng.random(shape) < 0.3, np.round(rng.random(shape)), rng.random(shape))
        if name == "binary_cross_entropy":
            x = rng.random(shape)
        agree(
            lambda x: forward(x, target, **options),
            lambda dy, x: backward(dy, x, target, **options),
            lambda x: getattr(F, name)(x, torch.tensor(target), **for_torch(options)),
            (x,), rng, f"seed {seed}, {shape}, {options}",
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss")
def test_kl_div() -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        shape = sizes(rng, int(rng.integers(1, 4)), 1, 6)
        options = {"reduction": str(rng.choice([*REDUCTIONS, "batchmean"])), "log_target": flip(rng)}
        x, target = rng.standard_normal(shape), rng.random(shape)
        target = np.log(target) if options["log_target"] else np.where(rng.random(shape) < 0.2, 0.0, target)
        agree(
            lambda x: reference.kl_div(x, target, **options),
            lambda dy, x: reference.kl_div_backward(dy, x, target, **options),
            lambda x: F.kl_div(x, torch.tensor(target), **options), (x,), rng, f"seed {seed}, {shape}, {options}",
        )  # fmt: skip


def sgd_options(rng: np.random.Generator) -> dict[str, Any]:
    momentum = float(rng.choice([0.0, 0.5, 0.9]))
    nesterov = momentum > 0 and flip(rng)
    return {"momentum": momentum, "nesterov": nesterov, "dampening": 0.0 if nesterov else float(rng.choice([0.0, 0.3]))}


def adam_options(rng: np.random.Generator) -> dict[str, Any]:
    betas = (float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.9, 0.999)))
    return {"betas": betas, "eps": float(rng.uniform(1e-8, 1e-3)), "amsgrad": flip(rng)}


def rmsprop_options(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "alpha": float(rng.uniform(0.5, 0.99)), "eps": 1e-6, "centered": flip(rng),
        "momentum": float(rng.choice([0.0, 0.9])),
    }  # fmt: skip


def adagrad_options(rng: np.random.Generator) -> dict[str, Any]:
    start = float(rng.choice([0.0, 0.1]))
    return {"lr_decay": float(rng.choice([0.0, 0.05])), "initial_accumulator_value": start, "eps": 1e-8}


OPTIMIZERS = {
    "sgd": ("SGD", sgd_options),
    "adam": ("Adam", adam_options),
    "adamw": ("AdamW", adam_options),
    "rmsprop": ("RMSprop", rmsprop_options),
    "adagrad": ("Adagrad", adagrad_options),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name: str) -> None:
    """Five steps on given gradients: parameter and state after each."""
    peer_name, draw = OPTIMIZERS[name]
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng(seed)
        options = {"lr": float(rng.uniform(1e-3, 0.3)), "weight_decay": float(rng.choice([0.0, 0.05])), **draw(rng)}
        options["maximize"] = flip(rng)
        parameter = rng.standard_normal(sizes(rng, 2, 1, 5))
        tensor = torch.tensor(parameter, requires_grad=True)
        peer = getattr(torch.optim, peer_name)([tensor], **options)
        state = None
        for step in range(5):
            gradient = rng.standard_normal(parameter.shape)
            tensor.grad = torch.tensor(gradient)
            peer.step()
            parameter, state = getattr(reference, f"{name}_step")(parameter, gradient, state, **options)
            what = f"seed {seed}, step {step}, {options}"
            assert_close(parameter, tensor.detach().numpy(), f"{what}: parameter")
            expected = {key: value for key, value in peer.state[tensor].items() if value is not None}
            assert state.keys() == expected.keys(), what
            for key, value in expected.items():
                assert_close(state[key], np.asarray(value), f"{what}: {key}")
