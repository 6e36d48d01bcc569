"""Passes take_moments and take_gradient_sums: convolutions take the sums that a batch norm in training begins with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim, reference
from fastnn.ops import convolution_moments
from fastnn.settings import without_passes

RNG = np.random.default_rng(5)


def kernels(plan) -> list[str]:
    return [step.kernel for step in plan.steps]


class Separable(nn.Module):
    """Convolutions with and without moments, each before a batch norm; one result has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 24, 1), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.middle = nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1, groups=24), nn.BatchNorm2d(24, momentum=None), nn.ReLU())
        self.last, self.norm = nn.Conv2d(24, 9, 1, bias=False), nn.BatchNorm2d(9, affine=False)
        self.head = nn.Linear(9, 4)

    def forward(self, x):
        x = self.last(self.middle(self.first(x)))
        return self.head((self.norm(x) * x).mean((2, 3)))


def _separable_step(*left_out: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """What two training steps leave, and the kernels of one."""
    model, rng = Separable(), np.random.default_rng(3)
    state = model.state_dict()
    model.load_state_dict({name: np.cos(np.arange(v.size)).reshape(v.shape) ** 2 for name, v in state.items()})
    x = 5 + rng.standard_normal((5, 3, 17, 21))
    with without_passes(*left_out) if left_out else nullcontext():
        trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
        for _ in range(2):
            trainer.step(x, np.arange(5) % 4)
    (plan,) = trainer._training._plans.values()
    return model.state_dict(), kernels(plan)


def test_convolutions_take_sums_for_batch_norms(
    isa: str, same_bits: Callable[..., list], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution_moments, "LEAST_BYTES", 0)
    expected, plain = _separable_step("take_moments", "take_gradient_sums")
    assert "conv2d_pointwise_moments" not in plain and "conv2d_pointwise_sums" not in plain
    for left_out in ((), ("take_moments",), ("take_gradient_sums",)):
        state, taken = _separable_step(*left_out)
        assert taken.count("conv2d_pointwise_moments") == (0 if "take_moments" in left_out else 2)
        assert taken.count("conv2d_pointwise_sums") == (0 if "take_gradient_sums" in left_out else 2)
        assert taken.count("batch_norm_train_forward") == 4 == taken.count("batch_norm_backward")
        for name, value in expected.items():
            np.testing.assert_allclose(state[name], value, rtol=2e-4, atol=2e-4, err_msg=name)
        assert not all(np.array_equal(state[name], value) for name, value in expected.items())
    same_bits(lambda: list(_separable_step()[0].values()))


def test_moments_are_the_batch_norm_of_the_reference(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution_moments, "LEAST_BYTES", 0)
    x, depthwise = 1e4 + RNG.standard_normal((3, 10, 15, 13)), RNG.integers(1, 3, (10, 1, 1, 1))
    pointwise = np.eye(10)[::-1].reshape(10, 10, 1, 1)
    for weight, groups in ((depthwise, 10), (pointwise, 1)):  # exact products: a result's own error would be the mean's
        model = nn.Sequential(nn.Conv2d(10, 10, 1, groups=groups, bias=False), nn.BatchNorm2d(10))
        model.load_state_dict({**model.state_dict(), "0.weight": weight})
        y = reference.conv2d(x.astype(np.float32).astype(float), weight.astype(float), groups=groups)
        expected = reference.batch_norm(y, None, None, training=True).output
        np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "layers"),
    [
        ("auto", (nn.Conv2d(3, 12, 1), nn.ReLU())),
        ("auto", (nn.Conv2d(3, 3, 3, groups=3), nn.ReLU6())),
        ("strip", (nn.Conv2d(3, 12, 1),)),
        ("winograd", (nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1))),
    ],
    ids=["ReLU between", "ReLU6 between", "planar image", "one channel by Winograd"],
)
def test_moments_are_of_what_the_batch_norm_reads(
    algorithm: str, layers: tuple[nn.Module, ...], isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a convolution has an activation, another algorithm or another memory order."""
    monkeypatch.setattr(convolution_moments, "LEAST_BYTES", 0)
    (channels,) = {layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)}
    model = nn.Sequential(*layers, nn.BatchNorm2d(channels))
    x = 1 + RNG.standard_normal((2, 3, 17, 16)).astype(np.float32)
    results = []
    for left_out in ((), ("take_moments", "take_gradient_sums")):
        with fnn.conv_algorithm(algorithm), without_passes(*left_out) if left_out else nullcontext():
            y, pullback = fnn.vjp(model, x)
            results.append((y, model(x), pullback(np.cos(y))[0]))
    for taken, expected in zip(*results, strict=True):
        np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-4)


def test_small_results_are_left_to_the_batch_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64))
    sizes = {size: kernels(model.plan((1, 3, size, 128))) for size in (255, 256)}
    assert "conv2d_forward" in sizes[255] and "conv2d_pointwise_moments" in sizes[256]
