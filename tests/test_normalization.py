"""Batch normalisation: statistics of the batch and running ones, gradients, options, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, Array, SameBits, assert_within, differentiate, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference

SUM_LENGTH = 256 + 80
"""Additions behind one element of a sum over rows (batch_norm_forward.c)."""

SHAPES = [(5, 3), (2, 1), (7, 17, 5), (2, 19, 7, 9), (1, 4, 2, 1), (3, 67, 11, 13), (0, 6, 3, 3), (0, 4)]


def parameters(rng: np.random.Generator, channels: int) -> tuple[Array, Array, Array, Array]:
    """running_mean, running_var, weight, bias."""
    variance = rng.uniform(0.2, 2, channels).astype(np.float32)
    return normal(rng, (channels,)), variance, normal(rng, (channels,)), normal(rng, (channels,))


def along(vector: Array, x: Array) -> Array:
    return vector.astype(float).reshape(-1, *[1] * (x.ndim - 2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], training: bool
) -> None:
    x = (3 + 2 * rng.standard_normal(shape)).astype(np.float32)
    mean, variance, weight, bias = parameters(rng, shape[1])

    def function(t: Any, w: Any, b: Any) -> Any:
        return F.batch_norm(t, mean, variance, w, b, training)

    got = differentiate(function, [x, weight, bias], lambda s: normal(rng, s), same_bits)
    exact, dy = x.astype(float), got.dy.astype(float)
    w, b = weight.astype(float), bias.astype(float)
    expected = reference.batch_norm(exact, mean.astype(float), variance.astype(float), w, b, training)
    inverse = 1 / np.sqrt(along(expected.variance, x) + 1e-5)
    x_hat = (exact - along(expected.mean, x)) * inverse
    terms = np.abs(x_hat * along(w, x)) + np.abs(along(b, x))
    assert_within(got.y, expected.output, UNIT * (4 * terms + SUM_LENGTH * np.abs(along(w, x))))

    gradients = reference.batch_norm_backward(dy, exact, mean.astype(float), variance.astype(float), w, training)
    axes = (0, *range(2, x.ndim))
    count = max(x.size // shape[1], 1)
    dbias_terms = np.abs(dy).sum(axis=axes)
    dweight_terms = (np.abs(dy) * (np.abs(x_hat) + 1)).sum(axis=axes)
    dx_terms = np.abs(dy) + (along(dbias_terms, x) + (np.abs(x_hat) + 1) * along(dweight_terms, x)) / count
    bounds = [np.abs(along(w, x)) * inverse * dx_terms, dweight_terms, dbias_terms]
    for gradient, reference_gradient, bound in zip(got.gradients, gradients, bounds, strict=True):
        assert_within(gradient, reference_gradient, (SUM_LENGTH + 8) * UNIT * bound)


def test_large_mean_and_small_deviation(isa: str, rng: np.random.Generator) -> None:
    x = (1e4 + rng.standard_normal((64, 5, 9, 11))).astype(np.float32)
    layer = nn.BatchNorm2d(5)
    expected = reference.batch_norm(x.astype(float), np.zeros(5), np.ones(5), training=True)
    assert np.abs(layer(x) - expected.output).max() < 1e-4
    np.testing.assert_allclose(layer.running_var.data, expected.running_var, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "momentum", "estimator"),
    [
        ({}, 0.1, "unbiased"),
        ({"momentum": 0.7}, 0.7, "unbiased"),
        ({"momentum": 0.0}, 0.0, "unbiased"),
        ({"momentum": None}, None, "unbiased"),
        ({"decay": 0.99, "running_var": "biased"}, 0.01, "biased"),
        ({"momentum": None, "running_var": "biased"}, None, "biased"),
    ],
    ids=str,
)
def test_running_statistics(
    isa: str, threads: int, rng: np.random.Generator, options: dict[str, Any], momentum: float | None, estimator: str
) -> None:
    layer = nn.BatchNorm2d(7, **options)
    mean, variance = np.zeros(7), np.ones(7)
    for step in range(4):
        x = (2 + 3 * rng.standard_normal((3, 7, 5, 4))).astype(np.float32)
        layer(x)
        used = 1 / (step + 1) if momentum is None else momentum
        normalized = reference.batch_norm(
            x.astype(float), mean, variance, training=True, momentum=used, running_var_estimator=estimator
        )
        mean, variance = normalized.running_mean, normalized.running_var
        np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.running_var.data, variance, rtol=1e-5)
        assert layer.num_batches_tracked.data == step + 1
    layer.eval()
    x = rng.standard_normal((2, 7, 3, 3)).astype(np.float32)
    before = layer.state_dict()
    expected = reference.batch_norm(x.astype(float), mean, variance)
    np.testing.assert_allclose(layer(x), expected.output, rtol=1e-4, atol=1e-5)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_an_empty_batch_leaves_the_statistics(isa: str) -> None:
    layer = nn.BatchNorm2d(3)
    assert layer(np.zeros((0, 3, 4, 4), np.float32)).shape == (0, 3, 4, 4)
    np.testing.assert_array_equal(layer.running_mean.data, np.zeros(3))
    np.testing.assert_array_equal(layer.running_var.data, np.ones(3))


def test_without_running_statistics_the_batch_counts_in_inference(isa: str, rng: np.random.Generator) -> None:
    layer = nn.BatchNorm1d(4, track_running_stats=False, affine=False)
    assert not layer.state_dict()
    x = normal(rng, (9, 4))
    y = layer(x)
    np.testing.assert_array_equal(layer.eval()(x), y)
    np.testing.assert_allclose(y, reference.batch_norm(x.astype(float), None, None, training=True).output, atol=1e-5)


def test_arrays_passed_as_running_statistics_are_not_written(isa: str, rng: np.random.Generator) -> None:
    x, mean, variance = normal(rng, (9, 4)), np.zeros(4, np.float32), np.ones(4, np.float32)
    F.batch_norm(x, mean, variance, training=True)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(variance, 1)
    buffers = nn.Buffer(mean), nn.Buffer(variance)
    F.batch_norm(x, *buffers, training=True)
    assert np.abs(buffers[0].data).max() > 0


def test_gradients_are_those_of_the_parameters(isa: str, rng: np.random.Generator) -> None:
    layer = nn.BatchNorm1d(4)
    x, y = normal(rng, (9, 4)), rng.integers(0, 4, 9)
    _, gradients = fnn.value_and_grad(layer, nn.CrossEntropyLoss())(x, y)
    scores = reference.batch_norm(x.astype(float), np.zeros(4), np.ones(4), training=True).output
    dy = reference.cross_entropy_backward(1.0, scores, y)
    _, dweight, dbias = reference.batch_norm_backward(dy, x.astype(float), training=True)
    np.testing.assert_allclose(gradients["weight"], dweight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients["bias"], dbias, rtol=1e-4, atol=1e-6)


def test_reset(rng: np.random.Generator) -> None:
    layer = nn.BatchNorm1d(3)
    fresh = layer.state_dict()
    layer(normal(rng, (5, 3)))
    layer.weight.data = np.full(3, 2.0)
    layer.reset_parameters()
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, fresh[name])


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.BatchNorm2d(3), (2, 3, 4), r"BatchNorm2d\(3, .*\): the input must have the shape \(N,C,H,W\), got 3 axes"),
        (nn.BatchNorm1d(3), (2, 3, 4, 5), r"the input must have the shape \(N,C\) or \(N,C,L\)"),
        (nn.BatchNorm2d(3), (2, 5, 4, 4), r"expected 3 channels on axis 1, got 5 in an input of shape \(2, 5, 4, 4\)"),
        (nn.BatchNorm2d(3), (2, 4, 4, 3), r"looks like N,H,W,C; pass x.transpose\(0, 3, 1, 2\)"),
        (nn.BatchNorm1d(3), (2, 7, 3), r"looks like N,L,C; pass x.transpose\(0, 2, 1\)"),
        (nn.BatchNorm2d(3), (1, 3, 1, 1), "training needs more than one value per channel"),
    ],
)
def test_inputs_that_do_not_fit(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    before = layer.state_dict()
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(shape, np.float32))
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features must be at least 1"),
        ({"num_features": 2.0}, TypeError, "num_features must be an integer"),
        ({"num_features": 2, "eps": float("nan")}, ValueError, "eps must be a finite number"),
        ({"num_features": 2, "momentum": -0.1}, ValueError, "momentum must be a finite number of at least 0"),
        ({"num_features": 2, "running_var": "other"}, ValueError, "running_var must be 'unbiased' or 'biased'"),
        ({"num_features": 2, "decay": 1.5}, ValueError, r"decay must lie in \[0, 1\], got 1.5"),
        ({"num_features": 2, "decay": float("nan")}, ValueError, "decay must be a finite number"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.BatchNorm2d(**arguments)


def test_inference_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="needs running_mean and running_var"):
        F.batch_norm(np.zeros((2, 3)), None, None)
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\)"):
        F.batch_norm(np.zeros((2, 3)), np.zeros(3), np.ones(3), np.ones(4))


def test_repr() -> None:
    text = "BatchNorm1d(5, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
    assert repr(nn.BatchNorm1d(5)) == text


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 11)])
def test_running_statistics_of_vectors_and_sequences(isa: str, shape: tuple[int, ...], momentum: float | None) -> None:
    layer, rng = nn.BatchNorm1d(2, momentum=momentum), np.random.default_rng(3)
    mean, variance = np.zeros(2), np.ones(2)
    for batch in range(1, 4):
        x = rng.normal(batch, 2, shape).astype(np.float32)
        layer(x)
        weight = 1 / batch if momentum is None else momentum
        axes = (0, *range(2, len(shape)))
        mean = (1 - weight) * mean + weight * x.mean(axes, dtype=float)
        variance = (1 - weight) * variance + weight * x.var(axes, dtype=float, ddof=1)
        np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-5)
        np.testing.assert_allclose(layer.running_var.data, variance, rtol=1e-5)
        assert layer.num_batches_tracked.data == batch
