"""Negative log-likelihood: values, gradients, options, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, SameBits, assert_within, differentiate, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference

KERNELS = {"nll_loss_forward", "nll_loss_backward"}

SHAPES = [(5,), (4, 3), (2500, 7), (1, 1), (3, 1000), (7, 5, 11), (2, 19, 5, 3), (0, 4)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"ignore_index": 0},
    {"ignore_index": 0, "reduction": "none"},
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nll_loss(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], options: dict[str, Any],
    weighted: bool,
) -> None:  # fmt: skip
    """Bounds of nll_loss.c: two roundings of the magnitude of what is summed."""
    classes = shape[0] if len(shape) == 1 else shape[1]
    target = rng.integers(0, classes, () if len(shape) == 1 else (shape[0], *shape[2:]))
    if classes > 1 and target.size:
        target.flat[0] = classes - 1  # not all are ignored
    if (target == options.get("ignore_index", -100)).all() and options.get("reduction", "mean") == "mean":
        return  # 0 / 0, see test_nothing_to_average
    options = {**options, "weight": rng.uniform(0.5, 2, classes).astype(np.float32)} if weighted else options
    x = normal(rng, shape)
    got = differentiate(lambda t: F.nll_loss(t, target, **options), [x], lambda s: normal(rng, s), same_bits)
    rows, labels = (x, target) if x.ndim > 1 else (x[None], target[None])
    loss = reference.nll_loss(rows.astype(float), labels, **options)
    dy = np.reshape(got.dy.astype(float), loss.shape)
    gradient = reference.nll_loss_backward(dy, rows.astype(float), labels, **options)
    magnitude = reference.nll_loss(-np.abs(rows.astype(float)), labels, **options)
    assert_within(np.reshape(got.y, loss.shape), loss, 2 * UNIT * np.abs(magnitude))
    assert_within(np.reshape(got.gradients[0], gradient.shape), gradient, 3 * UNIT * np.abs(gradient))


def test_it_completes_log_softmax_to_cross_entropy(rng: np.random.Generator) -> None:
    x, target = normal(rng, (50, 9)), rng.integers(0, 9, 50)
    weight = rng.uniform(0.5, 2, 9)
    options = {"weight": weight, "ignore_index": 3}
    a = fnn.vjp(lambda t: nn.NLLLoss(**options)(F.log_softmax(t, 1), target), x)
    b = fnn.vjp(lambda t: nn.CrossEntropyLoss(**options)(t, target), x)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-6)
    np.testing.assert_allclose(a[1](1.0)[0], b[1](1.0)[0], atol=1e-7)


def test_nothing_to_average() -> None:
    """As in PyTorch: no row counts, and the mean is NaN; the sum is 0."""
    x, target = np.zeros((3, 2)), np.full(3, -100)
    assert np.isnan(F.nll_loss(x, target))
    assert F.nll_loss(x, target, reduction="sum") == 0


def test_a_model_with_it_trains(rng: np.random.Generator) -> None:
    from fastnn import optim

    x = rng.standard_normal((60, 4))
    y = x.argmax(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.LogSoftmax(1))
    trainer = fnn.Trainer(model, nn.NLLLoss(), optim.SGD(lr=0.5), ["accuracy"])
    trainer.fit(x, y, epochs=40, batch_size=20, progress=False)
    assert trainer.evaluate(x, y)["accuracy"] > 0.9


def test_errors() -> None:
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match="nll_loss: a target is not one of the 3 classes: got 3, allowed are 0 to 2"):
        F.nll_loss(x, np.array([0, 1, 2, 3]))
    with pytest.raises(TypeError, match=r"pass y.astype\(np.int64\)"):
        F.nll_loss(x, np.zeros(4))
    with pytest.raises(ValueError, match=r"shape \(4,\) for scores of shape \(4, 3\), got \(3,\)"):
        F.nll_loss(x, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"weight must have the shape \(3,\)"):
        F.nll_loss(x, np.zeros(4, int), np.ones(4))
    with pytest.raises(ValueError, match="NLLLoss: reduction must be"):
        nn.NLLLoss(reduction="average")
    with pytest.raises(ValueError, match="use reduction"):
        nn.NLLLoss(size_average=True)
    with pytest.raises(ValueError, match="scores must have the shape"):
        F.nll_loss(np.zeros((1, 1, 1, 1, 1)), np.zeros((1, 1, 1, 1), int))
