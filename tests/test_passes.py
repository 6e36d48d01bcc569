"""Passes: what they rewrite, what they leave alone, and that fused and unfused plans agree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, passes
from fastnn.graph import Graph
from fastnn.ops.convolution import MOST_DEPTH
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


class Adding(nn.Module):
    """A convolution, and what is made of its result and its input."""

    def __init__(self, channels: int, kernel_size: int, adding: Callable) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, kernel_size, padding="same")
        self.adding = adding

    def forward(self, x):
        return 0.5 * self.adding(self.convolution, x)  # the sum is no output, so its memory may be the residual's


@pytest.mark.parametrize(
    ("channels", "kernel_size", "adding"),
    [
        (20, 3, lambda convolution, x: convolution(x) + x + 2.0 * x),
        (20, 3, lambda convolution, x: (lambda x: convolution(x) + x)(3.0 * x)),
        (MOST_DEPTH + 8, 1, lambda convolution, x: convolution(3.0 * x) + 2.0 * x),
    ],
    ids=["a second residual", "its own input", "a sum in two goes"],
)
def test_a_residual_is_added_once_and_not_written_over_too_early(channels, kernel_size, adding, isa: str) -> None:
    model, x = Adding(channels, kernel_size, adding), RNG.standard_normal((2, channels, 5, 4))
    assert any(step.node.attributes.get("has_residual") for step in model.plan(x.shape).steps)
    with without_passes():
        expected = model(x)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5)


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


# ---- fuse_pooling


def pooling(pool: nn.Module, *after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), pool, *after).eval()


def is_fused(plan) -> bool:
    return not any(name.startswith("max_pool2d") for name in kernels(plan))


@pytest.mark.parametrize("size", [(16, 16), (13, 18)])
def test_pooling_is_fused(size: tuple[int, int], isa: str) -> None:
    model, x = pooling(nn.MaxPool2d(2), nn.Conv2d(24, 3, 1)), RNG.standard_normal((2, 16, *size)).astype(np.float32)
    assert is_fused(model.plan(x.shape))
    with without_passes("fuse_pooling"):
        assert not is_fused(model.plan(x.shape))
        expected = model(x)
    np.testing.assert_array_equal(model(x), expected)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, 2, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2),
    ],
    ids=repr,
)  # fmt: skip
def test_other_pooling_is_not_fused(pool: nn.Module) -> None:
    running = kernels(pooling(pool).plan((2, 16, 15, 15)))
    assert "winograd_forward" in running and len([name for name in running if "pool2d" in name]) == 1


def test_whole_windows_are_fused_in_ceil_mode_too() -> None:
    assert is_fused(pooling(nn.MaxPool2d(2, ceil_mode=True)).plan((2, 16, 16, 14)))


def test_pooling_of_a_direct_convolution_is_not_fused() -> None:
    model = pooling(nn.MaxPool2d(2))
    with fnn.conv_algorithm("direct"):
        assert not is_fused(model.plan((2, 16, 16, 16)))
    assert is_fused(model.plan((2, 16, 16, 16)))
    assert not is_fused(model.plan((2, 16, 6, 6)))  # tiles of 2


def test_pooling_is_not_fused_where_more_is_asked() -> None:
    """The gradient, the positions, the pixels themselves, or a residual."""
    x, conv = RNG.standard_normal((2, 16, 16, 16)).astype(np.float32), nn.Conv2d(16, 16, 3, padding=1)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x):
            y = F.relu(self.conv(x))
            return y, F.max_pool2d(y, 2)

    class Added(Both):
        def forward(self, x):
            return F.max_pool2d(F.relu(self.conv(x) + x), 2)

    with_positions = nn.Sequential(conv, nn.MaxPool2d(2, return_indices=True))
    for model in (Both(), Added(), with_positions):
        assert "max_pool2d_forward" in kernels(model.eval().plan(x.shape))
    model = pooling(nn.MaxPool2d(2))
    y, pullback = fnn.vjp(model, x)
    np.testing.assert_array_equal(y, model(x))
    assert pullback(np.ones(y.shape, np.float32))[0].shape == x.shape
