"""vjp and value_and_grad: values, gradients, calling the pullback again, and what wrong arguments get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference


def test_pullback_of_a_function(rng: np.random.Generator, isa: str) -> None:
    x, w, b = rng.standard_normal((5, 7)), rng.standard_normal((3, 7)), rng.standard_normal(3)
    y, pullback = fnn.vjp(F.linear, x, w, b)
    dy = rng.standard_normal(y.shape)
    for got, expected in zip(pullback(dy), reference.linear_backward(dy, x, w), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_pullback_of_a_composition(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 6, 5))
    y, pullback = fnn.vjp(lambda x: F.relu(F.max_pool2d(x + x, 2)) * 3.0, x)
    np.testing.assert_allclose(y, 3 * reference.relu(reference.max_pool2d(2 * x, 2)), rtol=1e-6)
    dy = rng.standard_normal(y.shape)
    inner = reference.relu_backward(3 * dy, reference.max_pool2d(2 * x, 2))
    np.testing.assert_allclose(pullback(dy)[0], 2 * reference.max_pool2d_backward(inner, 2 * x, 2), rtol=1e-5)


def test_pullback_runs_again_with_the_same_bits(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.MaxPool2d(2)).train()
    y, pullback = fnn.vjp(model, rng.standard_normal((4, 3, 10, 10)))
    dy = rng.standard_normal(y.shape)
    first = pullback(dy)[0]
    other = pullback(2 * dy)[0]
    np.testing.assert_array_equal(pullback(dy)[0], first)
    np.testing.assert_allclose(other, 2 * first, rtol=1e-5, atol=1e-7)


def test_pullback_keeps_what_a_gradient_could_be_written_over(rng: np.random.Generator) -> None:
    labels = np.array([0, 3, 1])
    _, pullback = fnn.vjp(lambda x: F.cross_entropy(2.0 * x, labels), rng.standard_normal((3, 4)))
    first = pullback(np.float32(1))[0]
    np.testing.assert_array_equal(pullback(np.float32(1))[0], first)


def test_two_pullbacks_are_independent(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    a, b = rng.standard_normal((2, 4)), rng.standard_normal((2, 4))
    y, pull_a = fnn.vjp(model, a)
    alone = pull_a(np.ones_like(y))[0]
    _, pull_b = fnn.vjp(model, b)
    pull_b(np.ones_like(y))
    np.testing.assert_array_equal(pull_a(np.ones_like(y))[0], alone)


def test_changing_the_array_after_the_call_changes_nothing(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((2, 4)).astype(np.float32)
    y, pullback = fnn.vjp(F.linear, x, w)
    expected = pullback(np.ones_like(y))
    x[...], w[...], y[...] = 7, 8, 9
    for got, before in zip(pullback(np.ones_like(y)), expected, strict=True):
        np.testing.assert_array_equal(got, before)


def test_running_statistics_move_once(rng: np.random.Generator) -> None:
    layer = nn.BatchNorm2d(3).train()
    y, pullback = fnn.vjp(layer, rng.standard_normal((4, 3, 5, 5)))
    moved = layer.running_mean.data.copy()
    pullback(np.ones_like(y))
    pullback(np.ones_like(y))
    np.testing.assert_array_equal(layer.running_mean.data, moved)
    assert int(layer.num_batches_tracked.data) == 1


def test_argument_that_does_not_matter_has_gradient_zero(rng: np.random.Generator) -> None:
    y, pullback = fnn.vjp(lambda x, unused: F.relu(x), rng.standard_normal(3), rng.standard_normal((2, 2)))
    np.testing.assert_array_equal(pullback(np.ones_like(y))[1], np.zeros((2, 2)))


def test_wrong_shape_of_dy_is_refused(rng: np.random.Generator) -> None:
    _, pullback = fnn.vjp(F.relu, rng.standard_normal((2, 3)))
    with pytest.raises(ValueError, match=r"dy has shape \(3, 2\).*\(2, 3\)"):
        pullback(np.ones((3, 2)))


def test_function_must_return_one_tensor(rng: np.random.Generator) -> None:
    with pytest.raises(TypeError, match="not one tensor"):
        fnn.vjp(lambda x: (x, x), rng.standard_normal(3))


def test_value_and_grad_names_what_is_trained(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model[0].weight.requires_grad = False
    x, y = rng.standard_normal((5, 4)), rng.integers(0, 3, 5)
    value, gradients = fnn.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
    assert sorted(gradients) == ["0.bias", "2.bias", "2.weight"]
    hidden = reference.relu(reference.linear(x, *(np.float64(model[0].state_dict()[k]) for k in ("weight", "bias"))))
    weight, bias = (np.float64(model[2].state_dict()[k]) for k in ("weight", "bias"))
    scores = reference.linear(hidden, weight, bias)
    assert value == pytest.approx(float(reference.cross_entropy(scores, y)), rel=1e-6)
    dy = reference.cross_entropy_backward(np.float64(1), scores, y)
    _, dweight, dbias = reference.linear_backward(dy, hidden, weight)
    np.testing.assert_allclose(gradients["2.weight"], dweight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients["2.bias"], dbias, rtol=1e-4, atol=1e-6)


def test_loss_must_be_one_number(rng: np.random.Generator) -> None:
    loss = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match="must be one number"):
        fnn.value_and_grad(nn.Linear(4, 3), loss)(rng.standard_normal((5, 4)), np.zeros(5, np.int64))


def test_a_pullback_does_not_mix_old_and_new_weights(rng: np.random.Generator) -> None:
    """Activations are those of the old weights, and gradients through the new ones would be of neither model."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1))
    x, dy = rng.standard_normal((4, 2)), np.ones((4, 1))
    _, pullback = fnn.vjp(model, x)
    before = pullback(dy)[0]
    model(x)  # moves running statistics, which a training step's gradient does not need
    np.testing.assert_array_equal(pullback(dy)[0], before)
    model[0].weight.data = np.zeros((3, 2))
    with pytest.raises(RuntimeError, match="weights have changed since"):
        pullback(dy)
    _, again = fnn.vjp(model, x)
    assert not again(dy)[0].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fnn.value_and_grad(3, nn.MSELoss()), "model must be a Module, not int"),  # type: ignore[arg-type]
        (lambda: fnn.value_and_grad(nn.Linear, nn.MSELoss()), "not the class Linear"),  # type: ignore[arg-type]
        (lambda: fnn.value_and_grad(nn.ReLU(), None), "loss must be a loss of fastnn.nn"),  # type: ignore[arg-type]
        (lambda: fnn.value_and_grad(nn.ReLU(), nn.MSELoss), "not the class MSELoss"),
        (lambda: F.cat(np.zeros((2, 3))), "cat takes a sequence of at least one tensor"),
    ],
)
def test_what_is_no_model_loss_or_sequence(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()
