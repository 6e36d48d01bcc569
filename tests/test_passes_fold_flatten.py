"""Linear layers that read images as they lie in memory: their weights' columns permuted, the results those of the order named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import models, nn, optim
from fastnn.settings import without_passes

RNG = np.random.default_rng(5)

PIXELS = RNG.standard_normal((64, 6, 5, 2)).astype(np.float32)
"""Images of 2 channels as they lie in memory."""

IMAGES = PIXELS.transpose(0, 3, 1, 2)


def flattening(*between: nn.Module, bias: bool = True) -> nn.Module:
    """Flattens 3 channels of 5 x 4 pixels for a linear layer."""
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), *between, nn.Linear(60, 7, bias=bias)).eval()


def transposes(plan) -> list[str]:
    """For each transpose of a plan, when it runs."""
    return ["once" if step.prologue else "always" for step in plan.steps if step.kernel.startswith("transpose")]


def checked_against_transposing(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """The model's result, which is the one with transposed images but for the order of sums."""
    with without_passes("fold_flatten"):
        assert transposes(model.plan(x.shape)) == ["always"]
        expected = model(x)
    output = model(x)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return output


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_linear_reads_images_as_they_lie(batch: int, bias: bool, isa: str, threads: int) -> None:
    model = flattening(bias=bias)
    assert transposes(model.plan((batch, 2, 6, 5))) == ["once"]
    checked_against_transposing(model, IMAGES[:batch])


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_permuted_columns_are_exact_and_within_the_bound(batch: int, isa: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 7, bias=False))
    rows = IMAGES[:batch].reshape(batch, 60).astype(np.float64)
    weight = model[1].weight.numpy().astype(np.float64)
    count = 61 * (2 if isa == "scalar" else 1) * 2.0**-24
    exact, magnitude = rows @ weight.T, abs(rows) @ abs(weight).T
    bound = count / (1 - count) * magnitude + np.spacing(abs(exact).astype(np.float32))
    assert np.all(abs(model(IMAGES[:batch]) - exact) <= bound)
    model[1].weight.data = np.arange(420).reshape(7, 60) % 11 - 5
    integers = np.round(4 * PIXELS[:batch]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(model(integers), integers.reshape(batch, 60) @ model[1].weight.numpy().T)


@pytest.mark.parametrize("between", [(nn.ReLU(), nn.ReLU6()), (nn.Dropout(), nn.Tanh())], ids=["relu", "tanh"])
def test_activations_behind_a_flatten_do_not_mind_the_order(between: tuple[nn.Module, ...]) -> None:
    model = flattening(*between)
    assert transposes(model.plan((5, 2, 6, 5))) == ["once"]
    checked_against_transposing(model, IMAGES[:5])


@pytest.mark.parametrize("between", [nn.LayerNorm(60), nn.PReLU(60), nn.Softmax(1), nn.BatchNorm1d(60)], ids=repr)
def test_layers_that_mind_the_order_keep_it(between: nn.Module) -> None:
    model = flattening(between)
    assert transposes(model.plan((5, 2, 6, 5))) == ["always"]


def test_permuted_columns_follow_a_change_of_the_weights() -> None:
    model = flattening()
    before = model(IMAGES)
    model[2].weight.data = RNG.standard_normal((7, 60))
    assert not np.allclose(checked_against_transposing(model, IMAGES), before)
    model[2].bias.copy_(np.arange(7))
    checked_against_transposing(model, IMAGES)


def test_columns_are_permuted_behind_a_folded_batch_norm() -> None:
    model = flattening().append(nn.BatchNorm1d(7)).eval()
    model[3].running_mean.copy_(np.arange(7))
    model[3].weight.data = np.arange(1, 8)
    plan = model.plan((5, 2, 6, 5))
    running = [step.kernel for step in plan.steps if not step.prologue]
    assert transposes(plan) == ["once"] and running[1:] in (
        ["linear_forward"],
        ["conv2d_forward"],
    )  # packed, by the ISA
    checked_against_transposing(model, IMAGES[:5])


def test_two_layers_of_one_weight_each_have_its_columns_permuted() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(60, 7)

        def forward(self, x):
            return self.linear(x.flatten(1)) - self.linear((x * x).flatten(1))

    model = Shared()
    np.testing.assert_allclose(model(IMAGES), _without(model), rtol=0, atol=1e-5)
    assert "always" not in transposes(model.plan(IMAGES.shape))


def _without(model: nn.Module) -> np.ndarray:
    with without_passes("fold_flatten"):
        return model(IMAGES)


class Reading(nn.Module):
    """Flattened images, their ReLU in place of them later, and who reads them."""

    def __init__(self, reader: Callable) -> None:
        super().__init__()
        self.linear, self.reader = nn.Linear(60, 60), reader

    def forward(self, x):
        return self.reader(self.linear, x)


READERS = {
    "twice": lambda linear, x: (lambda rows: linear(linear(rows) + rows))(x.flatten(1)),
    "and output": lambda linear, x: (lambda rows: (linear(rows), rows))(x.flatten(1)),
    "activation and output": lambda linear, x: (lambda rows: (linear(rows), rows))(F.relu(x.flatten(1))),
    "other rows": lambda linear, x: linear(x.reshape(-1, 30).reshape(-1, 60)),
}


@pytest.mark.parametrize("reader", READERS)
def test_rows_that_others_read_are_left_alone(reader: str) -> None:
    model = Reading(READERS[reader])
    plan = model.plan(IMAGES.shape)
    assert transposes(plan) == ["always"]


def test_the_images_memory_lasts_until_the_linear_layer_has_read_it() -> None:
    def reader(linear, x):
        image = x + 1.0
        rows = image.flatten(1)  # in the memory of an image that ReLU could write over
        positive = F.relu(image)
        return linear(rows) + positive.mean((2, 3)).sum(1, keepdim=True), image

    model = Reading(reader)
    assert transposes(model.plan(IMAGES.shape)) == ["once"]
    for result, expected in zip(model(IMAGES), _without(model), strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_weights_that_are_large_or_given_are_not_permuted() -> None:
    given = Reading(lambda linear, x: F.linear(x.flatten(1), (x * 1.0).reshape(-1, 60)))
    assert "once" not in transposes(given.plan(IMAGES.shape))
    for outputs, when in ((1024, "once"), (1025, "always")):
        model = nn.Sequential(nn.Flatten(), nn.Linear(4096, outputs))
        assert transposes(model.plan((1, 16, 16, 16))) == [when]


@pytest.mark.parametrize("frozen", [False, True])
def test_flattens_of_training_and_of_gradients_are_left_alone(frozen: bool) -> None:
    model, labels = flattening(), np.arange(5)
    model[2].weight.requires_grad = not frozen
    results = []
    for left_out in ((), ("fold_flatten",)):
        with without_passes(*left_out) if left_out else nullcontext():
            y, pullback = fnn.vjp(model, IMAGES[:5])
            value, gradients = fnn.value_and_grad(model, nn.CrossEntropyLoss())(IMAGES[:5], labels)
            results.append([y, *pullback(y), np.float32(value), *gradients.values()])
            plans = [*model._vjp._compiled._plans.values()]
            assert all("once" not in transposes(plan) for plan in plans)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_training_step_is_the_same_with_and_without_the_pass() -> None:
    states = []
    for left_out in ((), ("fold_flatten",)):
        model = flattening()
        state = model.state_dict()
        model.load_state_dict({name: np.cos(np.arange(v.size)).reshape(v.shape) for name, v in state.items()})
        with without_passes(*left_out) if left_out else nullcontext():
            trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
            trainer.step(IMAGES[:5], np.arange(5))
        states.append(model.state_dict())
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)


def test_lenet_transposes_nothing_at_a_call() -> None:
    model = models.lenet().eval()
    plan = model.plan((3, 1, 28, 28))
    assert transposes(plan) == ["once"]
    x = RNG.standard_normal((3, 1, 28, 28))
    first = checked_against_transposing(model, x)
    model[7].weight.data = 2 * model[7].weight.numpy()
    assert not np.allclose(checked_against_transposing(model, x), first)
