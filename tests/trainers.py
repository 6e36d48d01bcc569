"""A small model, its data and its trainers, for the tests of the Trainer."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.train import LambdaCallback
from fastnn.variable import Array


def make_model(dropout: float = 0.4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout), nn.Flatten(),
        nn.Linear(30, 3),
    )  # fmt: skip


def make_data(samples: int = 23) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((samples, 2, 5, 7)).astype(np.float32)
    return x, np.argmax(x[:, 0, :3, 0], axis=1)


def make_trainer(seed: int = 1, dropout: float = 0.4, **options: Any) -> fnn.Trainer:
    fnn.manual_seed(3)
    optimizer = options.pop("optimizer", None) or optim.Adam(lr=0.01)
    return fnn.Trainer(make_model(dropout), nn.CrossEntropyLoss(), optimizer, seed=seed, **options)


def losses_of(trainer: fnn.Trainer, epochs: int = 2, **options: Any) -> list[float]:
    losses: list[float] = []
    record = LambdaCallback(on_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    x, y = make_data()
    trainer.fit(x, y, epochs, 8, callbacks=[record], progress=False, **options)
    return losses


def weights_of(model: nn.Module) -> list[Array]:
    return list(model.state_dict().values())


def same(a: list[Array], b: list[Array]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def seen_batches(seed: int = 9, **options: Any) -> list[list[float]]:
    seen: list[list[float]] = []

    def metric(output: Array, target: Array) -> float:
        assert np.array_equal(output[:, 0] * 2, target)
        seen.append(output[:, 0].tolist())
        return 0.0

    model = nn.Sequential(nn.Linear(1, 1))
    model[0].weight.data, model[0].bias.data = [[1.0]], [0.0]
    trainer = fnn.Trainer(model, lambda output, target: output.sum(), optim.SGD(lr=0.0), [metric], seed=seed)
    x = np.arange(10.0)[:, None]
    trainer.fit(x, 2 * x[:, 0], batch_size=4, progress=False, **options)
    return seen
