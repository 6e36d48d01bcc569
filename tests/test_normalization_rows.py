"""Layer, group and instance normalisation against the reference: values, gradients, errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, Array, Results, SameBits, assert_within, differentiate, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference


def check(got: Results, x: Array, weight: Array, expected: Array, gradients: tuple[Array, ...], columns: int) -> None:
    """Errors go with the values behind a mean, the largest 1/deviation and the largest gradient (layer_norm.c)."""
    steepest = 1 / np.sqrt(1e-5) if columns < 6 else 4.0
    length = (columns + 96) * UNIT
    assert_within(got.y, expected, length * (np.abs(expected) + np.abs(weight).max() + 1))
    dy = float(np.abs(got.dy).max(initial=0))
    sums = float(np.abs(got.dy).sum()) / max(weight.size, 1) + dy * 8
    bounds = [length * steepest * dy * (1 + float(np.abs(weight).max())) * 4, length * sums * 4, length * sums]
    for gradient, wanted, bound in zip(got.gradients, gradients, bounds, strict=True):
        assert_within(gradient, wanted, bound)


@pytest.mark.parametrize(
    ("shape", "normalized"),
    [((5, 131), (131,)), ((7,), (7,)), ((3, 17, 11), (11,)), ((3, 17, 5), (17, 5)), ((2, 19, 5, 7), (7,)),
     ((2, 19, 5, 7), (5, 7)), ((2, 19, 5, 7), (19, 5, 7)), ((0, 8), (8,)), ((300, 64), (64,)), ((2, 3, 2, 3, 9), (3,
      9))],
    ids=str,
)  # fmt: skip
def test_layer_norm(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], normalized: tuple[int, ...]
) -> None:
    x, weight, bias = 2 + 3 * normal(rng, shape), normal(rng, normalized), normal(rng, normalized)
    got = differentiate(
        lambda t, w, b: F.layer_norm(t, normalized, w, b), [x, weight, bias], lambda s: normal(rng, s), same_bits
    )
    exact = [a.astype(float) for a in (x, weight, bias)]
    expected = reference.layer_norm(exact[0], normalized, *exact[1:])
    gradients = reference.layer_norm_backward(got.dy.astype(float), exact[0], normalized, exact[1])
    check(got, x, weight, expected, gradients, int(np.prod(normalized)))


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 18, 5, 7), 3), ((2, 18, 5, 7), 1), ((2, 7, 5, 7), 7), ((3, 12, 11), 4), ((4, 24), 3), ((0, 4, 3, 3), 2)],
    ids=str,
)
def test_group_norm(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], groups: int
) -> None:
    x, weight, bias = 2 + 3 * normal(rng, shape), normal(rng, (shape[1],)), normal(rng, (shape[1],))
    got = differentiate(
        lambda t, w, b: F.group_norm(t, groups, w, b), [x, weight, bias], lambda s: normal(rng, s), same_bits
    )
    exact = [a.astype(float) for a in (x, weight, bias)]
    expected = reference.group_norm(exact[0], groups, *exact[1:])
    gradients = reference.group_norm_backward(got.dy.astype(float), exact[0], groups, exact[1])
    check(got, x, weight, expected, gradients, int(np.prod(shape[1:])) // groups)


def test_instance_norm_is_group_norm_of_one_channel_each(isa: str, rng: np.random.Generator) -> None:
    x = normal(rng, (2, 5, 7, 3))
    layer = nn.InstanceNorm2d(5, affine=True)
    layer.load_state_dict({"weight": normal(rng, (5,)), "bias": normal(rng, (5,))})
    expected = reference.instance_norm(x.astype(float), weight=layer.weight.data, bias=layer.bias.data).output
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer(x), F.group_norm(x, 5, layer.weight.data, layer.bias.data))
    sequence = x.reshape(2, 5, 21)
    np.testing.assert_allclose(nn.InstanceNorm1d(5)(sequence), nn.InstanceNorm2d(5)(x).reshape(2, 5, 21), atol=1e-6)


def test_large_mean_and_small_deviation(isa: str, rng: np.random.Generator) -> None:
    x = (1e4 + rng.standard_normal((16, 300))).astype(np.float32)
    assert np.abs(nn.LayerNorm(300)(x) - reference.layer_norm(x.astype(float), 300)).max() < 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LayerNorm((3, 4))(np.zeros((2, 4, 3))),
         r"LayerNorm\(\(3, 4\), .* must end in normalized_shape \(3, 4\), got .* \(2, 4, 3\)"),
        (lambda: nn.GroupNorm(3, 4), "num_channels must be divisible by num_groups, got 4 and 3"),
        (lambda: F.group_norm(np.zeros((2, 4)), 3), "num_groups must divide the channels"),
        (lambda: nn.GroupNorm(2, 4)(np.zeros((2, 3, 3, 4))), r"looks like N,H,W,C; pass x.transpose\(0, 3, 1, 2\)"),
        (lambda: nn.InstanceNorm2d(3)(np.zeros((2, 3, 4))), r"the input must have the shape \(N,C,H,W\)"),
        (lambda: nn.InstanceNorm2d(3)(np.zeros((2, 3, 1, 1))), "more than one value per channel is needed"),
        (lambda: F.instance_norm(np.zeros((2, 3, 4)), use_input_stats=False), "needs running_mean and running_var"),
        (lambda: F.instance_norm(np.zeros((2, 3, 4)), np.zeros(3)), "come together, or not at all"),
        (lambda: F.instance_norm(np.zeros((2, 3, 4)), np.zeros(4), np.ones(4)), r"running_mean must have the shape \(3,\)"),
        (lambda: nn.InstanceNorm2d(3, momentum=float("nan")), "InstanceNorm2d: momentum must be a finite number"),
        (lambda: F.layer_norm(np.zeros((2, 3)), 3, np.zeros(4)), r"weight must have the shape \(3,\), got \(4,\)"),
        (lambda: F.group_norm(np.zeros((2, 4)), 2, np.zeros(3)), r"weight must have the shape \(4,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("shape", [(0, 5, 7), (4, 0, 7), (0, 7)], ids=str)
def test_layer_norm_of_nothing(shape: tuple[int, ...]) -> None:
    for layer in (nn.LayerNorm(7), nn.LayerNorm(7, elementwise_affine=False)):
        y, pullback = fnn.vjp(layer, np.zeros(shape))
        assert y.shape == pullback(y)[0].shape == shape
    _, gradients = fnn.value_and_grad(nn.LayerNorm(7), nn.MSELoss(reduction="sum"))(np.zeros(shape), np.zeros(shape))
    assert all(np.array_equal(gradient, np.zeros(7)) for gradient in gradients.values())


def test_repr() -> None:
    assert repr(nn.LayerNorm(5)) == "LayerNorm((5,), eps=1e-05, elementwise_affine=True)"
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True)"
    text = "InstanceNorm2d(4, eps=1e-05, momentum=0.1, affine=False, track_running_stats=False)"
    assert repr(nn.InstanceNorm2d(4)) == text
    assert repr(nn.LayerNorm(5, bias=False)) == "LayerNorm((5,), eps=1e-05, elementwise_affine=True, bias=False)"
    assert repr(nn.GroupNorm(2, 4, bias=False)) == "GroupNorm(2, 4, eps=1e-05, affine=True, bias=False)"
    assert "affine=True, bias=False, track" in repr(nn.InstanceNorm2d(4, affine=True, bias=False))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm(5, bias=False), (3, 2, 5)),
        (nn.GroupNorm(2, 4, bias=False), (3, 4, 7)),
        (nn.GroupNorm(2, 4, bias=False), (3, 4, 7, 5)),
        (nn.InstanceNorm2d(4, affine=True, bias=False), (3, 4, 7, 5)),
        (nn.BatchNorm2d(4, track_running_stats=False, bias=False), (3, 4, 7, 5)),
        (nn.BatchNorm1d(4, track_running_stats=False, bias=False), (30, 4)),
    ],
    ids=repr,
)
def test_a_weight_without_a_bias(layer: Any, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """As with a bias of zeros, whose gradient nobody asks for."""
    twin = copy.deepcopy(layer)
    layer.weight.data = twin.weight.data = rng.standard_normal(layer.weight.shape)
    twin.bias = nn.Parameter(np.zeros(layer.weight.shape))
    x, y = rng.standard_normal(shape), rng.standard_normal(shape)
    assert list(layer.state_dict()) == ["weight"]
    np.testing.assert_array_equal(layer(x), twin(x))
    (_, found), (_, expected) = (fnn.value_and_grad(each, nn.MSELoss())(x, y) for each in (layer, twin))
    assert list(found) == ["weight"]
    np.testing.assert_allclose(found["weight"], expected["weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 7), (3, 19, 5, 3), (1, 2, 2, 1), (2, 16, 9, 9)], ids=str)
def test_instance_norm_with_running_statistics(
    isa: str, threads: int, rng: np.random.Generator, shape: tuple[int, ...], affine: bool
) -> None:
    """Two batches in training move the statistics as the reference says; inference normalises with them."""
    layer = (nn.InstanceNorm1d if len(shape) == 3 else nn.InstanceNorm2d)(
        shape[1], momentum=0.3, affine=affine, track_running_stats=True
    )
    weight = bias = None
    if affine:
        weight, bias = rng.uniform(0.5, 2, shape[1]), rng.standard_normal(shape[1])
        layer.weight.data, layer.bias.data = weight, bias
    mean, variance = np.zeros(shape[1]), np.ones(shape[1])
    for _ in range(2):
        x = (3 + rng.standard_normal(shape)).astype(np.float32)
        expected = reference.instance_norm(x.astype(float), mean, variance, weight, bias, momentum=0.3)
        np.testing.assert_allclose(layer(x), expected.output, rtol=2e-5, atol=2e-5)
        mean, variance = expected.running_mean, expected.running_var
        np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-6)
        np.testing.assert_allclose(layer.running_var.data, variance, rtol=1e-5)
    layer.eval()
    dy = rng.standard_normal(shape).astype(np.float32)
    y, pullback = fnn.vjp(layer, x)
    expected = reference.instance_norm(x.astype(float), mean, variance, weight, bias, use_input_stats=False)
    np.testing.assert_allclose(y, expected.output, rtol=2e-5, atol=2e-5)
    dx, *_ = reference.instance_norm_backward(
        dy.astype(float), x.astype(float), mean, variance, weight, use_input_stats=False
    )
    np.testing.assert_allclose(pullback(dy)[0], dx, rtol=2e-5, atol=2e-5)
    assert layer.num_batches_tracked.data == 0  # PyTorch never counts here
    layer.reset_running_stats()
    assert not layer.running_mean.data.any() and (layer.running_var.data == 1).all()


def test_running_statistics_have_the_same_bits(isa: str, same_bits: SameBits, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 67, 6, 7)).astype(np.float32)

    def run() -> list[Array]:
        layer = nn.InstanceNorm2d(67, track_running_stats=True)
        return [layer(x), layer.running_mean.data.copy(), layer.running_var.data.copy()]

    same_bits(run)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0)])
def test_an_empty_batch_leaves_running_statistics(shape: tuple[int, ...]) -> None:
    layer = nn.InstanceNorm1d(3, track_running_stats=True)
    assert layer(np.zeros(shape)).shape == shape
    assert not layer.running_mean.data.any() and (layer.running_var.data == 1).all()
