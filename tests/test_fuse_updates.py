"""Updates that make the gradient of a large linear layer themselves: the same bits, less memory, and only where it is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from kernel_runner import Array, run_kernel

import fastnn as fnn
from fastnn import nn, optim, train
from fastnn.passes.fuse_updates import LEAST
from fastnn.plan import Plan
from fastnn.settings import without_passes

KERNELS = {"linear_backward_bias"}

INPUTS, OUTPUTS = 1061, 997
GRADIENT = 4 * INPUTS * OUTPUTS
assert INPUTS * OUTPUTS > LEAST

OPTIMIZERS: dict[str, Callable[[], optim.Optimizer]] = {
    "SGD": lambda: optim.SGD(lr=0.1),
    "SGD with momentum": lambda: optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "Adam": lambda: optim.Adam(lr=1e-3, weight_decay=0.01),
    "AMSGrad": lambda: optim.AdamW(lr=1e-3, amsgrad=True),
    "RMSprop": lambda: optim.RMSprop(lr=1e-3, centered=True, momentum=0.9),
    "Adagrad": lambda: optim.Adagrad(lr=1e-2),
}


def model() -> nn.Module:
    rng = np.random.default_rng(5)
    net = nn.Sequential(nn.Linear(40, INPUTS), nn.ReLU(), nn.Linear(INPUTS, OUTPUTS), nn.ReLU(), nn.Linear(OUTPUTS, 10))
    for parameter in net.parameters():
        parameter.data = (rng.standard_normal(parameter.shape) * 0.05).astype(np.float32)
    return net


def trained(optimizer: optim.Optimizer, shape: Sequence[int] = (16, 40), **options: Any) -> tuple[list[Array], Plan]:
    """The parameters after three steps, and the step's plan."""
    rng, net = np.random.default_rng(6), model()
    trainer = fnn.Trainer(net, nn.MSELoss(), optimizer, seed=0, **options)
    for _ in range(3):
        x = rng.standard_normal(shape).astype(np.float32)
        trainer.step(x, rng.standard_normal((*shape[:-1], 10)).astype(np.float32))
    return [np.array(parameter) for parameter in net.parameters()], plan_of(trainer)


def plan_of(trainer: fnn.Trainer) -> Plan:
    (plan,) = trainer._training._plans.values()
    return plan


def gradients_made(plan: Plan) -> int:
    """Weight gradients that are stored."""
    return str(plan).count("linear_backward_weight")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_bits_as_of_a_stored_gradient(name: str, isa: str) -> None:
    fused, plan = trained(OPTIMIZERS[name]())
    with without_passes("fuse_updates"):
        stored, before = trained(OPTIMIZERS[name]())
    for actual, wanted in zip(fused, stored, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    assert (gradients_made(plan), gradients_made(before)) == (2, 3)
    assert plan.peak_bytes < before.peak_bytes - GRADIENT // 2


@pytest.mark.parametrize("shape", [(1, 40), (2, 3, 40), (97, 40), (256, 40)])
def test_batches(shape: Sequence[int], isa: str, same_bits: Callable[..., Any]) -> None:
    with without_passes("fuse_updates"):
        stored, _ = trained(optim.SGD(lr=0.1, momentum=0.9), shape)
    fused = same_bits(lambda: trained(optim.SGD(lr=0.1, momentum=0.9), shape)[0], (1, 3))
    for actual, wanted in zip(fused, stored, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("clipping", [{"clip_norm": 1.0}, {"clip_value": 0.5}])
def test_gradients_that_are_clipped_are_stored(clipping: dict[str, float]) -> None:
    assert gradients_made(trained(optim.SGD(lr=0.1), **clipping)[1]) == 3


def test_gradients_with_a_penalty_are_stored() -> None:
    net = model()
    trainer = fnn.Trainer(net, nn.MSELoss(), optim.SGD([{"params": net.parameters(), "l2": 0.01}], lr=0.1))
    trainer.step(np.zeros((3, 40), np.float32), np.ones((3, 10), np.float32))
    assert gradients_made(plan_of(trainer)) == 3


def test_sums_of_several_blocks_are_stored() -> None:
    assert gradients_made(trained(optim.SGD(lr=0.1), (257, 40))[1]) == 3


def test_averages_follow() -> None:
    averages = [optim.ExponentialMovingAverage(0.9) for _ in range(2)]
    fused, plan = trained(optim.Adam(lr=1e-3), average=averages[0])
    with without_passes("fuse_updates"):
        stored, _ = trained(optim.Adam(lr=1e-3), average=averages[1])
    assert gradients_made(plan) == 2
    for actual, wanted in zip(fused, stored, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_monitors_see_the_gradients_and_change_nothing() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((48, 40)).astype(np.float32), rng.standard_normal((48, 10)).astype(np.float32)
    results = []
    for callbacks in ([], [train.NormMonitor()]):
        net = model()
        fnn.Trainer(net, nn.MSELoss(), optim.SGD(lr=0.1, momentum=0.9), seed=0).fit(
            x, y, epochs=2, batch_size=16, callbacks=callbacks, progress=False
        )
        results.append([np.array(parameter) for parameter in net.parameters()])
    for plain, observed in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, observed)


@pytest.mark.parametrize(
    ("batch", "outputs", "inputs"),
    [(1, 1, 1), (3, 5, 7), (16, 29, 1030), (17, 131, 70), (33, 14, 64), (2, 7, 12000), (256, 13, 1500)],
)
def test_kernel_is_exact(
    batch: int, outputs: int, inputs: int, isa: str, same_bits: Callable[..., Any], rng: np.random.Generator
) -> None:
    """Integers, and a rate of 1/2: w - dy^T x / 2 beside a parameter whose gradient was made before."""
    dy, x = (rng.integers(-4, 5, (batch, n)).astype(np.float32) for n in (outputs, inputs))
    weight, other = rng.integers(-9, 10, (outputs, inputs)).astype(np.float32), np.ones(5000, np.float32)

    def step() -> list[Array]:
        w, b = weight.copy(), other.copy()
        panels = np.empty(batch * (inputs + 64), np.float32)
        stride = (1 << 16) + 2 * 16 * 64 + batch * 32
        table = [w, dy, None, None, None, w.size, x, panels, batch, inputs]
        table += [b, other, None, None, None, b.size, None, None, 0, 0]
        run_kernel(
            "sgd_step", {"workspace": ((stride * fnn.get_num_threads(),), "f4")}, segments=table, segment_count=2,
            workspace_stride=stride, step=1, lr=0.5, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=0, maximize=0,
        )  # fmt: skip
        return [w, b]

    w, b = same_bits(step)
    np.testing.assert_array_equal(w, weight - dy.T @ x / 2)
    np.testing.assert_array_equal(b, other / 2)
