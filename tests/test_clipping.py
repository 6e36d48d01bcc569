"""Clipping of gradients and moving averages of weights in a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import SameBits

import fastnn as fnn
from fastnn import nn, optim

Array = np.ndarray


def make_trainer(optimizer: optim.Optimizer | None = None, **options: Any) -> fnn.Trainer:
    fnn.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.Flatten(), nn.Linear(9 * 36, 5)
    )
    return fnn.Trainer(model, nn.CrossEntropyLoss(), optimizer or optim.SGD(lr=0.25), **options)


def batch(seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((8, 2, 6, 6)).astype(np.float32), rng.integers(0, 5, 8)


def gradients_of(trainer: fnn.Trainer, x: Array, y: Array) -> dict[str, Array]:
    return fnn.value_and_grad(trainer.model, trainer.loss)(x, y)[1]


def moved(trainer: fnn.Trainer, x: Array, y: Array) -> dict[str, Array]:
    """What one step takes off the parameters, per learning rate 0.25."""
    before = {name: p.data.copy() for name, p in trainer.model.named_parameters()}
    trainer.step(x, y)
    return {name: (before[name] - p.data) / 0.25 for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize(("norm_type", "share"), [(2.0, 0.3), (1.0, 0.3), (float("inf"), 0.3), (2.0, 3.0)])
def test_clip_norm(isa: str, threads: int, norm_type: float, share: float) -> None:
    x, y = batch()
    gradients = gradients_of(make_trainer(), x, y)
    whole = np.concatenate([g.ravel() for g in gradients.values()]).astype(float)
    norm = np.linalg.norm(whole, norm_type)
    trainer = make_trainer(clip_norm=share * norm, norm_type=norm_type)
    factor = min(1.0, share * norm / (norm + 1e-6))
    for name, step in moved(trainer, x, y).items():
        np.testing.assert_allclose(step, factor * gradients[name], atol=2e-6)
    assert abs(trainer.gradient_norm - norm) < 1e-4 * norm


def test_a_norm_that_is_not_reached_changes_no_bit() -> None:
    x, y = batch()
    plain, clipped = make_trainer(), make_trainer(clip_norm=1e9)
    assert [plain.step(x, y) for _ in range(3)] == [clipped.step(x, y) for _ in range(3)]
    for name, value in plain.model.state_dict().items():
        np.testing.assert_array_equal(clipped.model.state_dict()[name], value)


def test_clip_value(isa: str, threads: int) -> None:
    x, y = batch()
    gradients = gradients_of(make_trainer(), x, y)
    trainer = make_trainer(clip_value=0.01)
    for name, step in moved(trainer, x, y).items():
        np.testing.assert_allclose(step, np.clip(gradients[name], -0.01, 0.01), atol=2e-6)
    assert trainer.gradient_norm is None


@pytest.mark.parametrize("options", [{"clip_norm": 0.1}, {"clip_value": 0.01}])
@pytest.mark.parametrize("make", [lambda: optim.SGD(lr=0.1, momentum=0.9), lambda: optim.AdamW(lr=0.01)])
def test_same_bits(isa: str, same_bits: SameBits, make: Callable[[], optim.Optimizer], options: dict[str, Any]) -> None:
    def run() -> list[Any]:
        average = optim.ExponentialMovingAverage(0.9, warmup=True)
        trainer = make_trainer(make(), average=average, **options)
        losses = [trainer.step(*batch(i)) for i in range(3)]
        averages = [average[p] for p in trainer.model.parameters()]
        return [*losses, trainer.gradient_norm or 0.0, *trainer.model.state_dict().values(), *averages]

    same_bits(run)


def test_penalties_are_clipped_too_and_the_limit_may_change() -> None:
    x, y = batch()
    trainer = make_trainer(optim.SGD(lr=0.25), clip_norm=0.5)
    trainer.optimizer.param_groups[0]["l2"] = 10.0
    step = moved(trainer, x, y)
    assert abs(np.sqrt(sum((s.astype(float) ** 2).sum() for s in step.values())) - 0.5) < 1e-4
    trainer.clipping.limit = 0.125
    step = moved(trainer, x, y)
    assert abs(np.sqrt(sum((s.astype(float) ** 2).sum() for s in step.values())) - 0.125) < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": float("nan")}, "clip_norm must be finite"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"clip_value": -1.0}, "clip_value must be at least 0"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "by norm or by value"),
        ({"clip_norm": 1.0, "norm_type": 3.0}, "norm_type must be 1, 2 or infinity"),
    ],
)
def test_limits_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)
    trainer = make_trainer(clip_norm=1.0)
    with pytest.raises(ValueError, match="clip_norm must be finite"):
        trainer.clipping.limit = float("inf")
    assert trainer.clipping.limit == 1.0
    with pytest.raises(TypeError, match="clip_norm must be a number, not str"):
        make_trainer(clip_norm="1")


# ---- averages


@pytest.mark.parametrize("warmup", [False, True])
def test_average_follows_the_weights(isa: str, threads: int, warmup: bool) -> None:
    average = optim.ExponentialMovingAverage(0.75, warmup=warmup)
    trainer = make_trainer(average=average)
    parameters = list(trainer.model.parameters())
    expected: list[Array] = []
    for step in range(5):
        trainer.step(*batch(step))
        decay = min(0.75, (1 + step) / (10 + step)) if warmup else 0.75
        weights = [p.data.astype(float) for p in parameters]
        expected = (
            weights if step == 0 else [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
        )
        for parameter, value in zip(parameters, expected, strict=True):
            np.testing.assert_allclose(average[parameter], value, atol=1e-6)


def test_applied_averages_and_back() -> None:
    x, y = batch()
    average = optim.ExponentialMovingAverage(0.5)
    trainer = make_trainer(average=average)
    for step in range(4):
        trainer.step(*batch(step))
    weights = trainer.model.state_dict()
    outputs = trainer.predict(x)
    averages = {name: average[p] for name, p in trainer.model.named_parameters()}
    with average.applied():
        for name, value in averages.items():
            np.testing.assert_array_equal(trainer.model.state_dict()[name], value)
            np.testing.assert_array_equal(average[trainer.model.get_submodule("0").weight], averages["0.weight"])
        assert not np.array_equal(trainer.predict(x), outputs)
        with pytest.raises(RuntimeError, match="leave `with average.applied"):
            trainer.step(x, y)
        with pytest.raises(RuntimeError, match="applied already"), average.applied():
            pass
    for name, value in weights.items():
        np.testing.assert_array_equal(trainer.model.state_dict()[name], value)
    np.testing.assert_array_equal(trainer.predict(x), outputs)
    trainer.step(x, y)


def test_a_saved_training_goes_on_with_the_same_averages() -> None:
    def new() -> fnn.Trainer:
        return make_trainer(average=optim.ExponentialMovingAverage(0.9, warmup=True))

    first = new()
    for step in range(3):
        first.step(*batch(step))
    second = new()
    second.load_state_dict(first.state_dict())
    for trainer in (first, second):
        for step in range(3, 5):
            trainer.step(*batch(step))
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        np.testing.assert_array_equal(first.average[a], second.average[b])
    wrong = first.state_dict()
    wrong["average"]["averages"].pop()
    before = second.average.state_dict()
    with pytest.raises(ValueError, match="averages of shapes"):
        second.load_state_dict(wrong)
    for a, b in zip(before["averages"], second.average.state_dict()["averages"], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decays_that_are_none(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must"):
        optim.ExponentialMovingAverage(decay)


def test_averages_of_something_else() -> None:
    with pytest.raises(TypeError, match="average must be an optim.ExponentialMovingAverage, not float"):
        make_trainer(average=0.9)
    with pytest.raises(TypeError, match="warmup must be True or False"):
        optim.ExponentialMovingAverage(0.9, warmup=1)


def test_averages_that_do_not_fit_change_nothing() -> None:
    average = optim.ExponentialMovingAverage(0.9)
    trainer = make_trainer(average=average)
    trainer.average.bind(trainer.model.parameters())
    before = average.state_dict()
    wrong = [a + 1 for a in before["averages"]]
    wrong[-1] = np.full(wrong[-1].shape, "one")
    for change in ({"averages": wrong}, {"averages": wrong[:-1]}, {"steps": 1.5}, {"steps": -1}, {"steps": "3"}):
        with pytest.raises((TypeError, ValueError)):
            average.load_state_dict({**before, "averages": [a + 1 for a in before["averages"]], **change})
        assert average.steps == 0
        for a, b in zip(average.state_dict()["averages"], before["averages"], strict=True):
            np.testing.assert_array_equal(a, b)
    average.load_state_dict({**before, "steps": np.array(7)})
    assert average.steps == 7


def test_an_average_is_of_one_training() -> None:
    """Else the second trainer would throw the averages of the first away, unnoticed."""
    average = optim.ExponentialMovingAverage(0.5)
    trainer = make_trainer(average=average)
    trainer.step(*batch())
    before = average.state_dict()
    with pytest.raises(ValueError, match="already belongs to another model's training"):
        make_trainer(average=average)
    for a, b in zip(average.state_dict()["averages"], before["averages"], strict=True):
        np.testing.assert_array_equal(a, b)
    trainer.step(*batch(1))
    assert average.steps == 2


def test_frozen_parameters_have_no_average_and_groups_have_theirs() -> None:
    trainer = make_trainer()
    layers = list(trainer.model.children())
    layers[0].requires_grad_(False)
    average = optim.ExponentialMovingAverage(0.5)
    groups = [{"params": layers[0].parameters()}, {"params": layers[4].parameters(), "lr": 0.0}]
    trainer = fnn.Trainer(trainer.model, nn.CrossEntropyLoss(), optim.SGD(groups, lr=0.5), average=average)
    trainer.step(*batch())
    with pytest.raises(KeyError):
        average[layers[0].weight]
    np.testing.assert_array_equal(average[layers[4].weight], layers[4].weight.data)
