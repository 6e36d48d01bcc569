"""Passes: what they rewrite, what they leave alone, and that fused and unfused plans agree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, passes
from fastnn.graph import Graph
from fastnn.settings import without_passes

RNG = np.random.default_rng(5)


class Residual(nn.Module):
    """ReLU(body(x) + x), with batch norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.activation = nn.ReLU()

    def forward(self, x):
        return self.activation(self.body(x) + x)


def make_model() -> nn.Module:
    """A model in which every pass finds work; statistics and weights away from their initial values."""
    model = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(), Residual(20), nn.MaxPool2d(2), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(20 * 16, 11), nn.BatchNorm1d(11), nn.ReLU(), nn.Linear(11, 5),
    )  # fmt: skip
    state = {name: RNG.uniform(0.5, 1.5, value.shape) for name, value in model.state_dict().items()}
    state = {n: v - 1 if n.endswith("weight") and v.ndim > 1 else v for n, v in state.items()}
    model.load_state_dict(state)
    return model


@contextmanager
def only(monkeypatch: pytest.MonkeyPatch, *rewrites: Callable[[Graph], None]):
    """Plans made inside are rewritten by these passes alone."""
    with monkeypatch.context() as patch:
        patch.setattr(passes, "PASSES", rewrites)
        yield


def kernels(plan) -> list[str]:
    return [step.kernel for step in plan.steps]


def test_inference_is_convolutions_pools_and_linears() -> None:
    plan = make_model().eval().plan((2, 3, 8, 8))
    running = {step.kernel for step in plan.steps if not step.prologue}
    assert not any(name.startswith(("batch_norm", "relu", "dropout", "add")) for name in running)
    once = {step.kernel for step in plan.steps if step.prologue}
    assert "batch_norm_fold" in once


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rewrite", passes.PASSES, ids=lambda rewrite: rewrite.__name__)
def test_each_pass_alone_agrees_with_none(rewrite, training: bool, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.standard_normal((4, 3, 8, 8)), np.array([0, 4, 2, 1])
    results = []
    for rewrites in ((), (rewrite,), passes.PASSES):
        with only(monkeypatch, *rewrites):
            model = make_fixed_model().train(training)
            fnn.manual_seed(3)
            loss, gradients = fnn.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
            output = model.eval()(x)
            results.append((loss, gradients, output))
    (loss, gradients, output), *others = results
    for other_loss, other_gradients, other_output in others:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(other_output, output, rtol=1e-4, atol=1e-4 * np.abs(output).max())
        for name, gradient in gradients.items():
            scale = max(np.abs(gradient).max(), 1e-3)
            np.testing.assert_allclose(other_gradients[name], gradient, rtol=0, atol=2e-4 * scale, err_msg=name)


_state: dict[str, np.ndarray] = {}


def make_fixed_model() -> nn.Module:
    """make_model with the same weights every time."""
    model = make_model()
    if not _state:
        _state.update(model.state_dict())
    model.load_state_dict(_state)
    return model


def test_folding_follows_a_change_of_the_weights() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    x = RNG.standard_normal((1, 2, 4, 4))
    before = model(x)
    model[1].weight.data = 2 * np.ones(3)
    np.testing.assert_allclose(model(x), 2 * before, rtol=1e-6)
    model[1].running_mean.copy_(np.ones(3))
    assert not np.allclose(model(x), 2 * before)


def test_a_result_with_two_readers_is_not_absorbed() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x):
            y = self.convolution(x)
            return self.relu(y), y

    model = Twice()
    x = RNG.standard_normal((2, 3, 6, 6))
    positive, raw = model(x)
    assert (raw < 0).any()
    np.testing.assert_array_equal(positive, np.maximum(raw, 0))


def test_batch_norm_in_training_is_not_folded() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    assert "batch_norm_train_forward" in kernels(model.plan((2, 3, 6, 6)))


def test_training_fuses_the_gradient_of_relu_and_batch_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).train()
    gradient = fnn.value_and_grad(model, nn.CrossEntropyLoss())
    gradient(RNG.standard_normal((2, 3, 6, 6)), np.array([0, 1]))
    (plan,) = gradient._compiled._plans.values()
    assert "relu_backward" not in kernels(plan) and "relu_forward" not in kernels(plan)


def test_training_fuses_relu6_with_batch_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Flatten(), nn.Linear(64, 3)).train()
    model[1].weight.data = 8 * np.ones(4)  # some results above 6
    gradient = fnn.value_and_grad(model, nn.CrossEntropyLoss())
    x, y = RNG.standard_normal((2, 3, 6, 6)), np.array([0, 1])
    value, gradients = gradient(x, y)
    (plan,) = gradient._compiled._plans.values()
    assert not any(name.startswith(("activation", "relu")) for name in kernels(plan))
    with without_passes():
        plain_value, plain = fnn.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
    assert value == pytest.approx(plain_value, rel=1e-5)
    for name, expected in plain.items():
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-4 * max(np.abs(expected).max(), 1e-3))


def test_a_gradient_nobody_asked_for_is_not_computed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    gradient = fnn.value_and_grad(model, nn.CrossEntropyLoss())
    gradient(RNG.standard_normal((2, 3, 6, 6)), np.array([0, 1]))
    (plan,) = gradient._compiled._plans.values()
    assert not any(name.startswith("conv2d_backward_data") for name in kernels(plan))


def test_dead_code_is_removed() -> None:
    class Wasteful(nn.Module):
        def forward(self, x):
            _ = x * x
            return x + x

    assert len(Wasteful().plan((2, 3)).steps) == 1
