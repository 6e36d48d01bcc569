"""Optimizer kernels over several parameters at once, against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, Array, assert_within, run_kernel

from fastnn import reference

KERNELS = {"sgd_step", "adam_step"}

SameBits = Callable[..., Any]
SIZES = [7, 4096, 10007, 0, 1, 4097]
STEPS = 4
LR = 0.01
NO_PRODUCT = (None, None, 0, 0)
"""x, panels, batch and channels of a gradient that was made before."""


def arrays(seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(np.float32) for size in SIZES]


def native_steps(kernel: str, states: int, **settings: Any) -> list[Array]:
    """The parameters after STEPS steps."""
    parameters = arrays(0)
    state = [[np.zeros(size, np.float32) if i < states else None for i in range(3)] for size in SIZES]
    for step in range(1, STEPS + 1):
        segments: list[Any] = []
        for parameter, gradient, kept in zip(parameters, arrays(step), state, strict=True):
            segments += [parameter, gradient, *kept, parameter.size, *NO_PRODUCT]
        table = {"segments": segments, "segment_count": len(SIZES), "workspace_stride": 0}
        run_kernel(kernel, {"workspace": ((1,), "f4")}, step=step, **table, **settings)
    return parameters


def reference_steps(update: Callable[..., Any], **settings: Any) -> list[Array]:
    parameters = [parameter.astype(np.float64) for parameter in arrays(0)]
    states: list[Any] = [None] * len(SIZES)
    for step in range(1, STEPS + 1):
        for i, gradient in enumerate(arrays(step)):
            parameters[i], states[i] = update(parameters[i], gradient.astype(np.float64), states[i], **settings)
    return parameters


def check(actual: list[Array], expected: list[Array], roundings: int, largest_update: float) -> None:
    """Each step may err by its roundings of the parameter and of the update."""
    for result, right in zip(actual, expected, strict=True):
        assert_within(result, right, STEPS * roundings * UNIT * (np.abs(right) + largest_update))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.05},
        {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01, "maximize": True},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ],
    ids=str,
)
def test_sgd(isa: str, same_bits: SameBits, settings: dict[str, Any]) -> None:
    expected = reference_steps(reference.sgd_step, lr=LR, **settings)
    defaults = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False}
    numbers = {name: settings.get(name, value) for name, value in defaults.items()}
    numbers.update(nesterov=int(numbers["nesterov"]), maximize=int(numbers["maximize"]))
    states = 1 if "momentum" in settings else 0
    actual = same_bits(lambda: native_steps("sgd_step", states, lr=LR, **numbers))
    check(actual, expected, 4, LR * STEPS * 8)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.01, "amsgrad": True},
        {"weight_decay": 0.05, "decoupled_weight_decay": True},
        {"weight_decay": 0.05, "decoupled_weight_decay": True, "amsgrad": True, "maximize": True},
    ],
    ids=str,
)
def test_adam(isa: str, same_bits: SameBits, settings: dict[str, Any]) -> None:
    expected = reference_steps(reference.adam_step, lr=LR, **settings)
    numbers = {
        "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": settings.get("weight_decay", 0.0),
        "decoupled": int(settings.get("decoupled_weight_decay", False)), "amsgrad": int(settings.get("amsgrad", False)),
        "maximize": int(settings.get("maximize", False)),
    }  # fmt: skip
    states = 3 if settings.get("amsgrad") else 2
    actual = same_bits(lambda: native_steps("adam_step", states, lr=LR, **numbers))
    check(actual, expected, 8, LR * STEPS * 8)
