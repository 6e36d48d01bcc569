"""Optimizers and whole training steps against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_agreement import flip

import fastnn as fnn
from fastnn import nn, optim
from fastnn.trace import Compiled

SHAPES = [(5, 3, 3, 2), (37,), (7, 11)]
CONFIGURATIONS = range(200)
KINDS = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"]


def random_settings(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    settings: dict[str, Any] = {"lr": float(rng.uniform(1e-3, 0.3)), "maximize": flip(rng)}
    settings["weight_decay"] = float(rng.uniform(0, 0.2)) if flip(rng) else 0.0
    if kind == "SGD":
        settings["momentum"] = float(rng.uniform(0.1, 0.99)) if flip(rng) else 0.0
        settings["nesterov"] = bool(settings["momentum"]) and flip(rng)
        settings["dampening"] = 0.0 if settings["nesterov"] or flip(rng) else float(rng.uniform(0, 1))
    elif kind == "RMSprop":
        settings["alpha"] = float(rng.uniform(0.85, 0.999))
        settings["momentum"] = float(rng.uniform(0.1, 0.99)) if flip(rng) else 0.0
        settings["centered"] = flip(rng)
        settings["eps"] = float(10 ** rng.uniform(-6, -2))
    elif kind == "Adagrad":
        settings["lr_decay"] = float(rng.uniform(0, 0.5))
        settings["initial_accumulator_value"] = float(rng.uniform(0, 1)) if flip(rng) else 0.0
        settings["eps"] = float(10 ** rng.uniform(-10, -2))
    else:
        settings["betas"] = (float(rng.uniform(0, 0.99)), float(rng.uniform(0.5, 0.9999)))
        settings["eps"] = float(10 ** rng.uniform(-10, -2))
        settings["amsgrad"] = flip(rng)
    return settings


class Pair:
    """The same parameters under our optimizer (float32) and under PyTorch's (float64)."""

    def __init__(self, kind: str, settings: dict[str, Any], values: list[np.ndarray]) -> None:
        self.ours = [nn.Parameter(value) for value in values]
        self.theirs = [torch.nn.Parameter(torch.tensor(p.data.astype(np.float64))) for p in self.ours]
        self.optimizer = getattr(optim, kind)(self.ours, **settings)
        self.peer = getattr(torch.optim, kind)(self.theirs, **settings)
        self.compiled = Compiled(self._build)
        self.length = 0.0

    def _build(self, graph: Any, *gradients: Any) -> list[Any]:
        self.optimizer.record(graph, dict(zip(self.ours, gradients, strict=True)))
        return []

    def step(self, gradients: list[np.ndarray]) -> None:
        before = [p.detach().clone() for p in self.theirs]
        self.compiled(*gradients, runtime=self.optimizer.runtime())
        self.optimizer.steps += 1
        for parameter, gradient in zip(self.theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient.astype(np.float64))
        self.peer.step()
        lr = self.optimizer.learning_rate()
        for parameter, old, gradient in zip(self.theirs, before, gradients, strict=True):
            moved = float((parameter - old).detach().abs().max())
            largest = float(old.abs().max()) + lr * float(np.abs(gradient).max())
            self.length = max(self.length, largest + moved)

    def check(self, steps: int) -> None:
        """16 roundings a step, each of the parameter and of the step's length."""
        for ours, theirs in zip(self.ours, self.theirs, strict=True):
            assert np.abs(ours.data - theirs.detach().numpy()).max() <= steps * 16 * 2.0**-24 * self.length


@pytest.mark.parametrize("kind", KINDS)
def test_trajectories(kind: str) -> None:
    for seed in CONFIGURATIONS:
        rng = np.random.default_rng([seed, len(kind)])
        pair = Pair(kind, random_settings(kind, rng), [rng.standard_normal(shape) for shape in SHAPES])
        for _ in range(6):
            pair.step([rng.standard_normal(shape).astype(np.float32) for shape in SHAPES])
        pair.check(6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_from_pytorch_goes_on_here(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    settings = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    pair = Pair(kind, settings, [rng.standard_normal(shape) for shape in SHAPES])
    gradients = [[rng.standard_normal(shape).astype(np.float32) for shape in SHAPES] for _ in range(5)]
    for step in gradients[:3]:
        pair.step(step)
    values = [p.detach().numpy() for p in pair.theirs]
    after = Pair(kind, {**settings, "lr": 0.7}, values)
    after.theirs, after.peer = pair.theirs, pair.peer
    after.optimizer.load_state_dict(pair.peer.state_dict())
    for step in gradients[3:]:
        after.step(step)
    after.check(5)


def make_model(namespace: Any) -> Any:
    """No bias before batch norm: its gradient is zero but for rounding, which Adam would turn into steps."""
    return namespace.Sequential(
        namespace.Conv2d(3, 8, 3, padding=1, bias=False), namespace.BatchNorm2d(8), namespace.ReLU(),
        namespace.MaxPool2d(2), namespace.Conv2d(8, 12, 3, 2, 1, bias=False), namespace.BatchNorm2d(12),
        namespace.ReLU(), namespace.AvgPool2d(2), namespace.Flatten(), namespace.Linear(48, 20), namespace.ReLU(),
        namespace.Linear(20, 5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
        ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        ("Adam", {"lr": 1e-3}),
        ("AdamW", {"lr": 1e-3, "weight_decay": 0.1}),
    ],
)
def test_five_training_steps(kind: str, settings: dict[str, Any]) -> None:
    """Losses, parameters and running statistics after five steps on the same batches: relative 1e-3 of each array."""
    rng = np.random.default_rng(7)
    theirs, ours = make_model(torch.nn).double(), make_model(nn)
    ours.load_state_dict(theirs.state_dict())
    peer = getattr(torch.optim, kind)(theirs.parameters(), **settings)
    trainer = fnn.Trainer(ours, nn.CrossEntropyLoss(), getattr(optim, kind)(**settings))
    for _ in range(5):
        x, y = rng.standard_normal((16, 3, 16, 16)).astype(np.float32), rng.integers(0, 5, 16)
        peer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x).double()), torch.tensor(y))
        loss.backward()
        peer.step()
        assert abs(trainer.step(x, y) - loss.item()) <= 1e-4 * loss.item()
    state = ours.state_dict()
    for name, expected in theirs.state_dict().items():
        error = np.abs(state[name] - expected.numpy()).max()
        assert error <= 1e-3 * np.abs(expected.numpy()).max(), name
