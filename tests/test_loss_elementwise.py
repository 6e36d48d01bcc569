"""Elementwise losses as functions and layers against the reference: values, gradients, weights, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, Array, SameBits, assert_within, differentiate, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference

SHAPES = [(), (7,), (5, 131), (3, 17, 5), (2, 19, 5, 7), (1031,)]
LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("mse_loss", {}),
    ("l1_loss", {}),
    ("smooth_l1_loss", {}),
    ("smooth_l1_loss", {"beta": 0.5}),
    ("smooth_l1_loss", {"beta": 0.0}),
    ("huber_loss", {"delta": 0.7}),
    ("binary_cross_entropy", {}),
    ("binary_cross_entropy_with_logits", {}),
    ("kl_div", {}),
    ("kl_div", {"log_target": True}),
]
OF_DIFFERENCE = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def operands(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], options: dict[str, Any]
) -> tuple[Array, Array]:
    if name.startswith("binary"):
        x = normal(rng, shape) * 3 if name.endswith("logits") else rng.uniform(0.01, 0.99, shape).astype(np.float32)
        return x, rng.random(shape).astype(np.float32)
    if name == "kl_div":
        target = rng.random(shape).astype(np.float32)
        return -3 * rng.random(shape).astype(np.float32), np.log(target + 0.01) if options else target
    return normal(rng, shape), normal(rng, shape)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize(("name", "options"), LOSSES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], name: str, options: dict[str, Any],
    reduction: str,
) -> None:  # fmt: skip
    """The bounds of pointwise_loss_forward.c: 4 eps of an element's terms, (256 / lanes + 6) eps of their sum."""
    if reduction == "batchmean" and (name != "kl_div" or not shape):
        with pytest.raises(ValueError, match="reduction"):
            getattr(F, name)(np.zeros(shape), np.zeros(shape), reduction=reduction, **options)
        return
    x, target = operands(rng, name, shape, options)
    options = {**options, "reduction": reduction}
    got = differentiate(lambda t: getattr(F, name)(t, target, **options), [x], lambda s: normal(rng, s), same_bits)
    exact = x.astype(float), target.astype(float)
    expected = np.asarray(getattr(reference, name)(*exact, **options))
    elements = getattr(reference, name)(*exact, **{**options, "reduction": "none"})
    terms = np.abs(elements) + np.abs(exact[0]) + np.abs(exact[1]) + 1
    size = {"none": terms, "sum": terms.sum(), "mean": terms.mean()}.get(reduction, terms.sum() / (shape or (1,))[0])
    assert_within(got.y, expected, (256 + 10) * UNIT * size)
    gradient = getattr(reference, f"{name}_backward")(np.asarray(got.dy, float), *exact, **options)
    slope = np.abs(gradient) + np.abs(np.asarray(got.dy, float)) * (
        4 if reduction in ("none", "sum") else 4 / max(x.size, 1)
    )
    assert_within(got.gradients[0], gradient, 32 * UNIT * slope)


@pytest.mark.parametrize("name", OF_DIFFERENCE)
def test_the_gradient_of_the_target(isa: str, rng: np.random.Generator, name: str) -> None:
    x, target = normal(rng, (5, 7)), normal(rng, (5, 7))
    _, pullback = fnn.vjp(getattr(F, name), x, target)
    dx, dtarget = pullback(1.5)
    np.testing.assert_array_equal(dtarget, -dx)
    assert np.abs(dx).max() > 0


def test_other_targets_have_no_gradient(rng: np.random.Generator) -> None:
    with pytest.raises(TypeError, match="no gradient with respect to its target"):
        fnn.vjp(F.binary_cross_entropy_with_logits, normal(rng, (3,)), normal(rng, (3,)))


@pytest.mark.parametrize("shape", [(5,), (1,), (4, 5), (4, 1), (3, 4, 5)], ids=str)
def test_weights_broadcast(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, target = operands(rng, "binary_cross_entropy_with_logits", (3, 4, 5), {})
    weight, positive = (rng.uniform(0.2, 3, shape).astype(np.float32) for _ in range(2))
    loss = nn.BCEWithLogitsLoss(weight, pos_weight=positive)
    got = differentiate(lambda t: loss(t, target), [x], lambda s: normal(rng, s), same_bits)
    options = {"weight": weight.astype(float), "pos_weight": positive.astype(float)}
    exact = x.astype(float), target.astype(float)
    expected = reference.binary_cross_entropy_with_logits(*exact, **options)
    np.testing.assert_allclose(got.y, expected, rtol=1e-5)
    gradient = reference.binary_cross_entropy_with_logits_backward(float(got.dy), *exact, **options)
    np.testing.assert_allclose(got.gradients[0], gradient, rtol=1e-5, atol=1e-7)
    assert sorted(loss.state_dict()) == ["pos_weight", "weight"]
    plain = F.binary_cross_entropy(rng.random((3, 4, 5)), target, weight, reduction="none")
    assert plain.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.MSELoss(reduction="sum"), lambda x, t: F.mse_loss(x, t, reduction="sum")),
        (nn.L1Loss(), F.l1_loss),
        (nn.SmoothL1Loss(beta=0.3), lambda x, t: F.smooth_l1_loss(x, t, beta=0.3)),
        (nn.HuberLoss("none", 0.3), lambda x, t: F.huber_loss(x, t, "none", 0.3)),
        (nn.BCELoss(), F.binary_cross_entropy),
        (nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits),
        (nn.KLDivLoss(reduction="batchmean"), lambda x, t: F.kl_div(x, t, reduction="batchmean")),
    ],
    ids=str,
)
def test_layers(rng: np.random.Generator, layer: nn.Module, function: Callable[..., Any]) -> None:
    x, target = (rng.uniform(0.1, 0.9, (4, 5)).astype(np.float32) for _ in range(2))
    np.testing.assert_array_equal(layer(x, target), function(x, target))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.MSELoss()(np.zeros((2, 3)), np.zeros(3)), ValueError,
         r"^MSELoss\(\): .* input's shape \(2, 3\), got \(3,\)"),
        (lambda: F.binary_cross_entropy(np.array([1.5]), np.array([1.0])), ValueError,
         "out of range .*: got 1.5, allowed are 0 to 1"),
        (lambda: F.binary_cross_entropy(np.zeros(3), np.zeros(3), np.zeros(2)), ValueError,
         r"weight of shape \(2,\) does not broadcast"),
        (lambda: nn.HuberLoss(delta=0.0), ValueError, "delta must be positive"),
        (lambda: nn.SmoothL1Loss(beta=-1.0), ValueError, "beta must be a finite number of at least 0"),
        (lambda: nn.L1Loss(reduction="batchmean"), ValueError, "reduction must be"),
        (lambda: nn.MSELoss(True), ValueError, "use reduction"),
    ],
)  # fmt: skip
def test_what_does_not_fit(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_mean_over_nothing_is_nan() -> None:
    assert np.isnan(F.mse_loss(np.zeros((0, 3)), np.zeros((0, 3))))
    assert F.mse_loss(np.zeros((0, 3)), np.zeros((0, 3)), reduction="sum") == 0
