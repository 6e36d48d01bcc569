"""Compares one reference operation with PyTorch in float64: the output and the gradient of every input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

RTOL = 1e-10


def assert_close(actual: Any, expected: Any, what: str, rtol: float = RTOL) -> None:
    """Equal shapes, and values within rtol of the larger of each value and one hundredth of the largest."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, PyTorch has {expected.shape}"
    finite = np.abs(expected[np.isfinite(expected)])
    atol = rtol * 0.01 * finite.max() if finite.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=what)


def agree(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    peer: Callable[..., torch.Tensor],
    arrays: Sequence[np.ndarray],
    rng: np.random.Generator,
    what: str,
    rtol: float = RTOL,
) -> None:
    """forward(*arrays) and backward(dy, *arrays) must be what peer(*tensors) and its backward pass give.

    backward returns one gradient, or a tuple with one for each array, None where there is none to compare.
    """
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = peer(*tensors)
    assert_close(forward(*arrays), expected.detach().numpy(), f"{what}: output", rtol)
    dy = np.asarray(rng.standard_normal(tuple(expected.shape)))
    expected.backward(torch.tensor(dy))
    gradients = backward(dy, *arrays)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(arrays), f"{what}: {len(gradients)} gradients of {len(arrays)} arrays"
    for position, (gradient, tensor) in enumerate(zip(gradients, tensors)):
        if gradient is not None:
            assert_close(gradient, tensor.grad.numpy(), f"{what}: gradient of argument {position}", rtol)


def sizes(rng: np.random.Generator, count: int, low: int = 1, high: int = 9) -> list[int]:
    """`count` random sizes in [low, high)."""
    return [int(size) for size in rng.integers(low, high, count)]


def flip(rng: np.random.Generator) -> bool:
    """A fair coin."""
    return bool(rng.integers(2))
