"""Shapes: flattening and unflattening keep PyTorch's logical order although images lie channels-last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import SameBits, differentiate, normal

import fastnn.nn.functional as F
from fastnn import nn


@pytest.mark.parametrize(
    ("shape", "start", "end"),
    [
        ((2, 17, 5, 7), 1, -1), ((2, 17, 5, 7), 0, -1), ((2, 17, 5, 7), 2, 3), ((2, 17, 5, 7), 1, 2), ((2, 17, 5, 7),
         0, 1),
        ((2, 3, 5), 1, 2), ((2, 3, 4, 5, 6), 1, 3), ((2, 3, 4, 5, 6), 0, 1), ((7,), 0, 0), ((3, 1, 1, 1), 1, -1), ((0,
         2, 3, 4), 1, -1),
    ],
    ids=str,
)  # fmt: skip
def test_flatten(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], start: int, end: int
) -> None:
    x = normal(rng, shape)
    last = end % len(shape)
    expected = x.reshape(*shape[:start], int(np.prod(shape[start : last + 1])), *shape[last + 1 :])
    got = differentiate(lambda t: F.flatten(t, start, end), [x], lambda s: normal(rng, s), same_bits)
    np.testing.assert_array_equal(got.y, expected)
    np.testing.assert_array_equal(got.gradients[0], got.dy.reshape(shape))
    np.testing.assert_array_equal(nn.Flatten(start, end)(x), expected)


def test_a_single_number() -> None:
    """It has one axis where axes are merged, as in PyTorch, and none where they are split or put behind each other."""
    number = np.float32(3)
    assert F.flatten(number).shape == F.flatten(number, 0, 0).shape == (1,)
    for dim in (0, -1):
        assert F.softmax(number, dim) == 1.0
        with pytest.raises(ValueError, match=r"unflatten: a single number has no axis; pass x.reshape\(1\)"):
            F.unflatten(number, dim, (1,))
        with pytest.raises(ValueError, match=r"cat: single numbers have no axis; pass each as x.reshape\(1\)"):
            F.cat([number, number], dim)


@pytest.mark.parametrize(
    ("shape", "dim", "sizes"),
    [((2, 60), 1, (3, 4, 5)), ((2, 60), 1, (3, -1, 5)), ((6, 5), 0, (2, 3)), ((2, 12, 5), -2, (3, 4)), ((2, 6, 5, 7),
     1, (2, 3)),
     ((2, 6, 5, 7), 3, (7, 1)), ((24,), 0, (2, 3, 2, 2)), ((0, 6), 1, (2, 3))],
    ids=str,
)  # fmt: skip
def test_unflatten(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], dim: int, sizes: tuple[int, ...]
) -> None:
    x = normal(rng, shape)
    axis = dim % len(shape)
    expected = x.reshape(*shape[:axis], *sizes, *shape[axis + 1 :]) if x.size else np.zeros((0, *sizes), np.float32)
    got = differentiate(lambda t: F.unflatten(t, dim, sizes), [x], lambda s: normal(rng, s), same_bits)
    np.testing.assert_array_equal(got.y, expected)
    np.testing.assert_array_equal(got.gradients[0], got.dy.reshape(shape))
    np.testing.assert_array_equal(nn.Unflatten(dim, sizes)(x), expected)


def test_there_and_back(isa: str, rng: np.random.Generator) -> None:
    x = normal(rng, (3, 17, 5, 7))
    np.testing.assert_array_equal(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (17, 5, 7)))(x), x)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(nn.Flatten()(channels_last), x.reshape(3, -1))


def test_reshape_between_images(isa: str, rng: np.random.Generator) -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(2, 5, -1, 3)

    x = normal(rng, (2, 3, 5, 7))
    np.testing.assert_array_equal(Model()(x), x.reshape(2, 5, 7, 3))


def test_identity_takes_any_arguments(rng: np.random.Generator) -> None:
    x = normal(rng, (2, 3))
    np.testing.assert_array_equal(nn.Identity(54, unused=True)(x), x)
    assert repr(nn.Identity()) == "Identity()"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Unflatten(1, (3, 7))(np.zeros((2, 60))),
         r"axis 1 of \(2, 60\) has 60 elements, which are not \(3, 7\)"),
        (lambda: nn.Unflatten(1, (-1, -1))(np.zeros((2, 60))), "one may be -1"),
        (lambda: nn.Unflatten(1, (7, -1))(np.zeros((2, 60))), "has 60 elements, which are not"),
        (lambda: nn.Flatten(2, 1)(np.zeros((2, 3, 4))), "start_dim 2 lies behind end_dim 1"),
        (lambda: nn.Flatten(3)(np.zeros((2, 3))), r"start_dim 3 is out of range for the 2 axes of shape \(2, 3\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_repr() -> None:
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
    assert repr(nn.Unflatten(1, [2, 3])) == "Unflatten(dim=1, unflattened_size=(2, 3))"
