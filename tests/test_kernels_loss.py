"""Elementwise loss kernels against the reference in float64, within the bounds their headers state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, run_kernel, same_results

from fastnn import _core, reference

KERNELS = {"pointwise_loss_forward", "pointwise_loss_backward"}

SameBits = Callable[..., Any]


class Loss(NamedTuple):
    """code, a, b of csrc/kernels/pointwise_loss.h; its reference and that one's options."""

    code: int
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    a: float = 0.0
    b: float = 0.0
    options: dict[str, Any] = {}
    weighted: bool = False
    pos_weighted: bool = False


LOSSES = {
    "mse": Loss(0, reference.mse_loss, reference.mse_loss_backward),
    "l1": Loss(1, reference.l1_loss, reference.l1_loss_backward),
    "huber": Loss(2, reference.huber_loss, reference.huber_loss_backward, 0.75, 1.0, {"delta": 0.75}),
    "smooth l1": Loss(2, reference.smooth_l1_loss, reference.smooth_l1_loss_backward, 0.5, 2.0, {"beta": 0.5}),
    "bce": Loss(3, reference.binary_cross_entropy, reference.binary_cross_entropy_backward),
    "bce, weights": Loss(
        3, reference.binary_cross_entropy, reference.binary_cross_entropy_backward, weighted=True
    ),
    "logits": Loss(
        4, reference.binary_cross_entropy_with_logits, reference.binary_cross_entropy_with_logits_backward
    ),
    "logits, weights": Loss(
        4, reference.binary_cross_entropy_with_logits, reference.binary_cross_entropy_with_logits_backward,
        weighted=True, pos_weighted=True,
    ),
    "kl_div": Loss(5, reference.kl_div, reference.kl_div_backward),
    "kl_div, logarithms": Loss(6, reference.kl_div, reference.kl_div_backward, options={"log_target": True}),
}  # fmt: skip


def operands(loss: Loss, rng: np.random.Generator, count: int) -> tuple[Array, Array, dict[str, Array]]:
    x, target = 3 * rng.standard_normal((2, count), np.float32)
    if loss.code in (3, 4):
        target = rng.uniform(0, 1, count).astype(np.float32)
        target[::3] = 0
        target[1::3] = 1
    if loss.code == 3:
        x = rng.uniform(0, 1, count).astype(np.float32)
        x[:2] = 0
        x[2:4] = 1
    if loss.code == 5:
        target = rng.uniform(-0.2, 1, count).astype(np.float32)
        target[::5] = 0
    extra = {}
    if loss.weighted:
        extra["weight"] = rng.uniform(0, 2, count).astype(np.float32)
    if loss.pos_weighted:
        extra["pos_weight"] = rng.uniform(0, 2, count).astype(np.float32)
    return x, target, extra


def magnitude(loss: Loss, x: Array, target: Array, extra: dict[str, Array]) -> Array:
    """The sum of the magnitudes of an element's terms."""
    x, target = x.astype(np.float64), np.abs(target.astype(np.float64))
    if loss.code == 4:
        terms = (1 + target * np.abs(extra.get("pos_weight", 1.0))) * (np.abs(x) + 1)
    elif loss.code == 5:
        terms = target * (np.abs(np.log(np.maximum(target, 1e-30))) + np.abs(x))
    elif loss.code == 6:
        terms = np.exp(target) * (target + np.abs(x))
    elif loss.code == 3:
        terms = np.abs(reference.binary_cross_entropy(x, target, reduction="none"))
    else:
        terms = np.maximum((np.abs(x) + target) ** 2, np.abs(x) + target) * max(loss.b, 1)
    return terms * np.abs(extra.get("weight", 1.0))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("count", [0, 1, 17, 256, 5003])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(isa: str, same_bits: SameBits, rng: np.random.Generator, name: str, count: int, reduction: str) -> None:
    loss = LOSSES[name]
    if count == 0 and reduction == "mean":
        return
    x, target, extra = operands(loss, rng, count)
    each = reduction == "none"
    scale = 1 / count if reduction == "mean" else 1.0
    common = {"x": x, "target": target, **extra, "count": count, "code": loss.code, "a": loss.a, "b": loss.b,
              "reduction": 0 if each else 1, "scale": scale}  # fmt: skip
    outputs = {"loss": ((count if each else 1,), "f4"), "workspace": ((-(-count // 256),), "f8")}
    actual = same_results(same_bits, lambda: run_kernel("pointwise_loss_forward", outputs, **common), "workspace")[
        "loss"
    ]
    wide = {key: value.astype(np.float64) for key, value in extra.items()}
    doubles = (x.astype(np.float64), target.astype(np.float64))
    expected = np.reshape(loss.forward(*doubles, reduction=reduction, **wide, **loss.options), actual.shape)
    terms = magnitude(loss, x, target, extra)
    bound = 4 * UNIT * terms
    if not each:
        values = np.abs(loss.forward(*doubles, reduction="none", **wide, **loss.options)).sum()
        bound = scale * (bound.sum() + (256 / _core.ISAS[isa]["lanes"] + 7) * UNIT * values)
    assert_within(actual, expected, bound)
    dloss = rng.standard_normal(actual.shape, np.float32)
    gradient = {"dx": (x.shape, "f4")}
    dx = same_results(same_bits, lambda: run_kernel("pointwise_loss_backward", gradient, dloss=dloss, **common))["dx"]
    dy = dloss.astype(np.float64)
    expected = loss.backward(dy if each else dy[0], *doubles, reduction=reduction, **wide, **loss.options)
    slope = np.abs(expected)
    if loss.code in (0, 2, 4):
        largest = np.abs(dy) * scale * extra.get("weight", 1.0)
        slope = slope + largest * (1 + np.abs(x) + np.abs(target) * extra.get("pos_weight", 1.0)) * max(loss.b, 1)
    assert_within(dx, expected, 10 * UNIT * slope)


def test_loss_of_nan(isa: str) -> None:
    """A NaN is never lost, neither in x nor in the target."""
    for loss in LOSSES.values():
        for pair in ((np.nan, 0.5), (0.5, np.nan)):
            x, target = (np.array([value], np.float32) for value in pair)
            outputs = {"loss": ((1,), "f4"), "workspace": ((1,), "f8")}
            common = {"count": 1, "code": loss.code, "a": loss.a, "b": loss.b, "reduction": 1, "scale": 1}
            assert np.isnan(run_kernel("pointwise_loss_forward", outputs, x=x, target=target, **common)["loss"]).all()
