"""Embedding: integers reach it as integers, through models and training; sums of gradients against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import SameBits, assert_equal, differentiate, integers, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim, reference

SHAPES = [(), (5,), (4, 7), (2, 3, 4), (2, 3, 4, 5), (0, 3)]


@pytest.mark.parametrize("padding_idx", [None, 1, -1])
@pytest.mark.parametrize("columns", [1, 17, 64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_embedding(
    isa: str,
    same_bits: SameBits,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    columns: int,
    padding_idx: int | None,
) -> None:
    weight, indices = integers(rng, (11, columns)), rng.integers(0, 11, shape)
    got = differentiate(lambda w: F.embedding(indices, w, padding_idx), [weight], lambda s: integers(rng, s), same_bits)
    exact = weight.astype(float)
    assert_equal(got.y, reference.embedding(indices, exact))
    assert_equal(got.gradients[0], reference.embedding_backward(got.dy.astype(float), indices, exact, padding_idx))
    np.testing.assert_array_equal(same_bits(lambda: F.embedding(indices, weight)), weight[indices])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integers_stay_integers_in_a_model(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    rng = np.random.default_rng(3)
    model = nn.Sequential(nn.Embedding(200, 6), nn.Linear(6, 2))
    indices = rng.integers(0, 200, shape).astype(dtype)
    y = reference.linear(model[0].weight.data[indices], model[1].weight.data, model[1].bias.data)
    np.testing.assert_allclose(model(indices), y, rtol=1e-5, atol=1e-6)


def test_large_indices_are_exact() -> None:
    """Beyond 2**24 float32 no longer tells neighbours apart."""
    layer = nn.Embedding(2**24 + 3, 1)
    indices = np.array([2**24, 2**24 + 1, 2**24 + 2])
    np.testing.assert_array_equal(layer(indices), layer.weight.data[indices])


def test_a_model_may_take_indices_and_numbers(rng: np.random.Generator) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 4)
            self.numbers = nn.Linear(3, 4)

        def forward(self, words: Any, numbers: Any) -> Any:
            return self.words(words) + self.numbers(numbers)

    model = Model()
    words, numbers = rng.integers(0, 9, 5), rng.integers(-3, 3, (5, 3))
    expected = model.words(words) + model.numbers(numbers)
    np.testing.assert_array_equal(model(words, numbers), expected)
    np.testing.assert_array_equal(model(words, numbers.astype(np.float32)), expected)


def test_plan_of_a_model_that_takes_indices() -> None:
    plan = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)).plan((5, 7))
    assert [tensor.dtype for tensor in plan.inputs] == ["int64"]
    assert [tensor.shape for tensor in plan.outputs] == [(5, 7, 2)]


def test_a_layer_added_later_is_noticed(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Identity())
    model(np.array([1, 2]))
    model.append(nn.Embedding(3, 2))
    np.testing.assert_array_equal(model(np.array([1, 2])), model[1].weight.data[1:])


def test_value_and_grad_against_the_reference(isa: str, threads: int, rng: np.random.Generator) -> None:
    layer, indices, weights = nn.Embedding(7, 5, padding_idx=2), rng.integers(0, 7, (3, 8)), normal(rng, (3, 8, 5))
    _, gradients = fnn.value_and_grad(layer, lambda y, w: (y * w).sum())(indices, weights)
    expected = reference.embedding_backward(weights.astype(float), indices, np.zeros((7, 5)), 2)
    np.testing.assert_allclose(gradients["weight"], expected, rtol=1e-5, atol=1e-6)
    assert not gradients["weight"][2].any()


def test_vjp_of_a_model_gives_indices_no_gradient() -> None:
    y, pullback = fnn.vjp(nn.Embedding(4, 3), np.array([0, 3]))
    assert y.shape == (2, 3)
    assert pullback(np.ones((2, 3)))[0].tolist() == [0, 0]


def test_training_moves_the_rows_that_occur(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Embedding(20, 8, padding_idx=0), nn.Flatten(), nn.Linear(24, 2))
    before = model[0].weight.data.copy()
    x = rng.integers(0, 10, (64, 3))
    y = (x.sum(1) > 13).astype(np.int64)
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(lr=0.05), metrics=["accuracy"])
    trainer.fit(x, y, epochs=30, batch_size=16, progress=False)
    assert trainer.evaluate(x, y)["accuracy"] > 0.95
    assert trainer.predict(x).shape == (64, 2)
    moved = (model[0].weight.data != before).any(1)
    assert not moved[0] and moved[1:10].all() and not moved[10:].any()


def test_state_and_initial_weights() -> None:
    layer = nn.Embedding(1000, 50, padding_idx=-1)
    assert layer.padding_idx == 999
    weight = layer.state_dict()["weight"]
    assert weight.shape == (1000, 50) and not weight[999].any()
    assert abs(weight[:999].mean()) < 0.02 and abs(weight[:999].std() - 1) < 0.02
    other = nn.Embedding(1000, 50)
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other(np.arange(1000)), weight)
    given = nn.Embedding.from_pretrained(weight, padding_idx=3)
    np.testing.assert_array_equal(given.weight.data, weight)
    assert not given.weight.requires_grad and nn.Embedding.from_pretrained(weight, freeze=False).weight.requires_grad


def test_layer_shows_its_arguments() -> None:
    assert repr(nn.Embedding(10, 3)) == "Embedding(10, 3)"
    assert repr(nn.Embedding(10, 3, -2)) == "Embedding(10, 3, padding_idx=8)"


MODEL = nn.Sequential(nn.Embedding(10, 3), nn.Flatten())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MODEL(np.array([[1, 10]])), ValueError,
         r"^Embedding\(10, 3\): an index names none of the 10 rows: got 10, allowed are 0 to 9"),
        (lambda: MODEL(np.array([[-1, 3]])), ValueError, "got -1, allowed are 0 to 9"),
        (lambda: MODEL(np.array([[0.0, 3.0]])), TypeError, r"Embedding\(10, 3\): indices must be integers, got float32"),
        (lambda: F.embedding(np.array([4]), np.zeros((4, 2))), ValueError,
         "embedding: an index names none of the 4 rows: got 4"),
        (lambda: F.embedding(np.array([4]), np.zeros(4)), ValueError, r"weight must have the shape \(rows, columns\)"),
        (lambda: fnn.vjp(lambda w: F.embedding(np.array([7]), w), np.zeros((4, 2))), ValueError, "got 7, allowed are"),
        (lambda: F.embedding(np.array([1]), np.zeros((4, 2)), 4), ValueError, "padding_idx must lie in -4 to 3"),
        (lambda: nn.Embedding(10, 3, 10), ValueError, "Embedding: padding_idx must lie in -10 to 9, got 10"),
        (lambda: nn.Embedding(10, 3, 1.5), TypeError, "padding_idx must be an integer or None"),
        (lambda: nn.Embedding(0, 3), ValueError, "num_embeddings must be at least 1"),
        (lambda: nn.Embedding(10, 3, max_norm=1.0), ValueError, "max_norm is not supported"),
        (lambda: nn.Embedding(10, 3, sparse=True), ValueError, "sparse are not supported"),
        (lambda: nn.Embedding.from_pretrained(np.zeros(3)), ValueError, r"shape \(rows, columns\), got \(3,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_wrong_index_changes_nothing() -> None:
    model = nn.Sequential(nn.Embedding(10, 3), nn.Flatten(), nn.Linear(6, 2))
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=1.0))
    before = model.state_dict()
    x = np.array([[1, 2]] * 9 + [[3, 10]])
    with pytest.raises(ValueError, match="got 10, allowed are 0 to 9"):
        trainer.fit(x, np.zeros(10, np.int64), batch_size=2, progress=False)
    assert trainer.steps == 0
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
